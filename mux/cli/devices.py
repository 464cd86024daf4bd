"""The commands about devices: ``appmux pair``, ``invite``, ``devices``.

``pair`` and ``device_list`` do the work. They are imported inside the command that needs them, as
in ``main``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

import click

from mux.core.protocol.scope import Scope

if TYPE_CHECKING:
    from mux.config.model import Config

PATH: Final = click.Path(path_type=Path)

SCOPES: Final[tuple[str, ...]] = get_args(Scope)

USUAL: Final = ("observe", "approve", "drive")
"""Scopes that a person's own phone needs. ``admin`` (files, processes, settings) must be named."""

UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Span(click.ParamType[float]):
    """A length of time: ``30d``, ``2h``, ``90min``; infinite for ``never``."""

    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip().lower()
        if text == "never":
            return float("inf")
        match = re.fullmatch(r"([0-9]{1,9}) ?([a-z]+)", text)
        if match is None or match[2] not in UNITS or not int(match[1]):
            self.fail(f"{value!r} is no length of time: write 30d, 2h, 90min, or never", param, ctx)
        return float(int(match[1]) * UNITS[match[2]])


class Scopes(click.ParamType[tuple[str, ...]]):
    """One scope, or several separated by commas."""

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


def _of_the_broker(command: Decorated) -> Decorated:
    for flag in (
        click.option(
            "--config", "config_file", type=PATH, metavar="FILE", help="TOML, as in serve."
        ),
        click.option("--state-dir", type=PATH, metavar="DIR", help="The broker's, as in serve."),
    ):
        command = flag(command)
    return command


def _of_a_device(command: Decorated) -> Decorated:
    for flag in (
        click.option("--yes", "-y", is_flag=True, help="Let in whatever device brings the ticket."),
        click.option(
            "--host", metavar="H", help="Where phones connect (default: the Tailnet address)."
        ),
        click.option("--name", default="", metavar="N", help="Its name (default: as it says)."),
    ):
        command = flag(command)
    return command


def _expires(default: str) -> Callable[[Decorated], Decorated]:
    return click.option(
        "--expires",
        type=Span(),
        default=default,
        show_default=True,
        metavar="30d|2h|never",
        help="How long it is let in.",
    )


def _scope(default: tuple[str, ...]) -> Callable[[Decorated], Decorated]:
    return click.option(
        "--scope",
        "scopes",
        type=Scopes(),
        multiple=True,
        metavar="|".join(SCOPES),
        help=f"What it may do; several with commas (default: {','.join(default)}).",
    )


@click.command()
@_of_a_device
@_scope(USUAL)
@_expires("never")
@click.option(
    "--novascale",
    is_flag=True,
    help="For the NovaScale app: a token in the QR code itself (default: all scopes).",
)
@_of_the_broker
def pair(novascale: bool, scopes: tuple[tuple[str, ...], ...], **given: Any) -> None:
    """Let a device in: it scans a QR code, and both show the same short code.

    The device gets a token of its own, which `appmux devices revoke` takes back.
    """
    # The NovaScale app was made for a server whose one secret opens everything.
    usual = SCOPES if novascale else USUAL
    _pair("novascale" if novascale else "paired", _flat(scopes) or usual, **given)


@click.command()
@_of_a_device
@_scope(("observe",))
@_expires("2h")
@_of_the_broker
def invite(scopes: tuple[tuple[str, ...], ...], **given: Any) -> None:
    """Let a colleague's device in, for a while, to watch."""
    _pair("invite", _flat(scopes) or ("observe",), **given)


def _flat(scopes: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(scope for several in scopes for scope in several))


def _pair(
    kind: str,
    scopes: tuple[str, ...],
    *,
    name: str,
    expires: float,
    host: str | None,
    yes: bool,
    config_file: Path | None,
    state_dir: Path | None,
) -> None:
    import trio

    from mux.cli.pair import Wish, run

    seconds = None if expires == float("inf") else expires
    wish = Wish(kind, scopes, name, seconds, host, yes)
    sys.exit(trio.run(run, _config(config_file, state_dir), wish))


def _config(config_file: Path | None, state_dir: Path | None) -> Config:
    from mux.config.load import load

    return load({"state_dir": state_dir}, os.environ, config_file).config


# -- devices ---------------------------------------------------------------------------------------


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_of_the_broker
@click.pass_context
def devices(
    ctx: click.Context, as_json: bool, config_file: Path | None, state_dir: Path | None
) -> None:
    """List the paired devices, and change what they may do."""
    import trio

    from mux.cli.device_list import show

    ctx.obj = _config(config_file, state_dir)
    if ctx.invoked_subcommand is None:
        sys.exit(trio.run(show, ctx.obj, as_json))


@devices.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.pass_obj
def revoke(config: Config, names: tuple[str, ...]) -> None:
    """Shut devices out, at once: their connections are closed, their tokens worth nothing."""
    import trio

    from mux.cli.device_list import revoke

    sys.exit(trio.run(revoke, config, names))


@devices.command()
@click.argument("name")
@click.argument("to", metavar="NEW")
@click.pass_obj
def rename(config: Config, name: str, to: str) -> None:
    """Give a device another name; its connections stay."""
    import trio

    from mux.cli.device_list import rename

    sys.exit(trio.run(rename, config, name, to))


@devices.command(name="scope")
@click.argument("name")
@click.argument("scopes", nargs=-1, required=True, type=Scopes(), metavar="SCOPE…")
@click.pass_obj
def limit(config: Config, name: str, scopes: tuple[tuple[str, ...], ...]) -> None:
    """Give a device other scopes, at once: it reconnects with them."""
    import trio

    from mux.cli.device_list import limit

    sys.exit(trio.run(limit, config, name, _flat(scopes)))


COMMANDS = (pair, invite, devices)
"""The commands that ``main`` registers."""
