"""``mux/inbox/changed``: what changes in the inbox, as differences, for those that follow it.

Followers are told at most four times a second. What changed is known without a look at every
thread: threads are marked by notifications (``touch``), approvals and queues are compared. The last
line of a running thread is read from its streams when a change may be told, never on a delta.

Every follower has its own place: what it was told of needs, and which threads it has had whole.
Nothing is journaled or replayed. One that is behind is told what is true then, when it is live.

Used by ``inbox``, whose pages a follower begins with; by ``Broker`` and the routers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from mux.core.extension import inbox as extension
from mux.core.extension.inbox import InboxAppServer, InboxChanged, InboxThread, Need
from mux.core.features.clients.presence import BYTES_PER_SECOND
from mux.core.features.inbox import inbox_picture
from mux.core.features.inbox.inbox_cards import InboxCards
from mux.core.features.inbox.inbox_picture import InboxPicture, Sign, difference
from mux.core.part import Part
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.journal_entry import Entry
from mux.core.state.clients.client import Client
from mux.core.state.state import NEVER, State

CHANGED = "mux/inbox/changed"

INTERVAL = 0.25
"""Seconds between two tellings: a person doesn't see more, and a burst is one of them."""


class _Follower(Part):
    """A client that follows the inbox, and what it has been sent."""

    needs: dict[str, Sign] = msgspec.field(default_factory=dict)
    had: set[str] = msgspec.field(default_factory=set)
    """Threads that it has had whole, and every change since."""
    owed: set[str] = msgspec.field(default_factory=set)
    """Threads that changed while it was behind."""
    limits: int = 0
    app_server: InboxAppServer | None = None


class _Update(msgspec.Struct, frozen=True):
    """An update for clients that have been sent the same before."""

    needs: tuple[str, ...]
    needs_gone: tuple[str, ...]
    whole: frozenset[str]
    """Threads that are told whole; of others that changed, the difference is."""
    gone: frozenset[str]
    limits: bool
    app_server: bool


