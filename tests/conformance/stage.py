"""The stage of a story: clients by name, who ask, hear and answer, the same against either side.

A story is an async function over a `Stage`. It says what the clients do and waits for what they
are to hear; it asserts nothing, since what is heard is compared between the two sides.

Hands to: the stories; `transcript`, by what each `Player` has kept. Hears from: `Peer`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from mux.demo.scripted_model import Hold, Response, Scripted, Step
from tests.end_to_end.native import Native
from tests.end_to_end.peer import Json, Peer, RpcError, connect_ws, is_method

# The id of the requests by which a player makes sure that nothing is on its way to it any more.
BARRIER: Final = "barrier"
# What is caused by the last words of one client may reach another a round later.
BARRIERS: Final = 2


# An interrupt may come before or after what was used of tokens is told, and between two states.
CUT_SHORT: Final = (
    "thread/tokenUsage/updated",
    "account/rateLimits/updated",
    "thread/status/changed",
)
# Two changes of a queue that come at once may be told once or twice.
TOLD_AGAIN: Final = ("thread/queue/changed",)


@attrs.frozen
class Story:
    """A story, and what the comparison is to know of it.

    `shows` are the keys of the intended differences (`docs/protocol.md`) that it shows.
    Most stories share one app-server and one broker, and don't see each other's threads; those that
    are `alone` share another pair, one after the other, since what they do is heard by everybody.
    One that is `fresh`, or has a `config` (laid over `codex_config`'s), gets processes of its own.
    `chance`: methods of notifications that natively come or don't come in it.
    """

    play: Callable[[Stage], Awaitable[None]]
    shows: tuple[str, ...] = ()
    alone: bool = False
    fresh: bool = False
    config: Mapping[str, Any] = attrs.field(factory=dict)
    chance: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.play.__name__

    @property
    def has_own(self) -> bool:
        """Whether it gets processes of its own."""
        return self.fresh or bool(self.config)


@attrs.define
class Player:
    """One client in a story. `asked` are its requests in order: (id, method)."""

    stage: Stage
    name: str
    peer: Peer
    asked: list[tuple[int | str, str]] = attrs.field(factory=list)
    _seen: dict[str, int] = attrs.field(factory=dict)
    _forgotten: int = 0
    _leave: trio.Event = attrs.field(factory=trio.Event)
    _left: trio.Event = attrs.field(factory=trio.Event)

    # ── asking ────────────────────────────────────────────────────────────────────────────────

    async def send(self, method: str, params: Any = None, **extra: Any) -> int | str:
        """Ask without waiting; the id, for `answered`. `extra` are further top-level fields."""
        asked = await self.peer.ask(method, params, **extra)
        self.asked.append((asked, method))
        return asked

    async def answered(self, asked: int | str) -> Any:
        """The result of what was sent, or the `RpcError` that came instead of one."""
        try:
            return await self.peer.result(asked)
        except RpcError as error:
            return error

    async def ask(self, method: str, params: Any = None, **extra: Any) -> Any:
        """Ask, and wait: the result, or the `RpcError` that came instead of one."""
        return await self.answered(await self.send(method, params, **extra))

    async def raw(self, text: str | bytes) -> None:
        """Send a message as it stands. What is answered is kept, and compared."""
        await self.peer.send_raw(text)

    async def initialize(self, *, experimental: bool = True, **capabilities: Any) -> Any:
        """Shake hands, under the player's name."""
        client = {"name": self.name, "title": None, "version": "0.1"}
        asked = {"experimentalApi": experimental, **capabilities}
        answer = await self.ask("initialize", {"clientInfo": client, "capabilities": asked})
        await self.peer.notify("initialized")
        return answer

    # ── threads and turns ─────────────────────────────────────────────────────────────────────

    async def thread(self, *, turn: bool = False, **params: Any) -> str:
        """Start a thread in the story's directory; its id. With `turn`, it has one behind it."""
        answer = await self.ask("thread/start", {"cwd": str(self.stage.work), **params})
        thread = str(answer["thread"]["id"])
        if turn:
            await self.turn(thread, "hello")
        return thread

    async def join(self, thread: str, **params: Any) -> Any:
        """Resume the thread, with nothing of its past."""
        return await self.ask("thread/resume", {"threadId": thread, "excludeTurns": True, **params})

    async def say(self, thread: str, text: str, method: str = "turn/start", **params: Any) -> Any:
        """Say `text` on the thread, and wait for the answer, not for the end of the turn."""
        said = f"{self.stage.name}: {text}"
        words = [{"type": "text", "text": said, "text_elements": []}]
        return await self.ask(method, {"threadId": thread, "input": words, **params})

    async def turn(self, thread: str, text: str, **params: Any) -> None:
        """Say `text` on the thread, and wait until the turn is over."""
        await self.say(thread, text, **params)
        await self.ends(thread)

    async def ends(self, thread: str) -> Json:
        """Wait for the (next) end of a turn of the thread."""
        return await self.hears("turn/completed", threadId=thread)

    # ── hearing and answering ─────────────────────────────────────────────────────────────────

    async def hears(self, method: str, **params: Any) -> Json:
        """Wait for the next message of `method` with these params; the params.

        The next one is that after the last one that was waited for in the same words.
        """
        return (await self._hears(method, params))["params"]  # type: ignore[no-any-return]

    async def _hears(self, method: str, params: Json) -> Json:
        key = json.dumps((method, params))
        since = max(self._seen.get(key, 0), self._forgotten)
        message: Json = await self.peer.wait(is_method(method, **params), since=since)
        self._seen[key] = next(n for n, each in enumerate(self.peer.inbox) if each is message) + 1
        return message

    async def hears_item(self, kind: str, method: str = "item/completed") -> Json:
        """Wait for the next item of this kind to be completed (or as `method` says); the item."""
        while True:
            item: Json = (await self.hears(method))["item"]
            if item["type"] == kind:
                return item

    def forget(self) -> None:
        """What was heard so far isn't waited for any more."""
        self._forgotten = len(self.peer.inbox)

    async def offered(self, method: str, **params: Any) -> Any:
        """Wait for the next server request of `method`; its id, to answer it by."""
        return (await self._hears(method, params))["id"]

    async def offered_last(self, method: str) -> Any:
        """The id of the server request of `method` that came last."""
        return self.peer.heard(method)[-1]["id"]

    async def answers(self, request: Any, result: Any) -> None:
        """Answer a server request."""
        await self.peer.respond(request, result)

    async def fails(self, request: Any, message: str = "no such method") -> None:
        """Answer a server request with an error."""
        await self.peer.respond_error(request, -32601, message)

    # ── going ─────────────────────────────────────────────────────────────────────────────────

    async def leaves(self) -> None:
        """Close the connection, and wait until it is; what is on its way now still comes."""
        await self.settle()
        self._leave.set()
        await self._left.wait()

    async def settle(self) -> None:
        """Make sure that nothing is on its way."""
        if not self.peer.gone:
            await self.answered(await self.peer.ask("thread/loaded/list", id=BARRIER))


@attrs.define
class Stage:
    """Where one story is played against one side. `work` is the story's directory there."""

    name: str
    running: Native
    nursery: trio.Nursery
    players: list[Player] = attrs.field(factory=list)
    _settled: Iterator[int] = attrs.field(factory=itertools.count)

    def __attrs_post_init__(self) -> None:
        self.work.mkdir()

    @property
    def model(self) -> Scripted:
        return self.running.model

    @property
    def work(self) -> Path:
        return self.running.home.work / self.name

    # ── the model ─────────────────────────────────────────────────────────────────────────────

    def script(self, needle: str, *responses: Step | Response) -> None:
        """What the model does when it is told `needle` in this story."""
        self.model.on(f"{self.name}: {needle}", *responses)

    def gate(self, name: str) -> Hold:
        """A step at which the model waits until `release(name)`."""
        return Hold(f"{self.name}: {name}")

    async def reached(self, name: str) -> None:
        """Wait until the model stands at the gate."""
        await self.model.reached(f"{self.name}: {name}")

    def release(self, name: str) -> None:
        """Open the gate."""
        self.model.release(f"{self.name}: {name}")

    # ── the clients ───────────────────────────────────────────────────────────────────────────

    async def connect(self, name: str) -> Player:
        """A client that hasn't shaken hands yet."""
        player: Player = await self.nursery.start(self._connected, name)
        return player

    async def client(self, name: str, *, experimental: bool = True, **capabilities: Any) -> Player:
        """A client past its handshake."""
        player = await self.connect(name)
        await player.initialize(experimental=experimental, **capabilities)
        return player

    async def clients(self, *names: str) -> list[Player]:
        """Several of them, in this order."""
        return [await self.client(name) for name in names]

    def forget(self) -> None:
        """What anybody has heard so far isn't waited for any more."""
        for player in self.players:
            player.forget()

    def together(self) -> AbstractAsyncContextManager[trio.Nursery]:
        """For what several do in the same moment."""
        return trio.open_nursery()

    async def end(self) -> None:
        """The story is told: wait for what is on its way to anybody, and send all home."""
        for _ in range(BARRIERS):
            for player in self.players:
                await player.settle()
        for player in self.players:
            await player.leaves()

    async def _connected(self, name: str, task_status: trio.TaskStatus[Player]) -> None:
        async with connect_ws(self.running.url) as peer:
            player = Player(self, name, peer)
            self.players.append(player)
            task_status.started(player)
            await player._leave.wait()
        player._left.set()
