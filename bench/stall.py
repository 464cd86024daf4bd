"""One subscriber stops reading: what the others, and the broker's memory, notice of it.

The same long turn of the real app-server, through the broker, with two subscribers that read; once
alone, once beside a third that takes nothing until the turn is over. Then that one reads, and must
get the whole text.

Hands to: the terminal. Hears from: ``fanout`` (how a turn is run), ``load`` (the subscribers).
"""

from __future__ import annotations

import re
import socket
from typing import Final

import attrs
import click
import trio
from rich.console import Console
from rich.table import Table

from bench.fanout import DELTA_TEXT, loading, peak_bytes, serving
from bench.load import COMPLETED, RECEIVE_BYTES, subscribe
from mux.scripted_model import Say, Scripted
from tests.end_to_end.peer import connect_ws

READERS: Final = 2

CATCH_UP_PATIENCE: Final = 60.0
"""Seconds for the one that stopped to read what it missed; a second or two, when well."""

MIB: Final = 2**20


@attrs.frozen
class Reading:
    """One turn. ``gap``: the readers' longest wait for more, in seconds; ``peak``: bytes."""

    stalled: bool
    gap: float
    turn: float
    peak: int | None
    caught_up: bool | None


async def measure(deltas: int, *, stalled: bool) -> Reading:
    """Run one turn. Raises RuntimeError if a reader lost a delta."""
    model = Scripted()
    model.on("many", Say(chunks=(DELTA_TEXT,) * deltas))
    async with serving("broker", model) as running, connect_ws(running.url) as driver:
        await driver.initialize("driver")
        thread = await driver.start_thread(running.home.work)
        await driver.run_turn(thread, "a first turn")
        third = await trio.to_thread.run_sync(subscribe, running.url, thread) if stalled else None
        async with loading(running.url, thread, READERS) as load:
            began = trio.current_time()
            await driver.start_turn(thread, "many")
            tally = await load.tally()
            turn = trio.current_time() - began
        if min(tally.deltas) != deltas:
            raise RuntimeError(f"a reader got {min(tally.deltas)} of {deltas} deltas")
        caught_up = None
        if third is not None:
            caught_up = await trio.to_thread.run_sync(_read_all, third, deltas)
        return Reading(stalled, max(tally.gaps), turn, peak_bytes(running.process.pid), caught_up)


def _read_all(connection: socket.socket, deltas: int) -> bool:
    """Whether the deltas that the stalled one now reads, merged or not, hold the text once."""
    connection.settimeout(CATCH_UP_PATIENCE)
    got = bytearray()
    with connection:
        while COMPLETED not in got[-2 * RECEIVE_BYTES :]:
            piece = connection.recv(RECEIVE_BYTES)
            if not piece:
                return False
            got += piece
    text = b"".join(re.findall(rb'"delta":"([^"]*)"', got))
    return text == DELTA_TEXT.encode() * deltas


@click.command()
@click.option("--deltas", default=100_000, show_default=True)
def main(deltas: int) -> None:
    """What others notice of a subscriber that stops reading."""
    console = Console()
    table = Table(title=f"one of three stops reading: {deltas:,} deltas")
    for name in ("", "longest gap of the others", "turn", "broker peak", "caught up"):
        table.add_column(name, justify="right")
    readings = [trio.run(_measure, deltas, stalled) for stalled in (False, True)]
    for each in readings:
        table.add_row(
            "one stalls" if each.stalled else "nobody",
            f"{each.gap * 1000:.0f} ms",
            f"{each.turn:.2f} s",
            f"{each.peak / MIB:.0f} MiB" if each.peak is not None else "",
            {None: "", True: "whole text", False: "NO"}[each.caught_up],
        )
    console.print(table)
    if readings[1].caught_up is not True:
        raise SystemExit(1)


async def _measure(deltas: int, stalled: bool) -> Reading:
    return await measure(deltas, stalled=stalled)


if __name__ == "__main__":
    main()
