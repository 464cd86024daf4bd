"""A catch-up: a client was away for a whole turn, and asks for what it missed (``mux/replay``).

From memory and from disk, each delta and merged ones; held against the rate at which one
subscriber is given the same messages live.

Hands to: `report`, the figures; `growth`. Hears from: `load`.
"""

from __future__ import annotations

import json
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from bench import load, source
from bench.figures import Figure, Plan, at_least
from bench.replays import replay
from bench.sides import HERE, MIB, TOKEN, Driver, cpu_seconds, loading, sourced, threads

# All but the last moments of a turn are then on disk alone.
LITTLE_MEMORY: Final = {"APPMUX_LIMITS_JOURNAL_MEMORY_BYTES": str(MIB)}
# What is measured is reading what was written long ago: longer than the store gathers entries for.
WRITTEN: Final = 1.0
PATIENCE: Final = 120.0
LEAST_RATE: Final = 1.0
KNOWS_THE_BROKER: Final = {"appmux": {"version": 1}}


@attrs.frozen
class CaughtUp:
    """``rate``: entries a second; ``cpu``: µs of the broker's process for one."""

    rate: float
    cpu: float


async def catch_up(
    entries: int,
    environ: dict[str, str],
    *,
    merged: bool = False,
    times: int = 1,
    tree: Path = HERE,
) -> CaughtUp:
    """Of a client that missed so many, and asks for them so many times."""
    async with sourced(tree, environ) as server:
        driver = Driver(server.url)
        async with loading("count", server.url, threads=threads(1), subscribers=1) as others:
            start = await trio.to_thread.run_sync(_cursor, server.url)
            await driver.replay(source.wanted(entries))
            await others.result()
        await trio.sleep(WRITTEN)
        before = cpu_seconds(server.pid)
        asked = partial(_catch_up, server.url, start, entries, merged=merged)
        seconds = [await trio.to_thread.run_sync(asked) for _ in range(times)]
        cpu = cpu_seconds(server.pid) - before
        driver.close()
        return CaughtUp(entries * times / sum(seconds), cpu / entries / times * 1e6)


def _cursor(url: str) -> dict[str, Any]:
    """Where the broker's journal stands."""
    with load.connect(url, TOKEN) as connection:
        answer = load.introduce(connection, extensions=KNOWS_THE_BROKER).decode(errors="replace")
    told = answer[answer.index('"appmux":') + len('"appmux":') :]
    hello: dict[str, Any] = json.JSONDecoder().raw_decode(told)[0]
    return {name: hello[name] for name in ("epoch", "seq")}


def _catch_up(url: str, start: dict[str, Any], entries: int, *, merged: bool) -> float:
    connection = load.attach(url, TOKEN, extensions=KNOWS_THE_BROKER)
    with connection:
        connection.settimeout(PATIENCE)
        params = {"after": start, "threadId": source.thread_id(0), "merged": merged}
        began = time.monotonic()
        load.send(connection, 2, "mux/replay", params)
        deltas = _deltas_until_completed(connection)
        seconds = time.monotonic() - began
    if not merged and deltas != entries:
        raise RuntimeError(f"got {deltas:,} of {entries:,} entries")
    return seconds


def _deltas_until_completed(connection: socket.socket) -> int:
    deltas, text = 0, b""
    buffer = bytearray(load.RECEIVE_BYTES)
    view = memoryview(buffer)
    while load.COMPLETED not in text:
        size = connection.recv_into(buffer)
        if not size:
            raise EOFError(f"cut after {deltas:,} deltas")
        text = text[-load.TAIL :] + view[:size]
        deltas += text.count(load.DELTA)
    return deltas


def measure(plan: Plan) -> list[Figure]:
    """Catch-ups from memory and from disk, and the live rate."""
    kinds: dict[str, tuple[dict[str, str], bool]] = {
        "from memory": ({}, False),
        "from memory, merged": ({}, True),
        "from disk": (LITTLE_MEMORY, False),
        "from disk, merged": (LITTLE_MEMORY, True),
    }
    live: list[float] = []
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(plan.repeat):
        live.append(trio.run(replay, 1, plan.catch_up).rate)
        for kind, (environ, merged) in kinds.items():
            measured = partial(catch_up, plan.catch_up, environ, merged=merged)
            found[kind].append(trio.run(measured).rate)
    return [
        at_least(f"entries/s, catch-up of {plan.catch_up:,} {kind}", "/s",
                 {"broker": found[kind], "live": live}, over="live", least=LEAST_RATE)
        for kind in kinds
    ]  # fmt: skip
