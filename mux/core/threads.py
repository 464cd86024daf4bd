"""Who follows which thread, and what the broker knows of the thread itself.

Following is per client (``thread/start``, ``fork``, ``resume``; WIRE's "subscribing"). Upstream
there is one subscription for all: the broker's connection has it from the first follower's answer
until the last follower has left and nothing of the thread runs or waits. Then it is given back, so
that the app-server unloads the thread as it natively would.

Recipients of a notification are a tuple, cached by thread and method until somebody comes, leaves,
follows or unfollows: the hot path only looks it up.
"""

from __future__ import annotations

from collections import Counter

import attrs
import msgspec

from mux.core.client import Client, State
from mux.core.events import ClientId
from mux.core.jsonrpc import ItemParams
from mux.core.running import Running


class Status(msgspec.Struct):
    """``thread/status/changed``: ``active``, ``idle``, ``notLoaded``, ``systemError``…"""

    type: str


class _StateParams(msgspec.Struct):
    status: Status | None = None


class _StateNotification(msgspec.Struct):
    params: _StateParams


class _Named(msgspec.Struct):
    id: str


class _FollowResult(msgspec.Struct):
    thread: _Named | None = None
    reviewThreadId: str | None = None


class _FollowAnswer(msgspec.Struct):
    result: _FollowResult


@attrs.define(eq=False)
class Thread:
    """One thread. ``subscribed``: whether the app-server sends us its notifications.

    ``claimed``: whether anybody ever followed it; one that nobody did is a sub-agent's, to which
    the app-server subscribes every connection by itself.
    """

    id: str
    followers: dict[ClientId, None] = attrs.field(factory=dict)
    subscribed: bool = False
    claimed: bool = False
    status: str = "unknown"
    running: Running = attrs.field(factory=Running)


@attrs.define(eq=False)
class Threads:
    """All threads that the broker has heard of and the app-server may have loaded.

    ``joining`` counts the requests under way that will follow a thread.
    """

    clients: dict[ClientId, Client]
    known: dict[str, Thread] = attrs.field(factory=dict)
    joining: Counter[str] = attrs.field(factory=Counter)
    _recipients: dict[tuple[str | None, str], tuple[ClientId, ...]] = attrs.field(factory=dict)

    def get(self, id: str) -> Thread:
        """The thread's record, made at its first mention."""
        thread = self.known.get(id)
        if thread is None:
            thread = self.known[id] = Thread(id)
        return thread

    def recipients(self, thread: str | None, method: str) -> tuple[ClientId, ...]:
        """Who gets this notification: the thread's followers that didn't opt out of it.

        Everybody past the handshake where ``thread`` is None.
        """
        key = (thread, method)
        found = self._recipients.get(key)
        if found is None:
            found = self._recipients[key] = self._select(thread, method)
        return found

    def _select(self, thread: str | None, method: str) -> tuple[ClientId, ...]:
        if thread is None:
            candidates = list(self.clients)
        else:
            record = self.known.get(thread)
            candidates = list(record.followers) if record is not None else []
        return tuple(id for id in candidates if self._wants(self.clients[id], method))

    @staticmethod
    def _wants(client: Client, method: str) -> bool:
        return client.state is State.READY and method not in client.opted_out

    def audience_changed(self) -> None:
        """Somebody came or left, or declared what it wants."""
        self._recipients.clear()

    def follow(self, client: Client, id: str) -> Thread:
        """The client follows the thread from now on."""
        thread = self.get(id)
        thread.followers[client.id] = None
        client.follows[id] = None
        self.audience_changed()
        return thread

    def claim(self, id: str) -> Thread:
        """The app-server's subscription to it is ours, whoever follows it now."""
        thread = self.get(id)
        thread.subscribed = thread.claimed = True
        return thread

    def unfollow(self, client: Client, id: str) -> Thread:
        """The client follows the thread no more."""
        thread = self.get(id)
        thread.followers.pop(client.id, None)
        client.follows.pop(id, None)
        self.audience_changed()
        return thread

    def leave(self, client: Client) -> list[Thread]:
        """Take a departed client off every thread, returning those that it followed."""
        return [self.unfollow(client, id) for id in list(client.follows)]

    def close(self, id: str) -> None:
        """The app-server has unloaded the thread: nobody follows it any more."""
        thread = self.known.pop(id, None)
        if thread is not None:
            for follower in thread.followers:
                self.clients[follower].follows.pop(id, None)
            self.audience_changed()

    def note(self, id: str, method: str, params: ItemParams, line: bytes) -> None:
        """Keep what a notification says of the thread's state."""
        thread = self.get(id)
        thread.running.note(method, params, line)
        if method == "thread/status/changed":
            try:
                status = _state_decoder.decode(line).params.status
            except msgspec.DecodeError:
                return  # of a shape that this version doesn't know: everybody gets it all the same
            thread.status = status.type if status is not None else thread.status


def spawned(line: bytes) -> list[str]:
    """The sub-agents' threads that an ``item/completed`` of their parent's thread names."""
    if _SPAWNS not in line:
        return []
    try:
        return _spawn_decoder.decode(line).params.item.receiverThreadIds
    except msgspec.DecodeError:
        return []


class _SpawnItem(msgspec.Struct):
    receiverThreadIds: list[str]


class _SpawnParams(msgspec.Struct):
    item: _SpawnItem


class _Spawn(msgspec.Struct):
    params: _SpawnParams


_SPAWNS = b'"receiverThreadIds":["'
_spawn_decoder = msgspec.json.Decoder(_Spawn)


def threads_named(answer: bytes) -> list[str]:
    """The threads that the answer to a following request names, the asker's main one last."""
    try:
        result = _follow_decoder.decode(answer).result
    except msgspec.DecodeError:
        return []
    named = [result.reviewThreadId, result.thread.id if result.thread else None]
    return [id for id in named if id]


_state_decoder = msgspec.json.Decoder(_StateNotification)
_follow_decoder = msgspec.json.Decoder(_FollowAnswer)
