"""``appmux devices``: list the paired devices, and change them.

The broker of a state directory is asked by ``mux/devices/*`` requests.
"""

from __future__ import annotations

import datetime
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table

from mux.cli.common import broker
from mux.cli.common.broker import Json
from mux.cli.common.options import Scopes, WholeLines, broker_flags, exits, json_flag, state_dir_of
from mux.cli.completion import device_names
from mux.cli.terminal import screen
from mux.errors import AppmuxError
from mux.text import visible

NARROW: Final = 5
"""Columns of a table that has no room for more."""

_CHANGES = exits("0 done", "1 there is no such device, or no broker answered")


class DeviceNameError(AppmuxError):
    """A device is named that isn't there."""


@click.group(
    cls=WholeLines,
    invoke_without_command=True,
    epilog=exits("0 the broker answered", "1 no broker answered"),
)
@json_flag
@broker_flags
@click.pass_context
def devices(
    ctx: click.Context, as_json: bool, config_file: Path | None, state_dir: Path | None
) -> None:
    """List the paired devices, and change what they may do."""
    ctx.obj = state_dir_of(config_file, state_dir)
    if ctx.invoked_subcommand is None:
        sys.exit(show(ctx.obj, as_json))


@devices.command(epilog=_CHANGES)
@click.argument("names", nargs=-1, metavar="NAME…", shell_complete=device_names)
@click.option("--all", "everybody", is_flag=True, help="All devices.")
@click.option(
    "--except",
    "but",
    multiple=True,
    metavar="NAME",
    shell_complete=device_names,
    help="But this one, with --all.",
)
@json_flag
@click.pass_obj
def revoke(
    state_dir: Path, names: tuple[str, ...], everybody: bool, but: tuple[str, ...], as_json: bool
) -> None:
    """Shut devices out, at once: their connections are closed, tokens and keys worth nothing."""
    if everybody == bool(names) or (but and not everybody):
        raise click.UsageError("name devices, or say --all [--except NAME]")
    named = _all_but(state_dir, but) if everybody else list(names)
    if not named and not as_json:
        click.echo("there is no device to revoke")
    for name in named:
        done = ask(state_dir, "mux/devices/revoke", name=name)
        _print_done(done, f'revoked "{done["name"]}"; {_closed(done["closed"])}', as_json=as_json)


def _all_but(state_dir: Path, but: tuple[str, ...]) -> list[str]:
    """Return the names of all devices except some. Raises ``DeviceNameError``."""
    listed = [str(each["name"]) for each in ask(state_dir, "mux/devices/list")["devices"]]
    known, kept = {_key(name) for name in listed}, {_key(name) for name in but}
    for name in but:
        if _key(name) not in known:  # else the one that was to stay would go, too
            raise DeviceNameError(f"no device is named {name!r}; nothing was revoked")
    return [name for name in listed if _key(name) not in kept]


def _key(name: str) -> str:
    """Return a name as the device book compares it."""
    return unicodedata.normalize("NFC", " ".join(name.split())).casefold()


@devices.command(epilog=_CHANGES)
@click.argument("name", shell_complete=device_names)
@click.argument("to", metavar="NEW")
@json_flag
@click.pass_obj
def rename(state_dir: Path, name: str, to: str, as_json: bool) -> None:
    """Give a device another name; its connections stay."""
    done = ask(state_dir, "mux/devices/rename", name=name, to=to)
    _print_done(done, f'"{name}" is now "{done["name"]}"', as_json=as_json)


@devices.command(name="scope", epilog=_CHANGES)
@click.argument("name", shell_complete=device_names)
@click.argument("scopes", nargs=-1, required=True, type=Scopes(), metavar="SCOPE…")
@json_flag
@click.pass_obj
def limit(state_dir: Path, name: str, scopes: tuple[tuple[str, ...], ...], as_json: bool) -> None:
    """Give a device other scopes, at once: it reconnects with them."""
    done = ask(state_dir, "mux/devices/scope", name=name, scopes=list(Scopes.flat(scopes)))
    may = f'"{done["name"]}" may {", ".join(done["scopes"])}; {_closed(done["closed"])}'
    _print_done(done, may, as_json=as_json)


def show(state_dir: Path, as_json: bool) -> int:
    """List the devices, and return the exit status. Raises ``AppmuxError`` if no broker answers."""
    devices = ask(state_dir, "mux/devices/list")["devices"]
    if as_json:
        sys.stdout.write(json.dumps(devices, indent=2) + "\n")
    elif not devices:
        click.echo("no device is paired; `appmux pair` pairs one")
    else:
        console = screen.console()
        console.print(table(devices, console.width))
    return 0


def ask(state_dir: Path, method: str, **params: Any) -> Json:
    """Return the broker's answer. Raises ``AppmuxError``."""
    return broker.ask(broker.urls(state_dir), method, params)


def _print_done(done: Json, text: str, *, as_json: bool) -> None:
    """Print what was done: for programs an object a line."""
    click.echo(json.dumps(done) if as_json else visible(text))


def _closed(count: int) -> str:
    return {0: "it wasn't attached", 1: "its connection is closed"}.get(
        count, f"its {count} connections are closed"
    )


def table(devices: list[Json], width: int) -> Table:
    """Return a table of the devices: attached ones first, then those seen most recently."""
    columns = ["name", "scopes", "attached", "last seen", "expires", "paired", "kind", "from"]
    rows = [
        [
            each["name"],
            ", ".join(each["scopes"]),
            str(each["attached"] or "no"),
            _when(each["seenAt"]),
            "expired" if each["expired"] else _when(each["expiresAt"]),
            _when(each["madeAt"]),
            each["kind"],
            each["address"] or "",
        ]
        for each in sorted(devices, key=lambda d: (-d["attached"], -(d["seenAt"] or d["madeAt"])))
    ]
    if width < screen.WIDE:  # what tells devices apart, and what they may do
        columns, rows = columns[:NARROW], [row[:NARROW] for row in rows]
    cuts: dict[str, screen.Cut] = {"scopes": "right", "from": "right"}
    return screen.table("", columns, rows, width, cuts=cuts)


def _when(moment: float | None) -> str:
    if moment is None:
        return "never"
    return datetime.datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M")
