"""Requests a second and their latency: natively and through the broker, alone and beside a flood.

The request is the cheapest that there is: the app-server answers it from memory, so it is all
listener. A second, dearer one shows what a client's usual requests notice of the broker.

Hands to: `report`, the figures. Hears from: `load.requests`, `load.flood`.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from bench.figures import Figure, Plan, alternately, at_least, at_most
from bench.sides import HERE, SIDES, cpu_seconds, loading, serving

CHEAP: Final = {"method": "thread/loaded/list", "params": {}}
USUAL: Final = {"method": "thread/list", "params": {}}
LEAST_RATE: Final = {1: 0.45, 16: 0.65}
"""Times native's, by clients. Parity isn't aimed at: two processes wake where natively one does."""

AHEAD: Final = {"native": 100, "broker": 1000}
"""Requests that the flooding client has under way: natively more are answered overload or lost."""

MOST_SLOWER: Final = 2.0


@attrs.frozen
class Asked:
    """One run. Latencies in µs; ``cpu``: µs of the listener's process for a request."""

    rate: float
    p50: float
    p99: float
    cpu: float


async def ask(
    side: str,
    clients: int,
    number: int,
    asked: dict[str, Any],
    *,
    flooded: bool = False,
    tree: Path = HERE,
) -> Asked:
    """So many clients, each with one request at a time."""
    async with (
        serving(side, tree=tree) as server,
        loading("requests", server.url, clients=clients, number=number, **asked) as asking,
        AsyncExitStack() as others,
    ):
        if flooded:
            flood = loading("flood", server.url, ahead=AHEAD[side], **asked)
            await others.enter_async_context(flood)
        found, cpu = await _result(asking, server.pid)
    return Asked(found["rate"], found["p50"] * 1e6, found["p99"] * 1e6, cpu / number * 1e6)


async def _result(asking: Any, pid: int) -> tuple[dict[str, float], float]:
    before = cpu_seconds(pid)
    await asking.say()
    found = await asking.result()
    return found, cpu_seconds(pid) - before


def measure(plan: Plan) -> list[Figure]:
    """Rates, and one client's latency beside another's flood."""
    figures = []
    for what, asked in (("cheap", CHEAP), ("usual", USUAL)):
        number = plan.requests if what == "cheap" else plan.requests // 3
        for clients, least in LEAST_RATE.items():
            runs = alternately(SIDES, plan.repeat, partial(_alone, clients, number, asked))
            rates = {side: [each.rate for each in runs[side]] for side in SIDES}
            name = f"{what} requests/s, {clients} client{'s' if clients > 1 else ''}"
            if what == "cheap":
                figures.append(at_least(name, "/s", rates, over="native", least=least))
            else:
                figures.append(Figure(name, "/s", rates))
    return figures + _measure_flood(plan)


def _measure_flood(plan: Plan) -> list[Figure]:
    runs: dict[str, list[Asked]] = alternately(
        ("native", "native, flood", "broker", "broker, flood"),
        max(plan.repeat, 2),
        partial(_flooded, plan.requests // 2),
    )
    figures = []
    for share in ("p50", "p99"):
        values = {name: [getattr(each, share) for each in found] for name, found in runs.items()}
        slower = {
            side: [
                after / before
                for before, after in zip(values[side], values[f"{side}, flood"], strict=True)
            ]
            for side in SIDES
        }
        name = f"a client's latency while another floods, {share}, / without"
        figures += [
            at_most(name, "", slower, MOST_SLOWER),
            Figure(f"a client's latency, {share}", "µs", values),
        ]
    return figures


async def _alone(clients: int, number: int, asked: dict[str, Any], side: str) -> Asked:
    return await ask(side, clients, number, asked)


async def _flooded(number: int, name: str) -> Asked:
    side = "native" if name.startswith("native") else "broker"
    return await ask(side, 1, number, CHEAP, flooded=name.endswith("flood"))
