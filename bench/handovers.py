"""What a handover takes, and what being ready for one costs.

The broker is killed under so many clients, which all come back at once: how soon is the first one
answered, and when is the last one there? Its app-server is the real one, and runs on.

*Ready for one* is a broker whose state is saved before anything goes out that follows from it. What
that costs is the CPU of the thread that all messages go through, for short turns, beside a broker
without a supervisor, which saves nothing.

Hands to: `report`, the figures. Hears from: ``/proc``, `load`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from bench import load
from bench.figures import Figure, Plan, alternately, at_most, at_most_times
from bench.sides import HERE, TOKEN, Driver, Server, broker
from mux.demo.scripted_model import Say, Scripted

CLIENTS: Final = (1, 100, 1000)

AT_ONCE: Final = 16
"""Clients that are on their way at the same time: the machine's processors are the limit, not they.
"""

HELD_TO: Final = 100
MOST: Final = 2000.0
"""Milliseconds to the last of so many clients."""

VARIANTS: Final = {"broker": "mux", "without a supervisor": "bench.unsaved"}
TURNS: Final = 60
MOST_RATIO: Final = 1.05


@attrs.frozen
class Back:
    """Milliseconds from the broker's end: to the first answer of its successor, to the last one."""

    first: float
    last: float


async def come_back(clients: int, tree: Path = HERE) -> Back:
    """Kill a broker with so many clients."""
    async with broker(tree=tree) as server:
        return await trio.to_thread.run_sync(_killed, server, clients)


def _killed(server: Server, clients: int) -> Back:
    with ThreadPoolExecutor(AT_ONCE) as pool, contextlib.ExitStack() as stack:
        for connection in pool.map(lambda _: load.attach(server.url, TOKEN), range(clients)):
            stack.enter_context(connection)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGKILL)
        moments = []
        for connection, moment in pool.map(lambda _: _again(server.url), range(clients)):
            stack.enter_context(connection)
            moments.append((moment - began) * 1000)
    return Back(min(moments), max(moments))


def _again(url: str) -> tuple[socket.socket, float]:
    connection = load.attach(url, TOKEN)
    load.ask(connection, 2, "thread/loaded/list", {})
    return connection, time.monotonic()


async def turns(number: int, side: str, tree: Path = HERE) -> float:
    """Milliseconds of the event loop's CPU for a short turn, with one client."""
    model = Scripted()
    model.on("short", Say("A few words that take a moment to be said. " * 4, chunks=30))
    async with broker(model, tree=tree, module=VARIANTS[side]) as server:
        driver = Driver(server.url)
        thread = await driver.first_turn(server.home / "work")
        await driver.whole_turn(thread, "short")
        before = _loop(server.pid)
        for _ in range(number):
            await driver.whole_turn(thread, "short")
        used = _loop(server.pid) - before
        driver.close()
    return used / number / 1e6


def _loop(pid: int) -> int:
    """Nanoseconds of the processors that the process's first thread had."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])


def measure(plan: Plan) -> list[Figure]:
    """The ways back, then the turns."""
    figures = []
    for clients in CLIENTS:
        runs = [trio.run(come_back, clients) for _ in range(plan.repeat)]
        who = "the client" if clients == 1 else f"{clients:,} clients"
        first = {"broker": [each.first for each in runs]}
        last = {"broker": [each.last for each in runs]}
        figures.append(Figure(f"broker killed under {who}: first request answered", "ms", first))
        name = f"broker killed under {who}: last one answered"
        if clients == HELD_TO:
            figures.append(at_most(name, "ms", last, MOST))
        elif clients > 1:
            figures.append(Figure(name, "ms", last))
    number = TURNS if plan.repeat > 1 else TURNS // 4
    values = alternately(tuple(VARIANTS), plan.repeat + 2, partial(turns, number))
    name, over = "CPU of a short turn, event loop", "without a supervisor"
    return [*figures, at_most_times(name, "ms", values, over, MOST_RATIO)]
