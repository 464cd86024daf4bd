"""The state that all features of the core share, and the ways to send messages.

``Broker`` makes one ``State``; ``wiring`` gives it to every feature. Features change it only while
an event is handled, and send only through it: ``send`` to one client, ``publish`` to a thread's
followers, ``forward`` upstream. Each of these only appends a command to ``out``.

A client that lags or replays has a ``Backlog``. Messages for it then go there (see ``backlog``),
and ``catch_up`` delivers them part by part, until the client is live again.
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
from mux.core.protocol.rope import Rope
from mux.core.state.app_server import AppServer, Introduction
from mux.core.state.backlog import NOT_NUMBERED, Backlog
from mux.core.state.client import Client
from mux.core.state.departed_clients import DepartedClients
from mux.core.state.journal import Journal
from mux.core.state.notice_records import NoticeRecords
from mux.core.state.pending_requests import PendingRequests
from mux.core.state.planned_restart import PlannedRestart
from mux.core.state.request import Request
from mux.core.state.scheduler import RequestScheduler
from mux.core.state.scoped_ids import ScopedIds
from mux.core.state.sent_messages import SentMessages
from mux.core.state.threads import Recipients, Thread, Threads
from mux.core.state.tool_owners import ToolOwners
from mux.core.state.turn_queues import TurnQueue

NEVER = float("inf")

CLOSE_ACCESS_ENDED = 4401
"""Close code: the client's credential has expired or been revoked (HTTP's 401, in the range for
private codes)."""

CLOSE_TOO_FAR_BEHIND = 1013
"""Close code: WebSocket's "try again later"."""


