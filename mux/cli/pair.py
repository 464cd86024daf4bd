"""``appmux pair`` and ``appmux invite``: let a device in, once the operator has compared its code.

The broker takes part by ``mux/pairing/*``; the operator sees a QR code and says yes or no.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import attrs
import click
import trio

from mux import client
from mux.cli import invitation
from mux.cli.invitation import PhoneAddress
from mux.cli.options import SCOPES, Decorated, Scopes, broker_flags, exits, json_flag, together
from mux.cli.settings import of_broker
from mux.client import Client, Json
from mux.config.model import Config
from mux.errors import AppmuxError
from mux.host import tailnet
from mux.storage import state_dir

ASKED: Final = "mux/pairing/asked"
ENDED: Final = "mux/pairing/ended"

INTERRUPTED: Final = 130
"""A shell's exit status for "ended by SIGINT"."""

ANSWER_BYTES: Final = 1024

WHITE_ON_BLACK: Final = {"fg": (255, 255, 255), "bg": (0, 0, 0)}
"""Set whatever the terminal's own colours are: some cameras read no inverted code."""

CONTROLS: Final = dict.fromkeys((*range(32), *range(127, 160)), "?")
"""Characters to replace: a device chooses its own name, which must not drive the terminal."""


USUAL: Final = ("observe", "approve", "drive")
"""Scopes that a person's own phone needs. ``admin`` (files, processes, settings) must be named."""

UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}


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


class NotPairedError(AppmuxError):
    """No device was let in; the text says why."""


@attrs.frozen
class Wish:
    """The pairing that the operator requested."""

    kind: str
    scopes: tuple[str, ...]
    name: str = ""
    """Empty: the device chooses its name."""
    seconds: float | None = None
    """The time for which the device is let in; None: for ever."""
    host: str | None = None
    yes: bool = False
    report: Callable[[Json], None] = attrs.field(default=lambda _event: None, eq=False)
    """Called with each thing that a program wants to know: the ticket, the code, the outcome."""

    def params(self) -> Json:
        """Return the params of the request to the broker."""
        scopes = list(self.scopes)
        return {
            "kind": self.kind,
            "scopes": scopes,
            "name": self.name,
            "lifetimeSeconds": self.seconds,
        }


# -- the commands ---------------------------------------------------------------------------------

_of_a_device = together(
    click.option("--name", default="", metavar="N", help="Its name (default: as it says)."),
    click.option(
        "--host", metavar="H", help="Where phones connect (default: the Tailnet address)."
    ),
    click.option("--yes", "-y", is_flag=True, help="Let in whatever device brings the ticket."),
)


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


_PAIRS = exits("0 a device was let in", "1 none was", "130 Ctrl-C: it was called off")


@click.command(epilog=_PAIRS)
@_of_a_device
@_scope(USUAL)
@_expires("never")
@click.option(
    "--novascale",
    is_flag=True,
    help="For the NovaScale app: a token in the QR code itself (default: all scopes).",
)
@json_flag
@broker_flags
def pair(novascale: bool, scopes: tuple[tuple[str, ...], ...], **given: Any) -> None:
    """Let a device in: it scans a QR code, and both show the same short code.

    The device gets a token of its own, which `appmux devices revoke` takes back.
    """
    # The NovaScale app was made for a server whose one secret opens everything.
    usual = SCOPES if novascale else USUAL
    _run("novascale" if novascale else "paired", Scopes.flat(scopes) or usual, **given)


@click.command(epilog=_PAIRS)
@_of_a_device
@_scope(("observe",))
@_expires("2h")
@json_flag
@broker_flags
def invite(scopes: tuple[tuple[str, ...], ...], **given: Any) -> None:
    """Let a colleague's device in, for a while, to watch."""
    _run("invite", Scopes.flat(scopes) or ("observe",), **given)


