"""What the journal costs, and what it gives: the whole broker with and without, and a catch-up.

Run as ``python -m bench.journal``; exit status 1 if a promise of the design isn't kept.

*Cost*: a turn of many deltas, from an app-server that writes as fast as it can (`firehose`), to
subscribers that only count; by ``appmux serve`` as it is, and by one that keeps nothing
(`unjournaled`). The rounds alternate, and each side's best one counts: what else the machine does
only ever slows one down. *Catch-up*: a client that knows the broker was away for a whole turn, and
asks for what it missed (``mux/replay``); from memory and from disk, each delta and merged ones.

Hands to: whoever reads the tables. Hears from: `load`; ``/proc`` (CPU; Linux only).
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import click
import trio
from rich.console import Console
from rich.table import Table

from bench import firehose
from bench.fanout import cpu_seconds, loading, since
from bench.load import COMPLETED, DELTA, Tally, attach, send
from tests.end_to_end.brokered import ONLY_THE_SERVER
from tests.end_to_end.native import Native, launched
from tests.end_to_end.peer import connect_ws
from tests.end_to_end.scenes import status_shows

MIB: Final = 1024 * 1024
RECEIVE_BYTES: Final = 4 * MIB
PATIENCE: Final = 120.0

# What the design promises.
MAX_COST: Final = 0.15
CATCH_UP: Final = 100_000
PROMISED: Final = 200_000  # entries/s

# Nobody may fall behind while the cost is measured: that is another way through the broker.
ENDLESS_OUTBOX: Final = {"APPMUX_LIMITS_OUTBOX_BYTES": str(1024 * MIB)}
# All but the last moments of a turn are then on disk alone.
LITTLE_MEMORY: Final = {"APPMUX_LIMITS_JOURNAL_MEMORY_BYTES": str(MIB)}


@asynccontextmanager
async def serving(module: str, limits: dict[str, str]) -> AsyncIterator[Native]:
    """The broker of ``python -m module serve``, over a `firehose`; at ``url``."""
    with tempfile.TemporaryDirectory(prefix="appmux-bench-") as place:
        environ = {
            "APPMUX_CODEX_BIN": _codex(Path(place)),
            "APPMUX_LOG_LEVEL": "warning",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        } | limits
        command = [sys.executable, "-m", module, "serve", "--listen", "ws://127.0.0.1:0"]
        async with launched(command, environ=environ) as running:
            running.url = (await running.wait_log(r"listening on: (ws://\S+)"))[1]
            yield running


def _codex(place: Path) -> str:
    """A `codex` that is a firehose."""
    codex = place / "codex"
    codex.write_text(f"#!/bin/sh\n{ONLY_THE_SERVER}exec '{sys.executable}' '{firehose.__file__}'\n")
    codex.chmod(0o755)
    return str(codex)


# --- What it costs -------------------------------------------------------------------------------


def loop_seconds(pid: int) -> float | None:
    """CPU time so far of the process's first thread, its event loop; None without ``/proc``."""
    return cpu_seconds(f"{pid}/task/{pid}")


@attrs.frozen
class Run:
    """One turn: its time, and the broker's CPU time in it (None without ``/proc``), in seconds.

    ``loop``: of the thread that all messages go through; ``cpu``: of all, also the disk's.
    """

    seconds: float
    loop: float | None
    cpu: float | None


async def run_turn(module: str, subscribers: int, deltas: int) -> Run:
    """Run one turn in a broker of its own. Raises RuntimeError if a subscriber missed a delta."""
    async with serving(module, ENDLESS_OUTBOX) as running, connect_ws(running.url) as driver:
        await driver.initialize("driver")
        async with loading(running.url, firehose.THREAD, subscribers) as load:
            pid = running.process.pid
            before, began = (loop_seconds(pid), cpu_seconds(pid)), time.monotonic()
            await driver.start_turn(firehose.THREAD, str(deltas))
            tally = await load.tally()
            after = loop_seconds(pid), cpu_seconds(pid)
        _refuse_losses(tally, deltas)
        loop, cpu = (since(*both) for both in zip(before, after, strict=True))
        return Run(tally.last - began, loop, cpu)


def _refuse_losses(tally: Tally, deltas: int) -> None:
    if min(tally.deltas) != deltas:
        raise RuntimeError(f"some subscriber got {min(tally.deltas):,} of {deltas:,} deltas")


MODULES: Final = {"with": "mux", "without": "bench.unjournaled"}


@attrs.frozen
class Cost:
    """The best of each side's runs, by ``MODULES``."""

    subscribers: int
    deltas: int
    best: dict[str, Run]

    @property
    def slower(self) -> float:
        """What the journal adds to the turn's time, of one without it."""
        return self.best["with"].seconds / self.best["without"].seconds - 1

    @property
    def share(self) -> float:
        """What the journal adds to the hot path: to the event loop's CPU time, where it is known.

        The turn's time also tells how many cores there are for the four processes and the disk.
        """
        added, without = self.best["with"].loop, self.best["without"].loop
        return added / without - 1 if added and without else self.slower


def cost(subscribers: int, deltas: int, repeat: int) -> Cost:
    """Measure both sides, in turn."""
    runs: dict[str, list[Run]] = {name: [] for name in MODULES}
    for _ in range(repeat):
        for name, module in MODULES.items():
            runs[name].append(trio.run(run_turn, module, subscribers, deltas))
    return Cost(subscribers, deltas, {name: _best(found) for name, found in runs.items()})


def _best(runs: list[Run]) -> Run:
    return Run(
        min(each.seconds for each in runs),
        min((each.loop for each in runs if each.loop is not None), default=None),
        min((each.cpu for each in runs if each.cpu is not None), default=None),
    )


# --- A catch-up ----------------------------------------------------------------------------------


