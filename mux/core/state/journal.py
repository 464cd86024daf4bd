"""The journal: every message of a thread, numbered; and how deltas merge for one who comes late.

Numbers (``seq``) go up by one an entry and never start again within an ``epoch``, which is as long
as a state directory lives. The recent past is held here, in memory, bounded in bytes; the rest is
on disk, with the shell's ``store``. A client's place in it is its *cursor*: the last seq it has.

Heard from: ``broker`` alone; it hands each entry to the store with the command that publishes it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

import attrs

from mux.core.protocol.journal_entry import Entry


@attrs.define(eq=False, repr=False)
class Journal:
    """The numbering, and the recent past. ``head``: the last number given.

    ``began``: the cursor at which this broker's life began; what ran before it is over.
    ``on_disk_after``: the cursor from which on all is on disk; None without a disk.
    """

    epoch: str
    head: int
    memory_bytes: int
    on_disk_after: int | None = None
    began: int = attrs.field(init=False)
    _recent: deque[Entry] = attrs.field(factory=deque)
    _bytes: int = 0

    def __attrs_post_init__(self) -> None:
        self.began = self.head

    def add(self, thread: str | None, method: str, message: bytes) -> Entry:
        """Number a message and keep it."""
        self.head += 1
        entry = Entry(self.head, thread, method, message)
        recent = self._recent
        recent.append(entry)
        self._bytes += len(message)
        while self._bytes > self.memory_bytes and len(recent) > 1:
            self._bytes -= len(recent.popleft().message)
        return entry

    @property
    def remembered_after(self) -> int:
        """The cursor from which on all entries are in memory."""
        return self.head - len(self._recent)

    def kept(self, epoch: str, earliest: int) -> None:
        """What the store has; it begins a new epoch when it lost the old one."""
        self.epoch, self.on_disk_after = epoch, earliest

    @property
    def earliest(self) -> int:
        """The earliest cursor that can be brought up to date."""
        in_memory = self.remembered_after
        return in_memory if self.on_disk_after is None else min(in_memory, self.on_disk_after)

    def after(self, cursor: int, max_bytes: int) -> list[Entry] | None:
        """Entries from memory, at most about ``max_bytes``; None if some are on disk alone."""
        if cursor < self.remembered_after:
            return None
        taken: list[Entry] = []
        size = 0
        for entry in islice(self._recent, cursor - self.remembered_after, None):
            taken.append(entry)
            size += len(entry.message)
            if size >= max_bytes:
                break
        return taken
