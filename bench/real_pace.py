"""A turn at the pace at which a model speaks: what all processes take of the processors.

A hundredth of what `turns` has a second: nothing queues, so each delta is a message of its own on
every way, and each process is woken for it. At 60 a second it is a person's turn, at 1,000 an
agents' swarm. The clients follow a real app-server with a scripted model; what is counted is the
listener, on the broker's side with its supervisor and its app-server.

At 60 a second a terminal and a device are measured, too, with the device's deltas coalesced and one
by one.

Hands to: `report`, the figures. Hears from: ``/proc``, `load.count`, `wire_clients`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.figures import Figure, Plan, alternately, at_most_times
from bench.sides import HERE, SIDES, Driver, Server, loading, serving
from bench.turns import DELTA_TEXT
from bench.wire import following
from mux.demo.scripted_model import Say, Scripted

PACES: Final = (60, 1000)
CLIENTS: Final = (1, 8, 32)
SECONDS: Final = {60: 0.5, 1000: 0.25}
"""Of one turn, for each second that the plan has for what is paced."""

MOST: Final = {1: 2.0, 8: 1.5, 32: 1.0}
"""Times native's CPU. A single follower pays for a second process, many save it."""


DEVICE: Final = {"broker": "coalesced", "one by one": "plain"}
"""A device of `wire_clients`, with what it has by default, and as before there was that."""
MOST_WITH_ONE: Final = 1.0

Paced = dict[tuple[int, int], float]
"""Microseconds of CPU for a delta, of all processes that it goes through, by pace and clients."""


def processes(server: Server) -> list[int]:
    """The listener and what runs around it, but for this process."""
    found = [server.pid]
    if server.app_server is not None:
        found += [server.app_server, _parent(server.pid)]
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def nanoseconds(pid: int) -> int:
    """What a process's threads had of the processors, exactly; `cpu_seconds` knows ticks of 10 ms.

    A thread that has ended is not in it any more: none of those that pass deltas does.
    """
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


async def paced(seconds: float, side: str, tree: Path = HERE) -> Paced:
    """Turns at each pace, to each number of clients, of one server."""
    model = Scripted()
    deltas = {pace: int(seconds * SECONDS[pace] * pace) for pace in PACES}
    for pace, number in deltas.items():
        model.on(f"{pace} a second", Say(chunks=(DELTA_TEXT,) * number, pace=1 / pace))
    found: Paced = {}
    async with serving(side, model, tree) as server:
        driver = Driver(server.url)
        thread = await driver.first_turn(server.home / "work")
        for clients in CLIENTS:
            for pace in PACES:
                keywords: dict[str, Any] = {"threads": [thread], "subscribers": clients}
                async with loading("count", server.url, **keywords) as load:
                    await driver.ask("thread/unsubscribe", {"threadId": thread})
                    before = sum(map(nanoseconds, processes(server)))
                    await driver.turn(thread, f"{pace} a second")
                    got = await load.result()
                    used = sum(map(nanoseconds, processes(server))) - before
                    if got["deltas"] != deltas[pace]:
                        raise RuntimeError(f"got {got['deltas']:,} of {deltas[pace]:,} deltas")
                    found[pace, clients] = used / deltas[pace] / 1000
        driver.close()
    return found


async def with_a_device(seconds: float, side: str) -> float:
    """Microseconds of CPU for a delta to a terminal and to a device."""
    model = Scripted()
    deltas = int(seconds * SECONDS[60] * 60)
    model.on("60 a second", Say(chunks=(DELTA_TEXT,) * deltas, pace=1 / 60))
    async with serving("broker", model) as server:
        driver = Driver(server.url)
        thread = await driver.first_turn(server.home / "work")
        async with following(server.url, thread, ["native", DEVICE[side]]) as clients:
            await driver.ask("thread/unsubscribe", {"threadId": thread})
            before = sum(map(nanoseconds, processes(server)))
            await driver.turn(thread, "60 a second")
            await clients.result()
            used = sum(map(nanoseconds, processes(server))) - before
        driver.close()
    return used / deltas / 1000


def measure(plan: Plan) -> list[Figure]:
    """CPU of everything, for a delta."""
    # A turn is paced: what a run costs is its seconds, so there are few of them.
    runs = alternately(SIDES, max(1, plan.repeat - 1), partial(paced, plan.paced_seconds))
    figures = []
    for pace in PACES:
        for clients in CLIENTS:
            values = {side: [each[pace, clients] for each in runs[side]] for side in SIDES}
            name = f"CPU of all processes for a delta, {pace:,}/s to {clients}"
            figures.append(at_most_times(name, "µs", values, "native", MOST[clients]))
    both = alternately(tuple(DEVICE), plan.repeat, partial(with_a_device, plan.paced_seconds))
    name = "CPU of all processes for a delta, 60/s to a terminal and a device"
    return [*figures, at_most_times(name, "µs", both, "one by one", MOST_WITH_ONE)]
