"""What a neighbour notices when somebody asks for something long: a thread of many megabytes.

Beside native and the broker stands the *pipe alone*: an app-server that both ask over one pipe,
with nothing between. It writes one answer after the other, and makes an answer of 83 MB into text
before it writes the next one: that much a neighbour waits, whoever passes it on.

Hands to: the figures. Hears from: `long_clients`, `long_rollouts`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from bench.figures import Figure, Plan, alternately, at_most_times
from bench.long_rollouts import Rollout, rollouts
from bench.sides import (
    PATIENCE,
    SIDES,
    TOKEN,
    Load,
    Server,
    cpu_seconds,
    median,
    peak_bytes,
    peak_forgotten,
    serving,
    started,
)
from mux.demo import scripted_model
from mux.demo.scripted_model import Hold, Run, Say, Scripted
from tests.end_to_end.native import codex_bin, private_home

PIPE: Final = "pipe alone"
MOST_LONGER: Final = 3.0
MOST_LATER: Final = 1.25
MOST_MEMORY: Final = 3.0
PRINTED: Final = 50
"""Megabytes that a command prints."""

Json = dict[str, Any]


@attrs.frozen
class Asked:
    """One measurement: of a neighbour in seconds, of the asker too, and bytes."""

    last: float
    size: int
    longest: float
    p99: float
    grown: float
    cpu: float
    """Seconds of the broker's loop."""


@attrs.define
class Stage:
    """Who asks, and whom."""

    load: Load
    model: Scripted
    work: Path
    server: Server | None = None

    async def ask(self, method: str, params: Json, **more: Any) -> Json:
        """Have the asker ask; what came of it."""
        await self.load.say(json.dumps({"method": method, "params": params, **more}))
        return await self.load.result()

    async def measured(self, method: str, params: Json, **more: Any) -> Asked:
        """The same beside the neighbour, with the most that the listener holds meanwhile."""
        before = peak_forgotten(self.server.pid) if self.server is not None else 0
        loop = f"{self.server.pid}/task/{self.server.pid}" if self.server is not None else None
        used = cpu_seconds(loop)
        done = await self.ask(method, params, measured=True, **more)
        used = cpu_seconds(loop) - used
        grown = peak_bytes(self.server.pid) - before if self.server is not None else 0
        return Asked(done["last"], done["bytes"], done["longest"], done["p99"], grown, used)


def _model() -> Scripted:
    model = Scripted()
    model.on("hold on", Say(chunks=("so ", Hold("mid"), "on")))
    model.on("print", Run(f"head -c {PRINTED}000000 /dev/zero | tr '\\0' x | fold -w 100"))
    return model


@asynccontextmanager
async def staged(side: str, rollout: Rollout | None = None) -> AsyncIterator[Stage]:
    """Both clients, attached to one of the sides."""
    model = _model()
    if side != PIPE:
        async with serving(side, model) as server:
            if rollout is not None:
                rollout.put(server.home)
            async with _clients({"url": server.url, "token": TOKEN}) as clients:
                yield Stage(clients, model, server.home / "work", server)
        return
    async with trio.open_nursery() as nursery:
        base_url = await nursery.start(scripted_model.serve, model)
        with private_home(base_url) as home:
            if rollout is not None:
                rollout.put(home.root)
            spec = {"command": [str(codex_bin()), "app-server"], "environ": home.environ()}
            async with _clients(spec) as clients:
                yield Stage(clients, model, home.work)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _clients(spec: Json) -> AsyncIterator[Load]:
    async with started("bench.long_clients", json.dumps(spec)) as each:
        if await each.line() != "ready":
            raise RuntimeError("the clients could not attach")
        yield each


async def _threads(rollout: Rollout, side: str) -> dict[str, Asked]:
    whole = {"threadId": rollout.thread}
    async with staged(side, rollout) as stage:
        await stage.ask("thread/resume", {**whole, "excludeTurns": True})  # loads it
        found = {
            "thread/resume": await stage.measured("thread/resume", whole),
            "thread/read": await stage.measured("thread/read", {**whole, "includeTurns": True}),
            "thread/fork": await stage.measured("thread/fork", whole),
        }
        said = [{"type": "text", "text": "hold on"}]
        await stage.ask("turn/start", {**whole, "input": said})
        with trio.fail_after(PATIENCE):
            await stage.model.reached("mid")
        found["thread/resume, a turn runs"] = await stage.measured("thread/resume", whole)
        stage.model.release("mid")
    return found


async def _printing(side: str) -> Asked:
    async with staged(side) as stage:
        free = {"approvalPolicy": "never", "sandbox": "danger-full-access", "cwd": str(stage.work)}
        begun = await stage.ask("thread/start", free)
        said = [{"type": "text", "text": "print"}]
        turn = {"threadId": begun["thread"], "input": said}
        return await stage.measured("turn/start", turn, turn=True)


def measure(plan: Plan) -> list[Figure]:
    """Threads of each size, and a command that prints much."""
    sides = (SIDES[0], PIPE, SIDES[1])
    repeat = max(1, plan.repeat - 2)  # minutes each
    figures: list[Figure] = []
    with rollouts(plan.long_threads) as made:
        for size, rollout in made.items():
            found = alternately(sides, repeat, partial(_threads, rollout))
            for method in found[SIDES[0]][0]:
                runs = {side: [each[method] for each in found[side]] for side in sides}
                figures += _figures(f"{method} of {size} MB", runs)
    runs = alternately(sides, repeat, _printing)
    return figures + _figures(f"a command that prints {PRINTED} MB", runs)[:3]


def _figures(name: str, runs: dict[str, list[Asked]]) -> list[Figure]:
    waits = {side: [each.longest * 1e3 for each in found] for side, found in runs.items()}
    p99s = {side: [each.p99 * 1e3 for each in found] for side, found in runs.items()}
    lasts = {side: [each.last * 1e3 for each in found] for side, found in runs.items()}
    cpu = [each.cpu * 1e3 for each in runs["broker"]]
    shares = [each.grown / max(each.size, 1) for each in runs["broker"]]
    return [
        at_most_times(f"{name}: a neighbour's longest wait", "ms", waits, "native", MOST_LONGER),
        Figure(f"{name}: a neighbour's p99", "ms", p99s),
        Figure(f"{name}: CPU of the broker's loop", "ms", {"broker": cpu}),
        at_most_times(f"{name}: the last byte", "ms", lasts, "native", MOST_LATER),
        Figure(
            f"{name}: memory / the answer", "", {"broker": shares}, f"≤ {MOST_MEMORY:g}",
            median(shares), median(shares) <= MOST_MEMORY,
        ),
    ]  # fmt: skip
