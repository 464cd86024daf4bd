"""How cost grows: with subscribers, threads, the size of messages, and of the journal.

Each run is a fresh broker over `source`. Rates are of a stream as fast as it can, latencies of one
so slow (`PACE`) that nothing queues. Every point is measured in each of several rounds over all of
them, and its values are the rounds' medians.

*Subscribers* follow one thread. *Threads* all run at once, and one client follows all. *Messages*
go to eight for the rate, and to one for the latency. A *journal* of N MiB is written beforehand,
and the broker's limit for its journal is N: so it trims as much as it writes, and keeps that size.

Hands to: `picture` and the JSON. Hears from: `replays`, `delays`, `catchups`.
"""

from __future__ import annotations

import itertools
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from bench.catchups import LITTLE_MEMORY, catch_up
from bench.delays import brokered, direct
from bench.replays import Replay, bare, replay
from bench.sides import MIB, median, sourced
from mux.core.protocol.journal_entry import Entry
from mux.storage.journal import Store

SUBSCRIBERS: Final = (1, 4, 16, 64, 256, 1024)
THREADS: Final = (1, 10, 100, 1000)
SIZES: Final = (0.2, 1.0, 4.0, 16.0, 64.0)
JOURNALS: Final = (1, 8, 64, 512)

ROUNDS: Final = 3

# About a second of each, at the rates that were seen.
MOST_DELIVERIES: Final = 10_000_000
MOST_BYTES: Final = 1024 * MIB
MOST_MESSAGES: Final = 120_000
OF_SIZE_TO: Final = 8

PACE: Final = 200.0
"""Messages a second for latencies: at 64 KB, 13 MB/s, a hundredth of what goes through."""
MOST_STAMPS: Final = 20_000.0
"""A second: each copy's moment is looked at in Python, so to many there are fewer messages."""
SECONDS: Final = 2.0

MISSED: Final = 20_000
FEWEST_TO_CATCH_UP: Final = 8
"""MiB of journal: into one, 20,000 entries don't go."""
AT_ONCE: Final = 20_000
TEXT_BYTES: Final = 170
DELTA: Final = "item/agentMessage/delta"

LATENCIES: Final = {
    "p50": "p50",
    "p99": "p99",
    "broker's loop, µs a message": "loop",
    "clients, µs a message": "clients",
}
"""The last two: of all copies of one, which come one after the other and so make up its p99."""

BUSY: Final = 0.85
"""Of a core: who is busy for as much of the time is what the rate is limited by."""


@attrs.frozen
class Point:
    """One point of a curve. ``values``: medians of ``rounds``; rates a second, latencies in µs.

    ``busy``: what share of a core each was busy for while the rate was measured; ``limited_by``:
    those of them that were so nearly all the time, if any.
    """

    x: float
    values: dict[str, float]
    rounds: dict[str, list[float]]
    busy: dict[str, float]
    limited_by: list[str]


@attrs.define
class _Found:
    """What the rounds so far have of one point."""

    rounds: dict[str, list[float]] = attrs.field(factory=dict)
    busy: dict[str, list[float]] = attrs.field(factory=dict)

    def rate(self, run: Replay) -> None:
        self.add("deliveries/s", run.deliveries)
        for name, share in run.shares.items():
            self.busy.setdefault(name, []).append(share)

    def latency(self, found: dict[str, float]) -> None:
        for name, key in LATENCIES.items():
            self.add(name, found[key] * 1e6)

    def add(self, name: str, value: float) -> None:
        self.rounds.setdefault(name, []).append(value)

    def point(self, x: float) -> Point:
        values = {name: median(each) for name, each in self.rounds.items()}
        busy = {name: round(median(each), 2) for name, each in self.busy.items()}
        return Point(x, values, self.rounds, busy, [who for who in busy if busy[who] >= BUSY])


