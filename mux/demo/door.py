"""The demo's door for browsers: a link to the page, which lets in whoever brings it.

The runtime is the demo's own and listens on loopback alone, so nobody has to compare codes. A link
is good once, for five minutes; then there is another one.

Used by ``run``.
"""

from __future__ import annotations

import html
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from mux import client
from mux.client import Client, Json
from mux.demo.stage import DemoError

SCOPES: Final = ["observe", "approve", "drive", "admin"]

NEEDS: Final = "Leave a note when the page says so."
"""A browser that is opened finds an approval that waits."""

LEADS_ON: Final = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={link}">
<title>appmux</title>
"""


async def keep(
    socket: str, page: str, shown: Callable[[str], None], opened: Path | None, work: Path
) -> None:
    """Show links to the page at ``page``, one after another, and let in who comes with them.

    The first one is opened in this machine's browser, by a file in the private directory
    ``opened``: others could read a browser's command line. Raises ``DemoError`` if there is none.
    """
    async with client.connect(socket) as operator:
        await operator.initialize("demo's door")
        if opened is not None:
            await _need(operator, work)
        while True:
            begun = await operator.request("mux/pairing/begin", {"scopes": SCOPES})
            link = f"{page}/#pair={begun['ticket']}"
            if opened is not None:
                await trio.to_thread.run_sync(_open, opened / "open.html", link)
                opened = None
            shown(link)
            await _let_in(operator, begun["id"])


async def _let_in(operator: Client, id: int) -> None:
    """Say yes to whoever comes, and wait for the link's end."""

    def of_it(message: Json) -> bool:
        is_pairing = message.get("method") in ("mux/pairing/asked", "mux/pairing/ended")
        return is_pairing and message["params"]["id"] == id

    message = await operator.wait(of_it)
    if message["method"] == "mux/pairing/asked":
        await operator.request("mux/pairing/confirm", {"id": id, "accept": True})
        await operator.wait(lambda m: of_it(m) and m["method"] == "mux/pairing/ended")


async def _need(operator: Client, work: Path) -> None:
    """Begin a thread that needs an approval."""
    started = await operator.request("thread/start", {"cwd": str(work)})
    thread = started["thread"]["id"]
    await operator.request("thread/name/set", {"threadId": thread, "name": "A note from the page"})
    content = [{"type": "text", "text": NEEDS, "text_elements": []}]
    await operator.request("turn/start", {"threadId": thread, "input": content})


def _open(file: Path, link: str) -> None:
    file.touch(mode=0o600)
    file.write_text(LEADS_ON.format(link=html.escape(link, quote=True)))
    if not webbrowser.open(file.as_uri()):
        raise DemoError("no browser was found here: open the link that --hold prints")
