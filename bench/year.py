"""A simulated year: one person, 300,000 turns; does anything get dearer with use?

Run as ``python -m bench.year``; exit status 1 if something isn't flat in the year's second half.
The core, the dispatcher and the stores are the real ones, one life of a broker long, and the clock
is theirs (`lived`). The person has a laptop, scripts, and a phone that comes, goes and is replaced.
Agents work on while nobody is there: then notices are pushed. Threads are made, taken up again days
later, unloaded; agents have agents; the app-server dies now and then.

Each half month: memory, what a request takes of the core, the state directory's size, how long
another start on it takes, and how many elements every container of the core has.

Hands to: whoever reads the table.
"""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Final

import attrs
import click
import structlog
import trio
from rich.console import Console
from rich.table import Table

from bench.lived import APPROVAL, DAY, LIMITS, Life
from bench.sides import median, memory_bytes
from mux.core.limits import Limits
from mux.core.policy.principal import ClientId, Principal
from tests.fuzz.registries import NOT_KEPT, sizes

DAYS: Final = 365
TURNS: Final = 300_000
SAMPLES: Final = 24
FLUSHES: Final = 4
"""A day, however many turns: the stores write each twentieth of a second, if there is something."""

THREADS: Final = 40
"""That a person goes back to, the latest of all."""
OPEN: Final = 6
"""Of these that are open on the laptop."""

DELTAS: Final = 3
ASKING: Final = 20
"""Requests whose cost is measured together; the quickest of so many times counts."""

MOST: Final = {"memory": 1.1, "request": 1.25, "disk": 1.1, "start": 1.25}
"""What may be in the last quarter for each in the third; times differ more by themselves."""
MORE_ELEMENTS: Final = 64
"""Elements by which a container of the core may differ between these, besides a tenth."""


@attrs.frozen
class Sample:
    """What is seen at one moment. Bytes, and seconds; ``elements`` by where they stand."""

    day: float
    memory: int
    request: float
    disk: int
    start: float
    elements: Counter[str]