class InboxChanges(Part):
    """The followers of the inbox, and what each of them is still to be told."""

    state: State
    cards: InboxCards
    picture: InboxPicture
    followers: dict[ClientId, _Follower] = msgspec.field(default_factory=dict)
    revision: int = 0
    _touched: set[str] = msgspec.field(default_factory=set)
    """Threads of which something may have changed since the last telling."""
    _sent: dict[str, InboxThread] = msgspec.field(default_factory=dict)
    """Each thread as followers were told of it last."""
    _shown: set[str] = msgspec.field(default_factory=set)
    """Threads that any follower may have been shown."""
    _needs: Counter[str] = msgspec.field(default_factory=Counter)
    _queues: dict[str, tuple[int, object]] = msgspec.field(default_factory=dict)
    _seen: tuple[object, ...] = ()
    """What ``refresh`` compares (see ``_changes``), as it was the last time."""
    _head: int = 0
    """The journal's head at the last look at what streams."""
    _not_before: float = 0.0
    _due: float = NEVER

    # ── followers ─────────────────────────────────────────────────────────────────────────────

    def follow(
        self, client: Client, threads: list[InboxThread], app_server: InboxAppServer
    ) -> None:
        """Notify a client of changes from now on; it is given a page with these threads."""
        scopes = client.principal.scopes
        follower = self.followers.setdefault(client.id, _Follower())
        # Threads come whole once more with their first change: what is told as a difference
        # is one to what all followers had, and this page may be newer than that.
        follower.had.difference_update(each.id for each in threads)
        self._shown.update(each.id for each in threads)
        follower.needs = {
            inbox_picture.key(each): self.picture.sign(each)
            for each in self.picture.waiting()
            if inbox_picture.is_for(each, scopes)
        }
        follower.limits, follower.app_server = self.cards.limits_version, app_server
        self._due = min(self._due, max(self._not_before, self.state.now + INTERVAL))
        self.state.wake_at(self._due)

    def left(self, client: Client) -> None:
        """Remove a client from the followers."""
        self.followers.pop(client.id, None)
        if not self.followers:
            self._sent.clear()
            self._shown.clear()
            self._touched.clear()
            self._needs.clear()
            self._queues.clear()
            self._due = NEVER

    # ── what changes ──────────────────────────────────────────────────────────────────────────

    def observe(self, method: str, thread: str | None, line: bytes) -> None:
        """Apply a notification that cards are made of."""
        self.touch(self.cards.observe(method, thread, line))

    def remember(self, entries: Iterable[Entry]) -> None:
        """Apply the last events of an earlier life."""
        for thread in self.cards.remember(entries):
            self.touch(thread)

    def joined(self, line: bytes) -> None:
        """Record the thread that the answer to a following request describes."""
        self.touch(self.cards.joined(line))

    def touch(self, thread: str | None) -> None:
        """Note that something of a thread may have changed."""
        if thread is not None and self.followers:
            self._touched.add(thread)

    def app_server_gone(self) -> None:
        """Note that no thread is loaded any more. Called before the core forgets what ran."""
        self.cards.app_server_gone()
        self._touched.update(self._sent)

    def refresh(self) -> None:
        """Notify followers of what the event changed, at once or soon.

        Called at the end of each event but deltas, if there are followers.
        """
        if self._touched or self._changes() != self._seen:
            self._refresh()

    def on_timer(self) -> float:
        """Notify followers of what had to wait, and of what streams; return the next deadline."""
        if self._due <= self.state.now:
            self._refresh()
        return self._due

    def _changes(self) -> tuple[object, ...]:
        state = self.state
        queues = tuple(
            (id, len(queue.turns), queue.held) for id, queue in state.turn_queues.items()
        )
        return (
            state.pending_requests.changes,
            state.appserver.state,
            self.cards.limits_version,
            queues,
            self._votes(),
        )

    def _votes(self) -> int:
        """Return how many votes wait: casting one isn't counted as a change of the request."""
        return sum(len(each.ballot.votes) for each in self.state.pending_requests.pending())

    def _refresh(self) -> None:
        state = self.state
        if not self.followers:
            self._due = NEVER
        elif state.now < self._not_before:
            self._due = self._not_before
            state.wake_at(self._due)
        else:
            self._notify()
            streams = self.cards.running or any(each.owed for each in self.followers.values())
            self._due = max(state.now + INTERVAL, self._not_before) if streams else NEVER
            state.wake_at(self._due)

    def _notify(self) -> None:
        """Notify each follower of what changed since it was notified last."""
        self._seen = self._changes()
        counted = self._recount()
        changes, gone = self._compare(self._stirred(), counted)
        waiting = {inbox_picture.key(each): each for each in self.picture.waiting()}
        signs = {key: self.picture.sign(each) for key, each in waiting.items()}
        updates: dict[_Update, list[ClientId]] = {}
        app_server = self.picture.app_server()
        for id, follower in self.followers.items():
            client = self.state.clients[id]
            if client.backlog is not None:
                self._owe(follower, changes.keys() | gone)
                continue
            may = {
                key: sign
                for key, sign in signs.items()
                if inbox_picture.is_for(waiting[key], client.principal.scopes)
            }
            update = self._update_for(follower, may, changes, gone, app_server)
            if update is not None and client.receives(CHANGED):
                updates.setdefault(update, []).append(id)
        needs: dict[str, Need] = {}
        for update in updates:
            needs |= {
                key: self.picture.need(waiting[key]) for key in update.needs if key not in needs
            }
        self._send(updates, changes, needs, app_server)

    def _recount(self) -> Counter[str]:
        """Count the needs anew, and mark the threads whose number or queue has changed."""
        counted, queues = self.picture.counted(), self.state.turn_queues
        lengths: dict[str, tuple[int, object]] = {
            id: (len(queue.turns), queue.held) for id, queue in queues.items()
        }
        self._touched.update(id for id in counted | self._needs if counted[id] != self._needs[id])
        self._touched.update(
            id for id in lengths | self._queues if lengths.get(id) != self._queues.get(id)
        )
        self._needs, self._queues = counted, lengths
        return counted

    def _stirred(self) -> set[str]:
        """Return the threads to compare: those that were marked, and those that stream."""
        stirred, self._touched = self._touched, set()
        if self.state.journal.head != self._head:
            self._head = self.state.journal.head
            stirred.update(self.cards.running)
        return stirred

    def _compare(
        self, stirred: Iterable[str], counted: Counter[str]
    ) -> tuple[dict[str, extension.ThreadChange | None], set[str]]:
        """Return what is different of each of these threads, and those that aren't shown now."""
        changes: dict[str, extension.ThreadChange | None] = {}
        gone: set[str] = set()
        for id in stirred:
            now = self.picture.thread(id, counted)
            if now is not None and not now.archived:
                changes[id] = difference(self._sent.get(id), now)
                self._sent[id] = now
                self._shown.add(id)
            elif id in self._shown:  # of others it isn't even told that they are
                gone.add(id)
                self._sent.pop(id, None)
                self._shown.discard(id)
        return changes, gone

    def _owe(self, follower: _Follower, ids: Iterable[str]) -> None:
        follower.owed.update(ids)
        follower.had.difference_update(ids)

    def _update_for(
        self,
        follower: _Follower,
        may: dict[str, Sign],
        changes: dict[str, extension.ThreadChange | None],
        gone: set[str],
        app_server: InboxAppServer,
    ) -> _Update | None:
        """Return what a follower is to be notified of, and note that it is; None if of nothing."""
        stirred = changes.keys() | follower.owed
        whole = frozenset(id for id in stirred if id in self._sent and id not in follower.had)
        lost = frozenset(id for id in gone | follower.owed if id not in self._sent)
        patched = any(changes.get(id) is not None for id in stirred if id in follower.had)
        news = tuple(key for key, sign in may.items() if follower.needs.get(key) != sign)
        over = tuple(key for key in follower.needs if key not in may)
        limits = follower.limits != self.cards.limits_version
        moved = follower.app_server != app_server
        follower.needs, follower.owed = may, set()
        follower.had = (follower.had | whole) - lost
        follower.limits, follower.app_server = self.cards.limits_version, app_server
        if not (whole or lost or patched or news or over or limits or moved):
            return None
        return _Update(news, over, whole, lost, limits, moved)

    def _send(
        self,
        updates: dict[_Update, list[ClientId]],
        changes: dict[str, extension.ThreadChange | None],
        needs: dict[str, Need],
        app_server: InboxAppServer,
    ) -> None:
        self.revision += bool(updates)
        cost = 0
        for update, recipients in updates.items():
            threads = [
                whole
                for id in sorted(update.whole)
                if (whole := difference(None, self._sent[id])) is not None
            ]
            threads += [
                change
                for id, change in changes.items()
                if change is not None and id not in update.whole and id not in update.gone
            ]
            changed = InboxChanged(
                revision=self.revision,
                needs=[needs[key] for key in update.needs],
                needsGone=list(update.needs_gone),
                threads=threads,
                threadsGone=sorted(update.gone),
            )
            if update.limits:
                changed.limits = dict(self.cards.limits)
            if update.app_server:
                changed.appServer = app_server
            message = jsonrpc.notification(CHANGED, changed)
            self.state.send_live(tuple(recipients), message, CHANGED)
            cost += len(message) * len(recipients)
        if updates:
            self._not_before = self.state.now + max(INTERVAL, cost / BYTES_PER_SECOND)
