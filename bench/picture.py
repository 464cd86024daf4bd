"""The picture of ``docs/performance.md``: how cost grows.

Run as ``python -m bench.picture FOUND.json PICTURE.svg`` to draw an earlier run's.

Hands to: an SVG file, or what else matplotlib makes of its name. Hears from: `growth`, by way of
the JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import attrs
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, NullLocator

INCHES: Final = (11.0, 5.6)
"""A README shows it about 900 pixels wide: with this a letter is some 9 pixels high there."""

TITLES: Final = {
    "subscribers": "subscribers of one thread",
    "threads": "threads that run, one subscriber",
    "KB a message": "size of a message, KB",
    "MiB of journal": "journal on disk, MiB",
}


@attrs.frozen
class Line:
    """How one value is drawn, and as what."""

    label: str
    colour: str
    style: str = "-"


# Colours that are told apart without red and green; dashed and grey is what the broker isn't.
RATES: Final = {
    "deliveries/s": Line("deliveries/s", "#0072b2"),
    "bare loop": Line("bare loop", "#8c8c8c", "--"),
    "catch-up entries/s": Line("catch-up from disk, entries/s", "#56b4e9"),
}
LATENCIES: Final = {
    "p99": Line("p99", "#d55e00"),
    "p50": Line("p50", "#0072b2"),
    "pipe alone, p99": Line("pipe alone, p99", "#8c8c8c", ":"),
    "pipe alone, p50": Line("pipe alone, p50", "#8c8c8c", "--"),
}


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the curves of one run."""
    mpl.rcParams["svg.hashsalt"] = "appmux"  # the same figures make the same file
    mpl.rcParams["font.size"] = 10
    growth = found["growth"]
    figure = Figure(figsize=INCHES, layout="constrained", facecolor="white")
    axes = figure.subplots(2, len(growth), squeeze=False, sharex="col", sharey="row")
    for column, (name, points) in enumerate(growth.items()):
        above, below = axes[0][column], axes[1][column]
        _curves(above, points, RATES)
        _curves(below, points, LATENCIES, scale=1e-6)
        below.set_xlabel(TITLES.get(name, name))
        # The points themselves: powers of ten would say less.
        below.xaxis.set_major_locator(FixedLocator([each["x"] for each in points]))
        below.xaxis.set_minor_locator(NullLocator())
        below.xaxis.set_major_formatter(FuncFormatter(lambda x, _place: f"{x:,g}"))
    axes[0][0].set_ylabel("a second, as fast as it can")
    axes[0][0].yaxis.set_major_formatter(EngFormatter(sep=""))
    axes[1][0].set_ylabel("a message's way, at 200/s or less")
    axes[1][0].yaxis.set_major_formatter(EngFormatter(unit="s", sep=" "))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=100)


def _curves(
    axes: Axes, points: list[dict[str, Any]], lines: dict[str, Line], scale: float = 1.0
) -> None:
    for name, line in lines.items():
        drawn = [
            (each["x"], each["values"][name] * scale) for each in points if name in each["values"]
        ]
        if drawn:
            axes.plot(
                *zip(*drawn, strict=True), line.style, marker="o", ms=3.5,
                label=line.label, color=line.colour,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=20))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8.5, framealpha=0.8)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
