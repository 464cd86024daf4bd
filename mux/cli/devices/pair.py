"""``appmux pair`` and ``appmux invite``: let a device in, once the operator has compared its code.

The broker takes part by ``mux/pairing/*``; the operator sees a QR code and says yes or no.
"""

from __future__ import annotations

import json
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

from mux import client, documents
from mux.cli.common import invitation
from mux.cli.common.invitation import PhoneAddress
from mux.cli.common.options import (
    PATH,
    SCOPES,
    Decorated,
    Scopes,
    broker_flags,
    exits,
    json_flag,
    scope_flag,
    together,
)
from mux.cli.common.settings import of_broker
from mux.cli.terminal import output, qr_code
from mux.cli.terminal.pairing_dialogue import NotPairedError, await_device, decide, line
from mux.client import Client, Json
from mux.config.model import Config
from mux.host import tailnet
from mux.storage import state_dir

INTERRUPTED: Final = 130
"""A shell's exit status for "ended by SIGINT"."""


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


@attrs.frozen
class PairingSpec:
    """The pairing that the operator requested."""

    kind: str
    scopes: tuple[str, ...]
    name: str = ""
    """Empty: the device chooses its name."""
    seconds: float | None = None
    """The time for which the device is let in; None: for ever."""
    host: str | None = None
    yes: bool = False
    app: bool = False
    """True for an app that knows ``appmux://``."""
    png: Path | None = None
    url_only: bool = False
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
    click.option("--app", is_flag=True, help="For an app: appmux:// in the place of a link."),
    click.option("--png", type=PATH, metavar="FILE", help="Write the QR code to a file."),
    click.option("--url", "url_only", is_flag=True, help="Print the link alone on stdout."),
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


_PAIRS = exits("0 a device was let in", "1 none was", "130 Ctrl-C: it was called off")


