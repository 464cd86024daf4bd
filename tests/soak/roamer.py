"""A client that comes and goes as it likes: it attaches, follows, leaves, aborts, stalls, returns.

What it does is drawn from its own random numbers, so that a seed gives every roamer the same
intentions again (not the same moments: the others and the app-server have theirs). What it is told
is written into the ledger.

Hands to: `ledger`. Hears from: the broker; `soak`, which runs it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio
from trio_websocket import ConnectionClosed

from tests.end_to_end.peer import GoneError, Json, Peer, RpcError
from tests.end_to_end.scenes import APPROVAL
from tests.end_to_end.stalling import Staller, connect_stalling
from tests.soak.ledger import Ledger, Stay

AWARE: Final[Json] = {"extensions": {"appmux": {"version": 1}}}
ANSWER_PATIENCE: Final = 90.0
"""Seconds for an answer: requests wait up to 60 s for an app-server that comes up."""
SHORT, LONG = 0.02, 3.0
"""Seconds between two things that it does, and that it stalls at most."""
FENCE: Final = "thread/loaded/list"
"""What is asked to know that all that was sent before is here: its answer stands behind that."""
WORDS: Final = ("talk", "flood", "run", "both", "ask", "patch")
"""What it says to the model; see `soak.script`."""


@attrs.define(eq=False)
class Roamer:
    """One such client. ``stays``: those that go on, by thread. ``cursor``: if it is aware.

    ``connections``: the nursery in which its connections are held.
    """

    name: str
    url: str
    threads: tuple[str, ...]
    rng: random.Random
    ledger: Ledger
    done: Counter[str]
    aware: bool
    connections: trio.Nursery
    stays: dict[str, Stay] = attrs.field(factory=dict)
    cursor: int = 0
    epoch: str = ""
    staller: Staller | None = None
    _seen: int = 0
    _let_go: bool = False
    _going: trio.Event = attrs.field(factory=trio.Event)
    _gone: trio.Event = attrs.field(factory=trio.Event)

    @property
    def peer(self) -> Peer:
        assert self.staller is not None
        return self.staller.peer

    # ── what it does ──────────────────────────────────────────────────────────────────────────

    async def roam(self, until: trio.Event) -> None:
        """Do one thing after another until the event; then come back, if it is away, and read."""
        acts: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "follow": (5, self._follow),
            "unfollow": (1, self._unfollow),
            "speak": (6, self._speak),
            "answer": (8, self._answer),
            "stall": (2, self._stall),
            "leave": (1, self._leave),
            "abort": (2, self._abort),
            "rest": (4, self._rest),
        }
        names, weights = list(acts), [weight for weight, _ in acts.values()]
        while not until.is_set():
            act = self.rng.choices(names, weights)[0]
            await self._try(acts[act][1], act)
            await trio.sleep(self.rng.uniform(0, 2 * SHORT))

    async def come_to_rest(self) -> bool:
        """Be attached, follow every thread, and have read all that was sent. Whether it could."""
        for _ in range(5):
            await self._try(self._rest_everywhere, "come to rest")
            if self.staller is not None and set(self.stays) == set(self.threads):
                return True
        return False

    async def _rest_everywhere(self) -> None:
        for thread in self.threads:
            if thread not in self.stays:
                await self._join(thread, turns=True)
        await self._ask(FENCE)
        self.take_in()

    async def end(self) -> None:
        """Leave for good."""
        await self._detach()

    async def _try(self, act: Callable[[], Awaitable[None]], name: str) -> None:
        """Do it, attached; being cut off, or refused for the app-server's sake, is part of it."""
        try:
            if self.staller is None:
                await self._attach()
            await act()
            self.done[name] += 1
        except RpcError:
            self.done["refused"] += 1  # the app-server died, or isn't what it was a moment ago
        except (GoneError, ConnectionClosed, OSError, trio.BrokenResourceError):
            self.done["cut off"] += 1
            await self._detach()

    async def _follow(self) -> None:
        await self._join(self.rng.choice(self.threads), turns=self.rng.random() < 0.5)

    async def _unfollow(self) -> None:
        thread = self.rng.choice(self.threads)
        await self._ask("thread/unsubscribe", {"threadId": thread})
        self.take_in()
        self.stays.pop(thread, None)

    async def _speak(self) -> None:
        words: list[Json] = [{"type": "text", "text": self.rng.choice(WORDS), "text_elements": []}]
        thread = self.rng.choice(self.threads)
        await self._ask("turn/start", {"threadId": thread, "input": words})

    async def _answer(self) -> None:
        """Answer what it was asked, late, wrong and double answers among them."""
        asked = [m for m in self.peer.inbox[-500:] if "id" in m and m.get("method") == APPROVAL]
        for each in asked[-3:]:
            decision = self.rng.choice(("accept", "decline", "accept", "nonsense"))
            await self.peer.respond(each["id"], {"decision": decision})

    async def _stall(self) -> None:
        assert self.staller is not None
        self.staller.stall()
        await trio.sleep(self.rng.uniform(0, LONG))
        self.staller.go_on()

    async def _leave(self) -> None:
        await self._detach()

    async def _abort(self) -> None:
        """Without a word: the socket is closed in the middle of whatever comes."""
        assert self.staller is not None
        await trio.aclose_forcefully(self.staller.stream)
        await self._detach()

    async def _rest(self) -> None:
        await trio.sleep(self.rng.uniform(0, 10 * SHORT))

    # ── coming and going ──────────────────────────────────────────────────────────────────────

    async def _attach(self) -> None:
        self._going, self._gone, self._seen = trio.Event(), trio.Event(), 0
        self.staller = await self.connections.start(self._hold)
        hello = await self.peer.initialize(self.name, **(AWARE if self.aware else {}))
        if not self.aware:
            self.stays.clear()
            return
        if self.epoch:
            await self._replay()
        self.epoch = hello["appmux"]["epoch"]

    async def _hold(self, task_status: trio.TaskStatus[Staller]) -> None:
        """One connection, in a task of its own: it outlasts what the roamer is about."""
        try:
            async with connect_stalling(self.url) as staller:
                task_status.started(staller)
                await self._going.wait()
        finally:
            self._gone.set()

    async def _replay(self) -> None:
        """Go on with what it follows: named now and then, and always once it let go of some."""
        after = {"epoch": self.epoch, "seq": self.cursor}
        asked: Json = {"after": after, "merged": self.rng.random() < 0.5}
        if self.rng.random() < 0.5 or self._let_go:
            asked["threadIds"] = sorted(self.stays)
        try:
            answer = await self._ask("mux/replay", asked)
        except RpcError:
            self.stays.clear()
            self._let_go = True
            raise
        known = answer.get("threads", []) if answer["complete"] else []
        self.done["replay" if answer["complete"] else "replay refused"] += 1
        for thread in [thread for thread in self.stays if thread not in known]:
            del self.stays[thread]
        self._seen = next(at for at, m in enumerate(self.peer.inbox) if m.get("result") is answer)

    async def _detach(self) -> None:
        self.take_in()
        if self.staller is not None:
            self.staller.go_on()
            self.staller = None
            self._going.set()
            await self._gone.wait()

    async def _join(self, thread: str, *, turns: bool) -> None:
        asked: Json = {"threadId": thread} | ({} if turns else {"excludeTurns": True})
        begin = len(self.peer.inbox)
        result = await self._ask("thread/resume", asked)
        at = next(at for at in range(begin, len(self.peer.inbox)) if _has(self.peer, at, result))
        self.take_in(at)
        if thread in self.stays:  # it followed already, and does still: what waits comes again
            self.stays[thread].expect_again()
        else:
            self.stays[thread] = Stay(f"{self.name} on {thread[-4:]}", thread, result, turns)
            self.ledger.stays.append(self.stays[thread])
        await self._ask(FENCE)
        self.take_in()
        self.stays[thread].again.clear()

    async def _ask(self, method: str, params: Json | None = None) -> Json:
        return await self.peer.request(  # type: ignore[no-any-return]
            method, params, timeout=ANSWER_PATIENCE
        )

    def take_in(self, until: int | None = None) -> None:
        """Write what was heard since the last time into the stays."""
        if self.staller is None:
            return
        inbox = self.peer.inbox
        end = len(inbox) if until is None else until
        for message in inbox[self._seen : end]:
            self.cursor = max(self.cursor, message.get("seq", 0), message.get("cursor", 0))
            stay = self.stays.get(message.get("params", {}).get("threadId"))
            if stay is not None:
                stay.take_in(message)
        self._seen = max(self._seen, end)


def _has(peer: Peer, at: int, result: Json) -> bool:
    return peer.inbox[at].get("result") is result