@attrs.define(eq=False)
class Person:
    """One person, and what happens to them; each turn is told by its number."""

    life: Life
    threads: deque[str] = attrs.field(factory=lambda: deque(maxlen=THREADS))
    laptop: ClientId | None = None
    phone: ClientId | None = None
    device: Principal | None = None
    made: int = 0

    def day(self, number: int) -> None:
        """What comes on some days: another phone, an app-server that dies."""
        if number % 30 == 0:
            if self.device is not None:
                self.life.notices.pushes.forget(self.device.key)
                self.life.registry.revoke(self.life.registry.by_name(self.device.name))
            self.device = self.life.pairs(f"phone {number}")[1]
        if number % 7 == 6:
            self.life.dies()

    def turn(self, number: int, awake: bool) -> None:
        """One turn; what is special of it is told by its number."""
        self.comes_and_goes(number, awake)
        client = self.laptop if self.laptop is not None else self.phone
        if number % 37 == 0 or not self.threads:
            self.makes_thread()
        thread = self.threads[number * 7 % len(self.threads)]
        if client is None:
            client = self.life.attaches("script")
        if thread not in self.life.dispatcher.broker.state.clients[client].follows:
            self.life.asks(client, "thread/resume", {"threadId": thread, "excludeTurns": True})
        said = [{"type": "text", "text": f"do {number}"}]
        sent = {"threadId": thread, "input": said, "clientUserMessageId": f"message {number}"}
        self.life.asks(client, "turn/start", sent)
        if client not in (self.laptop, self.phone):
            self.life.leaves(client)
        self.runs(thread, number)

    def runs(self, thread: str, number: int) -> None:
        """What the app-server says of a turn."""
        life, turn = self.life, f"turn-{self.life.turns:08}"
        of, shown = {"turnId": turn}, {"id": turn, "items": [], "status": "inProgress"}
        life.notifies("thread/status/changed", thread, status={"type": "active"})
        life.notifies("turn/started", thread, turn=shown)
        item = {"type": "agentMessage", "id": f"item {number}", "text": ""}
        life.notifies("item/started", thread, item=item, **of)
        for _ in range(DELTAS):
            life.notifies(
                "item/agentMessage/delta", thread, itemId=item["id"], delta="word " * 20, **of
            )
        life.notifies("item/completed", thread, item=item | {"text": "word " * 60}, **of)
        if number % 5 == 0:
            self.approves(thread, turn, number)
        if number % 20 == 0:
            self.spawns(thread, turn, number)
        used = {"total": {"totalTokens": number}, "last": {"totalTokens": 1}}
        life.notifies("thread/tokenUsage/updated", thread, tokenUsage=used, **of)
        life.notifies("thread/status/changed", thread, status={"type": "idle"})
        life.notifies("turn/completed", thread, turn=shown | {"status": "completed"})
        if number % 11 == 0:
            life.notifies("thread/name/updated", f"elsewhere {number}", threadName="Somebody's")
        life.answer()

    def approves(self, thread: str, turn: str, number: int) -> None:
        """An agent asks; somebody says yes, or a minute later the agent gives up."""
        life, id = self.life, number
        asked = {"threadId": thread, "turnId": turn, "itemId": f"call {number}", "command": "make"}
        life.says({"method": APPROVAL, "id": id, "params": asked})
        if not life.offered:
            life.until(life.dispatcher.now + 60.0)
        life.answers_approval()
        life.notifies("serverRequest/resolved", thread, requestId=id)

    def spawns(self, parent: str, turn: str, number: int) -> None:
        """An agent's agent: a thread that nobody asked for, which ends soon."""
        life, child = self.life, f"agent {number}"
        item = {
            "type": "collabAgentToolCall",
            "id": f"spawn {number}",
            "receiverThreadIds": [child],
        }
        life.notifies("item/completed", parent, item=item, turnId=turn)
        shown = {"id": f"of agent {number}", "items": [], "status": "inProgress"}
        life.notifies("turn/started", child, turn=shown)
        life.notifies("turn/completed", child, turn=shown | {"status": "completed"})
        life.answer()
        life.unloads(child)

    def makes_thread(self) -> None:
        """A thread; of those before, the oldest is left."""
        client = self.life.attaches("maker")
        self.life.asks(client, "thread/start", {"cwd": "/w"})
        self.made += 1
        (thread,) = self.life.dispatcher.broker.state.clients[client].follows
        self.threads.append(thread)
        self.life.leaves(client)

    def comes_and_goes(self, number: int, awake: bool) -> None:
        """By day the laptop is open; the phone is looked at now and then."""
        life = self.life
        if awake and self.laptop is None:
            self.laptop = life.attaches("codex-tui")
            for thread in list(self.threads)[-OPEN:]:
                life.asks(self.laptop, "thread/resume", {"threadId": thread})
        elif not awake and self.laptop is not None:
            life.leaves(self.laptop)
            self.laptop = None
        if awake and number % 9 == 0 and self.phone is None and self.device is not None:
            knows = {"extensions": {"appmux": {"version": 1}}}
            self.phone = life.attaches("phone", self.device, **knows)
            cursor = max(0, life.dispatcher.broker.state.journal.head - 200)
            wanted = {
                "cursor": cursor,
                "epoch": life.store.epoch,
                "threads": list(self.threads)[-2:],
            }
            life.asks(self.phone, "mux/replay", wanted)
        elif number % 9 == 4 and self.phone is not None:
            life.leaves(self.phone)
            self.phone = None


@attrs.frozen
class Span:
    """How long a life is, how much happens in it, and how often it is looked at."""

    turns: int
    days: int = DAYS
    samples: int = SAMPLES


async def live(
    place: Path, span: Span, say: Callable[[str], None], limits: Limits = LIMITS
) -> list[Sample]:
    """A life over a state directory."""
    life = Life(place, limits)
    life.begin()
    life.starts()
    person, seen, number = Person(life), list[Sample](), 0
    unloading: deque[tuple[float, str]] = deque()
    for day in range(span.days):
        person.day(day)
        for part in range(FLUSHES):
            moment = (day + part / FLUSHES) * DAY
            until = int(span.turns * (day * FLUSHES + part + 1) / (span.days * FLUSHES))
            step = DAY / FLUSHES / max(1, until - number)
            while number < until:
                number += 1
                moment += step
                life.until(moment)
                person.turn(number, awake=1 <= part <= 2)
                _unload(life, unloading)
            await life.read_journal()
            await life.flush()
        if (day + 1) * span.samples // span.days > len(seen):
            seen.append(_sample(life, day + 1))
            say(f"day {day + 1}: {number:,} turns")
    await life.end()
    return seen


def _unload(life: Life, unloading: deque[tuple[float, str]]) -> None:
    """Natively a thread is unloaded half an hour after its last subscriber has left."""
    now, known = life.dispatcher.now, life.dispatcher.broker.state.threads.known
    waiting = {thread for _, thread in unloading}
    for id, thread in known.items():
        if thread.claimed and not thread.subscribed and id not in waiting:
            unloading.append((now + 1800.0, id))
    while unloading and unloading[0][0] <= now:
        id = unloading.popleft()[1]
        if id in known and not known[id].subscribed:
            life.unloads(id)


