"""The flags that several commands take.

Commands that ask the broker need no setting but the state directory: ``state_dir_of`` finds it
without loading the others, which takes longer than the question. ``settings`` loads them all.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, get_args

import click

from mux.config import locate
from mux.core.protocol.scope import Scope
from mux.errors import AppmuxError

Json: TypeAlias = dict[str, Any]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

LONGEST_SENTENCE: Final = 1000
"""Characters: more than any sentence has."""

PATH: Final = click.Path(path_type=Path)
"""A path as it was typed; ``config.load`` makes it absolute."""

SCOPES: Final[tuple[str, ...]] = get_args(Scope)


# -- the broker that a command asks ----------------------------------------------------------------

json_flag = click.option("--json", "as_json", is_flag=True, help="For programs.")
yes_flag = click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
state_dir_flag = click.option(
    "--state-dir", type=PATH, metavar="DIR", help="The broker's, as in serve."
)
config_flag = click.option(
    "--config", "config_file", type=PATH, metavar="FILE", help="TOML, as in serve."
)


def together(*flags: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds several flags, in the order of the help."""

    def decorate(command: Decorated) -> Decorated:
        for flag in reversed(flags):
            command = flag(command)
        return command

    return decorate


broker_flags = together(state_dir_flag, config_flag)
"""The flags that say which broker is asked."""


class WholeLines(click.Group):
    """A group whose help gives the first sentence of each command whole."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            assert command is not None
            rows.append((name, command.get_short_help_str(limit=LONGEST_SENTENCE)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class OptionError(AppmuxError):
    """A flag names something that isn't there."""


def state_dir_of(config_file: Path | None, state_dir: Path | None) -> Path:
    """Return the state directory of the broker that ``broker_flags`` name."""
    if state_dir is not None:
        return state_dir.absolute()
    if config_file is None:
        return locate.state_dir(os.environ)
    if not config_file.is_file():
        raise OptionError(f"flag --config: there is no file {config_file}")
    return locate.state_dir(os.environ | {"APPMUX_CONFIG": str(config_file)})


def exits(*statuses: str) -> str:
    """Return the end of a command's help: what its exit status says. 0 comes first."""
    return f"Exit status: {'; '.join(statuses)}."


@contextmanager
def outcome(as_json: bool) -> Iterator[Json]:
    """Print what a command did, for programs: the object that is filled in here, on stdout.

    What a person reads meanwhile goes to stderr. Without ``as_json`` nothing is different.
    """
    done: Json = {}
    if not as_json:
        yield done
        return
    with redirect_stdout(sys.stderr):
        yield done
    click.echo(json.dumps(done, indent=2))


class Scopes(click.ParamType[tuple[str, ...]]):
    """Parses one scope, or several separated by commas."""

    name = "scope"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        named = tuple(part.strip() for part in str(value).split(",") if part.strip())
        wrong = [name for name in named if name not in SCOPES]
        if wrong or not named:
            self.fail(f"{value!r}: the scopes are {', '.join(SCOPES)}", param, ctx)
        return named

    @staticmethod
    def flat(several: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
        """Return all scopes of a flag that was given several times, each once."""
        return tuple(dict.fromkeys(scope for scopes in several for scope in scopes))


def scope_flag(default: tuple[str, ...]) -> Callable[[Decorated], Decorated]:
    """Return the flag for the scopes of a device that is let in."""
    return click.option(
        "--scope",
        "scopes",
        type=Scopes(),
        multiple=True,
        metavar="|".join(SCOPES),
        help=f"What it may do; several with commas (default: {','.join(default)}).",
    )


# -- the service -----------------------------------------------------------------------------------

sudo_flag = click.option(
    "--allow-sudo", is_flag=True, help="Let approved commands use sudo and other setuid programs."
)
take_over_flag = click.option(
    "--take-over",
    is_flag=True,
    help="Where Codex's own daemon has the control socket: wait until nothing runs in it, have it"
    " stop, and take its place. Never ends a turn.",
)
