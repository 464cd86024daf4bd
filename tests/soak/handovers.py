"""The soak of handovers: the broker is killed at random while turns run, and nobody may notice.

    python -m tests.soak.handovers --kills 30 --seed 1

A *speaker* says one thing after another under ids of its own, and says it again until it is
answered. A *listener* follows by `mux/replay` from where it was. Approvals are answered by whoever
is there. At the end every message ran once and in order, no turn was interrupted, the listener had
each entry once, and its deltas make the text of each item. Exit status 0 if all was well.

Hands to: the command line, `test_handover_soak`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from trio_websocket import ConnectionClosed, HandshakeError

from mux.demo.scripted_model import Run, Say, Scripted
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.peer import GoneError, Json, Peer, RpcError
from tests.end_to_end.scenes import ACCEPT, APPROVAL, COMPLETED, DELTA, TURN_COMPLETED

AWARE: Final[Json] = {"extensions": {"appmux": {"version": 1}}}
PROGRAM: Final = (sys.executable, "-m", "tests.end_to_end.killed_at")
HERE: Final = {"PYTHONPATH": str(Path(__file__).parents[2])}
"""Another broker is started at once, however many die."""
BETWEEN_KILLS: Final = (0.05, 1.5)
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
    said: list[str] = attrs.field(factory=list)
    heard: list[Json] = attrs.field(factory=list)
    done: Counter[str] = attrs.field(factory=Counter)
    over: trio.Event = attrs.field(factory=trio.Event)

    async def kill(self, times: int) -> None:
        """Kill broker after broker, now and then two in a row; then let the rest be said."""
        for _ in range(times):
            await trio.sleep(self.rng.uniform(*BETWEEN_KILLS))
            if (pid := self._broker()) is not None:
                os.kill(pid, signal.SIGKILL)
                self.done["kills"] += 1
            if self.rng.random() < 0.3:  # in the middle of the next one's taking over
                await trio.sleep(self.rng.uniform(0.1, 1.0))
            else:
                await self._serves()
        self.over.set()

    def _broker(self) -> int | None:
        """The broker that runs; None while the next one has yet to begin.

        A child of the supervisor is nobody else's process, as the number in a file may be.
        """
        supervisor = self.broker.process.pid
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        brokers = [pid for pid in map(int, children) if b"\0serve\0" in _command(pid)]
        return brokers[0] if brokers else None

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
            with trio.fail_after(PATIENCE):
                while not await self._says(text):
                    self.done["said again"] += 1
        self.done["turns"] = len(self.said)

    async def _says(self, text: str) -> bool:
        words = [{"type": "text", "text": text, "text_elements": []}]
        asked = {"threadId": self.thread, "input": words, "clientUserMessageId": text}
        told = False
        try:
            async with client(self.broker, "speaker") as speaker, trio.open_nursery() as nursery:
                await speaker.request("thread/resume", {"threadId": self.thread})
                nursery.start_soon(self._approve, speaker)
                await speaker.request("turn/start", asked)
                while not await self._is_idle(speaker):  # noqa: ASYNC110 (it has no news)
                    await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
                told = True
        except* LOST:
            pass
        return told

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
            try:
                async with client(self.broker, "listener", **AWARE) as peer:
                    after = {"epoch": self.epoch, "seq": self.cursor}
                    asked = {"after": after, "threadIds": [self.thread]}
                    answer = await peer.request("mux/replay", asked)
                    assert answer["complete"], answer
                    while not peer.gone and not self._has_all(peer):  # noqa: ASYNC110 (for either)
                        await trio.sleep(0.05)
            except LOST:
                await trio.sleep(0.05)
            if peer is not None:
                numbered = [each for each in peer.inbox if isinstance(each, dict) and "seq" in each]
                self.heard += numbered
                self.cursor = max([self.cursor, *(each["seq"] for each in numbered)])
                if self._has_all(None):
                    return

    def _has_all(self, peer: Peer | None) -> bool:
        ended = sum(each["method"] == TURN_COMPLETED for each in self.heard)
        ended += len(peer.heard(TURN_COMPLETED)) if peer is not None else 0
        return bool(self.done["turns"]) and ended >= self.done["turns"]

    async def faults(self) -> list[str]:
        """What is wrong now that all is said."""
        faults = []
        async with client(self.broker, "judge") as judge:
            read = {"threadId": self.thread, "includeTurns": True}
            turns = (await judge.request("thread/read", read))["thread"]["turns"][1:]
        ran = [
            item["content"][0]["text"]
            for turn in turns
            for item in turn["items"]
            if item["type"] == "userMessage"
        ]
        if ran != self.said:
            faults.append(f"said {self.said}, ran {ran}")
        faults += [
            f"{each['id']} is {each['status']}" for each in turns if each["status"] != "completed"
        ]
        seqs = [each["seq"] for each in self.heard]
        if seqs != sorted(set(seqs)):
            faults.append("heard twice, or out of order")
        return faults + self._torn()

    def _torn(self) -> list[str]:
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


async def soak(kills: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Run one; its faults, and what happened."""
    async with (
        brokered(model=script(), environ=HERE, program=PROGRAM) as broker,
        client(broker, "first", **AWARE) as first,
    ):
        thread = await first.start_thread(broker.home.work)
        await first.run_turn(thread, "hello")
        cursor = max(each["seq"] for each in first.inbox if "seq" in each)
        app_server = (await first.request("mux/status"))["appServer"]["pid"]
        epoch, rng = first.hello["appmux"]["epoch"], random.Random(seed)
        it = Handovers(broker, thread, epoch, rng, cursor)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.kill, kills)
            nursery.start_soon(it.speak)
            nursery.start_soon(it.listen)
        faults = await it.faults()
        async with client(broker, "last") as last:
            report = await last.request("mux/status")
        if report["appServer"]["pid"] != app_server:
            faults.append("it is another app-server")
        it.done["handovers"] = report["broker"]["handovers"]
        return faults, it.done


def main() -> None:
    """Run one from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    faults, done = trio.run(soak, given.kills, given.seed)
    for what, count in done.items():
        sys.stdout.write(f"{what:12} {count}\n")
    for each in faults:
        sys.stdout.write(f"FAULT {each}\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
