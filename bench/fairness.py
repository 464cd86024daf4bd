"""What a client notices of another one that only makes work: its latency alone, and beside it.

The other sends, a mebibyte a second, what is dear to read and asks for nothing: tiny frames,
messages of very many parts, replays of threads that there aren't.

Hands to: `report`, the figures. Hears from: `load.attack`, `load.paced`.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from bench import load
from bench.asking import CHEAP
from bench.figures import Figure, Plan, alternately, at_most
from bench.sides import MIB, loading, serving

MOST_SLOWER: Final = 3.0
ALONE: Final = "alone"

PAUSE: Final = 0.002
"""Seconds between two requests: the broker is idle in between, so what is waited for is the other's
work."""


async def _latency(seconds: float, what: str) -> float:
    """The 99th percentile of one client's requests, in µs."""
    asks = {"seconds": seconds, "pause": PAUSE, **CHEAP}
    async with serving("broker") as server, loading("paced", server.url, **asks) as asking:
        if what == ALONE:
            await asking.say()
            return float((await asking.result())["p99"]) * 1e6
        async with loading("attack", server.url, what=what, rate=MIB) as attacking:
            await asking.say()
            p99 = float((await asking.result())["p99"]) * 1e6
            await attacking.say()
            await attacking.result()
    return p99


def measure(plan: Plan) -> list[Figure]:
    """For each attack: the 99th percentile beside it, over that alone in the same round."""
    names = (ALONE, *load.attacks())
    found = alternately(names, plan.repeat, partial(_latency, plan.paced_seconds / 2))
    figures = []
    for name in names[1:]:
        slower = [a / b for a, b in zip(found[name], found[ALONE], strict=True)]
        title = f"a client's p99 beside {name}, 1 MiB/s, / alone"
        figures.append(at_most(title, "", {"broker": slower}, MOST_SLOWER))
    return [*figures, Figure("a client's p99", "µs", found)]
