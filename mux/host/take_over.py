"""Take over Codex's control socket from another app-server, or say why that can't be done.

No turn is harmed: Codex's daemon is asked to stop by one SIGTERM, once nothing runs in it. An idle
daemon ends at once; if a turn began in that moment, the daemon would end after that turn. `codex
app-server daemon stop` sends the same signal, but kills the daemon after 60 s. A second SIGTERM
ends the daemon's turns, so we never send a second one.

From then until we listen in its place we hold the lock under which Codex itself takes the socket
(``unix_socket.StartupLock``). A `codex` that finds no daemon meanwhile starts one, which waits for
that lock and then finds us. That `codex`, and those that were attached, find us too.

Used by ``server`` and ``cli``. The other app-server is asked over its own socket what runs in it.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from mux.client import Client, ClientError, Json, connect
from mux.downstream.sockets.unix_socket import StartupLock, in_use
from mux.errors import AppmuxError
from mux.host.socket_owner import SocketOwner, socket_owner

CHECK_SECONDS: Final = 0.5
"""Seconds between two checks of what runs, and whether it has gone: the person isn't in a hurry."""

ANSWER_DEADLINE: Final = 5.0
"""Seconds for all requests of one check; an app-server that takes longer hangs."""

NAMED: Final = 5
"""Threads that are named in one line; the others are counted."""

_USER_AGENT: Final = re.compile(r"(?P<name>[^/]+)/(?P<version>\d+\.\d+\.\d+\S*) \(")

Say = Callable[[str], object]


class TakeOverError(AppmuxError):
    """The control socket wasn't taken over; the text says who has it and what is left to do."""


# -- where it isn't got ----------------------------------------------------------------------------


async def refusal(path: Path, owner: SocketOwner) -> TakeOverError:
    """Return the error that says who listens at ``path``, since when, and what runs in it."""
    if not owner.codex:
        return TakeOverError(in_use(path, f"{owner} listens there; stop it"))
    text = f"{owner} listens there"
    try:
        async with connect(f"unix://{path}") as client:
            text += f"; {await _introduced(client)}, {await _examine(client)}"
    except ClientError as failure:
        text += f"; it can't be asked what runs in it ({failure})"
    way = "`appmux serve --take-over` asks it to stop once nothing runs in it, and takes its place"
    return TakeOverError(in_use(path, f"{text}. {way}"))


# -- what runs in it -------------------------------------------------------------------------------


@attrs.frozen
class _Examined:
    """The loaded threads of an app-server at one moment."""

    loaded: int
    """The number of loaded threads."""
    busy: dict[str, str]
    """Why each busy thread is busy, by its id."""
    background: int = 0
    """Commands that turns have left running; counted only where no thread is busy."""

    def __str__(self) -> str:
        if not self.busy:
            left = f", commands in the background: {self.background}" if self.background else ""
            return f"threads loaded: {self.loaded}, none of them runs{left}"
        named = [f"thread {id} {reason}" for id, reason in list(self.busy.items())[:NAMED]]
        more = len(self.busy) - len(named)
        return ", ".join([*named, f"and {more} more"] if more else named)


async def _introduced(client: Client) -> str:
    """Shake hands; return which codex the app-server says it is. Raises ``ClientError``."""
    with _in_time():
        hello = await client.initialize("appmux", {"experimentalApi": True})
    agent = _USER_AGENT.match(str(hello.get("userAgent")))
    return f"codex {agent['version']}" if agent else "of an unknown version"


async def _examine(client: Client) -> _Examined:
    """Examine the app-server's threads. Raises ``ClientError``."""
    busy, background = {}, 0
    with _in_time():
        loaded = await _loaded(client)
        for id in loaded:
            read = await _of_thread(client, "thread/read", id)
            status = read["thread"]["status"] if read is not None else {"type": "notLoaded"}
            if status["type"] == "active":
                busy[id] = "waits for a word" if status.get("activeFlags") else "runs a turn"
        for id in () if busy else loaded:
            terminals = await _of_thread(client, "thread/backgroundTerminals/list", id)
            background += len(terminals["data"]) if terminals is not None else 0
    client.inbox.clear()  # the app-server may be examined for hours
    return _Examined(len(loaded), busy, background)


async def _of_thread(client: Client, method: str, id: str) -> Json | None:
    """Return the answer about one thread; None if it was unloaded since, or codex can't say."""
    try:
        return await client.request(method, {"threadId": id})
    except ClientError:
        if client.gone:
            raise
        return None


async def _loaded(client: Client) -> list[str]:
    threads: list[str] = []
    cursor = None
    while True:
        page = await client.request("thread/loaded/list", {"cursor": cursor})
        threads += page["data"]
        cursor = page.get("nextCursor")
        if cursor is None:
            return threads


