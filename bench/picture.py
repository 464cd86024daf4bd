"""The picture of ``docs/performance.md``: how cost grows.

Run as ``python -m bench.picture FOUND.json PICTURE.svg`` to draw an earlier run's.

Hands to: an SVG file. Hears from: `growth`, by way of the JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RATES: Final = ("deliveries/s", "MB/s", "catch-up entries/s")
TIMES: Final = ("p50", "p99", "start ms")
COLOURS: Final = {
    "deliveries/s": "#1f77b4", "MB/s": "#17becf", "catch-up entries/s": "#2ca02c",
    "p50": "#ff7f0e", "p99": "#d62728", "start ms": "#9467bd",
}  # fmt: skip


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the curves of one run."""
    mpl.rcParams["svg.hashsalt"] = "appmux"  # the same figures make the same file
    mpl.rcParams["font.size"] = 8
    growth = found["growth"]
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(2, len(growth), squeeze=False, sharex="col")
    for column, (name, points) in enumerate(growth.items()):
        _curves(axes[0][column], points, RATES)
        _curves(axes[1][column], points, TIMES)
        axes[1][column].set_xlabel(name)
    axes[0][0].set_ylabel("a second")
    axes[1][0].set_ylabel("µs (start: ms)")
    figure.savefig(path, metadata={"Date": None})


def _curves(axes: Axes, points: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    for name in names:
        drawn = [(each["x"], each["values"][name]) for each in points if name in each["values"]]
        if drawn:
            axes.plot(*zip(*drawn, strict=True), marker="o", ms=3, label=name, color=COLOURS[name])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=7)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
