"""The audit log: takes records as things are decided, and has them written behind, in order.

`Audit.record` only appends to a list. A task gathers records for ``GATHER`` seconds and has one
worker thread write them: the lines, then ``head.json``, each with fsync. So a kill costs at most
the last 100 ms, and a power cut no more. The files on disk are a whole chain in any case.

A disk that takes nothing never stops the broker. The failure is shown (`Audit.trouble`: log,
status, ``/readyz``), and the records wait in memory, bounded. If some had to be dropped, the next
record that is written counts them.

Used by: ``dispatcher``, for the core's ``Record`` commands; ``server`` and others, for their own.
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
"""Seconds for which records are gathered. With the time for writing, this stays below the 100 ms
that a kill costs. Nothing waits for it; a record a second costs a write a second."""

UNWRITTEN = 10_000
"""Most records kept in memory while the disk takes none: hours of work, a few MB."""

FIRST_RETRY, LAST_RETRY = 0.1, 5.0
"""Seconds until the disk is tried again after a failure, doubled from the first to the last."""

TIDY_INTERVAL = 3600.0
"""Seconds after which an idle broker looks for files that have become too old."""

LAST_FLUSH_SECONDS = 5.0
"""Time for writing the last records, at the end."""

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class Audit:
    """The audit log of one broker."""

    writer: Writer
    trouble: str | None = None
    """For people: why records can't be written at present, and what to do. None: all is well."""
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
        """Return the log in ``state_dir/audit``. The files are first read when a record is written.

        ``max_bytes`` bounds the size of all files, ``max_age`` (seconds) their age.
        """
        return cls(Writer(state_dir / DIRECTORY, max_bytes, max_age, clock))

    def record(self, kind: str, fields: dict[str, object]) -> None:
        """Append a record to the log. Never blocks, never fails."""
        if len(self._pending) >= UNWRITTEN:
            self._dropped += 1  # keep the first ones: they show the cause
            return
        if not self._pending:
            self._wake.set()
        self._pending.append(PendingRecord(self.writer.clock(), kind, fields))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is recorded, until cancelled; then write the rest."""
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
        """Write one batch now. A failure becomes ``trouble``; the unwritten records stay in
        memory."""
        if self._dropped:
            self._pending.append(
                PendingRecord(self.writer.clock(), "audit/lost", {"records": self._dropped})
            )
            self._dropped = 0
        batch = self._pending[:BATCH]
        begun = time.perf_counter()
        try:
            # Not abandoned when cancelled: a batch that a thread writes must not be written again.
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
        """Return the log's part of ``mux/status``: its place and progress, and what is wrong."""
        return {
            "path": str(self.writer.directory),
            "records": self.writer.n,
            "digest": self.writer.digest,
            "bytes": self.writer.used,
            "unwrittenRecords": len(self._pending),
            "lastWriteMilliseconds": round(self._milliseconds, 1),
            "trouble": self.trouble,
        }
