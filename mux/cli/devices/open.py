"""``appmux open``: the shared runtime in this machine's browser.

The browser is let in by a ticket of a minute. It gets it from a file that only we can read and that
leads on to the page: what stands on a browser's command line others could read.
"""

from __future__ import annotations

import html
import os
import secrets
import sys
import webbrowser
from pathlib import Path
from typing import Final

import click
import trio

from mux import client
from mux.cli.common import invitation
from mux.cli.common.options import Scopes, broker_flags, exits, scope_flag
from mux.cli.common.settings import of_broker
from mux.cli.devices.pair import USUAL
from mux.cli.terminal.pairing_dialogue import NotPairedError, await_device, confirm
from mux.client import Client, Json
from mux.config.model import Config
from mux.errors import AppmuxError
from mux.host import tailnet
from mux.posix import private_file
from mux.storage import state_dir

NAME: Final = "browser on this machine"
"""The name of the one device that this command makes, again and again."""

LIFETIME: Final = 30 * 86_400.0
"""Seconds: who uses it opens it once a month."""

TICKET_SECONDS: Final = 60.0
"""A browser starts in ten."""

LEADS_ON: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={link}">
<title>appmux</title>
<p><a href="{link}">Go on to appmux</a></p>
</html>
"""


class NotOpenedError(AppmuxError):
    """No browser could be started."""


@click.command(epilog=exits("0 it is open", "1 it isn't"))
@click.option("--print", "printed", is_flag=True, help="Print the link, and open nothing.")
@scope_flag(USUAL)
@broker_flags
def open(
    printed: bool,
    scopes: tuple[tuple[str, ...], ...],
    config_file: Path | None,
    state_dir: Path | None,
) -> None:
    """Open the page in this machine's browser, and let that in without further ado."""
    config = of_broker(config_file, state_dir)
    sys.exit(trio.run(run, config, Scopes.flat(scopes) or USUAL, printed))


async def run(config: Config, scopes: tuple[str, ...], printed: bool) -> int:
    """Open the page, and return the exit status. Raises ``AppmuxError`` if that fails."""
    urls = state_dir.listeners(config.state_dir)
    async with client.connect_any(urls) as broker:
        begun = await broker.request(
            "mux/pairing/begin",
            {
                "name": NAME,
                "scopes": list(scopes),
                "lifetimeSeconds": LIFETIME,
                "ticketSeconds": TICKET_SECONDS,
                "replaces": True,
            },
        )
        listeners = invitation.listening(urls)
        origin = invitation.page_origin(listeners, tailnet.own(), begun["origins"])
        link = invitation.page_link(origin, begun["ticket"])
        if printed:
            click.echo(link)
            click.echo(f"Good for {TICKET_SECONDS:.0f} s, once, in one browser.", err=True)
            return await _let_in(broker, begun)
        page = config.state_dir / f"open-{secrets.token_hex(8)}.html"
        try:
            await trio.to_thread.run_sync(_start, page, link)
            return await _let_in(broker, begun)
        finally:
            page.unlink(missing_ok=True)


def _start(page: Path, link: str) -> None:
    """Start the browser at a page that leads on. Blocks. Raises ``AppmuxError``."""
    text = LEADS_ON.format(link=html.escape(link, quote=True))
    descriptor = private_file.open_file(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    if not webbrowser.open(page.as_uri()):
        raise NotOpenedError("no browser was found here: `appmux open --print` prints the link")


async def _let_in(broker: Client, begun: Json) -> int:
    try:
        came = await await_device(broker, begun)
    except NotPairedError:
        if await _is_attached(broker):
            click.echo(f'open; the browser stayed the "{NAME}" that it was')
            return 0
        raise
    ended = await confirm(broker, came["id"])
    click.echo(f'open, as "{ended["name"]}"; `appmux devices` lists it')
    return 0


async def _is_attached(broker: Client) -> bool:
    devices = (await broker.request("mux/devices/list"))["devices"]
    return any(each["name"] == NAME and each["attached"] for each in devices)
