"""Where the broker's time goes: ``make bench-profile``.

Three loads: a replayed stream of deltas to 32 subscribers, cheap requests of 16 clients, clients
that attach. For each it prints what share of the event loop's CPU time was spent in which module
(of libraries: in which package), and in which of its functions most. What a function calls in C is
its own: a ``send``, a ``write``, a parse by msgspec. How it is seen: `profiled`.

Hands to: the terminal; ``profile.md`` in ``--out``, all in one table for the docs.
Hears from: `profiled`, ``/proc``, `load`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import attrs
import click
import trio
from rich.console import Console
from rich.table import Table

from bench import source
from bench.asking import CHEAP
from bench.profiled import FILE
from bench.report import number, to_files
from bench.sides import (
    ENDLESS_OUTBOX,
    HERE,
    TICKS,
    Driver,
    Server,
    broker,
    cpu_seconds,
    loading,
    prepare,
    sourced,
    threads,
)

SHOWN: Final = 12
TELLING: Final = 3
"""Percent, in any of the loads: what a module has to have to stand in the docs."""

SUBSCRIBERS: Final = 32
MESSAGES: Final = 600_000
CLIENTS: Final = 16
REQUESTS: Final = 30_000
ATTACHED: Final = 4_000

PATIENCE: Final = 30.0
"""Until a broker has written what it saw."""


# --- What was seen -------------------------------------------------------------------------------

Spent = Counter[tuple[str, str]]
"""Nanoseconds of the loop's CPU by module and function."""


@attrs.frozen
class Share:
    """A module's part of all, and of its functions that with most."""

    module: str
    share: float
    function: str
    function_share: float


def shares(spent: Spent) -> list[Share]:
    """By module, the greatest first."""
    whole = spent.total() or 1
    modules: dict[str, list[tuple[int, str]]] = {}
    for (module, function), time_in_it in spent.items():
        modules.setdefault(module, []).append((time_in_it, function))
    found = []
    for module, functions in modules.items():
        most, function = max(functions)
        together = sum(each for each, _ in functions)
        found.append(Share(module, together / whole, function, most / whole))
    return sorted(found, key=lambda each: -each.share)


def spent_between(lines: Iterable[str], began: int, ended: int) -> Spent:
    """What `profiled` saw from one moment to another."""
    spent: Spent = Counter()
    for line in lines:
        moment, used, file, function = json.loads(line)
        if began <= moment <= ended:
            spent[module_of(file), function] += used
    return spent


def module_of(file: str) -> str:
    """Ours by their place in the repository, of a library its package, else the file's name.

    trio's ``_core`` is the event loop itself, the rest of it sockets and processes.
    """
    path = Path(file)
    if path.is_relative_to(HERE / "mux"):
        return str(path.relative_to(HERE))
    if "site-packages" in path.parts:
        inside = path.parts[path.parts.index("site-packages") + 1 :]
        return "trio/_core" if inside[:2] == ("trio", "_core") else inside[0].removesuffix(".py")
    return path.stem


# --- Looking -------------------------------------------------------------------------------------


@attrs.define
class Watch:
    """On a broker, while a load runs. CPU times in seconds, once it has ended."""

    server: Server
    loop: float = 0.0
    kernel: float = 0.0
    others: float = 0.0
    _began: int = 0
    _ended: int = 0

    def begin(self) -> None:
        """All is there; the load begins."""
        self.loop, self.kernel, self.others = (-each for each in self._used())
        self._began = time.monotonic_ns()

    def end(self) -> None:
        """The load is over, and the broker still there."""
        self._ended = time.monotonic_ns()
        loop, kernel, others = self._used()
        self.loop, self.kernel, self.others = (
            self.loop + loop, self.kernel + kernel, self.others + others,
        )  # fmt: skip

    def spent(self, lines: Iterable[str]) -> Spent:
        """What `profiled` saw meanwhile."""
        return spent_between(lines, self._began, self._ended)

    def _used(self) -> tuple[float, float, float]:
        """Of the loop's thread, thereof in the kernel, of all other threads."""
        thread = f"{self.server.pid}/task/{self.server.pid}"
        loop, whole = cpu_seconds(thread), cpu_seconds(self.server.pid)
        fields = Path(f"/proc/{thread}/stat").read_text().rpartition(")")[2].split()
        return loop, int(fields[12]) / TICKS, whole - loop


# --- Loads ---------------------------------------------------------------------------------------


async def deltas(watch: Watch) -> None:
    """A replayed stream to many."""
    url = watch.server.url
    followed = {"threads": threads(1), "subscribers": SUBSCRIBERS}
    driver = Driver(url)
    async with loading("count", url, exact=False, **followed) as load:
        watch.begin()
        await driver.replay(source.wanted(MESSAGES))
        await load.result()
        watch.end()
    driver.close()


