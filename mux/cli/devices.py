"""``appmux devices``: list the paired devices, and change them.

The broker of a state directory is asked by ``mux/devices/*`` requests.
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any, Final

import click
import trio
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mux import client
from mux.cli.options import Scopes, broker_flags, json_flag
from mux.cli.settings import of_broker
from mux.client import ClientError, Json
from mux.config.model import Config
from mux.storage import state_dir

ANSWER_DEADLINE: Final = 10.0
"""Seconds. The broker answers in milliseconds; a slower one has a problem of its own."""

PIPED_WIDTH: Final = 200
"""Columns where stdout is no terminal: a line that wraps is hard on ``grep``."""


@click.group(invoke_without_command=True)
@json_flag
@broker_flags
@click.pass_context
def devices(
    ctx: click.Context, as_json: bool, config_file: Path | None, state_dir: Path | None
) -> None:
    """List the paired devices, and change what they may do."""
    ctx.obj = of_broker(config_file, state_dir)
    if ctx.invoked_subcommand is None:
        sys.exit(trio.run(show, ctx.obj, as_json))


@devices.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.pass_obj
def revoke(config: Config, names: tuple[str, ...]) -> None:
    """Shut devices out, at once: their connections are closed, their tokens worth nothing."""
    sys.exit(trio.run(_revoke, config, names))


@devices.command()
@click.argument("name")
@click.argument("to", metavar="NEW")
@click.pass_obj
def rename(config: Config, name: str, to: str) -> None:
    """Give a device another name; its connections stay."""
    sys.exit(trio.run(_rename, config, name, to))


@devices.command(name="scope")
@click.argument("name")
@click.argument("scopes", nargs=-1, required=True, type=Scopes(), metavar="SCOPE…")
@click.pass_obj
def limit(config: Config, name: str, scopes: tuple[tuple[str, ...], ...]) -> None:
    """Give a device other scopes, at once: it reconnects with them."""
    sys.exit(trio.run(_limit, config, name, Scopes.flat(scopes)))


async def show(config: Config, as_json: bool) -> int:
    """List the devices, and return the exit status. Raises ``AppmuxError`` if no broker answers."""
    devices = (await ask(config, "mux/devices/list"))["devices"]
    if as_json:
        sys.stdout.write(json.dumps(devices, indent=2) + "\n")
    elif not devices:
        click.echo("no device is paired; `appmux pair` pairs one")
    else:
        console = Console()
        (console if console.is_terminal else Console(width=PIPED_WIDTH)).print(table(devices))
    return 0


async def _revoke(config: Config, names: tuple[str, ...]) -> int:
    """Revoke devices, at once."""
    for name in names:
        done = await ask(config, "mux/devices/revoke", name=name)
        click.echo(f'revoked "{done["name"]}"; {_closed(done["closed"])}')
    return 0


async def _rename(config: Config, name: str, to: str) -> int:
    """Give a device another name; its connections stay."""
    done = await ask(config, "mux/devices/rename", name=name, to=to)
    click.echo(f'"{name}" is now "{done["name"]}"')
    return 0


async def _limit(config: Config, name: str, scopes: tuple[str, ...]) -> int:
    """Give a device other scopes, at once."""
    done = await ask(config, "mux/devices/scope", name=name, scopes=list(scopes))
    click.echo(f'"{done["name"]}" may {", ".join(done["scopes"])}; {_closed(done["closed"])}')
    return 0


async def ask(config: Config, method: str, **params: Any) -> Json:
    """Return the broker's answer. Raises ``AppmuxError``."""
    urls = state_dir.listeners(config.state_dir)
    with trio.move_on_after(ANSWER_DEADLINE):
        async with client.connect_any(urls) as connection:
            return await connection.request(method, params)
    raise ClientError(f"the broker gave no answer within {ANSWER_DEADLINE:.0f} s")


def _closed(count: int) -> str:
    return {0: "it wasn't attached", 1: "its connection is closed"}.get(
        count, f"its {count} connections are closed"
    )


def table(devices: list[Json]) -> Table:
    """Return a table of the devices: attached ones first, then those seen most recently."""
    shown = Table(box=box.SIMPLE_HEAD)
    for column in ("name", "kind", "scopes", "paired", "expires", "last seen", "from", "attached"):
        shown.add_column(column, overflow="fold")
    for each in sorted(devices, key=lambda d: (-d["attached"], -(d["seenAt"] or d["madeAt"]))):
        cells = (
            each["name"],
            each["kind"],
            ", ".join(each["scopes"]),
            _when(each["madeAt"]),
            "expired" if each["expired"] else _when(each["expiresAt"]),
            _when(each["seenAt"]),
            each["address"] or "",
            str(each["attached"] or "no"),
        )
        shown.add_row(*(Text(cell) for cell in cells))
    return shown


def _when(moment: float | None) -> str:
    if moment is None:
        return "never"
    return datetime.datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M")
