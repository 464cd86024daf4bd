"""The soak of handovers: broker and app-server end at random while turns run.

    python -m tests.soak.handovers --kills 30 --seed 1

Each end is one of `ENDS`: either is killed, or both together, or either is renewed by plan, or the
program is replaced by one of another version and the broker renewed (``--other DIR``: by that of
another checkout, and back).

A *speaker* says one thing after another under ids of its own, and says it again until it is
answered. A *listener* follows by `mux/replay` from where it was. Approvals are answered by whoever
is there. At the end every message ran once and in order, the listener had each entry once, its
deltas make the text of each item, each approval was decided once, and turns were interrupted by
nothing but an app-server's end. Exit status 0 if all was well.

Hands to: the command line, `test_handover_soak`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from trio_websocket import ConnectionClosed, HandshakeError

from mux.demo.scripted_model import Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.installed import PACKAGE, Installed
from tests.end_to_end.lives import appmux
from tests.end_to_end.native import Native
from tests.end_to_end.peer import GoneError, Json, Peer, RpcError
from tests.end_to_end.scenes import ACCEPT, APPROVAL, COMPLETED, DELTA, TURN_COMPLETED

AWARE: Final[Json] = {"extensions": {"appmux": {"version": 1}}}
PROGRAM: Final = (sys.executable, "-m", "tests.end_to_end.killed_at")
"""Another broker is started at once, however many die."""
HERE: Final = Path(__file__).parents[2]
VERSIONS: Final = ("0.1.1", "0.1.2")
ENDS: Final = {
    "broker killed": 8,
    "app-server killed": 3,
    "both killed": 3,
    "broker renewed": 3,
    "app-server renewed": 1,
    "upgraded": 2,
}
"""What ends, and how often in comparison."""
DIES: Final = ("app-server killed", "both killed")
MANY_DEATHS: Final = {
    "APPMUX_LIMITS_DEATHS_IN_A_MINUTE": "1000",
    "APPMUX_LIMITS_RESTART_FIRST_WAIT": "0.05",
}
"""Or the app-server would be down for most of the time."""
BETWEEN_ENDS: Final = (0.05, 1.5)
"""Seconds from a broker that serves to its end."""
PATIENCE: Final = 120.0
LOST: Final = (
    ConnectionClosed, GoneError, OSError, RpcError, trio.BrokenResourceError, trio.TooSlowError,
    HandshakeError,
)  # fmt: skip
"""What a client sees of a broker that is killed under it; -32010 among it."""


def script() -> Scripted:
    """What the model answers."""
    model = Scripted()
    model.on("talk", Say("Some words of a talk, again and again. " * 10, chunks=200, pace=0.002))
    model.on("flood", Say("Quite a lot of words. " * 400, chunks=2000))
    model.on("ask", (Run("echo asked", escalated=True),), Say("Asked.", chunks=3))
    return model


@attrs.define(eq=False)
class Handovers:
    """One soak over one broker."""

    broker: Native
    thread: str
    epoch: str
    rng: random.Random
    cursor: int
    program: Installed
    other: Path
    """The package that is installed every second time."""
    said: list[str] = attrs.field(factory=list)
    begun: dict[str, str] = attrs.field(factory=dict)
    """The turn that each message began, as the answer to it said."""
    heard: list[Json] = attrs.field(factory=list)
    done: Counter[str] = attrs.field(factory=Counter)
    over: trio.Event = attrs.field(factory=trio.Event)
    lives: int = 0
    """The app-server's generation when the speaker last spoke."""
    installed: int = 0

    async def play(self, times: int) -> list[str]:
        """Play it to its end. Return at what it got stuck; nothing if it didn't."""
        stuck: list[str] = []
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.end, times)
                nursery.start_soon(self.speak)
                nursery.start_soon(self.listen)
        except* trio.TooSlowError:
            latest = self.said[-1] if self.said else "nothing"
            stuck.append(f"stuck for {PATIENCE:g} s; {latest!r} was said last")
        return stuck

    async def end(self, times: int) -> None:
        """End broker or app-server again and again, now and then two in a row; then stop."""
        for _ in range(times):
            await trio.sleep(self.rng.uniform(*BETWEEN_ENDS))
            [what] = self.rng.choices(list(ENDS), list(ENDS.values()))
            await self._end(what)
            if self.rng.random() < 0.3:  # in the middle of the next one's taking over
                await trio.sleep(self.rng.uniform(0.1, 1.0))
            else:
                await self._serves()
        self.over.set()

    async def _end(self, what: str) -> None:
        done = True
        match what:
            case "broker killed":
                done = _kill(self._child(b"\0serve\0"))
            case "app-server killed":
                done = _kill(self._child(b"\0app-server\0"))
            case "both killed":
                app_server = self._child(b"\0app-server\0")
                done = _kill(self._child(b"\0serve\0")) and _kill(app_server)
            case "broker renewed":
                done = await self._restart(broker=True)
            case "app-server renewed":
                done = await self._restart()
            case _:
                new = 1 - self.installed
                self.program.install(VERSIONS[new], self.other if new else PACKAGE)
                self.installed = new
                done = await self._restart(broker=True)
        self.done[what] += done

    async def _restart(self, **asked: bool) -> bool:
        """Have either restarted by plan, if somebody is there to ask."""
        try:
            async with client(self.broker, "operator") as operator:
                if asked:
                    await operator.ask("mux/restart", asked)
                    await operator.wait_gone()
                else:
                    await operator.request("mux/restart", asked, timeout=PATIENCE)
        except LOST:
            return False
        return True

    def _child(self, named: bytes) -> int | None:
        """The broker or the app-server that runs; None while the next one has yet to begin.

        A child of the supervisor is nobody else's process, as the number in a file may be.
        """
        supervisor = self.broker.process.pid
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        found = [pid for pid in map(int, children) if named in _command(pid)]
        return found[0] if found else None

    async def _serves(self) -> None:
        with trio.fail_after(PATIENCE):
            while True:
                with contextlib.suppress(*LOST):
                    async with client(self.broker, "looks") as looks:
                        await looks.request("thread/loaded/list")
                        return
                await trio.sleep(0.05)

    async def speak(self) -> None:
        """Say one thing after another, each until it is answered and its turn is over."""
        while not self.over.is_set():
            text = f"{self.rng.choice(('talk', 'flood', 'ask'))} {len(self.said)}"
            self.said.append(text)
            lives = 0
            with trio.fail_after(PATIENCE):
                while not await self._says(text, lives):
                    self.done["said again"] += 1
                    lives = self.lives
        self.done["turns"] = len(self.said)

    async def _says(self, text: str, lives: int) -> bool:
        """Say it; `lives`: the app-server's generation when it was said before, or 0."""
        words = [{"type": "text", "text": text, "text_elements": []}]
        asked = {"threadId": self.thread, "input": words, "clientUserMessageId": text}
        told = False
        try:
            async with client(self.broker, "speaker") as speaker, trio.open_nursery() as nursery:
                await speaker.request("thread/resume", {"threadId": self.thread})
                self.lives = (await speaker.request("mux/status"))["appServer"]["generation"]
                nursery.start_soon(self._approve, speaker)
                # A message that is lost with an app-server may have run: nobody but its thread
                # knows, and the error says that asking again isn't safe.
                known = lives not in (0, self.lives) and text in await self._ran(speaker)
                if not known:
                    answer = await speaker.request("turn/start", asked)
                    self.begun[text] = answer["turn"]["id"]
                while not await self._is_idle(speaker):  # noqa: ASYNC110 (it has no news)
                    await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
                told = True
        except* LOST:
            pass
        return told

    async def _turns(self, peer: Peer) -> list[Json]:
        read = {"threadId": self.thread, "includeTurns": True}
        return (await peer.request("thread/read", read))["thread"]["turns"]  # type: ignore[no-any-return]

    async def _ran(self, peer: Peer) -> list[str]:
        """What was said, as the thread has it."""
        return [
            item["content"][0]["text"]
            for turn in await self._turns(peer)
            for item in turn["items"]
            if item["type"] == "userMessage"
        ]

    async def _approve(self, peer: Peer) -> None:
        since = 0
        while True:
            asked = await peer.wait(lambda m: m.get("method") == APPROVAL, since=since, timeout=1e6)
            since = peer.inbox.index(asked) + 1
            await peer.respond(asked["id"], ACCEPT)

    async def _is_idle(self, peer: Peer) -> bool:
        threads = (await peer.request("mux/status"))["threads"]
        [there] = [each for each in threads if each["id"] == self.thread]
        return there["turn"] is None and there["status"] == "idle"

    async def listen(self) -> None:
        """Follow from connection to connection, until all that was said has been heard."""
        while True:
            peer: Peer | None = None
            last, whole = "turns" in self.done, False
            try:
                async with client(self.broker, "listener", **AWARE) as peer:
                    after = {"epoch": self.epoch, "seq": self.cursor}
                    asked = {"after": after, "threadIds": [self.thread]}
                    answer = await peer.request("mux/replay", asked)
                    assert answer["complete"], answer
                    head = answer["seq"] if last else float("inf")
                    while not peer.gone and not whole:
                        await trio.sleep(0.05)
                        whole = max([self.cursor, *_seqs(peer.inbox)]) >= head
                        if not last and "turns" in self.done:
                            break  # all is said: once more, to the end
            except LOST:
                await trio.sleep(0.05)
            if peer is not None:
                self.heard += [m for m in peer.inbox if isinstance(m, dict) and "seq" in m]
                self.cursor = max([self.cursor, *_seqs(peer.inbox)])
            if whole:
                return

    async def faults(self) -> list[str]:
        """What is wrong now that all is said."""
        faults = []
        async with client(self.broker, "judge") as judge:
            ran = (await self._ran(judge))[1:]
            turns = (await self._turns(judge))[1:]
        doubled = [text for text, count in Counter(ran).items() if count > 1]
        self.done["doubled"] = len(doubled)
        # One whose app-server died before it wrote the message has been told to be interrupted.
        dead = self._ends("interrupted")
        missing = [text for text in self.said if text not in ran]
        lost = [text for text in missing if self.begun.get(text) not in dead]
        self.done["lost"] = len(lost)
        if doubled or lost:
            faults.append(f"said {self.said}, ran {ran}, lost {lost}")
        if ran != [text for text in self.said if text in ran]:
            faults.append(f"said {self.said}, ran {ran} in another order")
        interrupted = [each for each in turns if each["status"] != "completed"]
        deaths = sum(self.done[what] for what in DIES)
        self.done["interrupted"] = len(dead)
        if len(dead) > deaths or any(each["id"] not in dead for each in interrupted):
            faults.append(f"interrupted: {dead} and {interrupted}, after {deaths} ends")
        seqs = [each["seq"] for each in self.heard]
        if seqs != sorted(set(seqs)):
            faults.append("heard twice, or out of order")
        ends = Counter(each["params"]["turn"]["id"] for each in self._heard(TURN_COMPLETED))
        faults += [f"turn {id} ended {count} times" for id, count in ends.items() if count > 1]
        faults += [f"{each['id']}: its end wasn't told" for each in turns if each["id"] not in ends]
        return faults + self._torn() + await self._decided_twice()

    def _heard(self, method: str) -> list[Json]:
        return [each for each in self.heard if each["method"] == method]

    def _ends(self, status: str) -> set[str]:
        """The turns that were told to have ended so."""
        turns = [each["params"]["turn"] for each in self._heard(TURN_COMPLETED)]
        return {turn["id"] for turn in turns if turn["status"] == status}

    async def _decided_twice(self) -> list[str]:
        lines = (await appmux(self.broker, "audit", "--json")).stdout.splitlines()
        records = [each for each in map(json.loads, lines) if each["kind"] == "approval/answered"]
        self.done["approvals"] = len(records)
        counts = Counter(each["approval"] for each in records)
        return [f"approval {id} was decided {n} times" for id, n in counts.items() if n > 1]

    def _torn(self) -> list[str]:
        """Items whose deltas, as the listener had them, aren't their text."""
        texts: dict[str, str] = {}
        faults = []
        for each in self.heard:
            params: dict[str, Any] = each["params"]
            if each["method"] == DELTA:
                id = f"{params['turnId']}/{params['itemId']}"
                texts[id] = texts.get(id, "") + params["delta"]
            elif each["method"] == COMPLETED and params["item"]["type"] == "agentMessage":
                id = f"{params['turnId']}/{params['item']['id']}"
                if texts.get(id, "") != params["item"]["text"]:
                    faults.append(f"{id}: its deltas aren't its text")
        return faults


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _kill(pid: int | None) -> bool:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def _seqs(messages: list[Any]) -> list[int]:
    return [each["seq"] for each in messages if isinstance(each, dict) and "seq" in each]


