"""What the broker can do: a replayed stream to many subscribers, beside a bare loop with sendall.

The bare loop reads the same pipe and writes what one read brought with one ``sendall`` a
subscriber; written one by one, which is how a broker without batches would do it, it is a third
side. The rate is from the first delta's arrival until the last subscriber has seen the end.

Hands to: `report`, the figures; `growth`. Hears from: `load.count`, ``/proc``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from bench import source
from bench.figures import Figure, Plan, alternately, at_least
from bench.sides import (
    ENDLESS_OUTBOX,
    HERE,
    Driver,
    cpu_seconds,
    loading,
    sourced,
    started,
    threads,
)

LEAST_SHARE: Final = {1: 0.4}
"""Of the bare loop's, by subscribers; to more than one it is `LEAST_SHARE_TO_MANY`."""
LEAST_SHARE_TO_MANY: Final = 0.5
LOAD_PROCESSES: Final = 1

MOST_MESSAGES: Final = 4_000_000
"""Deliveries of one run: 256 subscribers are given fewer messages."""


@attrs.frozen
class Replay:
    """One run. ``rate``: messages a second; ``loop``, ``cpu``: the broker's, µs a message.

    ``loop`` is of the thread that all messages go through, ``cpu`` of the disk's too. ``load``: the
    clients' CPU, as a share of one core.
    """

    subscribers: int
    rate: float
    loop: float = 0.0
    cpu: float = 0.0
    load: float = 0.0

    @property
    def deliveries(self) -> float:
        """Deliveries a second."""
        return self.rate * self.subscribers

    @property
    def shares(self) -> dict[str, float]:
        """What share of a core each was busy for."""
        loop, whole = self.loop * self.rate / 1e6, self.cpu * self.rate / 1e6
        return {"broker's loop": loop, "broker's disk": whole - loop, "clients": self.load}


async def replay(
    subscribers: int,
    messages: int,
    *,
    tree: Path = HERE,
    size: int | None = None,
    of_threads: int = 1,
    module: str = "mux",
    environ: dict[str, str] | None = None,
    capabilities: dict[str, Any] | None = None,
) -> Replay:
    """One turn of the source's through the broker. Raises RuntimeError if anything was lost."""
    variables = ENDLESS_OUTBOX | (environ or {})
    async with sourced(tree, variables, module) as server:
        driver = Driver(server.url)
        keywords = {"threads": threads(of_threads), "capabilities": capabilities or {}}
        async with loading(
            "count", server.url, subscribers=subscribers, exact=False, **keywords
        ) as load:
            loop = f"{server.pid}/task/{server.pid}"
            before = cpu_seconds(loop), cpu_seconds(server.pid)
            await driver.replay(source.wanted(messages, size=size, threads=of_threads))
            found = await load.result()
            after = cpu_seconds(loop), cpu_seconds(server.pid)
        driver.close()
    rate = _rate(found, messages)
    used = [(b - a) / messages * 1e6 for a, b in zip(before, after, strict=True)]
    return Replay(subscribers, rate, used[0], used[1], _share(found))


async def bare(subscribers: int, messages: int, *flags: str, size: int | None = None) -> Replay:
    """The same by the bare loop."""
    async with started("bench.bare", str(subscribers), *flags) as loop:
        url = await loop.line()
        async with loading(
            "count", url, threads=threads(1), subscribers=subscribers, exact=False
        ) as load:
            await loop.say(source.wanted(messages, size=size))
            found = await load.result()
            return Replay(subscribers, _rate(found, messages), load=_share(found))


def _share(found: dict[str, Any]) -> float:
    return float(found["cpu"] / (found["last"] - found["began"]))


def _rate(found: dict[str, Any], messages: int) -> float:
    if found["deltas"] != messages or not found["same"]:
        raise RuntimeError(f"some subscriber got {found['deltas']:,} of {messages:,} messages")
    return messages / float(found["last"] - found["began"])


async def run(side: str, subscribers: int, messages: int) -> Replay:
    """One side's run."""
    match side:
        case "broker":
            return await replay(subscribers, messages)
        case "bare":
            return await bare(subscribers, messages)
        case _:
            return await bare(subscribers, messages, "--one")


SIDES: Final = ("broker", "bare", "bare, one by one")


def measure(plan: Plan) -> list[Figure]:
    """Deliveries a second by number of subscribers."""
    figures = []
    for subscribers in plan.subscribers:
        messages = min(plan.messages, MOST_MESSAGES // subscribers)
        found = alternately(SIDES, plan.repeat, partial(_run, subscribers, messages))
        rates = {side: [each.deliveries for each in found[side]] for side in SIDES}
        name = f"deliveries/s, replayed stream to {subscribers}"
        least = LEAST_SHARE.get(subscribers, LEAST_SHARE_TO_MANY)
        figures.append(at_least(name, "/s", rates, over="bare", least=least))
        loops = {"broker": [each.loop / subscribers for each in found["broker"]]}
        name = f"CPU of the broker's loop for a delivery, replayed to {subscribers}"
        figures.append(Figure(name, "µs", loops))
    return figures


async def _run(subscribers: int, messages: int, side: str) -> Replay:
    return await run(side, subscribers, messages)
