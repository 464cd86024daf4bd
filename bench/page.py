"""The page on a middling phone: Chromium with a processor four times slower, over a slow link.

The broker, its app-server and the browser are real; the link's round trips take 150 ms, and what
the page itself takes from the broker's socket to the screen is measured beside it, without them.

Hands to: `report`, the figures. Hears from: `slow_link`, Chromium by its debugging protocol.
"""

from __future__ import annotations

import gzip
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, sync_playwright

from bench.figures import Figure, Plan
from bench.long_rollouts import short_items
from bench.sides import HERE, MIB, median
from bench.slow_link import SlowLink, slow_link
from mux.demo.scripted_model import Hold, Say, Scripted
from tests.end_to_end.chromium import chromium
from tests.page.conftest import PHONE, go
from tests.page.runtime import Runtime, runtime

STATIC: Final = HERE / "mux" / "web" / "static"

SLOWER: Final = 4
ROUND_TRIP: Final = 0.15
PATIENCE: Final = 240_000.0
"""Milliseconds: a busy machine takes long for a turn of 20,000 deltas at a fourth of its speed."""

THREADS: Final = 30
"""In the inbox: two screens of a phone."""
DELTAS: Final = 20_000
PACE: Final = 50
ITEMS: Final = 5_000
TURNS: Final = 20
SETTLED: Final = 2
"""Turns after which the tab's memory is what later ones are held against: by then all is loaded."""

KIB: Final = 1024

SECTION: Final = """## What was found in part {n}

The parser drops every word with a capital or an accent, since its pattern is `[a-z]+`; so *Ada* is
read as `da`, and the counts that follow from it are wrong in **every** table below this one.

1. Match the letters of any script, not those of one.
2. Compare in lower case, after the text was normalised.
3. Add a test for both, and one for numbers.

```python
WORD = re.compile(r"\\w+", re.UNICODE)

def words(text):
    return [each.lower() for each in WORD.findall(text)]
```

| text | before | now |
|---|---|---|
| `Ada wrote` | `da`, `wrote` | `ada`, `wrote` |

"""

WATCH: Final = """
(() => {
  window.bench = {longest: 0, seen: new Map(), row: 0, completed: 0};
  new PerformanceObserver(list => {
    for (const each of list.getEntries()) bench.longest = Math.max(bench.longest, each.duration);
  }).observe({entryTypes: ['longtask']});
  const painted = then => requestAnimationFrame(() => {
    const {port1, port2} = new MessageChannel();
    port1.onmessage = () => then(performance.timeOrigin + performance.now());
    port2.postMessage(0);
  });
  const agents = document.getElementsByClassName('agent');
  // Of long turns only the last is on the page: that one has ended its foot says once.
  new MutationObserver(list => {
    for (const each of list) {
      const now = each.target.className;
      if (/turn-foot.*inProgress/.test(each.oldValue) && /completed/.test(now)) bench.completed++;
    }
  }).observe(document, {subtree: true, attributeFilter: ['class'], attributeOldValue: true});
  new MutationObserver(() => {
    if (!bench.row && document.querySelector('.row')) {
      bench.row = 1;
      painted(at => { bench.row = at - performance.timeOrigin; });
    }
    if (!bench.stamps) return;
    const found = /.*#(\\d+)#/.exec(agents[agents.length - 1].textContent.slice(-200));
    if (!found || bench.seen.has(found[1])) return;
    bench.seen.set(found[1], 0);
    painted(at => bench.seen.set(found[1], at));
  }).observe(document, {childList: true, subtree: true, characterData: true});
})();
"""
"""Notes the moment of the first row, of each stamp, and the longest task of at least 50 ms."""

LONG_TASK: Final = 50.0
"""Shorter tasks the browser doesn't tell of: of a turn without a longer one this much is known."""

UNCACHED: Final = """async () => {
  for (const each of await navigator.serviceWorker.getRegistrations()) await each.unregister();
  for (const name of await caches.keys()) await caches.delete(name);
  localStorage.removeItem('texts/inbox');
}"""

