"""Sweeps: what a thread's messages tell, read from the journal part by part for a client's request.

The journal is read from memory or from disk, so that no step takes long. Streams aren't read, since
what they said stands in the items that they completed. No app-server is needed.

Used by ``digest`` and ``thread_files``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from mux.core.commands import ReadJournal
from mux.core.part import Part
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.journal_entry import Entry
from mux.core.state.clients.client import Client
from mux.core.state.state import State

PART_BYTES: Final = 1024 * 1024
"""Bytes of messages that are read in one step: some 10 ms at most."""

MOST_BYTES: Final = 64 * PART_BYTES
"""Bytes that are read for one sweep: a thread's work of days. Past that the oldest are left."""

AT_ONCE: Final = 4
"""Sweeps under way for one client."""


class Sum(Protocol):
    """A sum that is made of a thread's messages."""

    def add(self, entry: Entry) -> None:
        """Add one message of the thread, in order."""


class Sweep(Part):
    """A sweep that is under way, or over."""

    client: ClientId
    origin: bytes
    """The request's id, as JSON text."""
    thread: str
    cursor: int
    until: int
    complete: bool
    """False if the journal doesn't reach back to where the sweep began."""
    sum: Sum
    done: Callable[[Sweep], None]
    """Called at the end; answers the request."""
    read: int = 0
    """Bytes read so far."""


class JournalSweeps(Part):
    """The sweeps under way, by number."""

    state: State
    _sweeps: dict[int, Sweep] = msgspec.field(default_factory=dict)
    _last: int = 0

    def begin(
        self,
        client: Client,
        message: ClientMessage,
        thread: str,
        total: Sum,
        *,
        done: Callable[[Sweep], None],
        after: int | None = None,
    ) -> None:
        """Read a thread's messages after this number, or all; ``done`` answers the request."""
        state, journal = self.state, self.state.journal
        if sum(each.client == client.id for each in self._sweeps.values()) >= AT_ONCE:
            text = "Server overloaded; retry later."
            state.error(client.id, message.id, jsonrpc.OVERLOADED, text)
            return
        known = after is None or after >= journal.earliest
        cursor = after if after is not None and known else journal.earliest
        head = journal.head
        self._last += 1
        sweep = Sweep(client.id, message.id, thread, min(cursor, head), head, known, total, done)
        self._sweeps[self._last] = sweep
        self._read_on(self._last, sweep)

    def read(self, number: int, entries: tuple[Entry, ...], until: int) -> None:
        """Handle entries that were read from disk."""
        sweep = self._sweeps.get(number)
        if sweep is not None:
            if sweep.cursor < self.state.journal.earliest:
                sweep.complete = False  # trimmed while it was read
            self._add(sweep, entries)
            sweep.cursor = max(sweep.cursor, until)
            self._read_on(number, sweep)

    def client_left(self, client: Client) -> None:
        """Drop what was being read for a client."""
        gone = [number for number, each in self._sweeps.items() if each.client == client.id]
        for number in gone:
            del self._sweeps[number]

    def _read_on(self, number: int, sweep: Sweep) -> None:
        journal = self.state.journal
        while sweep.cursor < sweep.until and sweep.read < MOST_BYTES:
            entries = journal.after(sweep.cursor, PART_BYTES)
            if entries is None:
                until = min(sweep.until, journal.remembered_after)
                mine = frozenset((sweep.thread,))
                self.state.out.append(
                    ReadJournal(
                        sweep.client, sweep.cursor, until, mine, PART_BYTES, number, deltas=False
                    )
                )
                return
            self._add(sweep, entries)
            sweep.cursor = entries[-1].seq if entries else sweep.until
        if sweep.cursor < sweep.until:
            sweep.complete = False
        del self._sweeps[number]
        sweep.done(sweep)

    def _add(self, sweep: Sweep, entries: list[Entry] | tuple[Entry, ...]) -> None:
        for entry in entries:
            if entry.thread == sweep.thread and entry.seq <= sweep.until:
                sweep.read += len(entry.message)
                sweep.sum.add(entry)
