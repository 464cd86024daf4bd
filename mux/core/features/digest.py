"""``mux/thread/digest``: what happened on a thread since a cursor, read from the journal.

The journal is read in parts, from memory or from disk, so that no step takes long; streams aren't
read, since what they said stands in the items that they completed. No app-server is needed.
"""

from __future__ import annotations

from typing import Final

import attrs
import msgspec

from mux.core.commands import ReadJournal
from mux.core.extension.digest import Digest, DigestCommands, DigestParams
from mux.core.features.digest_summary import Summary
from mux.core.policy.principal import ClientId
from mux.core.protocol import jsonrpc
from mux.core.protocol.journal_entry import Entry
from mux.core.protocol.jsonrpc import ClientMessage
from mux.core.protocol.rules import OfferTo
from mux.core.state.client import Client
from mux.core.state.state import State

PART_BYTES: Final = 1024 * 1024
"""Bytes of messages that are summed up in one step: some 10 ms at most."""

MOST_BYTES: Final = 64 * PART_BYTES
"""Bytes that are read for one digest: a thread's work of days. Past that the oldest are left."""

AT_ONCE: Final = 4
"""Digests under way for one client."""


@attrs.define(eq=False, repr=False)
class _Case:
    """A digest that is being made."""

    client: ClientId
    origin: bytes
    thread: str
    cursor: int
    until: int
    complete: bool
    read: int = 0
    """Bytes read so far."""
    summary: Summary = attrs.field(factory=Summary)


@attrs.define(eq=False, repr=False)
class Digests:
    """The digests under way, by number."""

    state: State
    _cases: dict[int, _Case] = attrs.field(factory=dict)
    _last: int = 0

    def asked(self, client: Client, message: ClientMessage) -> None:
        """Begin the digest that a client asks for."""
        state, journal = self.state, self.state.journal
        try:
            params = _decoder.decode(message.params)
        except msgspec.DecodeError as wrong:
            text = f"`{message.method}`: {wrong}"
            state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            return
        if sum(case.client == client.id for case in self._cases.values()) >= AT_ONCE:
            text = "Server overloaded; retry later."
            state.error(client.id, message.id, jsonrpc.OVERLOADED, text)
            return
        after = params.after
        known = after is None or (after.epoch == journal.epoch and after.seq >= journal.earliest)
        cursor = after.seq if after is not None and known else journal.earliest
        thread, head = message.thread or params.threadId, journal.head
        self._last += 1
        case = _Case(client.id, message.id, thread, min(cursor, head), head, known)
        self._cases[self._last] = case
        self._go_on(self._last, case)

    def read(self, number: int, entries: tuple[Entry, ...], until: int) -> None:
        """Take entries that were read from disk."""
        case = self._cases.get(number)
        if case is not None:
            if case.cursor < self.state.journal.earliest:
                case.complete = False  # trimmed while it was read
            self._take(case, entries)
            case.cursor = max(case.cursor, until)
            self._go_on(number, case)

    def client_left(self, client: Client) -> None:
        """Drop what was being made for a client."""
        gone = [number for number, case in self._cases.items() if case.client == client.id]
        for number in gone:
            del self._cases[number]

    def _go_on(self, number: int, case: _Case) -> None:
        journal = self.state.journal
        while case.cursor < case.until and case.read < MOST_BYTES:
            entries = journal.after(case.cursor, PART_BYTES)
            if entries is None:
                until = min(case.until, journal.remembered_after)
                mine = frozenset((case.thread,))
                self.state.out.append(
                    ReadJournal(
                        case.client, case.cursor, until, mine, PART_BYTES, number, deltas=False
                    )
                )
                return
            self._take(case, entries)
            case.cursor = entries[-1].seq if entries else case.until
        if case.cursor < case.until:
            case.complete = False
        del self._cases[number]
        self._answer(case)

    def _take(self, case: _Case, entries: list[Entry] | tuple[Entry, ...]) -> None:
        for entry in entries:
            if entry.thread == case.thread and entry.seq <= case.until:
                case.read += len(entry.message)
                case.summary.take(entry)

    def _answer(self, case: _Case) -> None:
        state, told = self.state, case.summary
        waiting = sum(
            request.rule.offer_to is OfferTo.FOLLOWERS and not request.answered
            for request in state.pending_requests.pending(case.thread)
        )
        digest = Digest(
            complete=case.complete and not told.cut,
            epoch=state.journal.epoch,
            seq=case.until,
            turns=list(told.turns.values()),
            files=list(told.files.values()),
            commands=DigestCommands(told.ran, told.failed),
            decisions=told.decisions,
            waiting=waiting,
            errors=told.errors,
        )
        state.answer(case.client, jsonrpc.result(case.origin, digest), METHOD)


METHOD: Final = "mux/thread/digest"

_decoder = msgspec.json.Decoder(DigestParams)
