"""Delivery: the ways to send a message to clients, and what a client gets of it that is behind.

    method                to whom                     numbered     journaled    if it is behind
    ────────────────────────────────────────────────────────────────────────────────────────────
    publish               the thread's followers      yes          yes          reads the entry
    publish_to_followers  the same, looked up by      yes          yes          reads the entry
                          the caller
    publish_run           the same, for a run of  yes          yes          reads the entries
                          deltas
    send_live             live clients                no           no           isn't asked for
    publish_to_all        every client past its       to the       if anybody   followers read the
                          handshake; of a private     thread's     ever         entry; others get
                          thread, its followers       followers    followed it  the last of a kind
    publish_to_some       these clients               if it has    if it has    pinned, under its
                                                      a thread     a thread     number
    send_numbered         one client: its version of  as that      no           pinned, under that
                          a published message         message                   number
    send                  one client                  no           no           pinned; too much
                                                                                cuts the client
    answer, error         the client that asked       no           no           pinned; much slows
                                                                                the client

*Numbered* messages carry their ``seq``, for clients that want it. *Pinned* messages are stored for
the client and given out at their place between the journal's entries (see ``backlog``).
``complete_joining`` marks the last message sent to a client as the one with which it is up to date.
``forward`` sends to the app-server.

A client that gets deltas coalesced (see ``coalescing``) is sent those that wait before anything
else.

A client that is behind reads the journal part by part: ``fall_behind`` begins that, ``catch_up``
gives it the next part whenever its outbox has drained, until it is live again.
"""

from __future__ import annotations

from mux.core.commands import (
    Charge,
    Close,
    Command,
    Forward,
    Level,
    Log,
    Publish,
    PublishRun,
    ReadJournal,
    ReadOn,
    ReportWhenDrained,
    StopReading,
)
from mux.core.limits import Limits
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.rope import Rope
from mux.core.protocol.journal_entry import MERGEABLE, Entry, with_cursor, with_seq
from mux.core.state.clients.backlog import NOT_NUMBERED, Backlog
from mux.core.state.clients.client import Client
from mux.core.state.clients.coalescing import Holding
from mux.core.state.journal import Journal
from mux.core.state.requests.scheduler import RequestScheduler
from mux.core.state.threads.threads import Recipients, Threads

CLOSE_ACCESS_ENDED = 4401
"""Close code: the client's credential has expired or been revoked (HTTP's 401, in the range for
private codes)."""

CLOSE_TOO_FAR_BEHIND = 1013
"""Close code: WebSocket's "try again later"."""


class Delivery(Holding):
    """The part of ``State`` that sends. Each method only appends commands to ``out``."""

    __slots__ = ()

    limits: Limits
    journal: Journal
    scheduler: RequestScheduler
    threads: Threads
    clients: dict[ClientId, Client]
    out: list[Command]
    unread: set[ClientId]

    def log(self, level: Level, event: str, **fields: object) -> None:
        """Log an event for the operator. ``fields`` never hold params, results or secrets."""
        self.out.append(Log(level, event, fields))

    def forward(self, line: bytes, method: str) -> None:
        """Send a line to the app-server."""
        self.out.append(Forward(line, method))

    def send(
        self, client: ClientId, message: bytes | Rope, method: str, seq: int = NOT_NUMBERED
    ) -> None:
        """Send a message to one client alone.

        ``seq`` is the message's number, if it has one; a client that is behind needs it. A client
        for which too many bytes are pinned is disconnected.
        """
        backlog = self.clients[client].backlog
        if backlog is None:
            self.send_live((client,), message, method)
        else:
            backlog.pin(self.journal.head, method, _whole(message), seq)
            if backlog.pinned_bytes - backlog.answer_bytes > self.limits.pinned_bytes:
                self._cut(client)

    def send_live(
        self, recipients: tuple[ClientId, ...], message: bytes | Rope, method: str
    ) -> None:
        """Send a message to clients that are live, and to them alone."""
        self.flush(recipients)
        self.out.append(Publish(message, recipients, method))

    def answer(self, client: ClientId, message: bytes | Rope, method: str) -> None:
        """Send a client the answer to its request.

        A large answer slows the client down, but never cuts it off.
        """
        backlog = self.clients[client].backlog
        if backlog is None:
            self.send_live((client,), message, method)
            if len(message) > self.limits.catch_up_bytes:
                self.scheduler.laden.add(client)
                self.out.append(ReportWhenDrained(client))
        else:
            backlog.pin(self.journal.head, method, _whole(message), answer=True)
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
        client.expires, client.ended = float("inf"), True
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
        live, aware, groups = recipients
        if self.coalescing.waiting and method not in MERGEABLE:
            self.flush(live + aware)
        self.out.append(Publish(message, live, method, entry))
        if aware:
            self.out.append(Publish(with_seq(message, entry.seq), aware, method))
        for group in groups:
            self.hold(thread, group, entry)

    def publish_run(
        self, thread: str, method: str, messages: list[bytes], recipients: Recipients
    ) -> None:
        """Do what `publish_to_followers` does, for consecutive deltas of one stream."""
        entries = self.journal.add_run(thread, method, messages)
        live, aware, groups = recipients
        self.out.append(PublishRun(messages, live, method, entries))
        if aware:
            numbered = [with_seq(entry.message, entry.seq) for entry in entries]
            self.out.append(PublishRun(numbered, aware, method))
        for group in groups:
            for entry in entries:
                self.hold(thread, group, entry)

    def publish_to_all(self, thread: str | None, method: str, message: bytes) -> None:
        """Send a message to every client past the handshake.

        The message is journaled if its thread was ever followed. A message of a private thread goes
        to that thread's followers alone.
        """
        known = self.threads.known.get(thread) if thread is not None else None
        if known is not None and known.private:
            self.publish(known.id, method, message)
            return
        live, aware, _ = self.threads.recipients(None, method)
        self.flush(live + aware)
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
            if client.backlog is not None and not reads_it and client.receives(method):
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
        self.flush(live)
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

    # ── clients that are behind ───────────────────────────────────────────────────────────────

    def fall_behind(self, client: Client, backlog: Backlog) -> None:
        """Have the client read the journal from now on, until it has caught up."""
        self.flush((client.id,))
        client.backlog = backlog
        self.threads.audience_changed()
        self.out.append(ReportWhenDrained(client.id))

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
        """Add entries read from disk for a client; up to ``until`` there are no others."""
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
            self.out.append(ReportWhenDrained(client.id))


def _whole(message: bytes | Rope) -> bytes:
    return message.whole() if isinstance(message, Rope) else message
