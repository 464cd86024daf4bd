"""The commands to watch over the runtime: ``appmux audit``, ``approvals``, ``approve``, …

``audit``, ``approvals`` and ``notices`` do the work; before an answer is given, the person is asked
here. They are imported inside the command that needs them, as in ``main``.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mux.errors import AppmuxError

if TYPE_CHECKING:
    from mux.cli.approvals import Word
    from mux.config.model import Config

PATH = click.Path(path_type=Path)


class NobodyThereError(AppmuxError):
    """A person must be asked, and there is no terminal."""


state_dir_flag = click.option(
    "--state-dir", type=PATH, metavar="DIR", help="The broker's, as in serve."
)
config_flag = click.option(
    "--config", "config_file", type=PATH, metavar="FILE", help="TOML, as in serve."
)
json_flag = click.option("--json", "as_json", is_flag=True, help="For programs.")
yes_flag = click.option("--yes", "-y", is_flag=True, help="Ask nothing; takes the whole ID.")


def _config(config_file: Path | None, state_dir: Path | None) -> Config:
    from mux.config.load import load

    return load({"state_dir": state_dir}, os.environ, config_file).config


@click.command()
@click.option("--since", metavar="WHEN", help="30m, 2h, 7d ago, or a date such as 2026-11-23.")
@json_flag
@click.option("--verify", is_flag=True, help="Check the whole log; exit status 1 if it's damaged.")
@state_dir_flag
@config_flag
def audit(
    since: str | None, as_json: bool, verify: bool, state_dir: Path | None, config_file: Path | None
) -> None:
    """Show who came and went, asked for what, and who approved it.

    Works on the files of the state directory, with or without a broker. Each record carries the
    digest of the one before; --verify says which was changed, removed, moved or cut off.
    """
    from mux.cli.audit import run

    directory = _config(config_file, state_dir).state_dir
    sys.exit(run(directory, since=since, as_json=as_json, verify=verify))


@click.command()
@json_flag
@state_dir_flag
@config_flag
def approvals(as_json: bool, state_dir: Path | None, config_file: Path | None) -> None:
    """List what waits for a person's word: commands, file changes, questions."""
    import trio

    from mux.cli.approvals import list_pending

    sys.exit(trio.run(list_pending, _config(config_file, state_dir), as_json))


def _answer(
    id: str, word: Word, *, yes: bool, state_dir: Path | None, config_file: Path | None
) -> None:
    import trio

    from mux.cli.approvals import described, give, look

    if not yes and not sys.stdin.isatty():
        raise NobodyThereError("no terminal to ask at: --yes answers without asking")
    config = _config(config_file, state_dir)
    approval = trio.run(partial(look, config, id, word, asks=not yes))
    click.echo("\n".join(described(approval)))
    if not yes and not click.confirm(f"{word.capitalize()} it?"):
        click.echo("not answered")
        sys.exit(1)
    sys.exit(trio.run(partial(give, config, approval, word, asked=not yes)))


@click.command()
@click.argument("id")
@yes_flag
@state_dir_flag
@config_flag
def approve(id: str, yes: bool, state_dir: Path | None, config_file: Path | None) -> None:
    """Allow what the approval ID asks for, once. Shows it first.

    ID may be the last digits of one, if no other ends so.
    """
    _answer(id, "approve", yes=yes, state_dir=state_dir, config_file=config_file)


@click.command()
@click.argument("id")
@yes_flag
@state_dir_flag
@config_flag
def decline(id: str, yes: bool, state_dir: Path | None, config_file: Path | None) -> None:
    """Refuse what the approval ID asks for. Shows it first.

    ID may be the last digits of one, if no other ends so.
    """
    _answer(id, "decline", yes=yes, state_dir=state_dir, config_file=config_file)


@click.group(invoke_without_command=True)
@click.option("--why", is_flag=True, help="Each decision and delivery too.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, metavar="N", help="The newest N (50)."
)
@json_flag
@state_dir_flag
@config_flag
@click.pass_context
def notices(
    ctx: click.Context, *, why: bool, limit: int, as_json: bool,
    state_dir: Path | None, config_file: Path | None,
) -> None:  # fmt: skip
    """List what devices were told by push, and why they were or weren't."""
    import trio

    from mux.cli.notices import show

    ctx.obj = _config(config_file, state_dir)
    if ctx.invoked_subcommand is None:
        sys.exit(trio.run(partial(show, ctx.obj, why=why, limit=limit, as_json=as_json)))


@notices.command("test")
@click.option("--device", metavar="NAME", help="One alone; else all that are registered.")
@json_flag
@click.pass_obj
def notices_test(config: Config, device: str | None, *, as_json: bool) -> None:
    """Send a test and say what each service answered; exit status 1 if one didn't take it."""
    import trio

    from mux.cli.notices import test

    sys.exit(trio.run(partial(test, config, device, as_json=as_json)))


COMMANDS = (audit, approvals, approve, decline, notices)