@click.command(epilog=_PAIRS)
@_of_a_device
@scope_flag(USUAL)
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

    The code is a link that any camera opens in a browser. The browser makes a key of its own, which
    `appmux devices revoke` shuts out. With --app it is for an app, which gets a token.
    """
    # The NovaScale app was made for a server whose one secret opens everything.
    usual = SCOPES if novascale else USUAL
    _run("novascale" if novascale else "paired", Scopes.flat(scopes) or usual, **given)


@click.command(epilog=_PAIRS)
@_of_a_device
@scope_flag(("observe",))
@_expires("2h")
@json_flag
@broker_flags
def invite(scopes: tuple[tuple[str, ...], ...], **given: Any) -> None:
    """Let a colleague in, for a while, to watch: send them the link that it prints."""
    _run("invite", Scopes.flat(scopes) or ("observe",), **given)


def _run(
    kind: str,
    scopes: tuple[str, ...],
    *,
    name: str,
    expires: float,
    host: str | None,
    as_json: bool,
    config_file: Path | None,
    state_dir: Path | None,
    **more: Any,
) -> None:
    seconds = None if expires == float("inf") else expires
    config = of_broker(config_file, state_dir)
    if not as_json:
        sys.exit(trio.run(run, config, PairingSpec(kind, scopes, name, seconds, host, **more)))
    events = sys.stdout

    def report(event: Json) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    with redirect_stdout(sys.stderr):  # what a person reads
        spec = PairingSpec(kind, scopes, name, seconds, host, **more, report=report)
        status = trio.run(run, config, spec)
    sys.exit(status)


async def run(config: Config, spec: PairingSpec) -> int:
    """Pair one device, and return the exit status. Raises ``AppmuxError`` if that fails."""
    urls = state_dir.listeners(config.state_dir)
    if not spec.yes and spec.kind != "novascale" and not sys.stdin.isatty():
        raise NotPairedError(
            "there is no terminal to compare the device's code on: run it on one, or say --yes to"
            " let in whatever device brings the ticket"
        )
    by_uri = spec.app or spec.kind == "novascale"
    place = await _place(spec, urls) if by_uri else None
    ended = INTERRUPTED
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with client.connect_any(urls) as broker, trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt, signals, nursery.cancel_scope)
            if place is None:
                await _pair_browser(broker, spec, invitation.listening(urls))
            elif spec.kind == "novascale":
                await _novascale(broker, spec, place)
            else:
                await _pair(broker, spec, place)
            ended = 0
            nursery.cancel_scope.cancel()
    if ended == INTERRUPTED:
        click.echo("\ncalled off; nothing was paired")
    return ended


async def _interrupt(signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
    async for _number in signals:
        everything.cancel()


# -- where -----------------------------------------------------------------------------------------


async def _place(spec: PairingSpec, urls: list[str]) -> PhoneAddress:
    listeners = invitation.listening(urls)
    if spec.host is not None:
        return await trio.to_thread.run_sync(invitation.named, spec.host, listeners)
    places = invitation.reachable(listeners, tailnet.own())
    if places and (len(places) == 1 or places[0].by_name or not sys.stdin.isatty()):
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
    address = await line(f"Address [{suggested}]: ") or suggested
    return await trio.to_thread.run_sync(invitation.named, address, listeners)


# -- a ticket --------------------------------------------------------------------------------------


async def _pair(broker: Client, spec: PairingSpec, place: PhoneAddress) -> None:
    """Pair an app, by a URI that it knows."""
    begun = await broker.request("mux/pairing/begin", spec.params())
    uri = invitation.pair_uri(place, begun["ticket"])
    spec.report({"event": "ticket", "uri": uri, "expiresInSeconds": begun["expiresInSeconds"]})
    minutes = begun["expiresInSeconds"] / 60
    _print_link(spec, uri, f"Scan it, or open it on the device, within {minutes:.0f} minutes.")
    _print_terms(spec, place, open_door=begun["openDoor"])
    await _picture(spec, uri)
    await decide(broker, await await_device(broker, begun), yes=spec.yes, report=spec.report)


async def _pair_browser(broker: Client, spec: PairingSpec, listeners: list[PhoneAddress]) -> None:
    """Pair a browser, by a link that any camera opens."""
    named = None
    if spec.host is not None:
        named = await trio.to_thread.run_sync(invitation.named, spec.host, listeners)
    elif not listeners:
        raise invitation.PhoneAddressError(
            "the broker listens on no TCP address, so that no browser reaches it: add `--listen"
            " ws://127.0.0.1:14500` to `appmux serve`"
        )
    begun = await broker.request("mux/pairing/begin", {**spec.params(), "letters": True})
    origin = (
        invitation.page_origin(listeners, tailnet.own(), begun["origins"])
        if named is None
        else named.origin
    )
    link, letters = invitation.page_link(origin, begun["ticket"]), begun["letters"]
    spec.report({
        "event": "ticket", "uri": link, "letters": letters,
        "expiresInSeconds": begun["expiresInSeconds"],
    })  # fmt: skip
    minutes = begun["expiresInSeconds"] / 60
    _print_link(
        spec,
        link,
        f"Open the link within {minutes:.0f} minutes; or type {letters[:4]} {letters[4:]} in the"
        " installed page.",
    )
    _print_terms(spec, None, open_door=begun["openDoor"])
    if invitation.is_loopback(origin):
        _print(
            spec,
            "Note: this link opens in this machine's browsers alone. A phone needs the page over"
            f" https (`appmux tailnet enable`, or {documents.page('remote')}); an app is paired by"
            " `--app`.",
        )
    elif not origin.startswith("https://"):
        _print(spec, "Note: browsers make no keys over plain http. Use https, or `--app`.")
    await _picture(spec, link)
    await decide(broker, await await_device(broker, begun), yes=spec.yes, report=spec.report)


def _print_link(spec: PairingSpec, link: str, how: str) -> None:
    """Print the link; alone on stdout, if that was wished."""
    click.echo(link if spec.url_only else f"\n{link}\n")
    _print(spec, how)


def _print(spec: PairingSpec, text: str) -> None:
    output.echo(text, err=spec.url_only)


async def _picture(spec: PairingSpec, link: str) -> None:
    """Draw the link, last: so it stands whole at the window's lower end."""
    if spec.png is not None:
        await trio.to_thread.run_sync(qr_code.write_png, link, spec.png)
        _print(spec, f"The QR code is in {spec.png}.")
    elif not spec.url_only:
        qr_code.show(link)


def _print_terms(spec: PairingSpec, place: PhoneAddress | None, *, open_door: bool) -> None:
    until = "until it is revoked" if spec.seconds is None else f"for {span(spec.seconds)}"
    _print(spec, f"It may {', '.join(spec.scopes)}, {until}.")
    if place is not None and place.loopback:
        _print(spec, f"Note: {place} is reached from this machine alone.")
    if open_door:
        _print(
            spec,
            "Note: this broker lets in whoever reaches its port, even without a token;"
            " `--ws-auth device-token` lets in paired devices alone.",
        )


# -- NovaScale -------------------------------------------------------------------------------------


async def _novascale(broker: Client, spec: PairingSpec, place: PhoneAddress) -> None:
    made = await broker.request("mux/devices/add", spec.params())
    uri = invitation.novascale_uri(place, socket.gethostname(), made["token"])
    spec.report({"event": "paired", "name": made["name"], "uri": uri})
    _print_link(
        spec,
        uri,
        "Scan it in the NovaScale app. It holds the token itself: whoever sees it is let in, until"
        f' `appmux devices revoke "{made["name"]}"`.',
    )
    _print_terms(spec, place, open_door=False)
    await _picture(spec, uri)


_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def span(seconds: float) -> str:
    """Write a length of time by its greatest whole unit: ``30 d``, ``90 min``."""
    unit, size = next((each for each in _UNITS if seconds % each[1] == 0), _UNITS[-1])
    return f"{seconds / size:g} {unit}"