def _sample(life: Life, day: float) -> Sample:
    elements = sizes(life.dispatcher.broker) + _of_stores(life)
    gc.collect()
    memory = memory_bytes(_self())
    disk = sum(each.stat().st_size for each in life.place.rglob("*") if each.is_file())
    return Sample(day, memory, _request(life), disk, _start(life, day), elements)


def _of_stores(life: Life) -> Counter[str]:
    """What the shells keep in memory."""
    notices = life.notices
    kept: dict[str, Sized] = {
        "NoticeDelivery._standing": notices._standing,
        "Queue.rows": notices.pushes.queue.rows,
        "Endpoints": notices.pushes.endpoints.all(),
        "DeviceRegistry": list(life.registry),
        "Store._pending": life.store._pending,
        "Audit._pending": life.audit._pending,
    }
    return Counter({name: len(each) for name, each in kept.items()})


def _self() -> int:
    return int(Path("/proc/self").resolve().name)


def _request(life: Life) -> float:
    """Seconds that one request takes, with its answer, of core and dispatcher."""
    client = life.attaches("asker")
    took = []
    for _ in range(ASKING):
        began = time.perf_counter()
        for _ in range(ASKING):
            life.asks(client, "thread/loaded/list", {})
        took.append((time.perf_counter() - began) / ASKING)
    life.leaves(client)
    return min(took)


def _start(life: Life, day: float) -> float:
    """Seconds that a start takes on a copy of the state directory."""
    took = []
    for _ in range(3):
        with tempfile.TemporaryDirectory(prefix="appmux-year-") as there:
            copy = Path(there) / "state"
            shutil.copytree(life.place, copy)
            another = Life(copy, began=day * DAY)
            began = time.perf_counter()
            another.begin()
            took.append(time.perf_counter() - began)
            another.notices.ledger.close()
    return min(took)


# -- judging ---------------------------------------------------------------------------------------


def quarters(seen: list[Sample], name: str) -> tuple[float, float]:
    """The medians of the third quarter, and of the last."""
    values = [float(getattr(each, name)) for each in seen]
    half, more = len(values) // 2, len(values) * 3 // 4
    return median(values[half:more]), median(values[more:])


def growing(seen: list[Sample]) -> list[str]:
    """The containers of the core that have more elements in the last quarter than in the third."""
    half, more = len(seen) // 2, len(seen) * 3 // 4
    found = []
    for path in sorted({path for each in seen for path in each.elements} - NOT_KEPT):
        third, last = (
            max(each.elements[path] for each in part) for part in (seen[half:more], seen[more:])
        )
        if last > third * 1.1 + MORE_ELEMENTS:
            found.append(f"{path}: {third:,} → {last:,}")
    return found


def told(seen: list[Sample], console: Console) -> bool:
    """Print the table; return whether all is flat."""
    table = Table(caption="the medians of the year's quarters")
    for name in ("", "first", "second", "third", "last", "last / third", "at most"):
        table.add_column(name, justify="right")
    flat, part = True, len(seen) // 4
    shown = {
        "memory": ("MB", 1e6),
        "request": ("µs", 1e-6),
        "disk": ("MB", 1e6),
        "start": ("ms", 1e-3),
    }
    for name, (unit, one) in shown.items():
        values = [float(getattr(each, name)) / one for each in seen]
        row = [median(values[at * part : (at + 1) * part]) for at in range(4)]
        third, last = quarters(seen, name)
        flat = flat and last <= third * MOST[name]
        figures = [f"{each:,.1f}" for each in row]
        table.add_row(f"{name}, {unit}", *figures, f"{last / third:.2f}", f"{MOST[name]:g}")
    console.print(table)
    more = growing(seen)
    for each in more:
        console.print(f"grows: {each}", style="red")
    return flat and not more


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--quick", is_flag=True, help="A fiftieth of the turns.")
@click.option("--turns", type=int, help="So many.")
def main(*, quick: bool, turns: int | None) -> None:
    """Live it, and judge."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    console = Console(width=None if sys.stdout.isatty() else 120)
    began = time.monotonic()
    count = turns or (TURNS // 50 if quick else TURNS)
    with tempfile.TemporaryDirectory(prefix="appmux-year-") as place:
        place_own = Path(place) / "state"
        place_own.mkdir(mode=0o700)
        seen = trio.run(live, place_own, Span(count), console.print)
    flat = told(seen, console)
    console.print(f"{count:,} turns in {time.monotonic() - began:,.0f} s")
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
