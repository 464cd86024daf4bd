"""Deltas that wait a moment, for clients that get consecutive ones as one.

A client's *window* is how long a delta may wait for others on its way to it: what it declared, or
what paired devices have by default. The followers of a thread with one window are a `Group`: its
deltas are held together, in a `Run`, and go out as one message to all of it. That is when the
window is over, or something else is sent to any of the group: nothing overtakes a delta, and
nothing else waits. A client is in one run at most, so the numbers that it gets only go up.

What is held is journaled already: a client that is cut off before it gets it replays it.

``Holding`` is a part of ``Delivery``, which calls ``flush`` before it sends anything.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import msgspec

from mux.core.commands import Command, Publish
from mux.core.policy.principal import ClientId
from mux.core.protocol.journal_entry import LARGE_DELTA, Entry, merge, with_seq

RUN_BYTES = 64 * 1024
"""Bytes of held messages at which a run is sent. More would only be a burst, and isn't less to
write."""

EARLY = 0.04
"""Share of the window by which a run goes out before it is over. A client says how long a delta may
take; the loop wakes up some 1 ms after the moment that it was asked for, and then writes."""

NEVER = float("inf")


class Group(msgspec.Struct, frozen=True):
    """The live followers of a thread that get its deltas coalesced within one window."""

    window: float
    """The window in seconds."""
    plain: tuple[ClientId, ...]
    numbered: tuple[ClientId, ...]
    """Those that want the message numbered."""

    def without(self, client: ClientId) -> Group:
        """Return the group of all others."""
        plain = tuple(id for id in self.plain if id != client)
        return Group(self.window, plain, tuple(id for id in self.numbered if id != client))


class Run(msgspec.Struct, eq=False):
    """Consecutive deltas of a thread that wait for one group."""

    thread: str
    group: Group
    due: float
    """When they go out, on the broker's clock."""
    entries: list[Entry] = msgspec.field(default_factory=list)
    size: int = 0
    """Bytes of the messages."""

    def add(self, entry: Entry) -> None:
        """Add one more delta."""
        self.entries.append(entry)
        self.size += len(entry.message)

    @property
    def clients(self) -> tuple[ClientId, ...]:
        """Return everybody that it waits for."""
        return self.group.plain + self.group.numbered


@attrs.define(eq=False, repr=False)
class Coalescing:
    """All runs."""

    runs: dict[tuple[str, float], Run] = attrs.field(factory=dict)
    """Runs by thread and window."""
    waiting: dict[ClientId, Run] = attrs.field(factory=dict)
    """The run that is held for a client."""
    next_due: float = NEVER
    """A moment before which no run is due."""

    def begin(self, thread: str, group: Group, now: float) -> Run:
        """Begin a run. None is there of the thread with this window, nor for any of the group."""
        run = self.runs[thread, group.window] = Run(thread, group, now + group.window * (1 - EARLY))
        self.waiting |= dict.fromkeys(run.clients, run)
        self.next_due = min(self.next_due, run.due)
        return run

    def end(self, run: Run) -> None:
        """Forget a run, which goes out."""
        del self.runs[run.thread, run.group.window]
        for client in run.clients:
            del self.waiting[client]

    def leave(self, client: ClientId) -> None:
        """Hold nothing for a client that has left; the others of its group still wait."""
        run = self.waiting.pop(client, None)
        if run is not None:
            run.group = run.group.without(client)

    def take_due(self, now: float) -> list[Run]:
        """Return the runs whose window is over, and look for the next."""
        over = [run for run in self.runs.values() if run.due <= now]
        later = (run.due for run in self.runs.values() if run.due > now)
        self.next_due = min(later, default=NEVER)
        return over


class Holding:
    """The part of ``Delivery`` that holds deltas and lets them go."""

    __slots__ = ()

    coalescing: Coalescing
    now: float
    out: list[Command]

    def hold(self, thread: str, group: Group, entry: Entry) -> None:
        """Hold a delta for a group until its run is flushed."""
        run = self.coalescing.runs.get((thread, group.window))
        if run is not None and run.group is not group and run.group != group:
            self._flush(run)
            run = None
        if run is None:
            self.flush(group.plain + group.numbered)
            run = self.coalescing.begin(thread, group, self.now)
        run.add(entry)
        # A large delta isn't merged with others: it has nothing to wait for.
        if len(entry.message) >= LARGE_DELTA or run.size >= RUN_BYTES:
            self._flush(run)

    def flush(self, recipients: Iterable[ClientId]) -> None:
        """Send what is held for any of these clients, before something else is."""
        waiting = self.coalescing.waiting
        if waiting:
            for client in recipients:
                if client in waiting:
                    self._flush(waiting[client])

    def flush_due(self) -> bool:
        """Send what was held for as long as it may be. Return whether there was anything."""
        due = self.coalescing.take_due(self.now)
        for run in due:
            self._flush(run)
        return bool(due)

    def _flush(self, run: Run) -> None:
        self.coalescing.end(run)
        plain, numbered = run.group.plain, run.group.numbered
        for message in merge(run.entries, in_order=True):
            if plain:
                self.out.append(Publish(message.message, plain, message.method))
            if numbered:
                text = with_seq(message.message, message.seq)
                self.out.append(Publish(text, numbered, message.method))