async def soak(times: int, seed: int, other: Path = PACKAGE) -> tuple[list[str], Counter[str]]:
    """Run one; its faults, and what happened."""
    with tempfile.TemporaryDirectory() as place:
        program = Installed(Path(place))
        program.install(VERSIONS[0])
        environ = MANY_DEATHS | {"PYTHONPATH": os.pathsep.join((place, str(HERE)))}
        async with (
            brokered(model=script(), environ=environ, program=PROGRAM) as broker,
            client(broker, "first", **AWARE) as first,
        ):
            thread = await first.start_thread(broker.home.work)
            await first.run_turn(thread, "hello")
            cursor = max(_seqs(first.inbox))
            epoch, rng = first.hello["appmux"]["epoch"], random.Random(seed)
            it = Handovers(broker, thread, epoch, rng, cursor, program, other)
            stuck = await it.play(times)
            if stuck:
                return stuck, it.done
            faults = await it.faults()
            async with client(broker, "last") as last:
                report = await last.request("mux/status")
            it.done["handovers"] = report["broker"]["handovers"]
            it.done["app-servers"] = report["appServer"]["generation"]
            # One that was about to begin when its broker died isn't gone on with: so there may be
            # more of them than ends, once there was one.
            ends = sum(it.done[what] for what in (*DIES, "app-server renewed"))
            if it.done["app-servers"] > 1 and not ends:
                faults.append("an app-server ended that nobody had ended")
            if report["broker"]["version"] != VERSIONS[it.installed]:
                faults.append(f"{report['broker']['version']} runs, which isn't installed")
            return faults, it.done


def main() -> None:
    """Run one from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--other", type=Path, default=HERE, help="another checkout")
    given = parser.parse_args()
    faults, done = trio.run(soak, given.kills, given.seed, given.other / PACKAGE.name)
    for what, count in done.items():
        sys.stdout.write(f"{what:20} {count}\n")
    for each in faults:
        sys.stdout.write(f"FAULT {each}\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
