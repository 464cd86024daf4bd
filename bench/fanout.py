"""The same turn to many subscribers: the app-server's own WebSocket listener against the broker.

One turn of many small deltas, by the real app-server and a scripted model, for each number of
subscribers, natively and through the broker; every time with fresh processes. Run as
``python -m bench.fanout``; exit status 1 if any subscriber missed a delta.

``turn`` is the time from sending ``turn/start`` until the last subscriber has seen the turn's end.
The subscribers (`load`) have a process of their own, the scripted model runs in this one; whoever
starts the turn doesn't follow the thread, so there are exactly as many copies as subscribers.

Hands to: whoever reads the table. Hears from: `load`, ``/proc`` (CPU and memory; Linux only).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import click
import trio
from rich.console import Console
from rich.table import Table

from bench.load import Tally
from mux.scripted_model import Say, Scripted
from tests.end_to_end.brokered import brokered
from tests.end_to_end.native import Native, native_ws
from tests.end_to_end.peer import connect_ws

Kind = Literal["native", "broker"]
KINDS: Final[tuple[Kind, ...]] = ("native", "broker")

# As in a model's stream: a delta is a token of a few letters, some 230 bytes with its envelope.
DELTA_TEXT: Final = "word "
# The slowest turn, natively to 32 subscribers, takes half a minute on two idle cores.
TURN_PATIENCE: Final = 300.0
# What the design promises: see `_promises`.
MAX_SLOWDOWN: Final = 1.3
MIN_GAIN: Final = 8.0

MIB: Final = 1024 * 1024
TICKS: Final = os.sysconf("SC_CLK_TCK")


# --- What a process costs ------------------------------------------------------------------------


def cpu_seconds(pid: int | str | None) -> float | None:
    """User and system time of a process so far; None where there is no ``/proc``.

    Of a thread, if ``pid`` is ``PID/task/TID``.
    """
    try:
        # The second field is the program's name in parentheses, which may hold blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    utime, stime = fields[11:13]
    return (int(utime) + int(stime)) / TICKS


def peak_bytes(pid: int | None) -> int | None:
    """The most memory that a process has held (RSS); None where there is no ``/proc``."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


# --- One measurement -----------------------------------------------------------------------------


@attrs.frozen
class Reading:
    """One turn. Times in seconds; ``received`` is the deltas of the worst-off subscriber.

    ``lag``: from the first subscriber's end of the turn to the last one's. ``model_cpu`` is of this
    process, ``load_cpu`` of the subscribers'. ``reads``: how many reads one subscriber needed.
    """

    kind: Kind
    subscribers: int
    turn: float
    lag: float
    expected: int
    received: int
    deliveries: int
    reads: int
    bytes: int
    app_server_cpu: float | None
    broker_cpu: float | None
    broker_peak: int | None
    load_cpu: float
    model_cpu: float

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.turn


@asynccontextmanager
async def serving(kind: Kind, model: Scripted) -> AsyncIterator[Native]:
    """The app-server with its own listener, or the broker with its app-server; at ``url``."""
    if kind == "native":
        async with native_ws(model=model) as running:
            yield running
    else:
        async with brokered(model=model, log_level="warning") as running:
            yield running


async def measure(kind: Kind, subscribers: int, deltas: int) -> Reading:
    """Run one turn. Raises RuntimeError if the subscribers fail, TooSlowError if it hangs."""
    model = Scripted()
    model.on("many", Say(chunks=(DELTA_TEXT,) * deltas))
    async with serving(kind, model) as running, connect_ws(running.url) as driver:
        await driver.initialize("driver")
        broker, app_server = await _pids(kind, running, driver)
        thread = await driver.start_thread(running.home.work)
        await driver.run_turn(thread, "a first turn, without which natively nobody can join")
        async with loading(running.url, thread, subscribers) as load:
            # The broker gets its chance to see the first turn's end before anything is measured.
            await driver.request("thread/unsubscribe", {"threadId": thread})
            before = cpu_seconds(app_server), cpu_seconds(broker), time.process_time()
            began = time.monotonic()
            await driver.start_turn(thread, "many")
            tally = await load.tally()
            return Reading(
                kind=kind, subscribers=subscribers, turn=tally.last - began,
                lag=tally.last - tally.first, expected=deltas, received=min(tally.deltas),
                deliveries=sum(tally.deltas), reads=tally.reads // subscribers, bytes=tally.bytes,
                app_server_cpu=since(before[0], cpu_seconds(app_server)),
                broker_cpu=since(before[1], cpu_seconds(broker)), broker_peak=peak_bytes(broker),
                load_cpu=tally.cpu, model_cpu=time.process_time() - before[2],
            )  # fmt: skip


def since(before: float | None, now: float | None) -> float | None:
    """The difference of two readings, if there are two."""
    return None if before is None or now is None else now - before


async def _pids(kind: Kind, running: Native, driver: Any) -> tuple[int | None, int]:
    """The broker's process, if there is one, and the app-server's."""
    if kind == "native":
        return None, running.process.pid
    status = await driver.request("mux/status")
    return status["broker"]["pid"], status["appServer"]["pid"]


