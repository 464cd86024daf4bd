"""The soak: clients come and go at random while turns run and the app-server is killed.

    python -m tests.soak.soak --minutes 5 --clients 8 --seed 1

A *resident* follows all threads from the beginning to the end, and never leaves. At the end every
other client comes to rest, and what each was told, over its whole life, is checked against what the
resident was told: zero lost, zero doubled, zero out of order. It ends by itself, and looks whether
it leaves processes behind. Exit status 0 if all was well.

Hands to: `roamer` (the clients), `ledger` (the checks). Hears from: the command line, `test_soak`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Final

import attrs
import trio

from mux.demo.scripted_model import Patch, Reason, Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client, logged
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Json, Peer
from tests.end_to_end.scenes import ACCEPT, LOOK_SECONDS, status
from tests.end_to_end.stalling import memory
from tests.soak.ledger import Ledger
from tests.soak.roamer import Roamer
from tests.view import View

THREADS: Final = 3
KILL_EVERY: Final = (3.0, 9.0)
"""Seconds between two kills of the app-server: a start takes about half of one."""
END_PATIENCE: Final = 120.0
"""Seconds in which all must have come to rest once nobody begins anything new."""
WANTED_PATIENCE: Final = 60.0
"""Seconds longer than asked for, at most, until what is wanted has happened."""
LEFT_PATIENCE: Final = 10.0
"""Seconds in which what is over is to be gone, too."""
SANDBOX: Final = "codex-linux-sandbox"
"""Codex's own, with its `bwrap`: where the app-server is killed in the moment in which these begin,
they may wait for each other for ever."""
LIMITS: Final = {
    "APPMUX_LIMITS_OUTBOX_BYTES": str(32 * 1024),
    "APPMUX_LIMITS_CATCH_UP_BYTES": str(32 * 1024),
    "APPMUX_LIMITS_JOURNAL_MEMORY_BYTES": str(128 * 1024),
    "APPMUX_LIMITS_DEATHS_IN_A_MINUTE": "1000",
    "APPMUX_LIMITS_RESTART_FIRST_WAIT": "0.001",
}
"""So low that clients lag, and read from disk; and the app-server is always started again."""


def script() -> Scripted:
    """What the model answers to what roamers say."""
    model = Scripted()
    patch = "*** Begin Patch\n*** Add File: a{}.txt\n+hello\n*** End Patch"
    count = "for i in 1 2 3 4; do echo line $i; sleep 0.05; done"
    both = (Reason("two at once"), Say("Both. ", chunks=3), Run(count), Run("echo two"))
    model.on("talk", Say("Some words of a talk, again and again. " * 5, chunks=100, pace=0.005))
    model.on("flood", Say("Quite a lot of words. " * 400, chunks=2500))
    model.on("run", Run(count), Say("It ran.", chunks=3))
    model.on("both", both, Say("They ran.", chunks=3))
    model.on("ask", Run("echo asked", escalated=True), Say("Asked.", chunks=3))
    model.on("patch", Patch(patch), Say("Patched.", chunks=3))
    return model


@attrs.define
class Report:
    """How it went. ``faults``: in words; empty if all was well. ``figures``: by name."""

    faults: list[str]
    figures: dict[str, object]


@attrs.define(eq=False)
class Soak:
    """One soak over one broker. ``over``: set when nobody is to begin anything new."""

    broker: Native
    resident: Peer
    threads: tuple[str, ...]
    roamers: list[Roamer]
    rng: random.Random
    done: Counter[str]
    over: trio.Event = attrs.field(factory=trio.Event)
    stuck: list[str] = attrs.field(factory=list)
    """What never came to rest, in words. Then the rest can't be judged."""

    async def run(self, seconds: float, wanted: Collection[str]) -> None:
        """Roam for so long, and until all that is wanted has happened; then come to rest."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill_now_and_then)
            for roamer in self.roamers:
                nursery.start_soon(roamer.roam, self.over)
            await trio.sleep(seconds)
            with trio.move_on_after(WANTED_PATIENCE):
                while not all(map(self.happened().get, wanted)):  # noqa: ASYNC110 (nobody tells us)
                    await trio.sleep(LOOK_SECONDS)
            self.over.set()
        await self._until_quiet()
        async with trio.open_nursery() as nursery:
            for roamer in self.roamers:
                nursery.start_soon(self._bring_to_rest, roamer)
        await self.resident.request("mux/status")

    def happened(self) -> Counter[str]:
        """What has happened so far, and how often."""
        happened = Counter(self.done)
        happened["turns"] = len(self.resident.heard("turn/completed"))
        logs = (each.event for each in logged(self.broker))
        happened["fell behind"] = Counter(logs)["client lags, reads on from the journal"]
        return happened

    async def _kill_now_and_then(self) -> None:
        while not self.over.is_set():
            with trio.move_on_after(self.rng.uniform(*KILL_EVERY)):
                await self.over.wait()
                return
            pid = (await self.resident.request("mux/status"))["appServer"]["pid"]
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                self.done["kill"] += 1

    async def _bring_to_rest(self, roamer: Roamer) -> None:
        if not await roamer.come_to_rest():
            self.stuck.append(f"{roamer.name} can't come to rest")

    async def _until_quiet(self) -> None:
        """No turn runs and nothing waits for an answer: what still does is accepted."""
        with trio.move_on_after(END_PATIENCE) as waiting:
            while True:
                report = await self.resident.request("mux/status", timeout=END_PATIENCE)
                running = [each for each in report["threads"] if each["turn"] is not None]
                if not running and not report["serverRequests"]:
                    return
                for each in report["serverRequests"]:
                    await self.resident.respond(each["id"], ACCEPT)
                await trio.sleep(LOOK_SECONDS)
        if waiting.cancelled_caught:
            self.stuck.append(f"after {END_PATIENCE:g} s a turn runs still, or something waits")

    async def faults(self, ledger: Ledger) -> list[str]:
        """What is wrong now that all is at rest."""
        found = ledger.faults(self.resident.inbox, self.threads)
        for thread in self.threads:
            resident = View(thread).hear_all(self.resident.inbox)
            asked = {"threadId": thread}
            history = View(thread, await self.resident.request("thread/resume", asked))
            for roamer in self.roamers:
                found += ledger.faults_at_end(roamer.stays[thread], resident, history)
        return found


async def soak(seconds: float, clients: int, seed: int, wanted: Collection[str] = ()) -> Report:
    """Run one; its report. ``wanted``: what must happen in it, even if it takes longer then."""
    began, ledger, done = time.monotonic(), Ledger(), Counter[str]()
    async with (
        brokered(model=script(), environ=LIMITS) as broker,
        client(broker, "resident") as resident,
        trio.open_nursery() as connections,
    ):
        threads = []
        for _ in range(THREADS):
            threads.append(await resident.start_thread(broker.home.work))
            await resident.run_turn(threads[-1], "hello")
        first = memory(broker.broker_pid)
        roamers = [
            Roamer(
                name=f"{'aware' if number % 2 else 'plain'} {number}",
                url=broker.url,
                threads=tuple(threads),
                rng=random.Random(f"{seed} {number}"),
                ledger=ledger,
                done=done,
                aware=bool(number % 2),
                connections=connections,
            )
            for number in range(clients)
        ]
        rng = random.Random(f"{seed} soak")
        it = Soak(broker, resident, tuple(threads), roamers, rng, done)
        await it.run(seconds, wanted)
        faults = it.stuck or await it.faults(ledger)
        report = await _at_rest(resident)
        faults += [f"left behind: {each}" for each in _left_in(report)]
        figures = _figures(it, ledger, report)
        figures["broker memory, MB"] = f"{first >> 20} → {memory(broker.broker_pid) >> 20}"
        for roamer in roamers:
            await roamer.end()
    faults += await _processes_left(broker.home.root)
    figures["seconds"] = round(time.monotonic() - began, 1)
    return Report(faults, figures)


async def _at_rest(peer: Peer) -> Json:
    """The broker's report, once nothing is under way in it; the last one, if that never comes."""
    report = await status(peer)
    with trio.move_on_after(LEFT_PATIENCE):
        while _left_in(report):
            await trio.sleep(LOOK_SECONDS)
            report = await status(peer)
    return report


