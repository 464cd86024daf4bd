"""The journal on disk alone: entries taken, written and read each second.

Run as ``python -m bench.store``; exit status 1 if a catch-up is slower than the design promises.
The entries are as in a busy broker: deltas of some 230 bytes, of several threads at once, with an
event now and then, in the batches that arise from `FLUSH_INTERVAL` at the given pace.

Hands to: whoever reads the table. Hears from: `Store`, the clock.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

import attrs
import click
import trio
from rich.console import Console
from rich.table import Table

from mux.core.protocol.journal_entry import Entry
from mux.storage.journal import FLUSH_INTERVAL, Store

EVENT_EVERY: Final = 50
PIECE_BYTES: Final = 1024 * 1024  # read at once for a client that lags
PROMISED: Final = 200_000  # entries/s in a catch-up of 100,000
CATCH_UP: Final = 100_000
TICK: Final = 0.001


@attrs.frozen
class Result:
    """One line of the table. ``stall``: the longest time that the event loop stood, in seconds."""

    what: str
    entries: int
    seconds: float
    stall: float

    @property
    def per_second(self) -> float:
        return self.entries / self.seconds


def made(count: int, threads: int) -> list[Entry]:
    """Entries 1..count of so many threads in turn."""
    text = b"x" * 150
    return [
        Entry(
            seq,
            f"01920000-0000-7000-8000-{seq % threads:012}",
            "item/completed" if seq // threads % EVENT_EVERY == 0 else "item/agentMessage/delta",
            b'{"method":"item/agentMessage/delta","params":{"delta":"%s","n":%d}}' % (text, seq),
        )
        for seq in range(1, count + 1)
    ]


@attrs.define
class Loop:
    """Notices when the event loop stands."""

    stall: float = 0.0

    async def watch(self) -> None:
        before = trio.current_time()
        while True:
            await trio.sleep(TICK)
            now = trio.current_time()
            self.stall, before = max(self.stall, now - before - TICK), now


async def timed(what: str, entries: list[Entry], store: Store, *, pace: int) -> Result:
    """The time that writing takes, in batches as they arise at ``pace`` entries/s."""
    batch = max(1, math.ceil(pace * FLUSH_INTERVAL))
    loop, seconds = Loop(), 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.watch)
        for start in range(0, len(entries), batch):
            for entry in entries[start : start + batch]:
                store.append(entry)
            begun = time.perf_counter()
            await store.flush()
            seconds += time.perf_counter() - begun
        nursery.cancel_scope.cancel()
    return Result(what, len(entries), seconds, loop.stall)


def appended(entries: list[Entry], store: Store) -> Result:
    """What the hot path pays: nothing is written meanwhile."""
    begun = time.perf_counter()
    for entry in entries:
        store.append(entry)
    return Result("append (hot path)", len(entries), time.perf_counter() - begun, 0.0)


async def caught_up(what: str, store: Store, threads: Collection[str] | None) -> Result:
    """Read the last ``CATCH_UP`` numbers in pieces, as for a client that was away."""
    loop, read = Loop(), 0
    until = int(str(store.status()["nextSeq"])) - 1
    after = max(0, until - CATCH_UP)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.watch)
        begun = time.perf_counter()
        while True:
            piece = await store.read(after, until, threads, PIECE_BYTES)
            read += len(piece)
            if sum(len(entry.message) for entry in piece) < PIECE_BYTES:
                break
            after = piece[-1].seq
        seconds = time.perf_counter() - begun
        nursery.cancel_scope.cancel()
    return Result(what, read, seconds, loop.stall)


def new_store(path: Path, max_bytes: int = 512 * 1024 * 1024) -> Store:
    path.mkdir()
    return Store.open(path, max_bytes=max_bytes, max_age=7 * 86_400.0)


async def measure(place: Path, count: int) -> list[Result]:
    results = []
    idle = new_store(place / "idle")
    results.append(appended(made(min(count, CATCH_UP), 10), idle))
    await idle.close()
    for threads in (1, 10):
        store = new_store(place / f"of{threads}")
        several = made(count, threads)
        of = f"{threads} thread{'s' if threads > 1 else ''}"
        results.append(await timed(f"write, {of}, 100,000/s", several, store, pace=100_000))
        results.append(await caught_up(f"read all, {of}", store, None))
        if threads > 1:
            one = [f"01920000-0000-7000-8000-{3:012}"]
            results.append(await caught_up(f"read one of {of}", store, one))
        await store.close()
    slow = new_store(place / "slow")
    results.append(
        await timed("write, 10 threads, 1,000/s", made(count // 10, 10), slow, pace=1_000)
    )
    results.append(await caught_up("read all of that", slow, None))
    await slow.close()
    small = new_store(place / "small", 16 * 1024 * 1024)
    results.append(await timed("write and trim", made(count, 10), small, pace=100_000))
    await small.close()
    return results


def show(results: list[Result]) -> None:
    table = Table("what", "entries", "seconds", "entries/s", "loop stood")
    for each in results:
        table.add_row(
            each.what,
            f"{each.entries:,}",
            f"{each.seconds:.3f}",
            f"{each.per_second:,.0f}",
            f"{each.stall * 1000:.0f} ms",
        )
    Console().print(table)


@click.command()
@click.option("--entries", "count", default=300_000, show_default=True, help="Written each time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def main(count: int, as_json: bool) -> None:
    """Measure the journal on disk."""
    with tempfile.TemporaryDirectory(prefix="appmux-bench-") as place:
        results = trio.run(measure, Path(place), count)
    if as_json:
        print(
            json.dumps([{**attrs.asdict(each), "perSecond": each.per_second} for each in results])
        )
    else:
        show(results)
    catch_up = next(each for each in results if each.what == "read all, 10 threads")
    if catch_up.per_second < PROMISED:
        print(f"a catch-up is slower than {PROMISED:,} entries/s", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