@attrs.define(eq=False, repr=False)
class State:
    """Everything that the broker knows, and the commands of the event being handled."""

    limits: Limits
    introduction: Introduction
    journal: Journal
    pending_requests: PendingRequests
    policies: Policies = attrs.field(factory=Policies)
    appserver: AppServer = attrs.field(factory=AppServer)
    clients: dict[ClientId, Client] = attrs.field(factory=dict)
    scheduler: RequestScheduler = attrs.field(init=False)
    last_wire: int = 0
    """The last id given to a request that goes upstream."""
    threads: Threads = attrs.field(init=False)
    turn_queues: dict[str, TurnQueue] = attrs.field(factory=dict)
    """Turns that wait, by thread. A thread with no queued turn has no entry."""
    last_queued_turn: int = 0
    """The last id given to a queued turn."""
    undecided_turns: dict[str, list[Request]] = attrs.field(factory=dict)
    """Requests for a turn with ``ifBusy`` ``reject``, by thread, that wait for another's answer."""
    notices: NoticeRecords = attrs.field(factory=NoticeRecords)
    restart: PlannedRestart = attrs.field(factory=PlannedRestart)
    departed_clients: DepartedClients = attrs.field(init=False)
    sent_messages: SentMessages = attrs.field(init=False)
    devices_used: dict[str, float] = attrs.field(factory=dict)
    """When each device last did something, by its principal's key."""
    scoped_ids: ScopedIds = attrs.field(factory=ScopedIds)
    tool_owners: ToolOwners = attrs.field(factory=ToolOwners)
    now: float = 0.0
    """The time of the event being handled, in seconds of the broker's clock."""
    next_wakeup: float = NEVER
    """When ``TimePassed`` is wanted, on the same clock."""
    out: list[Command] = attrs.field(factory=list)
    """The commands of the event being handled, in the order in which they are carried out."""
    release_candidates: set[str] = attrs.field(factory=set)
    """Threads that lost something that held them. At the end of the event ``subscriptions`` checks
    whether to give their upstream subscription back."""
    unread: set[ClientId] = attrs.field(factory=set)
    """Clients that aren't read from, since too much is owed to them."""
    counts: dict[str, int] = attrs.field(factory=dict)
    """Counters for the metrics, by kind."""
    audit_text: bool = False
    """True if the audit log may hold the texts of messages, not only their digests."""
    gate: Gate | None = None
    """The methods and fields that are experimental. None while they aren't known: nothing is
    refused then."""

    def __attrs_post_init__(self) -> None:
        self.scheduler = RequestScheduler(self.limits)
        self.departed_clients = DepartedClients(self.limits.remembered_clients)
        self.sent_messages = SentMessages(self.limits.remembered_messages)
        self.threads = Threads(self.clients, most_unclaimed=self.limits.mentioned_threads)

    # ── sending ───────────────────────────────────────────────────────────────────────────────

    def forward(self, line: bytes, method: str) -> None:
        """Send a line to the app-server."""
        self.out.append(Forward(line, method))

    def send(self, client: ClientId, message: bytes, method: str, seq: int = NOT_NUMBERED) -> None:
        """Send a message to one client alone.

        ``seq`` is the message's number, if it has one; a client that is behind needs it. A client
        for which too many bytes are pinned is disconnected.
        """
        backlog = self.clients[client].backlog
        if backlog is None:
            self.out.append(Publish(message, (client,), method))
        else:
            backlog.pin(self.journal.head, method, message, seq)
            if backlog.pinned_bytes - backlog.answer_bytes > self.limits.pinned_bytes:
                self._cut(client)

    def answer(self, client: ClientId, message: bytes | Rope, method: str) -> None:
        """Send a client the answer to its request.

        A large answer slows the client down, but never cuts it off.
        """
        backlog = self.clients[client].backlog
        if backlog is None:
            self.out.append(Publish(message, (client,), method))
            if len(message) > self.limits.catch_up_bytes:
                self.scheduler.laden.add(client)
                self.out.append(TellWhenDrained(client))
        else:
            text = message.whole() if isinstance(message, Rope) else message
            backlog.pin(self.journal.head, method, text, answer=True)
            self.scheduler.laden.add(client)
            self._bound(client, backlog)

    def _bound(self, client: ClientId, backlog: Backlog) -> None:
        """Schedule and read nothing more of a client while too many answers wait for it."""
        if backlog.answer_bytes > self.limits.answers_bytes:
            self.scheduler.held.add(client)
            self.stop_reading(client)

    def stop_reading(self, client: ClientId) -> None:
        """Read no more of the client until `read_on` finds that it may be read again."""
        if client not in self.unread:
            self.unread.add(client)
            self.out.append(StopReading(client))

    def read_on(self) -> None:
        """Read again from the stopped clients for whom there is room."""
        for client in list(self.unread):
            if client not in self.scheduler.held and not self.scheduler.is_to_be_slowed(client):
                self.unread.discard(client)
                self.out.append(ReadOn(client))

    def _unbound(self, client: Client) -> None:
        """Lift the limits of a client whose outbox is written, but for a little."""
        backlog, flow = client.backlog, self.scheduler
        if backlog is None or not backlog.answer_bytes:
            flow.laden.discard(client.id)
        if backlog is None or backlog.answer_bytes <= self.limits.answers_bytes:
            flow.held.discard(client.id)

    def _cut(self, client: ClientId) -> None:
        """Disconnect a client that can't be brought up to date; a new connection of it can."""
        self.out.append(Close(client, CLOSE_TOO_FAR_BEHIND, "too far behind; reconnect"))

    def end(self, client: Client, reason: str) -> None:
        """Close the connection of a client whose access has ended."""
        client.expires, client.ended = NEVER, True
        self.out.append(Close(client.id, CLOSE_ACCESS_ENDED, reason))

    def charge(self, client: ClientId) -> None:
        """Charge a client for a message that asks for nothing, or for something it may not ask."""
        self.out.append(Charge(client))

    def error(self, client: ClientId, id: bytes, code: int, text: str, data: object = None) -> None:
        """Send a client an error as the answer to its request."""
        self.answer(client, jsonrpc.error(id, code, text, data), "error")

    def publish(self, thread: str, method: str, message: bytes) -> None:
        """Number a message, add it to the journal and send it to the thread's followers."""
        self.publish_to_followers(thread, method, message, self.threads.recipients(thread, method))

    def publish_to_followers(
        self, thread: str, method: str, message: bytes, recipients: Recipients
    ) -> None:
        """Do what `publish` does, with the thread's live followers given by the caller."""
        entry = self.journal.add(thread, method, message)
        live, aware = recipients
        self.out.append(Publish(message, live, method, entry))
        if aware:
            self.out.append(Publish(with_seq(message, entry.seq), aware, method))

    def publish_to_all(self, thread: str | None, method: str, message: bytes) -> None:
        """Send a message to every client past the handshake.

        The message is journaled if its thread was ever followed. A message of a private thread goes
        to that thread's followers alone.
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
            # Clients that don't follow the thread get it without a number, which would move their
            # cursors past entries that they miss.
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
        """Number a message, add it to the journal and send it to these clients only.

        Other followers of the thread don't get it. Returns the number; without a thread the message
        is neither numbered nor journaled, and ``NOT_NUMBERED`` is returned.
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
        """Send one client its own version of a message that others got under this number."""
        numbered = seq != NOT_NUMBERED and self.clients[client].wants_seq and self._is_live(client)
        self.send(client, with_seq(message, seq) if numbered else message, method, seq)

    def complete_joining(self, client: Client) -> None:
        """Put the journal's head, as the client's cursor, into the last message that it was sent.

        With that message a joining client is up to date. A client that knows the broker and is cut
        off before it comes back with an earlier cursor.
        """
        if not client.wants_seq:
            return
        if client.backlog is not None:
            client.backlog.mark_last(self.journal.head)
            return
        for at in reversed(range(len(self.out))):
            last = self.out[at]
            if isinstance(last, Publish) and last.recipients == (client.id,):
                marked: bytes | Rope
                if isinstance(last.message, Rope):
                    marked = last.message.edited([(0, 1, [with_cursor(b"{", self.journal.head)])])
                else:
                    marked = with_cursor(last.message, self.journal.head)
                self.out[at] = Publish(marked, last.recipients, last.method, last.entry)
                return

    def _is_live(self, client: ClientId) -> bool:
        return self.clients[client].backlog is None

    def log(self, level: Level, event: str, **fields: object) -> None:
        """Log an event for the operator. ``fields`` never hold params, results or secrets."""
        self.out.append(Log(level, event, fields))

    def record(self, kind: str, **fields: object) -> None:
        """Add a record to the audit log. ``audit_events`` decides what may stand in ``fields``."""
        times = fields.get("times")
        self.count(kind, times if isinstance(times, int) else 1)
        self.out.append(Record(kind, fields))

    def count(self, what: str, times: int = 1) -> None:
        """Count for the metrics: every kind of audit record, and a few things more."""
        self.counts[what] = self.counts.get(what, 0) + times

    def wake_at(self, moment: float) -> None:
        """Ask for ``TimePassed`` at this moment, at the latest."""
        if moment < self.next_wakeup:  # noqa: PLR1730 (`min` costs more)
            self.next_wakeup = moment

    def is_held(self, thread: Thread) -> bool:
        """Return whether somebody follows or joins the thread, or something of it runs or waits."""
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
        """Remove the client from the thread's followers, from here on."""
        self.threads.unfollow(client, thread)
        if client.backlog is not None:
            client.backlog.unfollow(thread, self.journal.head)

    def close(self, thread: str) -> None:
        """Forget a thread that the app-server has unloaded; it has no followers any more."""
        for id in self.threads.audience(thread):
            self.unfollow(self.clients[id], thread)
        self.threads.close(thread)

    # ── clients that are behind ───────────────────────────────────────────────────────────────

    def fall_behind(self, client: Client, backlog: Backlog) -> None:
        """Have the client read the journal from now on, until it has caught up."""
        client.backlog = backlog
        self.threads.audience_changed()
        self.out.append(TellWhenDrained(client.id))

    def drained(self, client: Client) -> None:
        """Lift the client's limits, since its outbox has room; send the next part of its backlog.

        The order matters: the next part may limit the client again, because it has to be written
        before more is asked for.
        """
        self._unbound(client)
        self.catch_up(client)

    def catch_up(self, client: Client) -> None:
        """Send a client that is behind its next part, or have that read from disk."""
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
        """Take in entries read from disk for a client; up to ``until`` there are no others."""
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
        """Send a client that is behind its messages in these entries; at the head it goes live."""
        if entries and "observe" not in client.principal.scopes:  # its own messages are pinned
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
