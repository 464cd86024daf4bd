"""Is one commit slower than another? Alternating runs of the broker of both, and their medians.

Run as ``python -m bench.compare A B``; exit status 1 if B is clearly worse in any figure: by more
than `TELLING`, and with no run of it as good as A's median. Each commit gets a working tree of its
own for the time, and the bench is always this one, so that both are measured alike. Its libraries
are those of this environment.

Hands to: the terminal; a continuous integration, by the exit status. Hears from: every measurement.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import click
import trio
from rich.console import Console
from rich.table import Table

from bench.asking import CHEAP, ask
from bench.attaching import attach, start
from bench.catchups import catch_up
from bench.delays import brokered
from bench.replays import replay
from bench.report import number
from bench.sides import HERE, median

TELLING: Final = 0.10
"""Less than a tenth is what two runs of the same commit differ by."""


@attrs.frozen
class Measured:
    """A figure: which of a measurement's values, and whether more of it is better."""

    name: str
    value: Callable[[Any], float]
    more_is_better: bool


@attrs.frozen
class Measurement:
    """One run on a tree, and what is read off it."""

    run: Callable[..., Any]
    figures: tuple[Measured, ...]


MEASUREMENTS: Final = (
    Measurement(
        partial(replay, 1, 50_000),
        (
            Measured("messages/s to 1", lambda run: run.rate, more_is_better=True),
            Measured("µs of the loop a message to 1", lambda run: run.loop, more_is_better=False),
        ),
    ),
    Measurement(
        partial(replay, 32, 50_000),
        (
            Measured("messages/s to 32", lambda run: run.rate, more_is_better=True),
            Measured("µs of the loop a message to 32", lambda run: run.loop, more_is_better=False),
        ),
    ),
    Measurement(
        partial(ask, "broker", 1, 1_000, CHEAP),
        (
            Measured("requests/s, 1 client", lambda run: run.rate, more_is_better=True),
            Measured("µs of CPU a request", lambda run: run.cpu, more_is_better=False),
        ),
    ),
    Measurement(
        partial(ask, "broker", 16, 4_000, CHEAP),
        (Measured("requests/s, 16 clients", lambda run: run.rate, more_is_better=True),),
    ),
    Measurement(
        partial(attach, 500, "broker"),
        (
            Measured("µs of CPU an attach", lambda run: run.cpu, more_is_better=False),
            Measured("KB an idle client", lambda run: run.memory, more_is_better=False),
        ),
    ),
    Measurement(
        partial(brokered, 2.0),
        (Measured("p50 of a message's way, µs", lambda run: run["p50"] * 1e6,
                  more_is_better=False),),
    ),
    Measurement(
        partial(catch_up, 50_000, {}),
        (Measured("entries/s of a catch-up", float, more_is_better=True),),
    ),
    Measurement(
        partial(start, "broker"),
        (Measured("ms of CPU to start", lambda run: run.cpu, more_is_better=False),),
    ),
)  # fmt: skip


@contextmanager
def working_trees(commits: tuple[str, str]) -> Iterator[list[Path]]:
    """The two commits checked out, until the block's end."""
    with tempfile.TemporaryDirectory(prefix="appmux-bench-") as place:
        trees = [Path(place) / name for name in ("a", "b")]
        try:
            for tree, commit in zip(trees, commits, strict=True):
                _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
            yield trees
        finally:
            for tree in trees:
                if tree.exists():
                    _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> None:
    done = subprocess.run(
        ["git", *arguments], cwd=HERE, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise click.ClickException(f"git {' '.join(arguments)}: {done.stderr.strip()}")


def compared(
    trees: list[Path], repeat: int, progress: Console
) -> dict[Measured, list[list[float]]]:
    """Each figure's values on either tree, in alternating runs."""
    found: dict[Measured, list[list[float]]] = {
        each: [[], []] for measurement in MEASUREMENTS for each in measurement.figures
    }
    for round_number in range(repeat):
        for measurement in MEASUREMENTS:
            # The other one first every other time: the second may find warmer caches.
            for place in ((0, 1), (1, 0))[round_number % 2]:
                run = trio.run(partial(measurement.run, tree=trees[place]))
                for each in measurement.figures:
                    found[each][place].append(each.value(run))
        progress.print(f"[dim]round {round_number + 1} of {repeat}[/]")
    return found


def change(figure: Measured, before: list[float], after: list[float]) -> tuple[float, bool]:
    """By what share B is better (negative: worse), and whether it is clearly worse."""
    ratio = median(after) / median(before)
    better = ratio - 1 if figure.more_is_better else 1 - ratio
    best = max(after) if figure.more_is_better else min(after)
    none_as_good = best < median(before) if figure.more_is_better else best > median(before)
    return better, better < -TELLING and none_as_good


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.argument("a", default="main")
@click.argument("b", default="HEAD")
@click.option("--repeat", default=3, show_default=True, help="Runs of each.")
def main(a: str, b: str, repeat: int) -> None:
    """Measure both and report."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    with working_trees((a, b)) as trees:
        found = compared(trees, repeat, console)
    table = Table(title=f"medians of {repeat}")
    for heading in ("", a, b, "better by", ""):
        table.add_column(heading, justify="right" if heading else "left")
    worse = False
    for figure, (before, after) in found.items():
        better, clearly_worse = change(figure, before, after)
        worse |= clearly_worse
        verdict = "[red]WORSE[/]" if clearly_worse else ""
        medians = [number(median(values)) for values in (before, after)]
        table.add_row(figure.name, *medians, f"{better:+.0%}", verdict)
    console.print(table)
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
