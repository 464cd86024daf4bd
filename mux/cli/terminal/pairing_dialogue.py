"""The dialogue at a terminal while a device is paired, and the broker's messages meanwhile.

Used by ``pair`` and ``open``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

import click
import trio

from mux.client import Client, Json
from mux.errors import AppmuxError

ASKED: Final = "mux/pairing/asked"
ENDED: Final = "mux/pairing/ended"

ANSWER_BYTES: Final = 1024

CONTROLS: Final = dict.fromkeys((*range(32), *range(127, 160)), "?")
"""Characters to replace: a device chooses its own name, which must not drive the terminal."""


class NotPairedError(AppmuxError):
    """No device was let in; the text says why."""


async def await_device(broker: Client, begun: Json) -> Json:
    """Wait for the device that brings the ticket. Raises ``NotPairedError`` if none comes."""
    with trio.move_on_after(begun["expiresInSeconds"]):
        params: Json = (await _notified(broker, ASKED, begun["id"]))["params"]
        return params
    raise NotPairedError("no device came, and the ticket has expired; nothing was paired")


async def decide(
    broker: Client,
    asker: Json,
    *,
    yes: bool,
    report: Callable[[Json], None] = lambda _event: None,
) -> None:
    """Have the operator compare codes, unless ``yes``, and say what became of it.

    ``asker``: the device's name, code and address. ``report`` is told who asks, and who was paired.
    """
    name, code, address = (str(asker[key]).translate(CONTROLS) for key in ("name", "code", "from"))
    report({"event": "asked", "name": name, "code": code, "from": address})
    click.echo(f'\n"{name}" asks to be paired, from {address}. Its code: {code}')
    async with trio.open_nursery() as nursery:
        # A device may give up while the operator still thinks.
        nursery.start_soon(_give_up_with_it, broker, asker["id"])
        accept = yes or await _yes(f"Does the device in your hand show {code}?")
        nursery.cancel_scope.cancel()
    if not accept:
        await broker.request("mux/pairing/confirm", {"id": asker["id"], "accept": False})
        raise NotPairedError(
            "declined; nothing was paired. If it wasn't your device, somebody else has seen the"
            " ticket: it is of no use any more"
        )
    ended = await confirm(broker, asker["id"])
    report({"event": "paired", "name": ended["name"]})
    click.echo(f'paired "{ended["name"]}"; `appmux devices` lists it')


async def confirm(broker: Client, id: int) -> Json:
    """Say yes, and return the end of the pairing. Raises ``NotPairedError`` if it isn't paired."""
    await broker.request("mux/pairing/confirm", {"id": id, "accept": True})
    ended = await _end(broker, id)
    if ended["outcome"] != "paired":
        raise NotPairedError(_why_not(ended))
    return ended


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


# -- the terminal ----------------------------------------------------------------------------------


async def _yes(question: str) -> bool:
    return (await line(f"{question} [y/N]: ")).lower() in ("y", "yes")


async def line(question: str) -> str:
    """Read a line from the terminal; empty at its end.

    Not in a thread: a thread that blocks in ``input`` outlives the question if the device gives up.
    """
    click.echo(question, nl=False)
    descriptor = sys.stdin.fileno()
    await trio.lowlevel.wait_readable(descriptor)
    return os.read(descriptor, ANSWER_BYTES).decode(errors="replace").strip()