@attrs.frozen
class CatchUp:
    """What one client got, from its request to the turn's end. ``messages``: deltas, merged or not.

    ``cpu``: the broker's, in seconds.
    """

    source: str
    merged: bool
    entries: int
    messages: int
    bytes: int
    seconds: float
    cpu: float | None

    @property
    def rate(self) -> float:
        """Entries of the journal a second."""
        return self.entries / self.seconds


async def catch_ups(source: str, limits: dict[str, str], repeat: int) -> list[CatchUp]:
    """Miss a turn of ``CATCH_UP`` deltas; then ask for it, merged and not. The best of each."""
    async with serving("mux", limits) as running, connect_ws(running.url) as driver:
        await driver.initialize("driver", extensions={"appmux": {"version": 1}})
        start = {name: driver.hello["appmux"][name] for name in ("epoch", "seq")}
        await driver.request("thread/resume", {"threadId": firehose.THREAD})
        await driver.start_turn(firehose.THREAD, str(CATCH_UP))
        await driver.wait_method("turn/completed", timeout=PATIENCE)
        # What is measured is reading what was written long ago.
        await status_shows(driver, lambda report: not report["store"]["unwrittenEntries"])
        found = []
        for merged in (False, True):
            runs = [
                await trio.to_thread.run_sync(_catch_up, running, source, start, merged)
                for _ in range(repeat)
            ]
            found.append(min(runs, key=lambda each: each.seconds))
        return found


def _catch_up(running: Native, source: str, start: dict[str, Any], merged: bool) -> CatchUp:
    connection = attach(running.url, {"extensions": {"appmux": {"version": 1}}})
    with connection:
        params = {"after": start, "threadId": firehose.THREAD, "merged": merged}
        before, began = cpu_seconds(running.process.pid), time.monotonic()
        send(connection, 2, "mux/replay", params)
        received = _read_until_completed(connection)
        seconds, after = time.monotonic() - began, cpu_seconds(running.process.pid)
    words = received.count(firehose.WORD.encode())
    if words != 2 * CATCH_UP:  # in deltas, and in the completed item
        raise RuntimeError(f"got {words:,} of {2 * CATCH_UP:,} words")
    messages = received.count(DELTA)
    return CatchUp(source, merged, CATCH_UP, messages, len(received), seconds, since(before, after))


def _read_until_completed(connection: socket.socket) -> bytes:
    connection.settimeout(PATIENCE)
    pieces: list[bytes] = []
    tail = b""
    while COMPLETED not in tail:
        piece = connection.recv(RECEIVE_BYTES)
        if not piece:
            raise EOFError(f"cut after {sum(map(len, pieces)):,} bytes: {tail[-200:]!r}")
        pieces.append(piece)
        tail = tail[-len(COMPLETED) :] + piece
    return b"".join(pieces)


# --- The tables ----------------------------------------------------------------------------------


def show(costs: list[Cost], caught: list[CatchUp], console: Console) -> None:
    table = Table(title="the journal's cost", caption="CPU in µs a delta")
    for heading in ("subscribers", "journal", "deltas/s", "event loop", "all CPU"):
        table.add_column(heading, justify="right")
    for each in costs:
        for name in MODULES:
            run = each.best[name]
            rate = f"{each.deltas / run.seconds:,.0f}"
            used = [_micro(cpu, each.deltas) for cpu in (run.loop, run.cpu)]
            table.add_row(f"{each.subscribers}", name, rate, *used)
        share = _promise(each.share <= MAX_COST, f"{each.share:+.1%}")
        table.add_row("", "cost", f"{-each.slower / (1 + each.slower):+.1%}", share, "")
    console.print(table)
    table = Table(title=f"a catch-up of {CATCH_UP:,} entries")
    for heading in ("from", "messages", "MiB", "seconds", "broker CPU", "entries/s"):
        table.add_column(heading, justify="right")
    for one in caught:
        table.add_row(
            f"{one.source}{', merged' if one.merged else ''}",
            f"{one.messages:,}",
            f"{one.bytes / MIB:.1f}",
            f"{one.seconds:.3f}",
            "" if one.cpu is None else f"{one.cpu:.2f}",
            _promise(one.rate >= PROMISED, f"{one.rate:,.0f}"),
        )
    console.print(table)


def _micro(cpu: float | None, deltas: int) -> str:
    return "" if cpu is None else f"{cpu / deltas * 1e6:.2f}"


def _promise(kept: bool, text: str) -> str:
    return f"[{'green' if kept else 'red'}]{text}[/]"


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--deltas", default=100_000, show_default=True, help="In one turn.")
@click.option("--subscribers", default="1,8", show_default=True, help="Numbers of them.")
@click.option("--repeat", default=3, show_default=True, help="Runs of each; the best counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def main(deltas: int, subscribers: str, repeat: int, as_json: bool) -> None:
    costs = [cost(int(number), deltas, repeat) for number in subscribers.split(",")]
    caught = trio.run(catch_ups, "memory", {}, repeat)
    caught += trio.run(catch_ups, "disk", LITTLE_MEMORY, repeat)
    if as_json:
        rows = [attrs.asdict(each) | {"share": each.share, "slower": each.slower} for each in costs]
        replays = [attrs.asdict(one) | {"rate": one.rate} for one in caught]
        click.echo(json.dumps({"costs": rows, "catchUps": replays}, indent=2))
    else:
        show(costs, caught, Console(width=None if sys.stdout.isatty() else 120))
    if any(each.share > MAX_COST for each in costs):
        sys.exit(f"the journal costs more than {MAX_COST:.0%}")
    if any(one.rate < PROMISED for one in caught):
        sys.exit(f"a catch-up is slower than {PROMISED:,} entries/s")


if __name__ == "__main__":
    main()
