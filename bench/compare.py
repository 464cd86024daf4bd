"""Is one commit slower than another? Alternating runs of the broker of both, and their medians.

Run as ``python -m bench.compare A B``. A run of A and one of B directly before or after it are a
pair: what else the machine does meanwhile strikes both. B is called worse (or better) in a figure
if its median differs by more than `TELLING` *and* the pairs agree, all but one in `MAY_DIFFER`;
exit status 1 if it is worse in any. With fewer than `FEWEST` pairs nothing is judged: one bad
moment of the machine would look the same.

Each commit gets a working tree of its own for the time, and the bench is always this one, so that
both are measured alike. Its libraries are those of this environment.

Hands to: the terminal; a continuous integration, by the exit status. Hears from: every measurement.
"""

from __future__ import annotations

import enum
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
from bench.sides import HERE, median, prepare

TELLING: Final = 0.10
"""Less than a tenth is what two runs of the same commit differ by."""

FEWEST: Final = 3
"""Pairs. Three that agree happen once in eight times where there is no difference; with `TELLING`
besides, far less often."""

MAY_DIFFER: Final = 8
"""One pair in so many may say the contrary: five that agree happen by chance once in 32 times,
seven of eight once in 28, four of five once in 5."""


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
        partial(replay, 1, 200_000),
        (
            Measured("messages/s to 1", lambda run: run.rate, more_is_better=True),
            Measured("µs of the loop a message to 1", lambda run: run.loop, more_is_better=False),
        ),
    ),
    Measurement(
        partial(replay, 32, 100_000),
        (
            Measured("messages/s to 32", lambda run: run.rate, more_is_better=True),
            Measured("µs of the loop a message to 32", lambda run: run.loop, more_is_better=False),
        ),
    ),
    Measurement(
        partial(ask, "broker", 1, 2_000, CHEAP),
        (
            Measured("requests/s, 1 client", lambda run: run.rate, more_is_better=True),
            Measured("µs of CPU a request", lambda run: run.cpu, more_is_better=False),
        ),
    ),
    Measurement(
        partial(ask, "broker", 16, 8_000, CHEAP),
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
        partial(catch_up, 50_000, {}, times=8),
        (
            Measured("entries/s of a catch-up", lambda run: run.rate, more_is_better=True),
            Measured("µs of CPU an entry caught up", lambda run: run.cpu, more_is_better=False),
        ),
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


class Verdict(enum.Enum):
    """What is said of B in one figure."""

    WORSE = "[red]WORSE[/]"
    BETTER = "[green]better[/]"
    ALIKE = ""
    UNJUDGED = "[dim]too few runs[/]"


@attrs.frozen
class Judgement:
    """``better``: by what share B's median is (negative: worse); ``worse_in``: of the pairs."""

    better: float
    worse_in: int
    verdict: Verdict


def judge(before: list[float], after: list[float], *, more_is_better: bool) -> Judgement:
    """Hold B's runs against A's; the runs at the same place are a pair."""
    share = median(after) / median(before) - 1
    worse = [(b < a) == more_is_better for a, b in zip(before, after, strict=True) if a != b]
    better = share if more_is_better else -share
    contrary = len(before) // MAY_DIFFER
    # A pair of equals agrees with neither.
    needed = len(before) - contrary
    if len(before) < FEWEST:
        verdict = Verdict.UNJUDGED
    elif better < -TELLING and sum(worse) >= needed:
        verdict = Verdict.WORSE
    elif better > TELLING and len(worse) - sum(worse) >= needed:
        verdict = Verdict.BETTER
    else:
        verdict = Verdict.ALIKE
    return Judgement(better, sum(worse), verdict)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.argument("a", default="main")
@click.argument("b", default="HEAD")
@click.option("--repeat", default=5, show_default=True, help="Runs of each.")
def main(a: str, b: str, repeat: int) -> None:
    """Measure both and report."""
    prepare()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with working_trees((a, b)) as trees:
        found = compared(trees, repeat, console)
    table = Table(title=f"medians of {repeat}")
    for heading in ("", a, b, "better by", "worse in", ""):
        table.add_column(heading, justify="right" if heading else "left")
    verdicts = set()
    for figure, (before, after) in found.items():
        judged = judge(before, after, more_is_better=figure.more_is_better)
        verdicts.add(judged.verdict)
        medians = [number(median(values)) for values in (before, after)]
        pairs = f"{judged.worse_in} of {repeat}"
        better = f"{judged.better:+.0%}"
        table.add_row(figure.name, *medians, better, pairs, judged.verdict.value)
    console.print(table)
    if Verdict.UNJUDGED in verdicts:
        console.print(f"nothing is judged by fewer than {FEWEST} runs of each: --repeat 5")
    sys.exit(1 if Verdict.WORSE in verdicts else 0)


if __name__ == "__main__":
    main()