def measure(progress: Callable[[str], None], *, quick: bool = False) -> dict[str, list[Point]]:
    """All four curves. ``quick``: one round of the ends."""
    with ExitStack() as stack:
        journals = JOURNALS[:1] if quick else JOURNALS
        filled = {size: stack.enter_context(_filled(size)) for size in journals}
        curves: dict[str, tuple[tuple[float, ...], Callable[[_Found, Any], None]]] = {
            "subscribers": (SUBSCRIBERS, of_subscribers),
            "threads": (THREADS, of_threads),
            "KB a message": (SIZES, of_size),
            "MiB of journal": (journals, partial(of_journal, filled)),
        }
        found: dict[str, dict[float, _Found]] = {
            name: {x: _Found() for x in ((xs[0], xs[-1]) if quick else xs)}
            for name, (xs, _) in curves.items()
        }
        for number in range(1 if quick else ROUNDS):
            for name, points in found.items():
                began = time.monotonic()
                for x, each in points.items():
                    curves[name][1](each, x)
                seconds = time.monotonic() - began
                progress(f"growth, round {number + 1}, {name}: {seconds:.0f} s")
    return {name: [each.point(x) for x, each in points.items()] for name, points in found.items()}


def of_subscribers(found: _Found, number: int) -> None:
    """To one thread."""
    messages = min(MOST_MESSAGES, MOST_DELIVERIES // number)
    found.rate(trio.run(replay, number, messages))
    found.add("bare loop", trio.run(bare, number, messages).deliveries)
    pace = min(PACE, MOST_STAMPS / number)
    found.latency(trio.run(partial(brokered, SECONDS, subscribers=number, pace=pace)))


def of_threads(found: _Found, number: int) -> None:
    """One subscriber to so many threads, which all run."""
    found.rate(trio.run(partial(replay, 1, MOST_MESSAGES, of_threads=number)))
    found.latency(trio.run(partial(brokered, SECONDS, of_threads=number, pace=PACE)))


def of_size(found: _Found, kilobytes: float) -> None:
    """Messages of so many KB."""
    size = int(kilobytes * 1000)
    messages = min(MOST_MESSAGES, MOST_BYTES // OF_SIZE_TO // size)
    found.rate(trio.run(partial(replay, OF_SIZE_TO, messages, size=size)))
    limit = trio.run(partial(bare, OF_SIZE_TO, messages, size=size))
    found.add("bare loop", limit.deliveries)
    found.latency(trio.run(partial(brokered, SECONDS, pace=PACE, size=size)))
    alone = trio.run(partial(direct, SECONDS, PACE, size))
    for share in ("p50", "p99"):
        found.add(f"pipe alone, {share}", alone[share] * 1e6)


def of_journal(filled: dict[int, Path], found: _Found, mebibytes: int) -> None:
    """With a journal of that size, which is its limit, on disk already."""
    state = filled[mebibytes]
    environ = {
        "APPMUX_STATE_DIR": str(state),
        "APPMUX_LIMITS_JOURNAL_BYTES": str(mebibytes * MIB),
    }
    found.add("start ms", trio.run(_start, environ))
    found.rate(trio.run(partial(replay, 1, MOST_MESSAGES, environ=environ)))
    found.latency(trio.run(partial(brokered, SECONDS, pace=PACE, environ=environ)))
    if mebibytes >= FEWEST_TO_CATCH_UP:
        run = trio.run(catch_up, MISSED, environ | LITTLE_MEMORY)
        found.add("catch-up entries/s", run.rate)
    found.add("MiB on disk", sum(each.stat().st_size for each in state.glob("journal*")) / MIB)


async def _start(environ: dict[str, str]) -> float:
    """Milliseconds until it listens."""
    began = time.monotonic()
    async with sourced(environ=environ):
        return (time.monotonic() - began) * 1000


@contextmanager
def _filled(mebibytes: int) -> Iterator[Path]:
    """A state directory whose journal has about that size."""
    place = Path(tempfile.mkdtemp(prefix="appmux-bench-"))
    try:
        place.chmod(0o700)
        trio.run(_fill, place, mebibytes * MIB)
        yield place
    finally:
        shutil.rmtree(place)


async def _fill(place: Path, size: int) -> None:
    store = Store.open(place, max_bytes=2 * size, max_age=7 * 86_400.0)
    text = secrets.token_hex(TEXT_BYTES // 2).encode()
    numbers = itertools.count(store.next_seq)
    while int(str(store.status()["bytes"])) < size:
        for seq in itertools.islice(numbers, min(AT_ONCE, size // 1000)):
            message = b'{"method":"%b","params":{"delta":"%b%d"}}' % (DELTA.encode(), text, seq)
            store.append(Entry(seq, f"old-{seq % 10}", DELTA, message))
        await store.flush()
    await store.close()