@contextmanager
def _in_time() -> Iterator[None]:
    """Raise ``ClientError`` if the requests inside take too long."""
    try:
        with trio.fail_after(ANSWER_DEADLINE):
            yield
    except trio.TooSlowError as failure:
        raise ClientError("it gives no answer") from failure


# -- taking its place ------------------------------------------------------------------------------


async def vacate(path: Path, patience: float, say: Say) -> StartupLock:
    """Have nobody listen at ``path``; the returned lock keeps it so until it is released.

    Waits until nothing runs in the app-server that listens there, for ``patience`` seconds at most
    (infinite: until SIGINT or SIGTERM), reports what it waits for, and asks the app-server to stop.
    Raises ``TakeOverError``.
    """
    taking = _Taking(path, say)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(taking.give_up_at, signals, nursery.cancel_scope)
            with trio.move_on_after(patience):
                await taking.run()
            nursery.cancel_scope.cancel()
    return taking.outcome()


@contextmanager
def vacated(path: Path, patience: float, say: Say) -> Iterator[None]:
    """``vacate`` for callers without an event loop; in its block nobody else gets the socket."""
    lock = trio.run(vacate, path, patience, say)
    try:
        yield
    finally:
        lock.release()


@attrs.define
class _Taking:
    """The progress of one take-over."""

    path: Path
    say: Say
    _lock: StartupLock | None = None
    _asked: SocketOwner | None = None
    """The app-server that was asked to stop, if any was."""
    _seen: _Examined | None = None
    _done: bool = False
    _interrupted: bool = False

    async def give_up_at(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """Stop waiting once a signal comes."""
        async for _ in signals:
            self._interrupted = True
            scope.cancel()

    def outcome(self) -> StartupLock:
        """Return the lock. Raises ``TakeOverError`` if the take-over wasn't finished."""
        if self._lock is not None and self._done and not self._interrupted:
            return self._lock
        self._let_go()
        reason = "interrupted" if self._interrupted else "it isn't idle in time"
        if self._asked is not None:
            left = f"{self._asked} was asked to stop, and does when its last turn is over"
        else:
            left = "nothing was changed"
        seen = f" ({self._seen})" if self._seen is not None else ""
        raise TakeOverError(f"the control socket wasn't taken over: {reason}{seen}; {left}")

    async def run(self) -> None:
        """Continue until nobody listens and the lock is held."""
        while True:
            owner = socket_owner(self.path)
            if owner is None:
                await self._hold()
                if socket_owner(self.path) is None:
                    self._done = True
                    return
                self._let_go()  # another one began to listen in between
            elif not owner.codex:
                raise TakeOverError(in_use(self.path, f"{owner} listens there; stop it"))
            else:
                await self._stop_owner(owner)

    async def _stop_owner(self, owner: SocketOwner) -> None:
        """Ask an app-server to stop once it is idle, and wait until it has gone.

        The caller then examines the path anew.
        """
        try:
            async with connect(f"unix://{self.path}") as client:
                self.say(f"{owner}, {await _introduced(client)}, has the control socket")
                while (await self._examined(client)).busy:
                    await self._wait(client)
                # Lock, check once more, then signal: so no new codex gets in between.
                await self._hold()
                if (await self._examined(client)).busy or socket_owner(self.path) != owner:
                    self._let_go()
                    return
                os.kill(owner.holder.pid, signal.SIGTERM)
                self._asked = owner
                self.say(f"it is idle ({self._seen}), and asked to stop")
                while socket_owner(self.path) == owner:
                    await self._wait(client)
                    await self._examined(client)
        except ClientError as failure:
            if self._asked != owner and socket_owner(self.path) == owner:
                # What runs in it can't be known, so it can't be asked to stop.
                raise TakeOverError(in_use(self.path, f"{owner}: {failure}; stop it")) from failure

    async def _examined(self, client: Client) -> _Examined:
        seen = await _examine(client)
        if seen.busy and seen != self._seen:
            self.say(f"waiting until it is idle: {seen}")
        self._seen = seen
        return seen

    async def _wait(self, client: Client) -> None:
        """Wait until the next check; ``ClientError`` if the app-server goes."""
        with trio.move_on_after(CHECK_SECONDS):
            await client.wait(lambda _message: False, len(client.inbox))

    async def _hold(self) -> None:
        while self._lock is None:
            self._lock = StartupLock.acquire(self.path)
            if self._lock is None:
                await trio.sleep(CHECK_SECONDS)  # a codex that is just starting has it

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
