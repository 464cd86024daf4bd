"""What all parts of the broker share: who is attached, what is known, and what is being said.

``broker`` makes one ``State`` and gives it to its parts (``client_requests``, ``server_requests``,
``subscriptions``, ``recovery``, ``replay``). They change it only while an event is handled, and
speak only through it: ``send`` to one client, ``publish`` to those that follow, ``forward``
upstream.

A client that lags or replays has a ``Backlog``: what is said to it then goes there (see
``backlog``), and ``catch_up`` brings it on, part by part, until it is live again.
"""

from __future__ import annotations

import attrs

from mux.core.commands import (
    Charge,
    Close,
    Command,
    Forward,
    Level,
    Log,
    Publish,
    ReadJournal,
    ReadOn,
    Record,
    StopReading,
    TellWhenDrained,
)
from mux.core.limits import Limits
from mux.core.policy.approval_policy import Policies
from mux.core.policy.principal import ClientId
from mux.core.protocol import jsonrpc
from mux.core.protocol.experimental import Gate
from mux.core.protocol.journal_entry import Entry, with_cursor, with_seq
from mux.core.state.app_server import AppServer, Introduction
from mux.core.state.backlog import NOT_NUMBERED, Backlog
from mux.core.state.client import Client
from mux.core.state.journal import Journal
from mux.core.state.pending_requests import PendingRequests
from mux.core.state.scheduler import RequestScheduler
from mux.core.state.scoped_ids import ScopedIds
from mux.core.state.threads import Recipients, Thread, Threads
from mux.core.state.tool_owners import ToolOwners
from mux.core.state.turn_queues import TurnQueue

NEVER = float("inf")

CLOSE_ACCESS_ENDED = 4401
"""What it authenticated with has expired or been revoked (HTTP's 401, in the range for our own)."""

CLOSE_TOO_FAR_BEHIND = 1013
"""WebSocket's "try again later"."""


