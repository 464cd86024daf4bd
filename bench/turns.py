"""A real turn to many subscribers: the app-server's own listener against the broker.

Whoever starts the turn doesn't follow the thread, so there are exactly as many copies as
subscribers. A turn's time is from ``turn/start`` until the last subscriber has seen its end.

Hands to: `report`, the figures. Hears from: `load.count`, ``/proc``.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from bench.figures import Figure, Plan, at_least, at_most
from bench.sides import HERE, SIDES, Driver, cpu_seconds, loading, serving
from mux.demo.scripted_model import Say, Scripted
from tests.end_to_end.native import native_stdio

# As in a model's stream: a delta is a token of a few letters, some 230 bytes with its envelope.
DELTA_TEXT: Final = "word "
MANY: Final = 32

MOST_SLOWDOWN: Final = 1.15
LEAST_GAIN: Final = 10.0
MOST_MICROSECONDS: Final = 2.0


@attrs.frozen
class Turn:
    """One turn. Times in seconds; CPU times of the listener's process and of the app-server's."""

    subscribers: int
    seconds: float
    deliveries: int
    cpu: float
    app_server_cpu: float

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.seconds

    @property
    def cpu_each(self) -> float:
        """Microseconds of CPU for a delivery: natively the app-server's, its own work with it."""
        return self.cpu / self.deliveries * 1e6


async def run_turn(side: str, subscribers: int, deltas: int, tree: Path = HERE) -> Turn:
    """Run one turn. Raises RuntimeError if a subscriber missed a delta."""
    model = Scripted()
    model.on("many", Say(chunks=(DELTA_TEXT,) * deltas))
    async with serving(side, model, tree) as server:
        driver = Driver(server.url)
        thread = await driver.first_turn(server.home / "work")
        async with loading("count", server.url, threads=[thread], subscribers=subscribers) as load:
            await driver.ask("thread/unsubscribe", {"threadId": thread})
            before = cpu_seconds(server.pid), cpu_seconds(server.app_server)
            began = time.monotonic()
            await driver.turn(thread, "many")
            found = await load.result()
            after = cpu_seconds(server.pid), cpu_seconds(server.app_server)
        driver.close()
    if found["deltas"] != deltas:
        raise RuntimeError(f"some subscriber got {found['deltas']:,} of {deltas:,} deltas")
    return Turn(
        subscribers, found["last"] - began, found["deliveries"],
        after[0] - before[0], after[1] - before[1],
    )  # fmt: skip


async def pipe_rate(deltas: int) -> float:
    """Deltas a second that the app-server writes to its own stdout: what no broker can better."""
    model = Scripted()
    model.on("many", Say(chunks=(DELTA_TEXT,) * deltas))
    async with native_stdio(model=model) as running:
        await running.peer.initialize("reader")
        thread = await running.peer.start_thread(running.home.work)
        began = time.monotonic()
        await running.peer.run_turn(thread, "many", timeout=600)
        return deltas / (time.monotonic() - began)


def measure(plan: Plan) -> list[Figure]:
    """The figures of a real turn, natively and through the broker alternately."""
    turns: dict[tuple[str, int], list[Turn]] = {
        (side, number): [] for side in SIDES for number in (1, MANY)
    }
    pipe: list[float] = []
    for _ in range(plan.repeat):
        pipe.append(trio.run(pipe_rate, plan.deltas))
        for (side, number), found in turns.items():
            deltas = plan.native_deltas if side == "native" and number == MANY else plan.deltas
            found.append(trio.run(partial(run_turn, side, number, deltas)))
    rates = {side: [each.rate for each in turns[side, MANY]] for side in SIDES}
    slowdown = {
        side: [
            (many.seconds / many.deliveries * MANY) / (one.seconds / one.deliveries)
            for one, many in zip(turns[side, 1], turns[side, MANY], strict=True)
        ]
        for side in SIDES
    }
    cpu = {side: [each.cpu_each for each in turns[side, MANY]] for side in SIDES}
    return [
        at_least(f"deliveries/s, a real turn to {MANY}", "/s", rates,
                 over="native", least=LEAST_GAIN),
        Figure("deltas/s that the app-server writes to a pipe: the cap", "/s", {"native": pipe}),
        at_most(f"turn time with {MANY} subscribers / with 1", "", slowdown, MOST_SLOWDOWN),
        at_most(f"CPU of the listener for a delivery at {MANY}", "µs", cpu, MOST_MICROSECONDS),
    ]  # fmt: skip
