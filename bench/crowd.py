"""Two hundred turns at once, each of a client and a thread of its own: what everything takes of the
processors, and what a neighbour notices who asks for little meanwhile.

Each turn's words come at a pace, so all run from the first to the last. What is counted is the
listener, on the broker's side with its supervisor and its app-server. The scripted model is this
process, which isn't counted.

Hands to: `report`, the figures. Hears from: ``/proc``, `load.crowd`, `load.paced`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import attrs

from bench.asking import CHEAP
from bench.figures import Figure, Plan, alternately, at_most_times
from bench.real_pace import nanoseconds, processes
from bench.sides import HERE, SIDES, loading, serving
from bench.turns import DELTA_TEXT
from mux.demo.scripted_model import Say, Scripted

TURNS: Final = 200

PACE: Final = 5.0
"""Deltas a second of each turn, so a thousand in all: two cores serve them together with the model
and the clients. It is the beginning of so many turns that fills the cores for some seconds."""

PAUSE: Final = 0.01
"""Seconds between two of the neighbour's requests, as in a program that a person uses."""

MOST_CPU: Final = 1.05
MOST_P99: Final = 2.0
"""Times native's."""


@attrs.frozen
class Crowd:
    """One run. ``cpu``: milliseconds of all processes for a turn; ``p99``: the neighbour's, µs."""

    cpu: float
    p99: float


async def crowd(seconds: float, side: str, tree: Path = HERE) -> Crowd:
    """All turns once. Raises RuntimeError if a client didn't get all deltas of its turn."""
    model = Scripted()
    deltas = max(1, int(seconds * PACE))
    model.on("one of many", Say(chunks=(DELTA_TEXT,) * deltas, pace=1 / PACE))
    asks = {"seconds": None, "pause": PAUSE, **CHEAP}
    async with serving(side, model, tree) as server:
        work = str(server.home / "work")
        async with (
            loading("crowd", server.url, clients=TURNS, work=work, text="one of many") as clients,
            loading("paced", server.url, **asks) as neighbour,
        ):
            before = sum(map(nanoseconds, processes(server)))
            await neighbour.say()
            await clients.say()
            found = await clients.result()
            used = sum(map(nanoseconds, processes(server))) - before
            await neighbour.say()
            p99 = float((await neighbour.result())["p99"])
    if found["deltas"] != [deltas] * TURNS:
        raise RuntimeError(f"not every client got {deltas:,} deltas: {sorted(found['deltas'])}")
    return Crowd(used / TURNS / 1e6, p99 * 1e6)


def measure(plan: Plan) -> list[Figure]:
    """CPU of a turn, and the neighbour's 99th percentile, natively and brokered alternately."""
    # What a run costs is the app-server's work for so many turns, so there are few of them.
    runs = alternately(SIDES, max(1, plan.repeat - 1), partial(crowd, plan.paced_seconds / 2))
    cpu = {side: [each.cpu for each in runs[side]] for side in SIDES}
    p99 = {side: [each.p99 for each in runs[side]] for side in SIDES}
    return [
        at_most_times(
            f"CPU of all processes for a turn, {TURNS} at once", "ms", cpu, "native", MOST_CPU
        ),
        at_most_times(f"a client's p99 beside {TURNS} turns", "µs", p99, "native", MOST_P99),
    ]
