"""How long a message is on its way: added by the broker, and for others when one client stalls.

`source` writes the moment into each message; who receives it looks at the same clock. The broker's
own share is what it adds to the same stream read from the pipe directly.

Hands to: `report`, the figures; `growth`. Hears from: `load.latency`, `source`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from bench import load, source
from bench.figures import Figure, Plan, alternately, at_most
from bench.sides import (
    HERE,
    MIB,
    Driver,
    cpu_seconds,
    loading,
    memory_bytes,
    peak_bytes,
    sourced,
    threads,
)

PACE: Final = 1000.0
MOST_P50: Final = 150.0
MOST_P99: Final = 1000.0

STALL_PACE: Final = 10_000.0
"""Messages a second while one stalls: about what the real app-server writes at most."""
MOST_GROWTH: Final = 8.0
MOST_EFFECT: Final = 1.25
"""Of the others' p99: two runs of the same differ by as much."""
READERS: Final = 2


async def brokered(
    seconds: float,
    *,
    subscribers: int = 1,
    pace: float = PACE,
    of_threads: int = 1,
    size: int | None = None,
    tree: Path = HERE,
    environ: dict[str, str] | None = None,
) -> dict[str, float]:
    """Latencies through the broker, in seconds (see `load.SHARES`).

    And in seconds of CPU a message, what its copies cost the broker's ``loop`` and the ``clients``.
    """
    async with sourced(tree, environ) as server:
        driver = Driver(server.url)
        followed = threads(of_threads)
        keywords = {"threads": followed, "subscribers": subscribers}
        async with loading("latency", server.url, **keywords) as clients:
            messages = int(seconds * pace)
            loop = f"{server.pid}/task/{server.pid}"
            before = cpu_seconds(loop)
            await driver.replay(source.wanted(messages, pace=pace, threads=of_threads, size=size))
            await clients.line()
            found = await clients.result()
            used = cpu_seconds(loop) - before
        driver.close()
    if found["stamps"] != messages:
        raise RuntimeError(f"got {found['stamps']:,} of {messages:,} messages")
    return {**found, "loop": used / messages, "clients": found["cpu"] / messages}


async def direct(seconds: float, pace: float = PACE, size: int | None = None) -> dict[str, float]:
    """Latencies of the same stream, read from the source's pipe."""
    return await trio.to_thread.run_sync(_read_pipe, int(seconds * pace), pace, size)


def _read_pipe(messages: int, pace: float, size: int | None) -> dict[str, float]:
    process = subprocess.Popen(
        [sys.executable, source.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = {"input": [{"text": source.wanted(messages, pace=pace, size=size)}]}
        turn = {"id": 1, "method": "turn/start", "params": said}
        process.stdin.write(json.dumps(turn).encode() + b"\n")
        process.stdin.close()
        taken: list[float] = []
        buffer, text = bytearray(load.RECEIVE_BYTES), b""
        view = memoryview(buffer)
        while size := os.readv(process.stdout.fileno(), [buffer]):
            now = time.monotonic_ns()
            text += view[:size]
            whole = text.rfind(b"\n") + 1
            taken += [(now - int(stamp)) / 1e9 for stamp in load.STAMP.findall(text[:whole])]
            text = text[whole:]
    if len(taken) != messages:
        raise RuntimeError(f"got {len(taken):,} of {messages:,} messages")
    return load.percentiles(taken)


async def _side(seconds: float, side: str) -> dict[str, float]:
    return await (brokered(seconds) if side == "broker" else direct(seconds))


def measure(plan: Plan) -> list[Figure]:
    """What the broker adds to a message's way at 1,000 a second."""
    found = alternately(("broker", "direct"), plan.repeat, partial(_side, plan.paced_seconds))
    figures = []
    for share, most in (("p50", MOST_P50), ("p99", MOST_P99)):
        both = {side: [each[share] * 1e6 for each in found[side]] for side in found}
        added = [a - b for a, b in zip(both["broker"], both["direct"], strict=True)]
        name = f"added latency of a message, {share}, at {PACE:,.0f}/s"
        figures.append(at_most(name, "µs", {"broker": added, "direct": both["direct"]}, most))
    return figures


# --- One that stalls -----------------------------------------------------------------------------


async def stalling(messages: int, side: str) -> dict[str, Any]:
    """Two readers, and with ``side`` "one stalls" a third that reads nothing meanwhile."""
    stalled = 1 if side == "one stalls" else 0
    async with sourced() as server:
        driver = Driver(server.url)
        keywords = {"threads": threads(1), "subscribers": READERS, "stalled": stalled}
        async with loading("latency", server.url, **keywords) as clients:
            before = memory_bytes(server.pid)
            await driver.replay(source.wanted(messages, pace=STALL_PACE))
            await clients.line()
            grown = peak_bytes(server.pid) - before
            if stalled:
                await clients.say()
            found = await clients.result()
        driver.close()
    if stalled and found["caught_up"] != [messages]:
        raise RuntimeError(f"the stalled one got {found['caught_up']} of {messages:,} messages")
    return {**found, "grown": grown / MIB}


def measure_stall(plan: Plan) -> list[Figure]:
    """What a subscriber that reads nothing for 100,000 messages costs the broker and the others."""
    sides = ("nobody stalls", "one stalls")
    # A p99 of one run is luck: memory and medians want more of them.
    found = alternately(sides, max(plan.repeat, 2), partial(stalling, plan.stalled_messages))
    grown = {side: [each["grown"] for each in found[side]] for side in sides}
    own = [a - b for a, b in zip(grown["one stalls"], grown["nobody stalls"], strict=True)]
    p99 = {side: [each["p99"] * 1e6 for each in found[side]] for side in sides}
    effect = [a / b for a, b in zip(p99["one stalls"], p99["nobody stalls"], strict=True)]
    name = f"a subscriber stalls for {plan.stalled_messages:,} messages: "
    return [
        at_most(f"{name}memory", "MiB", {"broker": own, **grown}, MOST_GROWTH),
        at_most(f"{name}others' p99, with / without", "", {"broker": effect}, MOST_EFFECT),
        Figure(f"{name}others' p99", "µs", p99),
    ]
