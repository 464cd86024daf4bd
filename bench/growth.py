"""How cost grows: with subscribers, threads, the size of messages, and of the journal.

Each point is a fresh broker over `source`. Rates are messages and deliveries a second as fast as
it can; latencies are of a stream far below that.

Hands to: `picture` and the JSON. Hears from: `replays`, `delays`, `catchups`.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from bench.catchups import LITTLE_MEMORY, catch_up
from bench.delays import brokered
from bench.replays import replay
from bench.sides import MIB, sourced
from mux.core.journal import Entry
from mux.store import Store

SUBSCRIBERS: Final = (1, 16, 128, 1024)
THREADS: Final = (1, 30, 1000)
SIZES: Final = (0.2, 2.0, 16.0, 64.0)
JOURNALS: Final = (1, 64, 512)

MOST_DELIVERIES: Final = 2_000_000
MOST_BYTES: Final = 256 * MIB
MOST_MESSAGES: Final = 40_000
PACE: Final = 200.0
SECONDS: Final = 1.0
MISSED: Final = 20_000
ENTRY_BYTES: Final = 230
AT_ONCE: Final = 20_000
DELTA: Final = "item/agentMessage/delta"


@attrs.frozen
class Point:
    """One point of a curve. Rates a second, latencies in µs."""

    x: float
    values: dict[str, float]


def measure(progress: Callable[[str], None], *, quick: bool = False) -> dict[str, list[Point]]:
    """All four curves."""
    curves: dict[str, tuple[tuple[float, ...], Callable[[Any], dict[str, float]]]] = {
        "subscribers": (SUBSCRIBERS, of_subscribers),
        "threads": (THREADS, of_threads),
        "KB a message": (SIZES, of_size),
        "MiB of journal": (JOURNALS, of_journal),
    }
    found: dict[str, list[Point]] = {}
    for name, (xs, measured) in curves.items():
        found[name] = []
        for x in xs[::3] if quick else xs:
            found[name].append(Point(x, measured(x)))
            progress(f"{name}: {x:g}")
    return found


def of_subscribers(number: int) -> dict[str, float]:
    """To one thread."""
    messages = min(MOST_MESSAGES, MOST_DELIVERIES // number)
    run = trio.run(replay, number, messages)
    # Every subscriber's clock is looked at, so far fewer messages a second keep the load cheap.
    pace = min(PACE, 20_000 / number)
    return {"deliveries/s": run.deliveries, **_latency(subscribers=number, pace=pace)}


def of_threads(number: int) -> dict[str, float]:
    """One subscriber to so many threads, which all run."""
    run = trio.run(partial(replay, 1, MOST_MESSAGES, of_threads=number))
    return {"deliveries/s": run.deliveries, **_latency(of_threads=number)}


def of_size(kilobytes: float) -> dict[str, float]:
    """Messages of so many KB to eight subscribers."""
    size = int(kilobytes * 1000)
    messages = min(MOST_MESSAGES, MOST_BYTES // 8 // size)
    run = trio.run(partial(replay, 8, messages, size=size))
    megabytes = run.deliveries * size / 1e6
    return {"deliveries/s": run.deliveries, "MB/s": megabytes}


def of_journal(mebibytes: int) -> dict[str, float]:
    """With a journal of that size on disk already."""
    with _filled(mebibytes) as state:
        environ = {"APPMUX_STATE_DIR": str(state)}
        began = time.monotonic()
        trio.run(_start, environ)
        started = time.monotonic() - began
        run = trio.run(partial(replay, 1, MOST_MESSAGES, environ=environ))
        rate = trio.run(catch_up, MISSED, environ | LITTLE_MEMORY)
    return {"deliveries/s": run.deliveries, "catch-up entries/s": rate, "start ms": started * 1000}


def _latency(**keywords: Any) -> dict[str, float]:
    pace = keywords.setdefault("pace", PACE)
    found = trio.run(partial(brokered, SECONDS, **keywords))
    del pace
    return {"p50": found["p50"] * 1e6, "p99": found["p99"] * 1e6}


async def _start(environ: dict[str, str]) -> None:
    async with sourced(environ=environ):
        pass


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
    store = Store.open(place, max_bytes=1024 * MIB, max_age=7 * 86_400.0)
    text = b"x" * (ENTRY_BYTES - 60)
    numbers = itertools.count(store.next_seq)
    while int(str(store.facts()["bytes"])) < size:
        for seq in itertools.islice(numbers, AT_ONCE):
            message = b'{"method":"%b","params":{"delta":"%b%d"}}' % (DELTA.encode(), text, seq)
            store.append(Entry(seq, f"old-{seq % 10}", DELTA, message))
        await store.flush()
    await store.close()