def _run(
    kind: str,
    scopes: tuple[str, ...],
    *,
    name: str,
    expires: float,
    host: str | None,
    yes: bool,
    as_json: bool,
    config_file: Path | None,
    state_dir: Path | None,
) -> None:
    seconds = None if expires == float("inf") else expires
    config = of_broker(config_file, state_dir)
    if not as_json:
        sys.exit(trio.run(run, config, Wish(kind, scopes, name, seconds, host, yes)))
    events = sys.stdout

    def report(event: Json) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    with redirect_stdout(sys.stderr):  # what a person reads
        status = trio.run(run, config, Wish(kind, scopes, name, seconds, host, yes, report))
    sys.exit(status)


async def run(config: Config, wish: Wish) -> int:
    """Pair one device, and return the exit status. Raises ``AppmuxError`` if that fails."""
    urls = state_dir.listeners(config.state_dir)
    if not wish.yes and wish.kind != "novascale" and not sys.stdin.isatty():
        raise NotPairedError(
            "there is no terminal to compare the device's code on: run it on one, or say --yes to"
            " let in whatever device brings the ticket"
        )
    place = await _place(wish, urls)
    ended = INTERRUPTED
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with client.connect_any(urls) as broker, trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt, signals, nursery.cancel_scope)
            if wish.kind == "novascale":
                await _novascale(broker, wish, place)
            else:
                await _pair(broker, wish, place)
            ended = 0
            nursery.cancel_scope.cancel()
    if ended == INTERRUPTED:
        click.echo("\ncalled off; nothing was paired")
    return ended


