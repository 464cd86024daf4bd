"""The audit log: takes records as they are decided, and has them written behind, in order.

`record` only puts a record on a list. A task gathers what came for ``GATHER`` seconds and has it
written by one worker thread: the lines, then ``head.json``, each with fsync. So a kill costs at
most the last 100 ms, and a power cut no more; what is on the disk is a whole chain in any case.

A disk that doesn't take it never stops the broker. It is said loudly (`Audit.trouble`: log, status,
``/readyz``), the records wait in memory, bounded, and if some had to be dropped the next record
that is written counts them.

Hands to: ``audit_writer``, in a worker thread; the log, whether records can be written.
Hears from: ``dispatcher``, the core's ``Record``\\ s; ``server`` and others, their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import attrs
import structlog
import trio

from mux.storage.audit_chain import BATCH
from mux.storage.audit_writer import PendingRecord, Writer

DIRECTORY = "audit"

GATHER = 0.05
"""Seconds that records are gathered: with the writing it stays below the 100 ms that a kill costs.
Nothing waits for it; a record a second costs a write a second."""

UNWRITTEN = 10_000
"""Records kept in memory while the disk takes none: hours of work, a few MB."""

FIRST_RETRY, LAST_RETRY = 0.1, 5.0
"""Seconds until the disk is tried again after a failure, doubled from the first to the last."""

TIDY_INTERVAL = 3600.0
"""Seconds until an idle broker looks for what has become too old."""

LAST_FLUSH_SECONDS = 5.0
"""For the last records, at the end."""

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class Audit:
    """The audit log of one broker. ``trouble``: as in ``store``; None while all is well."""

    writer: Writer
    trouble: str | None = None
    _pending: list[PendingRecord] = attrs.field(factory=list)
    _dropped: int = 0
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _retry: float = 0.0
    _milliseconds: float = 0.0
    _one_writer: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    @classmethod
    def open(
        cls,
        state_dir: Path,
        *,
        max_bytes: int,
        max_age: float,
        clock: Callable[[], float] = time.time,
    ) -> Audit:
        """The log in ``state_dir/audit``, which is looked at when the first record is written.

        Bounds: ``max_bytes`` of all files, ``max_age`` in seconds.
        """
        return cls(Writer(state_dir / DIRECTORY, max_bytes, max_age, clock))

    def record(self, kind: str, fields: dict[str, object]) -> None:
        """Put a record into the log. Never blocks, never fails."""
        if len(self._pending) >= UNWRITTEN:
            self._dropped += 1  # what came first stays: it is what led here
            return
        if not self._pending:
            self._wake.set()
        self._pending.append(PendingRecord(self.writer.clock(), kind, fields))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is recorded, until cancelled; then the rest."""
        task_status.started()
        try:
            while True:
                await self._until_due()
                await self.flush()
        finally:
            await self._close()

    async def _until_due(self) -> None:
        if self._retry:
            await trio.sleep(self._retry)
            return
        self._wake = trio.Event()
        if not self._pending:
            with trio.move_on_after(TIDY_INTERVAL):
                await self._wake.wait()
        if len(self._pending) < BATCH:
            await trio.sleep(GATHER)

    async def flush(self) -> None:
        """Write now, one batch. A failure becomes ``trouble``; the records stay."""
        if self._dropped:
            self._pending.append(
                PendingRecord(self.writer.clock(), "audit/lost", {"records": self._dropped})
            )
            self._dropped = 0
        batch = self._pending[:BATCH]
        begun = time.perf_counter()
        try:
            # Not abandoned when cancelled: what a thread is writing must not be written twice.
            await trio.to_thread.run_sync(self.writer.work, batch, limiter=self._one_writer)
        except OSError as failure:
            self._failed(failure)
        else:
            self._milliseconds = (time.perf_counter() - begun) * 1000
            self._retry = 0.0
            if self.trouble:
                self.trouble = None
                log.info("the audit log is written again", path=str(self.writer.directory))
        del self._pending[: self.writer.taken]

    async def _close(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_FLUSH_SECONDS):
            while self._pending:
                left = len(self._pending)
                await self.flush()
                if len(self._pending) >= left:
                    break
        if self._pending:
            text = "the audit log's last records could not be written"
            log.error(text, records=len(self._pending) + self._dropped)

    def _failed(self, failure: OSError) -> None:
        self._retry = min(2 * self._retry, LAST_RETRY) or FIRST_RETRY
        trouble = (
            f"the audit log {self.writer.directory} can't be written"
            f" ({failure.strerror or failure}): make room there, or make it writable; until then"
            f" up to {UNWRITTEN} records are kept in memory"
        )
        if trouble != self.trouble:
            self.trouble = trouble
            log.error(trouble)

    def status(self) -> dict[str, object]:
        """For ``status``: where it is, how far it is, and what is wrong."""
        return {
            "path": str(self.writer.directory),
            "records": self.writer.n,
            "digest": self.writer.digest,
            "bytes": self.writer.used,
            "unwrittenRecords": len(self._pending),
            "lastWriteMilliseconds": round(self._milliseconds, 1),
            "trouble": self.trouble,
        }