@attrs.frozen
class Load:
    """The subscribers' process."""

    process: trio.Process

    async def wait_ready(self) -> None:
        """Wait until all have resumed the thread."""
        if await self._line() != "ready":
            raise RuntimeError("the subscribers could not attach; what they say stands above")

    async def tally(self) -> Tally:
        """Wait for the end of the turn; what they got."""
        line = await self._line()
        if not line:
            raise RuntimeError("the subscribers failed; what they say stands above")
        return Tally(**json.loads(line))

    async def _line(self) -> str:
        line = bytearray()
        assert self.process.stdout is not None
        with trio.fail_after(TURN_PATIENCE):
            while not line.endswith(b"\n"):
                piece = await self.process.stdout.receive_some()
                if not piece:
                    return ""
                line += piece
        return line.decode().rstrip()


@asynccontextmanager
async def loading(url: str, thread: str, subscribers: int) -> AsyncIterator[Load]:
    """So many subscribers to a thread, ready; ended on the way out."""
    command = [sys.executable, "-m", "bench.load", url, thread, str(subscribers)]
    process: trio.Process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    try:
        load = Load(process)
        await load.wait_ready()
        yield load
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


# --- The table -----------------------------------------------------------------------------------


def show(readings: Iterable[Reading], console: Console) -> None:
    """Print what was measured."""
    table = Table(title="one turn, many subscribers", caption="times in s, memory in MiB")
    table.add_column("")
    headings = (
        "subscribers", "turn", "lag", "deltas each", "deliveries/s", "app-server CPU",
        "broker CPU", "broker peak", "reads each", "load CPU", "model CPU",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right")
    for each in readings:
        complete = "[green]all[/]" if each.received == each.expected else "[red]LOST[/]"
        table.add_row(
            each.kind, f"{each.subscribers}", f"{each.turn:.2f}", f"{each.lag:.3f}",
            f"{each.received:,} {complete}", f"{each.rate:,.0f}", _seconds(each.app_server_cpu),
            _seconds(each.broker_cpu), _mib(each.broker_peak), f"{each.reads:,}",
            _seconds(each.load_cpu), _seconds(each.model_cpu),
        )  # fmt: skip
    console.print(table)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _mib(value: int | None) -> str:
    return "" if value is None else f"{value / MIB:.0f}"


def ratios(readings: Iterable[Reading]) -> dict[str, float]:
    """How the turn grows from the fewest to the most subscribers, and what the broker gains."""
    by = {(each.kind, each.subscribers): each for each in readings}
    few, many = min(number for _, number in by), max(number for _, number in by)
    found = {f"{kind}: turn({many}) / turn({few})": by[kind, many].turn / by[kind, few].turn
             for kind in KINDS}  # fmt: skip
    gain = by["broker", many].rate / by["native", many].rate
    return found | {f"deliveries/s at {many}: broker / native": gain}


def show_ratios(found: dict[str, float], console: Console) -> None:
    """Print the ratios, and beside the broker's what the design promises."""
    for name, ratio in found.items():
        promise = ""
        if name.startswith("broker"):
            promise = _promise(ratio <= MAX_SLOWDOWN, f"at most {MAX_SLOWDOWN}")
        elif name.startswith("deliveries"):
            promise = _promise(ratio >= MIN_GAIN, f"at least {MIN_GAIN:g}")
        console.print(f"  {name:<42} {ratio:6.2f}  {promise}")


def _promise(kept: bool, text: str) -> str:
    return f"[{'green' if kept else 'red'}]{text}[/]"


def typical(readings: list[Reading]) -> Reading:
    """The middle one of several runs, by turn: one's luck is no more typical than its bad luck."""
    return sorted(readings, key=lambda each: each.turn)[(len(readings) - 1) // 2]


def run(numbers: list[int], deltas: int, repeat: int, progress: Console) -> list[list[Reading]]:
    """All measurements, each ``repeat`` times; natively first.

    Round by round, so that whatever else the machine does meanwhile strikes all of them alike.
    """
    runs: dict[tuple[Kind, int], list[Reading]] = {
        (kind, number): [] for kind in KINDS for number in numbers
    }
    for _ in range(repeat):
        for (kind, number), readings in runs.items():
            readings.append(trio.run(measure, kind, number, deltas))
            progress.print(f"[dim]{kind}, {number} subscribers: {readings[-1].turn:.2f} s[/]")
    return list(runs.values())


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--deltas", default=20_000, show_default=True, help="In one turn.")
@click.option("--subscribers", default="1,8,32", show_default=True, help="Numbers of them.")
@click.option("--repeat", default=1, show_default=True, help="Runs of each; the median counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def main(deltas: int, subscribers: str, repeat: int, as_json: bool) -> None:
    numbers = [int(number) for number in subscribers.split(",")]
    runs = run(numbers, deltas, repeat, Console(stderr=True))
    readings = [typical(each) for each in runs]
    found = ratios(readings)
    if as_json:
        rows = [attrs.asdict(each) | {"rate": each.rate} for each in readings]
        click.echo(json.dumps({"deltas": deltas, "readings": rows, "ratios": found}, indent=2))
    else:
        console = Console(width=None if sys.stdout.isatty() else 160)
        show(readings, console)
        show_ratios(found, console)
    if any(each.received != each.expected for readings in runs for each in readings):
        sys.exit("some subscribers missed deltas")


if __name__ == "__main__":
    main()