async def requests(watch: Watch) -> None:
    """Cheap requests to the real app-server."""
    asked = {"clients": CLIENTS, "number": REQUESTS, **CHEAP}
    async with loading("requests", watch.server.url, **asked) as load:
        watch.begin()
        await load.say()
        await load.result()
        watch.end()


async def attaching(watch: Watch) -> None:
    """Clients that come, and stay."""
    watch.begin()
    async with loading("idle", watch.server.url, clients=ATTACHED):
        watch.end()


@attrs.frozen
class Job:
    """A load of so many messages, requests or clients, and over what app-server."""

    title: str
    number: int
    serving: Callable[..., Any]
    drive: Callable[[Watch], Awaitable[None]]


JOBS: Final = {
    "deltas": Job(f"replayed deltas to {SUBSCRIBERS}", MESSAGES, sourced, deltas),
    "requests": Job(f"cheap requests of {CLIENTS} clients", REQUESTS, broker, requests),
    "attaching": Job(f"{ATTACHED:,} clients that attach", ATTACHED, broker, attaching),
}


async def looked_at(job: Job) -> tuple[Watch, Spent]:
    """Do a job and look."""
    with tempfile.TemporaryDirectory(prefix="appmux-bench-") as place:
        file = Path(place) / "seen"
        environ = ENDLESS_OUTBOX | {FILE: str(file)}
        async with job.serving(module="bench.profiled", environ=environ) as server:
            watch = Watch(server)
            await job.drive(watch)
            os.kill(server.pid, signal.SIGUSR2)
            with trio.fail_after(PATIENCE):
                while not file.exists():  # noqa: ASYNC110 (it isn't told)
                    await trio.sleep(0.01)
        return watch, watch.spent(file.read_text().splitlines())


# --- The tables ----------------------------------------------------------------------------------


def show(job: Job, watch: Watch, spent: Spent, console: Console) -> None:
    """Print one job's table."""
    title = f"{job.title}: {about(job, watch)}"
    table = Table("module", "share", "most of it in", title=title, title_justify="left")
    for each in shares(spent)[:SHOWN]:
        most = f"{each.function}, {each.function_share:.0%}"
        table.add_row(each.module, f"{each.share:.0%}", most)
    console.print(table)


def about(job: Job, watch: Watch) -> str:
    """What one message, request or client cost."""
    loop, kernel, others = cost(job, watch)
    return f"{loop} each, {kernel} of it in the kernel; {others} of other threads"


def cost(job: Job, watch: Watch) -> tuple[str, str, str]:
    """CPU of the loop for one message, request or client, the kernel's share, other threads'."""
    loop, others = watch.loop / job.number * 1e6, max(0.0, watch.others / job.number * 1e6)
    return f"{number(loop)} µs", f"{watch.kernel / watch.loop:.0%}", f"{number(others)} µs"


def markdown(found: dict[str, tuple[Job, Watch, Spent]]) -> str:
    """All jobs in one table for the docs, of modules that have a telling share in any."""
    columns = [
        {each.module: each.share for each in shares(spent)} for _, _, spent in found.values()
    ]
    greatest: Counter[str] = Counter()
    for column in columns:
        for module, share in column.items():
            greatest[module] = max(greatest[module], round(100 * share))
    names = ("CPU of the loop, each", "thereof in the kernel", "CPU of other threads, each")
    costs = zip(*(cost(job, watch) for job, watch, _ in found.values()), strict=True)
    rows = [["", *(job.title for job, _, _ in found.values())]]
    rows += [[name, *each] for name, each in zip(names, costs, strict=True)]
    for module, percent in greatest.most_common():
        if percent >= TELLING:
            parts = (f"{column.get(module, 0.0):.0%}" for column in columns)
            rows.append([f"`{module}`", *("" if each == "0%" else each for each in parts)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--only", help=f"Some, with commas between: {', '.join(JOBS)}.")
@to_files
def main(*, only: str | None, out: Path) -> None:
    """Look at each and print."""
    wanted = only.split(",") if only else list(JOBS)
    if unknown := set(wanted) - set(JOBS):
        raise click.BadParameter(f"no such load: {', '.join(sorted(unknown))}")
    prepare()
    console = Console(width=None if sys.stdout.isatty() else 120)
    found = {}
    for name in wanted:
        watch, spent = trio.run(looked_at, JOBS[name])
        found[name] = JOBS[name], watch, spent
        show(*found[name], console)
    out.mkdir(parents=True, exist_ok=True)
    (out / "profile.md").write_text(markdown(found))


if __name__ == "__main__":
    main()
