"""Writes the queue behind: changes in memory are on disk a moment later, in one transaction.

A disk that takes nothing stops nobody: pushes are sent from memory, and `QueueWriter.trouble` says
so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final, TypeVar

import attrs
import structlog
import trio

from mux.push.queue import Queue, Row
from mux.push.queue_file import QueueFile
from mux.storage import sqlite
from mux.storage.sqlite import StoreError

FIRST_RETRY: Final = 0.1
LAST_RETRY: Final = 5.0
"""Seconds until the disk is tried again after a failure, doubled from the first to the last."""

LAST_FLUSH_SECONDS: Final = 5.0
"""Time for writing the last changes, at the end."""

T = TypeVar("T")

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class QueueWriter:
    """The only writer of the queue's file."""

    queue: Queue
    file: QueueFile
    trouble: str | None = None
    """For people: why the disk takes nothing. None: it does."""
    _unread: bool = False
    """True until the rows of an earlier life could be read."""
    _writing: frozenset[int] = frozenset()
    """Numbers of the rows that are being written."""
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _done: trio.Event = attrs.field(factory=trio.Event)
    _retry: float = 0.0
    _one_writer: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    def load(self) -> None:
        """Read the rows that an earlier life left. Blocks: call it at the start.

        Raises ``StoreError`` only if a newer appmux made the file.
        """
        try:
            self.queue.adopt(self.file.load(), self.file.wall_clock())
        except (sqlite3.Error, OSError) as failure:
            self._unread = True
            self._failed(failure)

    def changed(self) -> None:
        """Note that the queue has changes that aren't on disk."""
        self._wake.set()

    async def kept(self, row: Row) -> None:
        """Wait until the row is on disk as it is now, or the disk takes nothing."""
        self._wake.set()
        while not self.trouble and (row.n in self.queue.changed or row.n in self._writing):
            await self._done.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what changes, until cancelled."""
        task_status.started()
        while True:
            if self._retry:
                await trio.sleep(self._retry)
            elif not (self.queue.changed or self.queue.removed):
                self._wake = trio.Event()
                await self._wake.wait()
            await self.flush()

    async def close(self) -> None:
        """Write what is left, once nothing changes any more, and close the file."""
        with trio.move_on_after(LAST_FLUSH_SECONDS, shield=True) as scope:
            if self.queue.changed or self.queue.removed:
                await self.flush()
        if scope.cancelled_caught or self.queue.changed:
            log.error("the last of the pushes could not be written", path=str(self.file.path))
        with trio.move_on_after(LAST_FLUSH_SECONDS, shield=True):
            await self._in_thread(self.file.close)

    async def flush(self) -> None:
        """Write now. A failure becomes ``trouble``; what isn't written stays marked as changed."""
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
                queue.adopt(await self._in_thread(self.file.load), self.file.wall_clock())
                self._unread = False
            await self._in_thread(self.file.write, rows, removed)
            written = True
        except (sqlite3.Error, OSError, StoreError) as failure:
            self._failed(failure)
        finally:  # also if we were cancelled before the thread began
            if not written:
                queue.changed |= {n for n in numbers if n in queue.rows}
                queue.removed |= removed
            self._writing = frozenset()
            done, self._done = self._done, trio.Event()
            done.set()
        if written:
            self._succeeded()

    async def _in_thread(self, work: Callable[..., T], *given: object) -> T:
        # Abandoned only when the broker ends: a disk that hangs mustn't hold it up. The limiter
        # stays taken until the thread is done, so that an old write can't follow a later one.
        return await trio.to_thread.run_sync(
            work, *given, limiter=self._one_writer, abandon_on_cancel=True
        )

    def _succeeded(self) -> None:
        self.file.whole = True
        self._retry = 0.0
        if self.trouble:
            self.trouble = None
            log.info("the queue of pushes is written again", path=str(self.file.path))

    def _failed(self, failure: Exception) -> None:
        self._retry = min(2 * self._retry, LAST_RETRY) or FIRST_RETRY
        advice = "" if isinstance(failure, StoreError) else sqlite.advice(self.file.path, failure)
        trouble = (
            f"the queue of pushes {self.file.path} can't be written ({failure}): {advice}; until"
            " then pushes are sent from memory, and lost if appmux ends"
        )
        if trouble != self.trouble:
            self.trouble = trouble
            log.error(trouble)