@attrs.define(eq=False, repr=False)
class State:
    """The broker's state. ``now``: of the event being handled; ``out``: the commands so far.

    ``next_wakeup``: when ``TimePassed`` is wanted, on the same clock. ``release_candidates``:
    threads that lost something that held them; ``following`` looks at the end of the event whether
    to let go. ``unread``: clients of which nothing is read, since they are owed too much.
    ``turn_queues``: turns that wait, by thread; a thread without any isn't there. ``audit_text``:
    whether the audit log may hold what was said, not only its digest. ``gate``: what is
    experimental; None while that isn't known, and then nothing is refused.
    """

    limits: Limits
    introduction: Introduction
    journal: Journal
    pending_requests: PendingRequests
    policies: Policies = attrs.field(factory=Policies)
    appserver: AppServer = attrs.field(factory=AppServer)
    clients: dict[ClientId, Client] = attrs.field(factory=dict)
    scheduler: RequestScheduler = attrs.field(init=False)
    threads: Threads = attrs.field(init=False)
    turn_queues: dict[str, TurnQueue] = attrs.field(factory=dict)
    scoped_ids: ScopedIds = attrs.field(factory=ScopedIds)
    tool_owners: ToolOwners = attrs.field(factory=ToolOwners)
    now: float = 0.0
    next_wakeup: float = NEVER
    out: list[Command] = attrs.field(factory=list)
    release_candidates: set[str] = attrs.field(factory=set)
    unread: set[ClientId] = attrs.field(factory=set)
    counts: dict[str, int] = attrs.field(factory=dict)
    audit_text: bool = False
    gate: Gate | None = None

    def __attrs_post_init__(self) -> None:
        self.scheduler = RequestScheduler(self.limits)
        self.threads = Threads(self.clients, most_unclaimed=self.limits.mentioned_threads)

    # ── saying ────────────────────────────────────────────────────────────────────────────────

    def forward(self, line: bytes, method: str) -> None:
        """To the app-server."""
        self.out.append(Forward(line, method))

    def send(self, client: ClientId, message: bytes, method: str, seq: int = NOT_NUMBERED) -> None:
        """To one client alone. ``seq``: its number, if it has one; for one that is behind."""
        backlog = self.clients[client].backlog
        if backlog is None:
            self.out.append(Publish(message, (client,), method))
        else:
            backlog.pin(self.journal.head, method, message, seq)
            if backlog.pinned_bytes - backlog.answer_bytes > self.limits.pinned_bytes:
                self._cut(client)

    def answer(self, client: ClientId, message: bytes, method: str) -> None:
        """To one client, what it has asked for: it is slowed, never cut, if that is much."""
        backlog = self.clients[client].backlog
        if backlog is None:
            self.out.append(Publish(message, (client,), method))
            if len(message) > self.limits.catch_up_bytes:
                self.scheduler.laden.add(client)
                self.out.append(TellWhenDrained(client))
        else:
            backlog.pin(self.journal.head, method, message, answer=True)
            self.scheduler.laden.add(client)
            self._bound(client, backlog)

    def _bound(self, client: ClientId, backlog: Backlog) -> None:
        """Answers that wait for a client are bounded by nothing more being asked for it."""
        if backlog.answer_bytes > self.limits.answers_bytes:
            self.scheduler.held.add(client)
            self.stop_reading(client)

    def stop_reading(self, client: ClientId) -> None:
        """Read no more of the client until `read_on` finds that it may be."""
        if client not in self.unread:
            self.unread.add(client)
            self.out.append(StopReading(client))

    def read_on(self) -> None:
        """Read those again for whom there is room."""
        for client in list(self.unread):
            if client not in self.scheduler.held and not self.scheduler.is_to_be_slowed(client):
                self.unread.discard(client)
                self.out.append(ReadOn(client))

    def _unbound(self, client: Client) -> None:
        """What was given to its outbox is written, but for a little: more may be asked for it."""
        backlog, flow = client.backlog, self.scheduler
        if backlog is None or not backlog.answer_bytes:
            flow.laden.discard(client.id)
        if backlog is None or backlog.answer_bytes <= self.limits.answers_bytes:
            flow.held.discard(client.id)

    def _cut(self, client: ClientId) -> None:
        """It can't be brought on, but a new connection can."""
        self.out.append(Close(client, CLOSE_TOO_FAR_BEHIND, "too far behind; reconnect"))

    def end(self, client: Client, reason: str) -> None:
        """Close a client's connection: it may not be here any more."""
        client.expires, client.ended = NEVER, True
        self.out.append(Close(client.id, CLOSE_ACCESS_ENDED, reason))

    def charge(self, client: ClientId) -> None:
        """It has sent what asks for nothing, or may not be asked."""
        self.out.append(Charge(client))

    def error(self, client: ClientId, id: bytes, code: int, text: str, data: object = None) -> None:
        """An error answer to one client."""
        self.answer(client, jsonrpc.error(id, code, text, data), "error")

    def publish(self, thread: str, method: str, message: bytes) -> None:
        """Number it, journal it, hand it to the thread's followers."""
        self.publish_to_followers(thread, method, message, self.threads.recipients(thread, method))

    def publish_to_followers(
        self, thread: str, method: str, message: bytes, recipients: Recipients
    ) -> None:
        """The same, its live followers being known."""
        entry = self.journal.add(thread, method, message)
        live, aware = recipients
        self.out.append(Publish(message, live, method, entry))
        if aware:
            self.out.append(Publish(with_seq(message, entry.seq), aware, method))

    def publish_to_all(self, thread: str | None, method: str, message: bytes) -> None:
        """To everybody past the handshake; journaled if it is of a thread that somebody follows.

        What is of a private thread goes to its followers alone.
        """
        known = self.threads.known.get(thread) if thread is not None else None
        if known is not None and known.private:
            self.publish(known.id, method, message)
            return
        live, aware = self.threads.recipients(None, method)
        entry = None
        if known is not None and known.claimed:
            entry = self.journal.add(thread, method, message)
        self.out.append(Publish(message, live, method, entry))
        if aware and entry is not None:
            # To others it is a notice: a number would move their cursors past what they miss.
            follows = tuple(id for id in aware if thread in self.clients[id].follows)
            aware = tuple(id for id in aware if id not in follows)
            self.out.append(Publish(with_seq(message, entry.seq), follows, method))
        if aware:
            self.out.append(Publish(message, aware, method))
        for id in self.threads.behind:
            client = self.clients[id]
            reads_it = entry is not None and thread in client.follows
            if client.backlog is not None and not reads_it and client.hears(method):
                client.backlog.notice(self.journal.head, thread, method, message)

    def publish_to_some(
        self, recipients: tuple[ClientId, ...], thread: str | None, method: str, message: bytes
    ) -> int:
        """Number it, journal it, hand it to these; that others follow the thread doesn't matter.

        Returns its number.
        """
        if thread is None:
            for client in recipients:
                self.send(client, message, method)
            return NOT_NUMBERED
        entry = self.journal.add(thread, method, message)
        live = tuple(id for id in recipients if self._is_live(id))
        aware = tuple(id for id in live if self.clients[id].wants_seq)
        plain = tuple(id for id in live if not self.clients[id].wants_seq) if aware else live
        self.out.append(Publish(message, plain, method, entry))
        if aware:
            self.out.append(Publish(with_seq(message, entry.seq), aware, method))
        for client in recipients:
            if not self._is_live(client):
                self.send(client, message, method, entry.seq)
        return entry.seq

    def send_numbered(self, client: ClientId, message: bytes, method: str, seq: int) -> None:
        """To one client, in words of its own, what others have been given under this number."""
        numbered = seq != NOT_NUMBERED and self.clients[client].wants_seq and self._is_live(client)
        self.send(client, with_seq(message, seq) if numbered else message, method, seq)

    def complete_joining(self, client: Client) -> None:
        """The client has just been sent all that brings it up to the head: the last says so.

        So a client that knows the broker, cut off before that, comes back with an earlier cursor.
        """
        if not client.wants_seq:
            return
        if client.backlog is not None:
            client.backlog.mark_last(self.journal.head)
            return
        for at in reversed(range(len(self.out))):
            last = self.out[at]
            if isinstance(last, Publish) and last.recipients == (client.id,):
                marked = with_cursor(last.message, self.journal.head)
                self.out[at] = Publish(marked, last.recipients, last.method, last.entry)
                return

    def _is_live(self, client: ClientId) -> bool:
        return self.clients[client].backlog is None

    def log(self, level: Level, event: str, **fields: object) -> None:
        """To the operator. ``fields`` never hold params, results or secrets."""
        self.out.append(Log(level, event, fields))

    def record(self, kind: str, **fields: object) -> None:
        """To the audit log. What may stand in ``fields`` is decided in ``audit_events``."""
        times = fields.get("times")
        self.count(kind, times if isinstance(times, int) else 1)
        self.out.append(Record(kind, fields))

    def count(self, what: str, times: int = 1) -> None:
        """To the metrics: by what is recorded, and a few things more."""
        self.counts[what] = self.counts.get(what, 0) + times

    def wake_at(self, moment: float) -> None:
        """Want ``TimePassed`` at this moment, at the latest."""
        if moment < self.next_wakeup:  # noqa: PLR1730 (`min` costs more)
            self.next_wakeup = moment

    def is_held(self, thread: Thread) -> bool:
        """Whether somebody follows or joins it, or something of it runs or waits."""
        return bool(
            thread.followers
            or self.threads.joining[thread.id]
            or self.threads.beginning[thread.id]
            or thread.kept_until
            or thread.running.turn is not None
            or thread.id in self.turn_queues
            or self.pending_requests.has_pending(thread.id)
        )

    def unfollow(self, client: Client, thread: str) -> None:
        """The client follows the thread no more, from here on."""
        self.threads.unfollow(client, thread)
        if client.backlog is not None:
            client.backlog.unfollow(thread, self.journal.head)

    def close(self, thread: str) -> None:
        """The app-server has unloaded the thread: nobody follows it any more."""
        for id in self.threads.audience(thread):
            self.unfollow(self.clients[id], thread)
        self.threads.close(thread)

    # ── clients that are behind ───────────────────────────────────────────────────────────────

    def fall_behind(self, client: Client, backlog: Backlog) -> None:
        """The client reads the journal from now on, until it has caught up."""
        client.backlog = backlog
        self.threads.audience_changed()
        self.out.append(TellWhenDrained(client.id))

    def drained(self, client: Client) -> None:
        """The client's outbox has room: it may be asked for more; one that is behind is told more.

        In this order: what it is told now has to be written before the next is asked for.
        """
        self._unbound(client)
        self.catch_up(client)

    def catch_up(self, client: Client) -> None:
        """Give a client that is behind the next part."""
        backlog = client.backlog
        if backlog is None or backlog.fetching:
            return
        entries = self.journal.after(backlog.cursor, self.limits.catch_up_bytes)
        if backlog.cursor < self.journal.earliest:
            self._cut(client.id)  # older than all there is
        elif entries is None:
            backlog.fetching = True
            self.out.append(
                ReadJournal(
                    client.id,
                    backlog.cursor,
                    self.journal.remembered_after,
                    backlog.threads,
                    self.limits.catch_up_bytes,
                )
            )
        else:
            self.send_entries(client, backlog, entries)

    def fetched(self, client: Client, entries: tuple[Entry, ...], until: int) -> None:
        """What was asked of the disk is here; up to ``until`` there is nothing more."""
        backlog = client.backlog
        if backlog is not None and backlog.fetching:
            backlog.fetching = False
            if backlog.cursor < self.journal.earliest:
                self._cut(client.id)  # trimmed, or found broken, while it was read
                return
            self.send_entries(client, backlog, list(entries), until)

    def send_entries(
        self, client: Client, backlog: Backlog, entries: list[Entry], until: int = 0
    ) -> None:
        """Send what these entries hold for a client that is behind; live again at the head."""
        if entries and "observe" not in client.principal.scopes:  # what is its own is pinned
            entries, until = [], max(until, entries[-1].seq)
        messages = backlog.read(entries, client.opted_out, self.journal.head, until)
        recipients, aware = (client.id,), client.wants_seq  # the same tuple: written as one piece
        for message in messages:
            text = message.message
            if aware and message.seq != NOT_NUMBERED:
                text = with_seq(text, message.seq)
            self.out.append(Publish(text, recipients, message.method))
        if backlog.cursor >= self.journal.head:
            client.backlog = None
            self.threads.audience_changed()
            self.log("info", "client is live again", client=client.id)
        if client.backlog is not None or client.id in self.scheduler.laden | self.scheduler.held:
            self.out.append(TellWhenDrained(client.id))
