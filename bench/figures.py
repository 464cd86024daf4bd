"""A figure of the bench: what was measured on each side, what it is held against, what came of it.

Hands to: `report`, which prints and keeps them. Hears from: every measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import trio

from bench.sides import median

LOWEST_CPU_TICKS: Final = 20
"""CPU time is counted in ticks of 10 ms: fewer of them say little."""


@attrs.frozen
class Figure:
    """One row. ``values``: each repetition's, by side; ``judged``: what is held against the target.

    ``target``: as a sentence; ``kept``: whether it is; None where there is no target.
    """

    name: str
    unit: str
    values: Mapping[str, list[float]]
    target: str = ""
    judged: float | None = None
    kept: bool | None = None
    note: str = ""

    def typical(self, side: str) -> float:
        """The median of one side."""
        return median(self.values[side])


def at_least(name: str, unit: str, values: Mapping[str, list[float]], **of: Any) -> Figure:
    """More is better: the broker over ``over`` must be ``least`` or more."""
    ratio = _ratio(values, of["over"])
    target = f"≥ {of['least']:g} × {of['over']}"
    return Figure(name, unit, values, target, ratio, ratio >= of["least"], of.get("note", ""))


def at_most(name: str, unit: str, values: Mapping[str, list[float]], most: float) -> Figure:
    """Less is better: the broker's own value must be ``most`` or less."""
    typical = median(values["broker"])
    return Figure(name, unit, values, f"≤ {most:g} {unit}".rstrip(), typical, typical <= most)


def at_most_times(
    name: str, unit: str, values: Mapping[str, list[float]], over: str, most: float
) -> Figure:
    """Less is better: the broker over ``over`` must be ``most`` or less."""
    ratio = _ratio(values, over)
    return Figure(name, unit, values, f"≤ {most:g} × {over}", ratio, ratio <= most)


def _ratio(values: Mapping[str, list[float]], over: str) -> float:
    return median(values["broker"]) / median(values[over])


@attrs.frozen
class Plan:
    """How much is measured: a quick look, or what ``docs/performance.md`` holds."""

    repeat: int
    deltas: int
    native_deltas: int
    messages: int
    paced_seconds: float
    requests: int
    idle: int
    stalled_messages: int
    catch_up: int
    subscribers: tuple[int, ...] = (1, 32, 256)
    long_threads: tuple[int, ...] = (8, 33, 83)
    """Megabytes."""
    file_bytes: int = 1 << 30


FULL: Final = Plan(
    repeat=3, deltas=20_000, native_deltas=20_000, messages=200_000, paced_seconds=8.0,
    requests=6_000, idle=5_000, stalled_messages=100_000, catch_up=100_000,
)  # fmt: skip
QUICK: Final = Plan(
    repeat=1, deltas=5_000, native_deltas=2_000, messages=40_000, paced_seconds=2.0,
    requests=600, idle=1_000, stalled_messages=50_000, catch_up=50_000, subscribers=(1, 32),
    long_threads=(8,), file_bytes=1 << 28,
)  # fmt: skip


def alternately(
    names: tuple[str, ...], repeat: int, measure: Callable[..., Any]
) -> dict[str, list[Any]]:
    """Each side's results of ``measure(name)``, an async function, in rounds of all sides.

    Whatever else the machine does meanwhile strikes all of them alike.
    """
    found: dict[str, list[Any]] = {name: [] for name in names}
    for _ in range(repeat):
        for name in names:
            found[name].append(trio.run(measure, name))
    return found
