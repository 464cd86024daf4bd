"""The bench's figures as a table for people, as Markdown for the docs, and as JSON.

Hands to: the terminal, files. Hears from: `__main__`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs
import click
from rich.console import Console
from rich.table import Table

from bench.figures import Figure
from bench.growth import Point
from bench.sides import HERE, median
from tests.end_to_end.native import codex_bin

VERDICTS: Final = {True: "reached", False: "not reached", None: ""}
LARGE: Final = 100.0

to_files: Final = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-results"),
    show_default=True,
    help="Where the files go.",
)
"""Of the programs that write some."""


def show(figures: list[Figure], console: Console) -> None:
    """Print the table."""
    table = Table(title="medians; in brackets the range", title_justify="left")
    table.add_column("figure")
    table.add_column("measured")
    table.add_column("held against")
    table.add_column("", justify="right")
    for each in figures:
        verdict = VERDICTS[each.kept]
        colour = "green" if each.kept else "red"
        judged = "" if each.judged is None else f"{number(each.judged)} "
        table.add_row(
            each.name,
            "\n".join(_sides(each)),
            each.target,
            f"{judged}[{colour}]{verdict}[/]" if verdict else "",
        )
    console.print(table)


def _sides(figure: Figure) -> list[str]:
    rows = []
    for side, values in figure.values.items():
        spread = ""
        if len(values) > 1:
            spread = f" ({number(min(values))} to {number(max(values))})"
        rows.append(f"{side}: {number(median(values))} {figure.unit}{spread}")
    return rows


def number(value: float) -> str:
    """For people: whole where it is large."""
    return f"{value:,.0f}" if abs(value) >= LARGE else f"{value:.3g}"


def markdown(figures: list[Figure]) -> str:
    """The same as a table of a Markdown file."""
    rows = ["| figure | measured (median) | target | |", "|---|---|---|---|"]
    for each in figures:
        sides = "; ".join(
            f"{side} {number(median(values))} {each.unit}".rstrip()
            for side, values in each.values.items()
        )
        judged = "" if each.judged is None else f"{number(each.judged)}, "
        verdict = f"{judged}{VERDICTS[each.kept]}" if each.target else ""
        rows.append(f"| {each.name} | {sides} | {each.target} | {verdict} |")
    return "\n".join(rows) + "\n"


def as_json(figures: list[Figure], growth: Mapping[str, list[Point]]) -> dict[str, Any]:
    """All that was measured, and on what."""
    return {
        "machine": machine(),
        "figures": [attrs.asdict(each) for each in figures],
        "growth": {
            name: [attrs.asdict(each) for each in points] for name, points in growth.items()
        },
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    version = subprocess.run(
        [str(codex_bin()), "--version"], capture_output=True, text=True, check=False
    ).stdout
    return {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(HERE),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "codex": version.strip(),
    }


def commit(tree: Path) -> str:
    """The commit of a working tree, ``+`` where it has changes; empty outside git."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        capture_output=True, text=True, cwd=tree, check=False,
    )  # fmt: skip
    return told.stdout.strip()


def write(found: Mapping[str, Any], path: Path) -> None:
    """Keep the JSON."""
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