WORKED: Final = """() => new Promise(done => {
  const look = () => navigator.serviceWorker.controller ? done() : setTimeout(look, 20);
  look();
})"""

UPWARDS: Final = """async () => {
  const box = document.querySelector('.timeline');
  while (!document.querySelector('.begun')) {
    box.scrollTop = 0;
    await new Promise(done => setTimeout(done, 50));
  }
}"""


def measure(plan: Plan) -> list[Figure]:
    """What the page weighs, how soon it is there, and how soon a delta is seen."""
    with _stage() as stage:
        return [
            *_sizes(),
            *_opening(stage, max(plan.repeat, 3)),
            _delta_to_screen(stage, int(PACE * plan.paced_seconds)),
        ]


def measure_turns(plan: Plan) -> list[Figure]:
    """Long turns. A quick run has two, which say nothing of memory."""
    with _stage() as stage:
        return _long_turns(stage, TURNS, SETTLED) if plan.repeat > 1 else _long_turns(stage, 1, 1)


def measure_thread(plan: Plan) -> list[Figure]:
    """A long thread; a quick run has a fifth of it."""
    with _stage() as stage:
        return _long_thread(stage, ITEMS if plan.repeat > 1 else ITEMS // 5)


def _judged(name: str, unit: str, values: list[float], most: float) -> Figure:
    judged = median(values)
    return Figure(
        name, unit, {"page": values}, f"≤ {most:g} {unit}".rstrip(), judged, judged <= most
    )


# --- Sizes ---------------------------------------------------------------------------------------


def _sizes() -> list[Figure]:
    """What the page's files weigh, compressed."""

    def weight(names: set[str]) -> float:
        return sum(len(gzip.compress((STATIC / name).read_bytes())) for name in names) / KIB

    first = set(re.findall(r'"/(assets/[^"]+)"', (STATIC / "index.html").read_text()))
    scripts = {name for name in first if name.endswith(".js")}
    every = {str(each.relative_to(STATIC)) for each in STATIC.rglob("*.js")}
    return [
        _judged("JavaScript of the first screen, compressed", "KB", [weight(scripts)], 60),
        _judged("all of its load", "KB", [weight({"index.html", *first})], 90),
        _judged("all JavaScript", "KB", [weight(every)], 110),
    ]


# --- The stage -----------------------------------------------------------------------------------


@attrs.frozen
class Stage:
    """A runtime, a browser, and two links between them: ``far`` is slow, ``near`` isn't."""

    host: Runtime
    browser: Browser
    far: SlowLink
    near: SlowLink

    def paired(self, link: SlowLink) -> BrowserContext:
        """Return a browser that is let in, with the worker in charge, and no page open."""
        context = self.browser.new_context(**PHONE)
        context.set_default_timeout(PATIENCE)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.goto(f"{link.origin}/#pair={self.host.ticket()}")
        page.get_by_role("button", name="Pair", exact=True).click()
        page.locator(".state-live").first.wait_for()
        page.evaluate(WORKED)
        page.close()
        return context

    def opened(self, context: BrowserContext, link: SlowLink) -> tuple[Page, CDPSession]:
        """Return its page, live, on the slow processor."""
        page = context.new_page()
        session = slowed(page)
        page.goto(link.origin)
        page.locator(".state-live").first.wait_for()
        return page, session


def slowed(page: Page) -> CDPSession:
    """Take three quarters of the page's processor away."""
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    return session


@contextmanager
def _stage() -> Iterator[Stage]:
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with runtime(_model()) as host, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=[*sandbox, "--disable-gpu", "--disable-dev-shm-usage"],
        )
        far, near = host.run(_links, host)
        for number in range(THREADS):
            host.begin(f"Thread number {number}", "hello")
        yield Stage(host, browser, far, near)
        browser.close()


