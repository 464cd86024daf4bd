"""All figures of the bench, in one run: ``make bench``, ``make bench-quick``.

Prints each part's table as it is measured, and writes ``performance.json``, ``performance.md`` (the
table) and ``performance.svg`` (how cost grows) into ``--out``.

Hands to: `report`, `picture`. Hears from: every measurement.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from bench import (
    asking,
    attaching,
    catchups,
    commands,
    crowd,
    delays,
    fairness,
    features,
    files,
    first_answer,
    growth,
    handovers,
    longs,
    page,
    picture,
    real_pace,
    replays,
    report,
    turns,
    wire,
)
from bench.figures import FULL, QUICK, Figure, Plan
from bench.sides import prepare

PARTS: Final[dict[str, Callable[[Plan], list[Figure]]]] = {
    "turns": turns.measure,
    "real-pace": real_pace.measure,
    "crowd": crowd.measure,
    "wire": wire.measure,
    "replays": replays.measure,
    "delays": delays.measure,
    "asking": asking.measure,
    "attaching": attaching.measure,
    "first-answer": first_answer.measure,
    "commands": commands.measure,
    "stall": delays.measure_stall,
    "catchups": catchups.measure,
    "features": features.measure,
    "fairness": fairness.measure,
    "handovers": handovers.measure,
    "longs": longs.measure,
    "files": files.measure,
    "page": page.measure,
    "page-turns": page.measure_turns,
    "page-thread": page.measure_thread,
}


def keep(found: list[Figure], curves: dict[str, list[growth.Point]], out: Path) -> None:
    """Write the files."""
    whole = report.as_json(found, curves)
    report.write(whole, out / "performance.json")
    (out / "performance.md").write_text(report.markdown(found))
    if curves:
        picture.draw(whole, out / "performance.svg")


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--quick", is_flag=True, help="Three minutes: fewer, shorter, no growth.")
@click.option("--only", help=f"Some parts, with commas between: {', '.join(PARTS)}, growth.")
@report.to_files
def main(*, quick: bool, only: str | None, out: Path) -> None:
    """Measure and report."""
    wanted = only.split(",") if only else [*PARTS, *(() if quick else ("growth",))]
    if unknown := set(wanted) - {*PARTS, "growth"}:
        raise click.BadParameter(f"no such part: {', '.join(sorted(unknown))}")
    prepare()
    console = Console(width=None if sys.stdout.isatty() else 150)
    if os.getloadavg()[0] > 1:
        console.print("[yellow]the machine is busy: what others do is measured too[/]")
    out.mkdir(parents=True, exist_ok=True)
    found: list[Figure] = []
    for name in [each for each in PARTS if each in wanted]:
        began = time.monotonic()
        figures = PARTS[name](QUICK if quick else FULL)
        console.rule(f"{name}: {time.monotonic() - began:.0f} s")
        report.show(figures, console)
        found += figures
        keep(found, {}, out)  # a run that is broken off has measured something, too
    curves = growth.measure(console.print, quick=quick) if "growth" in wanted else {}
    keep(found, curves, out)
    console.print(f"written to {out}")


if __name__ == "__main__":
    main()