def _left_in(report: Json) -> list[str]:
    """What the broker's report shows that ought to be over."""
    flow = report["appServer"]
    names = ("requestsInFlight", "requestsWaiting", "requestsQueued")
    found = [f"{name}: {flow[name]}" for name in names if flow[name]]
    return found + [f"server request {each['id']}" for each in report["serverRequests"]]


def _figures(it: Soak, ledger: Ledger, report: Json) -> dict[str, object]:
    return {
        **dict(sorted(it.happened().items())),
        "app-server lives": report["appServer"]["generation"],
        "stays": len(ledger.stays),
        "events checked": ledger.events,
        "texts checked": ledger.texts,
        "views checked": ledger.views,
        "journal, bytes": report["store"]["bytes"],
    }


async def _processes_left(root: Path) -> list[str]:
    """Processes that still have this soak's home, once they have had a moment to end."""
    with trio.move_on_after(LEFT_PATIENCE):
        while _processes(root):  # noqa: ASYNC110 (nobody tells us)
            await trio.sleep(LOOK_SECONDS)
    return [f"a process is left: {line}" for line in _processes(root)]


def _processes(root: Path) -> list[str]:
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOME={root}/".encode() in (each / "environ").read_bytes():
                command = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if command and not command.startswith("bwrap") and SANDBOX not in command:
                    found.append(f"{each.name} {command}")
        except OSError:
            continue  # it ended while we looked, or isn't ours
    return found


def shown(report: Report) -> str:
    """The report for people."""
    lines = [f"{name:>24}  {value}" for name, value in report.figures.items()]
    lines += ["", *(report.faults or ["zero lost, zero doubled, zero out of order"])]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="clients come and go at random; nothing is lost")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    report = trio.run(soak, asked.minutes * 60, asked.clients, asked.seed)
    print(shown(report))  # noqa: T201 (what a person reads of it)
    sys.exit(bool(report.faults))


if __name__ == "__main__":
    main()
