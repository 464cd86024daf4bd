"""What the short commands take of a processor: those that ask a running broker, and help.

Beside them stands codex's own: ``codex --version`` and ``codex --help``.

Hands to: `report`, the figures. Hears from: the exit of each command.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import trio

from bench.figures import Figure, Plan, at_most
from bench.sides import HERE, SIDES, Driver, Server, broker
from tests.end_to_end.native import Home, codex_bin

ASKING: Final = ("status", "approvals", "threads")
TELLING: Final = ("--help", "--version")

MOST_ASKING: Final = 300.0
MOST_TELLING: Final = 120.0

NOTHING_WAITS: Final = 3
"""The exit status of ``approvals`` where nothing waits."""

REPEAT: Final = 5
"""Runs of each command, for one of the plan's repeats: one is short, and differs from the next."""


async def commands(repeat: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of CPU of each command, by side, beside a broker with one thread."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in (*ASKING, *TELLING)}
    async with broker(more=("--listen", "unix://")) as server:
        driver = Driver(server.url)
        await driver.first_turn(server.home / "work")
        for counted in (False, *[True] * repeat):  # the first finds no bytecode, perhaps
            for name, values in found.items():
                for side in SIDES if name in TELLING else SIDES[1:]:
                    cpu = await trio.to_thread.run_sync(partial(_cpu, side, name, server))
                    if counted:
                        values.setdefault(side, []).append(cpu)
        driver.close()
    return found


def _cpu(side: str, name: str, server: Server) -> float:
    program = [str(codex_bin())] if side == "native" else [sys.executable, "-m", "mux"]
    environ = Home(server.home).environ() | {"PYTHONPATH": str(HERE)}
    with _children() as spent:
        done = subprocess.run([*program, name], env=environ, capture_output=True, check=False)
    if done.returncode not in (0, NOTHING_WAITS):
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr.decode()}")
    return spent[0]


@contextmanager
def _children() -> Iterator[list[float]]:
    """Milliseconds of the children that end in here. The list has its element afterwards."""
    spent: list[float] = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield spent
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    spent.append(used * 1000)


def measure(plan: Plan) -> list[Figure]:
    """CPU of each command."""
    found = trio.run(commands, plan.repeat * REPEAT)
    return [
        at_most(
            f"CPU of `appmux {name}`", "ms", values,
            MOST_TELLING if name in TELLING else MOST_ASKING,
        )
        for name, values in found.items()
    ]  # fmt: skip
