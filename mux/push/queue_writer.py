"""Writes the queue behind: changes in memory are on disk a moment later, in one transaction.

A disk that takes nothing stops nobody: pushes are sent from memory, and `QueueWriter.trouble` says
so.
"""

from __future__ import annotations

import sqlite3
from functools import partial

import attrs
import msgspec
import structlog
import trio

from mux.core.part import Part, later
from mux.push.queue import Queue, Row
from mux.push.queue_file import QueueFile
from mux.storage import sqlite
from mux.storage.sqlite import StoreError
from mux.storage.write_behind import Trouble, WriteBehind

log = structlog.get_logger()


class QueueWriter(Part):
    """The only writer of the queue's file."""

    queue: Queue
    file: QueueFile
    _unread: bool = False
    """True until the rows of an earlier life could be read."""
    _writing: frozenset[int] = frozenset()
    """Numbers of the rows that are being written."""
    _done: trio.Event = msgspec.field(default_factory=trio.Event)
    _behind: WriteBehind = later()

    def __post_init__(self) -> None:
        self._behind = WriteBehind(
            trouble=Trouble("the queue of pushes", self.file.path),
            pending=lambda: len(self.queue.changed) + len(self.queue.removed),
            write=self._write,
            explain=self._explain,
        )

    @property
    def trouble(self) -> str | None:
        """The reason why the disk takes nothing, as a text for people; None if it does."""
        return self._behind.trouble.text

    def load(self) -> None:
        """Read the rows that an earlier life left. Blocks: call it at the start.

        Raises ``StoreError`` only if a newer appmux made the file.
        """
        try:
            self.queue.adopt(self.file.load(), self.file.wall_clock())
        except (sqlite3.Error, OSError) as failure:
            self._unread = True
            self._behind.failed(failure)

    def changed(self) -> None:
        """Note that the queue has changes that aren't on disk."""
        self._behind.wake()

    async def kept(self, row: Row) -> None:
        """Wait until the row is on disk as it is now, or the disk takes nothing."""
        self._behind.wake()
        while not self.trouble and (row.n in self.queue.changed or row.n in self._writing):
            await self._done.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what changes, until cancelled."""
        task_status.started()
        await self._behind.run()

    async def close(self) -> None:
        """Write what is left, once nothing changes any more, and close the file."""
        in_time = await self._behind.finish(partial(self._behind.in_thread, self.file.close))
        if self.queue.changed or not in_time:
            log.error("the last of the pushes could not be written", path=str(self.file.path))

    async def flush(self) -> None:
        """Write now. A failure becomes ``trouble``; what isn't written stays marked as changed."""
        await self._behind.flush()

    async def _write(self) -> bool:
        queue = self.queue
        if not self.file.whole:
            queue.changed = set(queue.rows)
        numbers, removed = frozenset(queue.changed), frozenset(queue.removed)
        # Copies: the rows go on changing while a thread writes them.
        rows = [attrs.evolve(queue.rows[n]) for n in sorted(numbers)]
        self._writing, queue.changed = numbers, set()
        queue.removed -= removed
        written = False
        try:
            if self._unread:
                earlier = await self._behind.in_thread(self.file.load)
                queue.adopt(earlier, self.file.wall_clock())
                self._unread = False
            await self._behind.in_thread(self.file.write, rows, removed)
            self.file.whole = written = True
        finally:  # also if we were cancelled before the thread began
            if not written:
                queue.changed |= {n for n in numbers if n in queue.rows}
                queue.removed |= removed
            self._writing = frozenset()
            done, self._done = self._done, trio.Event()
            done.set()
        return False

    def _explain(self, failure: Exception) -> str:
        advice = "" if isinstance(failure, StoreError) else sqlite.advice(self.file.path, failure)
        return (
            f"the queue of pushes {self.file.path} can't be written ({failure}): {advice}; until"
            " then pushes are sent from memory, and lost if appmux ends"
        )
