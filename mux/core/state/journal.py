"""The journal: every message of a thread, numbered.

Numbers (``seq``) go up by one an entry and never start again within an ``epoch``, which is as long
as a state directory lives. The recent past is held here, in memory, bounded in bytes; the rest is
on disk (``mux.storage.journal``). A client's place in the journal is its *cursor*: the last seq it
has.

An entry reaches the disk with the command that publishes it. ``protocol.journal_entry`` merges the
deltas for a client that comes late.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

import attrs

from mux.core.protocol.journal_entry import Entry


@attrs.define(eq=False, repr=False)
class Journal:
    """The numbering, and the recent past."""

    epoch: str
    head: int
    """The last number given."""
    memory_bytes: int
    on_disk_after: int | None = None
    """The cursor from which on all entries are on disk; None without a disk."""
    began: int = attrs.field(init=False)
    """The cursor at which this broker's life began; whatever ran before it is over."""
    _recent: deque[Entry] = attrs.field(factory=deque)
    _bytes: int = 0

    def __attrs_post_init__(self) -> None:
        self.began = self.head

    def add(self, thread: str | None, method: str, message: bytes) -> Entry:
        """Number a message and remember it."""
        self.head += 1
        entry = Entry(self.head, thread, method, message)
        self._recent.append(entry)
        self._bytes += len(message)
        if self._bytes > self.memory_bytes:
            self._forget_oldest()
        return entry

    def add_run(self, thread: str, method: str, messages: list[bytes]) -> list[Entry]:
        """Number consecutive messages of one method and remember them."""
        first = self.head + 1
        self.head += len(messages)
        entries = [Entry(seq, thread, method, each) for seq, each in enumerate(messages, first)]
        self._recent += entries
        self._bytes += sum(map(len, messages))
        if self._bytes > self.memory_bytes:
            self._forget_oldest()
        return entries

    def _forget_oldest(self) -> None:
        recent = self._recent
        while self._bytes > self.memory_bytes and len(recent) > 1:
            self._bytes -= len(recent.popleft().message)

    @property
    def remembered_after(self) -> int:
        """Return the cursor from which on all entries are in memory."""
        return self.head - len(self._recent)

    def kept(self, epoch: str, earliest: int) -> None:
        """Record the extent of what is on disk. A new epoch means that the old journal is lost."""
        self.epoch, self.on_disk_after = epoch, earliest

    @property
    def earliest(self) -> int:
        """Return the earliest cursor that can be brought up to date."""
        in_memory = self.remembered_after
        return in_memory if self.on_disk_after is None else min(in_memory, self.on_disk_after)

    def after(self, cursor: int, max_bytes: int) -> list[Entry] | None:
        """Return entries from memory, at most about ``max_bytes``; None if some are on disk."""
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
