"""Attaching: clients a second, what an idle one costs in memory, and how soon the broker listens.

Hands to: `report`, the figures. Hears from: `load.idle`, ``/proc``.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from bench.figures import Figure, Plan, alternately, at_least, at_most
from bench.sides import (
    HERE,
    SIDES,
    cpu_seconds,
    loading,
    memory_bytes,
    native,
    serving,
    sourced,
)

LEAST_RATE: Final = 1.0
MOST_KB: Final = 60.0
MOST_START: Final = 300.0

PROCESSES: Final = 2
"""Of clients that attach one after the other: a single one would be waited for, not measured."""

WARM_UP: Final = 50


@attrs.frozen
class Attached:
    """One run. ``memory``: KB of the listener's process a client; ``cpu``: its µs a client."""

    rate: float
    memory: float
    cpu: float


async def attach(clients: int, side: str, *, tree: Path = HERE) -> Attached:
    """So many clients come and stay: connect, authenticate, initialize."""
    async with serving(side, tree=tree) as server, loading("idle", server.url, clients=WARM_UP):
        before = memory_bytes(server.pid), cpu_seconds(server.pid)
        crowd = _Crowd(server.url, clients // PROCESSES)
        async with trio.open_nursery() as nursery:
            for _ in range(PROCESSES):
                nursery.start_soon(crowd.come)
            await crowd.all_there.wait()
            grown = memory_bytes(server.pid) - before[0]
            cpu = cpu_seconds(server.pid) - before[1]
            crowd.may_go.set()
        came = clients // PROCESSES * PROCESSES
        return Attached(came / max(crowd.seconds), grown / came / 1000, cpu / came * 1e6)


@attrs.define
class _Crowd:
    """Processes of clients that come at once and stay until all are there."""

    url: str
    each: int
    there: int = 0
    seconds: list[float] = attrs.field(factory=list)
    all_there: trio.Event = attrs.field(factory=trio.Event)
    may_go: trio.Event = attrs.field(factory=trio.Event)

    async def come(self) -> None:
        async with loading("idle", self.url, clients=self.each) as load:
            self.there += 1
            if self.there == PROCESSES:
                self.all_there.set()
            await self.may_go.wait()
            await load.say()
            self.seconds.append((await load.result())["seconds"])


@attrs.frozen
class Start:
    """From the process's start until it says where it listens. In milliseconds."""

    waited: float
    cpu: float


async def start(side: str, tree: Path = HERE) -> Start:
    """One start. The broker's app-server is `source`, which it doesn't wait for.

    A tree's first start compiles its modules, which an installed broker never does; so it isn't
    the one to measure.
    """
    began = time.monotonic()
    async with native() if side == "native" else sourced(tree) as server:
        waited = time.monotonic() - began
        return Start(waited * 1000, cpu_seconds(server.pid) * 1000)


def measure(plan: Plan) -> list[Figure]:
    """Attach, memory, start."""
    runs = alternately(SIDES, plan.repeat, partial(attach, plan.idle))
    rates = {side: [each.rate for each in runs[side]] for side in SIDES}
    memory = {side: [each.memory for each in runs[side]] for side in SIDES}
    alternately(SIDES, 1, start)  # leaves the bytecode there
    starts = alternately(SIDES, 2 * plan.repeat + 3, start)
    waited = {side: [each.waited for each in starts[side]] for side in SIDES}
    cpu = {side: [each.cpu for each in starts[side]] for side in SIDES}
    attaching = {side: [each.cpu for each in runs[side]] for side in SIDES}
    return [
        at_least("clients attached/s: connect, auth, initialize", "/s", rates,
                 over="native", least=LEAST_RATE),
        at_most(f"memory of an idle client, {plan.idle:,} attached", "KB", memory, MOST_KB),
        Figure("CPU of the listener for a client that attaches", "µs", attaching),
        at_most("start until listening", "ms", waited, MOST_START),
        Figure("CPU of that start", "ms", cpu),
    ]  # fmt: skip
