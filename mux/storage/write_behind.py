"""Writes behind: what is pending is written by one task, in one worker thread at a time.

After a failure it is tried again until the disk takes it. ``Trouble`` says meanwhile what is wrong.
Clients never wait for a disk.

Used by: the journal, the audit log and the queue of pushes, which keep what is their own: what is
pending, what is dropped when memory is full, how it is written. ``small_file`` uses ``Trouble``.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog
import trio

from mux.core.part import Part
from mux.storage.sqlite import StoreError
from mux.storage.timings import Histogram

FIRST_RETRY: Final = 0.1
LAST_RETRY: Final = 5.0
"""Seconds until the disk is tried again after a failure, doubled from the first to the last."""

LAST_SECONDS = 5.0
"""Time for writing the rest at the end. A disk that takes it at all takes it at once."""

T = TypeVar("T")

log = structlog.get_logger()


class Trouble(Part):
    """A fault in writing a file, and how long to wait until the next attempt."""

    what: str
    """Names the file's content, for people."""
    path: Path
    text: str | None = None
    """For people: why nothing can be written at present, and what to do. None: all is well."""
    wait: float = 0.0
    """Seconds until the next attempt; 0: the last one didn't fail."""

    def failed(self, text: str) -> None:
        """Note that an attempt failed."""
        self.back_off()
        self.report(text)

    def back_off(self) -> None:
        """Double the wait."""
        self.wait = min(2 * self.wait, LAST_RETRY) or FIRST_RETRY

    def report(self, text: str) -> None:
        """Report what is wrong; the log gets each text once."""
        if text != self.text:
            self.text = text
            log.error(text)

    def end(self) -> None:
        """Note that an attempt succeeded."""
        if self.text:
            self.text = None
            log.info(f"{self.what} is written again", path=str(self.path))


class WriteBehind(Part, kw_only=True):
    """A task's writing of one file or directory."""

    trouble: Trouble
    pending: Callable[[], int]
    """Returns how much waits to be written."""
    write: Callable[[], Awaitable[bool]]
    """Takes what is pending and writes it, by ``in_thread``. Returns whether to go on at once.

    What it couldn't write is pending again. Raises ``OSError``, ``sqlite3.Error``, ``StoreError``.
    """
    explain: Callable[[Exception], str]
    """Says for people what such a failure means, and what to do."""
    gather: float = 0.0
    """Seconds for which more is awaited before it is written together."""
    batch: float = math.inf
    """The amount that is written at once, without waiting for more."""
    idle: float = math.inf
    """Seconds after which `write` is called although nothing is pending: to tidy up."""
    abandons: bool = True
    """True if a thread may be left behind when the task is cancelled: a disk that hangs mustn't
    hold up the end. The next write waits for that thread all the same."""
    more: bool = False
    """True if `write` is to be called at once. May be set at any time."""
    writes: Histogram = msgspec.field(default_factory=Histogram)
    """How long each successful write took."""
    milliseconds: float = 0.0
    """How long the latest successful write took."""
    _lasting: bool = False
    _wake: trio.Event = msgspec.field(default_factory=trio.Event)
    _one_writer: trio.CapacityLimiter = msgspec.field(
        default_factory=lambda: trio.CapacityLimiter(1)
    )

    def wake(self) -> None:
        """Have `run` see that something is pending, or that there is ``more``."""
        self._wake.set()

    def failed(self, failure: Exception) -> None:
        """Note a failure."""
        self.trouble.failed(self.explain(failure))

    def lasts(self) -> None:
        """Note that the trouble isn't over even if the write that now runs succeeds."""
        self._lasting = True

    async def run(self) -> None:
        """Write what is pending, until cancelled."""
        while True:
            await self.until_due()
            await self.flush()

    async def until_due(self) -> None:
        """Wait until the next write is due."""
        if self.trouble.wait:
            await trio.sleep(self.trouble.wait)
        elif self.more:
            await trio.lowlevel.checkpoint()
        else:
            self._wake = trio.Event()
            if not self.pending():
                with trio.move_on_after(self.idle):
                    await self._wake.wait()
            if self.pending() < self.batch:
                await trio.sleep(self.gather)

    async def flush(self) -> None:
        """Write now. A failure becomes ``trouble``."""
        # Before the thread starts: a request for more meanwhile isn't lost.
        self.more = self._lasting = False
        begun = time.perf_counter()
        try:
            more = await self.write()
        except (OSError, sqlite3.Error, StoreError) as failure:
            self.failed(failure)
        else:
            seconds = time.perf_counter() - begun
            self.writes.observe(seconds)
            self.milliseconds = seconds * 1000
            self.more |= more
            self.trouble.wait = 0.0
            if not self._lasting:
                self.trouble.end()

    async def in_thread(self, work: Callable[..., T], *given: object) -> T:
        """Call ``work`` in a thread, once no earlier call runs any more."""
        return await trio.to_thread.run_sync(
            work, *given, limiter=self._one_writer, abandon_on_cancel=self.abandons
        )

    async def finish(self, end: Callable[[], Awaitable[object]] | None = None) -> bool:
        """Write the rest and call ``end``, in ``LAST_SECONDS``. Return whether that was enough."""
        with trio.move_on_after(LAST_SECONDS, shield=True) as scope:
            while left := self.pending():
                await self.flush()
                if self.pending() >= left:
                    break
            if end is not None:
                await end()
        return not scope.cancelled_caught