async def _links(host: Runtime) -> tuple[SlowLink, SlowLink]:
    made: list[SlowLink] = []
    name, _, port = host.origin.removeprefix("http://").partition(":")

    async def keep(round_trip: float, task_status: trio.TaskStatus[None]) -> None:
        async with slow_link((name, int(port)), round_trip) as link:
            made.append(link)
            task_status.started()
            await trio.sleep_forever()

    for round_trip in (ROUND_TRIP, 0.0):

        async def one(task_status: trio.TaskStatus[None], round_trip: float = round_trip) -> None:
            await keep(round_trip, task_status)

        await host.start(one)
    return made[0], made[1]


def _model() -> Scripted:
    model = Scripted()
    model.on("hello", Say("Hello! What shall we look at?"))
    pieces: list[str] = []
    number = 0
    while len(pieces) < DELTAS:
        number += 1
        pieces += re.findall(r"\s*\S+\s*?", SECTION.format(n=number))
    model.on("long", Say(chunks=tuple(pieces[:DELTAS])))
    stamps: list[str | Hold] = []
    for at in range(MOST_STAMPS):
        stamps += [Hold(f"{at}"), f"word #{at}# "]
    model.on("stamps", Say(chunks=("Now: ", *stamps)))
    return model


MOST_STAMPS: Final = 400


# --- Opening -------------------------------------------------------------------------------------


def _opening(stage: Stage, repeat: int) -> list[Figure]:
    """Time from the tap on the app's icon to the first row of the inbox that can be read."""
    context = stage.paired(stage.far)
    again = [_row_shown(stage, context) for _ in range(repeat)]
    cold: list[float] = []
    for _ in range(repeat):
        page = context.new_page()
        page.goto(f"{stage.far.origin}/reset")
        page.evaluate(UNCACHED)
        session = context.new_cdp_session(page)
        session.send("Network.clearBrowserCache")
        page.close()
        cold.append(_row_shown(stage, context))
    context.close()
    return [
        _judged("inbox readable, cold", "s", cold, 1.5),
        _judged("inbox readable, opened again", "s", again, 0.5),
    ]


def _row_shown(stage: Stage, context: BrowserContext) -> float:
    page = context.new_page()
    session = slowed(page)
    session.send("ServiceWorker.enable")
    session.send("ServiceWorker.stopAllWorkers")
    page.goto(stage.far.origin, wait_until="commit")
    page.wait_for_function("() => bench.row > 1")
    shown = float(page.evaluate("bench.row")) / 1e3
    page.locator(".state-live").first.wait_for()
    page.evaluate(WORKED)
    page.close()
    return shown


# --- A delta to the screen -----------------------------------------------------------------------


def _delta_to_screen(stage: Stage, deltas: int) -> Figure:
    """Time from when a neighbour has a delta to when the page has painted it, at 50 a second."""
    deltas = min(deltas, MOST_STAMPS)
    last = deltas - 1
    host = stage.host
    context = stage.paired(stage.near)
    page, _ = stage.opened(context, stage.near)
    thread = host.begin("Stamps", "hello")
    go(page, f"/t/{thread}")
    page.locator(".agent").first.wait_for()
    page.evaluate("bench.stamps = true")
    came = host.run(_paced, host, thread, deltas)
    page.wait_for_function(f"() => [...bench.seen].some(([at, shown]) => at >= {last} && shown)")
    seen = dict(page.evaluate("[...bench.seen]"))
    context.close()
    # A stamp that a later one came in front of was painted with that one.
    late: list[float] = []
    shown = float("inf")
    for at in reversed(range(MOST_STAMPS)):
        shown = min(shown, float(seen.get(str(at)) or shown))
        if at < deltas:
            late.append(shown - came[at] * 1e3)
    p95 = sorted(late)[int(len(late) * 0.95)]
    return _judged(f"a delta to the screen, p95, at {PACE}/s", "ms", [p95], 60)


async def _paced(host: Runtime, thread: str, deltas: int) -> list[float]:
    """Have deltas come at a pace; when a neighbour of the page had each."""
    desk = host.desk
    since = len(desk.inbox)
    await desk.start_turn(thread, "stamps")
    came: list[float] = []

    async def note() -> None:
        at = since
        for number in range(deltas):
            mark = f"#{number}#"
            await desk.wait(lambda message: mark in str(message.get("params", "")), since=at)  # noqa: B023
            came.append(time.time())
            at = len(desk.inbox) - 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note)
        for number in range(MOST_STAMPS):
            if number < deltas:
                await trio.sleep(1 / PACE)
            host.model.release(f"{number}")
    return came