async def _interrupt(signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
    async for _number in signals:
        everything.cancel()


# -- where -----------------------------------------------------------------------------------------


async def _place(wish: Wish, urls: list[str]) -> PhoneAddress:
    listeners = invitation.listening(urls)
    if wish.host is not None:
        return await trio.to_thread.run_sync(invitation.named, wish.host, listeners)
    places = invitation.reachable(listeners, tailnet.own())
    if places and (len(places) == 1 or not sys.stdin.isatty()):
        return places[0]
    if not listeners:
        raise invitation.PhoneAddressError(
            "the broker listens on no TCP address, so that no phone reaches it: add `--listen"
            " ws://IP:14500 --ws-auth device-token` to `appmux serve`"
        )
    if not sys.stdin.isatty():
        raise invitation.PhoneAddressError(
            "the broker listens on loopback alone, where no phone reaches it: let it listen on the"
            " Tailnet's address too, or name with --host what passes it on"
        )
    suggested = str(places[0]) if places else str(listeners[0])
    click.echo("Where does the phone connect?")
    for place in places:
        click.echo(f"  {place}")
    said = await _line(f"Address [{suggested}]: ") or suggested
    return await trio.to_thread.run_sync(invitation.named, said, listeners)


# -- a ticket --------------------------------------------------------------------------------------


async def _pair(broker: Client, wish: Wish, place: PhoneAddress) -> None:
    begun = await broker.request("mux/pairing/begin", wish.params())
    uri = invitation.pair_uri(place, begun["ticket"])
    wish.report({"event": "ticket", "uri": uri, "expiresInSeconds": begun["expiresInSeconds"]})
    _show(uri)
    minutes = begun["expiresInSeconds"] / 60
    click.echo(f"Scan it, or open it on the device, within {minutes:.0f} minutes.")
    _tell_terms(wish, place, open_door=begun["openDoor"])
    with trio.move_on_after(begun["expiresInSeconds"]):
        asked = (await _notified(broker, ASKED, begun["id"]))["params"]
        await _decide(broker, wish, asked)
        return
    raise NotPairedError("no device came, and the ticket has expired; nothing was paired")


def _tell_terms(wish: Wish, place: PhoneAddress, *, open_door: bool) -> None:
    until = "until it is revoked" if wish.seconds is None else f"for {span(wish.seconds)}"
    click.echo(f"It may {', '.join(wish.scopes)}, {until}.")
    if place.loopback:
        click.echo(f"Note: {place} is reached from this machine alone.")
    if open_door:
        click.echo(
            "Note: this broker lets in whoever reaches its port, even without a token;"
            " `--ws-auth device-token` lets in paired devices alone."
        )


async def _decide(broker: Client, wish: Wish, asked: Json) -> None:
    name, code, address = (str(asked[key]).translate(CONTROLS) for key in ("name", "code", "from"))
    wish.report({"event": "asked", "name": name, "code": code, "from": address})
    click.echo(f'\n"{name}" asks to be paired, from {address}. Its code: {code}')
    async with trio.open_nursery() as nursery:
        # A device may give up while the operator still thinks.
        nursery.start_soon(_give_up_with_it, broker, asked["id"])
        accept = wish.yes or await _yes(f"Does the device in your hand show {code}?")
        nursery.cancel_scope.cancel()
    await broker.request("mux/pairing/confirm", {"id": asked["id"], "accept": accept})
    if not accept:
        raise NotPairedError(
            "declined; nothing was paired. If it wasn't your device, somebody else has seen the"
            " ticket: it is of no use any more"
        )
    ended = await _end(broker, asked["id"])
    if ended["outcome"] != "paired":
        raise NotPairedError(_why_not(ended))
    wish.report({"event": "paired", "name": ended["name"]})
    click.echo(f'paired "{ended["name"]}"; `appmux devices` lists it')


async def _give_up_with_it(broker: Client, id: int) -> None:
    ended = await _end(broker, id)
    click.echo()
    raise NotPairedError(_why_not(ended))


async def _end(broker: Client, id: int) -> Json:
    """Wait for the end of a pairing, and return its params.

    A ticket that was sent once more is reported, but ends nothing.
    """
    since = 0
    while True:
        ended = await _notified(broker, ENDED, id, since)
        params: Json = ended["params"]
        if params["outcome"] != "again":
            return params
        address = str(params["from"]).translate(CONTROLS)
        click.echo(f"\nNote: the same ticket was sent once more, from {address}; it was refused.")
        since = broker.inbox.index(ended) + 1


async def _notified(broker: Client, method: str, id: int, since: int = 0) -> Json:
    return await broker.wait(lambda m: m.get("method") == method and m["params"]["id"] == id, since)


def _why_not(ended: Json) -> str:
    match ended["outcome"]:
        case "left":
            return "the device broke off; nothing was paired. Begin again: a ticket is of one use"
        case "unanswered":
            return "the device waited too long for your word; nothing was paired"
        case other:
            return f"nothing was paired ({other})"


# -- NovaScale -------------------------------------------------------------------------------------


async def _novascale(broker: Client, wish: Wish, place: PhoneAddress) -> None:
    made = await broker.request("mux/devices/add", wish.params())
    uri = invitation.novascale_uri(place, socket.gethostname(), made["token"])
    wish.report({"event": "paired", "name": made["name"], "uri": uri})
    _show(uri)
    click.echo(
        "Scan it in the NovaScale app. It holds the token itself: whoever sees it is let in, until"
        f' `appmux devices revoke "{made["name"]}"`.'
    )
    _tell_terms(wish, place, open_door=False)


# -- the terminal ----------------------------------------------------------------------------------


def _show(uri: str) -> None:
    if sys.stdout.isatty() and (sys.stdout.encoding or "").lower().startswith("utf"):
        for line in invitation.qr_code(uri):
            click.echo(click.style(line, **_colours()))
    click.echo(f"\n{uri}\n")


def _colours() -> dict[str, Any]:
    return dict(WHITE_ON_BLACK)


async def _yes(question: str) -> bool:
    return (await _line(f"{question} [y/N]: ")).lower() in ("y", "yes")


async def _line(question: str) -> str:
    """Read a line from the terminal; empty at its end.

    Not in a thread: a thread that blocks in ``input`` outlives the question if the device gives up.
    """
    click.echo(question, nl=False)
    descriptor = sys.stdin.fileno()
    await trio.lowlevel.wait_readable(descriptor)
    return os.read(descriptor, ANSWER_BYTES).decode(errors="replace").strip()


_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def span(seconds: float) -> str:
    """Write a length of time by its greatest whole unit: ``30 d``, ``90 min``."""
    unit, size = next((each for each in _UNITS if seconds % each[1] == 0), _UNITS[-1])
    return f"{seconds / size:g} {unit}"
