"""The threads: who follows each, and what the broker knows of the thread itself.

Following is per client (``thread/start``, ``fork``, ``resume``; WIRE's "subscribing"). Upstream
there is one subscription for all: the broker's connection has it from the first follower's answer
until the last follower has left and nothing of the thread runs or waits. Then the subscription is
given back, so that the app-server unloads the thread as it natively would.

Recipients of a notification are tuples (clients that want it numbered stand apart, and of a delta
those that get it coalesced). They are cached by thread and method until a client comes, leaves,
follows, unfollows or falls behind: the hot path only looks them up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs
import msgspec

from mux.core.policy.principal import ClientId, Owner
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ItemParams
from mux.core.protocol.journal_entry import is_delta
from mux.core.protocol.threads import thread_messages, thread_settings
from mux.core.protocol.threads.thread_overrides import NOTHING_KNOWN, Held
from mux.core.state.clients.client import AT_ONCE, Client, ClientState
from mux.core.state.clients.coalescing import Group
from mux.core.state.durable import Durable
from mux.core.state.threads.unsaved_thread import UnsavedThread
from mux.core.state.turns.running_turn import RunningTurn

FORGOTTEN_SHARE = 16
"""Threads that nobody follows may exceed their limit by a sixteenth before some are forgotten."""

Recipients = tuple[tuple[ClientId, ...], tuple[ClientId, ...], tuple[Group, ...]]
"""Live clients that get a message as it is, then those that get it numbered, then the groups for
which it waits."""


@attrs.define(eq=False, repr=False)
class Thread:
    """A thread, as the broker knows it."""

    id: str
    followers: dict[ClientId, None] = attrs.field(factory=dict)
    subscribed: bool = False
    """True if the app-server sends us its notifications."""
    claimed: bool = False
    """True if a client ever followed the thread. A thread that none did is a sub-agent's, to which
    the app-server subscribes every connection by itself."""
    private: bool = False
    """True if the thread is shown and sent to its followers alone (see ``shared_titles``)."""
    status: str = "unknown"
    running: RunningTurn = attrs.field(factory=RunningTurn)
    unsaved: UnsavedThread | None = None
    """The thread's beginning, as far as only the broker can tell of it; set if it was started
    here."""
    kept_until: float = 0.0
    """The time (broker's clock) until which a thread that couldn't be joined again stays subscribed
    without followers; 0 if it needn't."""
    spawned_by: Owner | None = None
    """For a sub-agent's thread: the client that began the turn in which it was made."""
    loaded_with: bytes = b""
    """The params of the request that loaded it."""
    settings: bytes = b""
    """The thread's settings, if they were changed since it was loaded (see ``thread_settings``)."""
    usage: bytes = b""
    """The params of the last notification of its token usage."""
    usage_due: list[ClientId | None] = attrs.field(factory=list)
    """Clients that resumed the thread with its turns: for each the app-server will repeat the
    usage."""
    name: str = ""
    """Its title; empty if it has none."""
    cwd: str = ""
    """Its directory; empty if that isn't known."""
    parent: str | None = None
    """The thread that spawned it."""
    ephemeral: bool = False
    adopted: bool = False
    """True if the broker took the thread over though no client asked for it."""
    held: Held = NOTHING_KNOWN
    """The approval and sandbox settings that it runs with now, as far as they are known."""

    @property
    def directory(self) -> str:
        """Return the directory that it works in now; empty if that isn't known."""
        moved = jsonrpc.read_fields(self.settings) if self.settings else None
        return jsonrpc.read_text((moved or {}).get("cwd")) or self.cwd

    @property
    def shown_status(self) -> bytes:
        """Return its status as a snapshot has it, as JSON text."""
        flags: dict[str, object] = {"activeFlags": []} if self.status == "active" else {}
        return msgspec.json.encode({"type": self.status} | flags)

    @property
    def is_significant(self) -> bool:
        """Return whether the record affects what clients get, though nobody may have followed."""
        return bool(
            self.claimed
            or self.private
            or self.unsaved is not None
            or self.status == "active"
            or self.running.turn is not None
            or self.running.items
        )

    @property
    def only_here(self) -> bool:
        """Return whether the app-server would find no such thread, if asked to resume it."""
        return self.unsaved is not None and self.unsaved.only_here


@attrs.define(eq=False, repr=False)
class Threads:
    """All threads that the broker has seen and the app-server may have loaded."""

    clients: dict[ClientId, Client]
    known: dict[str, Thread] = attrs.field(factory=dict)
    joining: Counter[str] = attrs.field(factory=Counter)
    """Counts, by thread, the requests under way that will follow it."""
    beginning: Counter[str] = attrs.field(factory=Counter)
    """Counts, by thread, the requests under way that may begin a turn."""
    _children: dict[str, dict[str, None]] = attrs.field(factory=dict)
    """The sub-agents' threads of a parent."""
    unclaimed: dict[str, None] = attrs.field(factory=dict)
    """Threads that nobody ever followed, the longest known first. These, and no others, grow with
    every thread that is mentioned, so `crowded` says when to forget some."""
    most_unclaimed: int = 4096
    durable: Durable = attrs.field(factory=Durable)
    _crowd: int = attrs.field(init=False)
    _behind: tuple[ClientId, ...] | None = ()
    """The cache of `behind`; None when it is out of date."""
    changes: int = 0
    """Counts the changes of who follows what, and of who is attached and live."""
    lineage: int = 0
    """Counts the changes of which thread is a sub-agent's of which."""
    _recipients: dict[tuple[str | None, str], Recipients] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self._crowd = self._next_crowd()

    def get(self, id: str) -> Thread:
        """Return the thread's record, which is made at its first mention."""
        thread = self.known.get(id)
        if thread is None:
            thread = self.known[id] = Thread(id)
            self.unclaimed[id] = None
        return thread

    @property
    def crowded(self) -> bool:
        """Return whether it is time to look through the threads that nobody follows."""
        return len(self.unclaimed) > self._crowd

    def forget(self, needed: Callable[[Thread], bool]) -> None:
        """Forget the longest known of the unfollowed threads, except those that are ``needed``.

        Many are forgotten at a time, since finding all parents takes a look at every thread. Where
        most threads are needed, the next look comes when there are as many more.
        """
        parents = {each.parent for each in self.known.values() if each.parent is not None}
        for id in list(self.unclaimed)[: len(self.unclaimed) - self.most_unclaimed]:
            thread = self.known[id]
            if id in parents or thread.is_significant or needed(thread):
                del self.unclaimed[id]
                self.unclaimed[id] = None  # moves to the end: checked last, next time
            else:
                self._drop(id)
        self._crowd = self._next_crowd()

    def _next_crowd(self) -> int:
        most = self.most_unclaimed
        return max(most, len(self.unclaimed)) + most // FORGOTTEN_SHARE

    def _drop(self, id: str) -> Thread | None:
        self.unclaimed.pop(id, None)
        thread = self.known.pop(id, None)
        self.durable.touch("thread", id)
        if thread is not None and thread.parent is not None:
            self._disown(thread.parent, id)
        return thread

    def recipients(self, thread: str | None, method: str) -> Recipients:
        """Return the live clients that get this notification: followers that didn't opt out of it.

        If ``thread`` is None, every client past the handshake counts as a follower.
        """
        key = (thread, method)
        recipients = self._recipients.get(key)
        if recipients is None:
            recipients = self._recipients[key] = self._select(thread, method)
        return recipients

    def _select(self, thread: str | None, method: str) -> Recipients:
        of_windows: dict[float, tuple[list[ClientId], list[ClientId]]] = {AT_ONCE: ([], [])}
        coalesced = thread is not None and is_delta(method)
        for id in self.audience(thread):
            client = self.clients[id]
            if client.backlog is None and client.receives(method):
                window = client.window if coalesced else AT_ONCE
                of_windows.setdefault(window, ([], []))[client.wants_seq].append(id)
        plain, numbered = of_windows.pop(AT_ONCE)
        groups = (Group(each, tuple(a), tuple(b)) for each, (a, b) in of_windows.items())
        return tuple(plain), tuple(numbered), tuple(groups)

    def audience(self, thread: str | None) -> tuple[ClientId, ...]:
        """Return the thread's followers, live or behind; for None clients past the handshake."""
        if thread is None:
            return tuple(id for id, each in self.clients.items() if each.state is ClientState.READY)
        record = self.known.get(thread)
        return tuple(record.followers) if record is not None else ()

    def shown_follows(self, client: Client) -> list[str]:
        """Return the threads that the client follows, as others may see them: no private ones."""
        return [id for id in client.follows if not self.get(id).private]

    def audience_changed(self) -> None:
        """Drop the caches of recipients.

        Called when a client comes, leaves, falls behind, catches up, or has declared what it wants.
        """
        self._recipients.clear()
        self.changes += 1
        self._behind = None

    @property
    def behind(self) -> tuple[ClientId, ...]:
        """Return the clients that aren't fed live (see ``backlog``).

        Computed when asked for: with thousands attached, that is rarer than that a client comes or
        goes.
        """
        if self._behind is None:
            clients = self.clients.items()
            self._behind = tuple(id for id, each in clients if each.backlog is not None)
        return self._behind

    def follow(self, client: Client, id: str, since: int = 0) -> Thread:
        """Make the client a follower of the thread, from journal number ``since`` on."""
        thread = self.get(id)
        thread.followers[client.id] = None
        client.follows.setdefault(id, since)
        self.durable.touch("follows", str(client.id))
        self.audience_changed()
        return thread

    def spawned(self, parent: str, child: str) -> Thread:
        """Record that the child is a sub-agent's thread, made by a turn of the parent.

        Another agent may name the child later, to send it something: that doesn't make it a parent.
        """
        thread = self.get(child)
        if thread.parent is None:
            thread.parent = parent
            self.durable.touch("thread", child)
            self._children.setdefault(parent, {})[child] = None
            self.lineage += 1
        return thread

    def descendants(self, id: str) -> list[str]:
        """Return the sub-agents' threads below a thread, as far as they are loaded and known."""
        descendants: dict[str, None] = {}
        below = [id]
        while below:
            children = [
                each for each in self._children.get(below.pop(), ()) if each not in descendants
            ]
            descendants |= dict.fromkeys(children)
            below += children
        return [each for each in descendants if each in self.known and self.known[each].claimed]

    def claim(self, id: str) -> Thread:
        """Record that the app-server's subscription to the thread is ours, whoever follows it."""
        thread = self.get(id)
        thread.subscribed = thread.claimed = True
        self.durable.touch("thread", id)
        self.unclaimed.pop(id, None)
        return thread

    def unfollow(self, client: Client, id: str) -> Thread:
        """Remove the client from the thread's followers."""
        thread = self.get(id)
        thread.followers.pop(client.id, None)
        client.follows.pop(id, None)
        self.durable.touch("follows", str(client.id))
        self.audience_changed()
        return thread

    def leave(self, client: Client) -> list[Thread]:
        """Remove a departed client from every thread; returns the threads that it followed."""
        return [self.unfollow(client, id) for id in list(client.follows)]

    def running_floor(self, head: int) -> int:
        """Return the seq before which no running item began; ``head`` plus one if none runs."""
        began = (each.running.since for each in self.known.values() if each.running.items)
        return min(began, default=head) + 1

    def kept(self) -> list[Thread]:
        """Return the threads without followers that stay subscribed for a client's return."""
        return [
            thread
            for thread in self.known.values()
            if thread.kept_until and thread.subscribed and not thread.followers
        ]

    def close(self, id: str) -> None:
        """Forget a thread that the app-server has unloaded; it has no followers any more."""
        thread = self._drop(id)
        if thread is not None:
            for follower in thread.followers:
                self.clients[follower].follows.pop(id, None)
            self.audience_changed()

    def _disown(self, parent: str, child: str) -> None:
        self.lineage += 1
        siblings = self._children.get(parent, {})
        siblings.pop(child, None)
        if not siblings:
            self._children.pop(parent, None)

    def apply(self, id: str, method: str, params: ItemParams, line: bytes) -> None:
        """Update the thread's record from one of its notifications."""
        thread = self.get(id)
        if method in _CHANGES_RECORD or thread.unsaved is not None:
            self.durable.touch("thread", id)
        if thread.unsaved is not None:
            thread.unsaved.apply(method, line, thread.running)
        if method == "turn/completed":
            running, turn = thread.running, thread.running.turn
            waited_for = turn is not None and self.joining[id]
            running.ended = (turn, running.shown_ended(line)) if turn and waited_for else None
        thread.running.apply(method, params, line)
        if method == "thread/status/changed":
            thread.status = thread_messages.new_status(line) or thread.status
        elif method == thread_settings.UPDATED:
            thread.settings = thread_settings.read_updated(line)
            thread.held = thread_settings.held(thread.settings)


_CHANGES_RECORD = frozenset(
    {
        "thread/name/updated",
        "thread/status/changed",
        "turn/completed",
        "turn/started",
        thread_settings.UPDATED,
    }
)
"""Notifications that change what is saved of a thread."""