# --- Long turns ----------------------------------------------------------------------------------


def _long_turns(stage: Stage, turns: int, settled: int) -> list[Figure]:
    """One thread, turns of 20,000 deltas each: what they hold up, send, and leave behind."""
    host = stage.host
    context = stage.paired(stage.far)
    page, session = stage.opened(context, stage.far)
    session.send("HeapProfiler.enable")
    thread = host.begin("Long turns", "hello")
    go(page, f"/t/{thread}")
    page.locator(".agent").first.wait_for()
    longest: list[float] = []
    shares: list[float] = []
    memory: list[float] = []
    for _ in range(turns + settled):
        page.evaluate("bench.longest = bench.completed = 0")
        before = stage.far.down
        plain = host.run(_long_turn, host, thread)
        page.wait_for_function("() => bench.completed")
        page.wait_for_timeout(500)
        shares.append((stage.far.down - before) / plain)
        longest.append(max(LONG_TASK, float(page.evaluate("bench.longest"))))
        memory.append(_heap(session))
    context.close()
    kept, most = sorted(longest[settled:]), median(memory[settled:][-2:])
    grown = most / memory[settled - 1]
    name = f"a turn of {DELTAS:,} deltas: "
    tasks = Figure(
        f"{name}longest main-thread task, p95", "ms", {"page": kept}, "≤ 50 ms",
        p95 := kept[int(len(kept) * 0.95)], p95 <= LONG_TASK,
    )  # fmt: skip
    flat = Figure(
        f"memory of the tab after {turns} such turns / after {settled}", "",
        {"page": [grown]}, "0.9 to 1.1", grown, 0.9 <= grown <= 1.1,
        f"{most / MIB:.1f} MiB of heap",
    )  # fmt: skip
    wire = _judged(f"{name}bytes on the wire / plain", "", shares, 0.3)
    return [tasks, wire, flat] if turns > 1 else [tasks, wire]


def _heap(session: CDPSession) -> float:
    session.send("HeapProfiler.collectGarbage")
    return float(session.send("Runtime.getHeapUsage")["usedSize"])


async def _long_turn(host: Runtime, thread: str) -> int:
    """Run one; the bytes that it was to a client whose frames are plain."""
    desk = host.desk
    desk.inbox.clear()
    desk.raw.clear()
    await desk.start_turn(thread, "long")
    await desk.wait_method("turn/completed", threadId=thread, timeout=PATIENCE / 1e3)
    return sum(len(each) + 4 for each in desk.raw)


# --- A long thread -------------------------------------------------------------------------------


def _long_thread(stage: Stage, items: int) -> list[Figure]:
    """A thread of many items: opened at its end, and scrolled to its beginning."""
    host = stage.host
    with tempfile.TemporaryDirectory(prefix="appmux-bench-") as place:
        rollout = host.run(short_items, Path(place), items, SECTION.format(n=1))
        rollout.put(host.broker.home.root)
    context = stage.paired(stage.far)
    page, _ = stage.opened(context, stage.far)
    # What loads the thread from its file is the app-server, which isn't measured here.
    host.request("thread/resume", {"threadId": rollout.thread, "excludeTurns": True})
    page.evaluate("bench.longest = 0")
    began = time.monotonic()
    go(page, f"/t/{rollout.thread}")
    page.locator(".agent").last.wait_for()
    opened = time.monotonic() - began
    page.evaluate("bench.longest = 0")
    page.evaluate(UPWARDS)
    longest = max(LONG_TASK, float(page.evaluate("bench.longest")))
    context.close()
    name = f"a thread of {items:,} items: "
    return [
        _judged(f"{name}opened at its end", "s", [opened], 1.0),
        _judged(f"{name}longest task while scrolled to its start", "ms", [longest], 100),
    ]
