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

import msgspec
import structlog
import trio

from mux.core.part import Part, later
from mux.storage.audit_chain import BATCH
from mux.storage.audit_writer import AuditWriter, PendingRecord
from mux.storage.write_behind import Trouble, WriteBehind

DIRECTORY = "audit"

GATHER = 0.05
"""Seconds for which records are gathered. With the time for writing, this stays below the 100 ms
that a kill costs. Nothing waits for it; a record a second costs a write a second."""

UNWRITTEN = 10_000
"""Most records kept in memory while the disk takes none: hours of work, a few MB."""

TIDY_INTERVAL = 3600.0
"""Seconds after which an idle broker looks for files that have become too old."""

log = structlog.get_logger()


class Audit(Part):
    """The audit log of one broker."""

    writer: AuditWriter
    _pending: list[PendingRecord] = msgspec.field(default_factory=list)
    _dropped: int = 0
    _behind: WriteBehind = later()

    def __post_init__(self) -> None:
        self._behind = WriteBehind(
            trouble=Trouble("the audit log", self.writer.directory),
            pending=lambda: len(self._pending),
            write=self._write,
            explain=self._explain,
            gather=GATHER,
            batch=BATCH,
            idle=TIDY_INTERVAL,
            abandons=False,  # a batch that a thread writes must not be written again
        )

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
        return cls(AuditWriter(state_dir / DIRECTORY, max_bytes, max_age, clock))

    @property
    def trouble(self) -> str | None:
        """A text for people of why records can't be written at present and what to do; or None."""
        return self._behind.trouble.text

    def record(self, kind: str, fields: dict[str, object]) -> None:
        """Append a record to the log. Never blocks, never fails."""
        if len(self._pending) >= UNWRITTEN:
            self._dropped += 1  # keep the first ones: they show the cause
            return
        if not self._pending:
            self._behind.wake()
        self._pending.append(PendingRecord(self.writer.clock(), kind, fields))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is recorded, until cancelled; then write the rest."""
        task_status.started()
        try:
            await self._behind.run()
        finally:
            await self._close()

    async def flush(self) -> None:
        """Write one batch now. A failure becomes ``trouble``; the unwritten records stay in
        memory."""
        await self._behind.flush()

    async def _write(self) -> bool:
        if self._dropped:
            self._pending.append(
                PendingRecord(self.writer.clock(), "audit/lost", {"records": self._dropped})
            )
            self._dropped = 0
        self.writer.taken = 0  # of the last batch: we may be cancelled before the thread begins
        try:
            await self._behind.in_thread(self.writer.work, self._pending[:BATCH])
        finally:
            del self._pending[: self.writer.taken]
        return False

    async def _close(self) -> None:
        await self._behind.finish()
        if self._pending:
            text = "the audit log's last records could not be written"
            log.error(text, records=len(self._pending) + self._dropped)

    def _explain(self, failure: Exception) -> str:
        reason = getattr(failure, "strerror", None) or failure
        return (
            f"the audit log {self.writer.directory} can't be written ({reason}): make room there,"
            f" or make it writable; until then up to {UNWRITTEN} records are kept in memory"
        )

    def status(self) -> dict[str, object]:
        """Return the log's part of ``mux/status``: its place and progress, and what is wrong."""
        return {
            "path": str(self.writer.directory),
            "records": self.writer.n,
            "digest": self.writer.digest,
            "bytes": self.writer.used,
            "unwrittenRecords": len(self._pending),
            "lastWriteMilliseconds": round(self._behind.milliseconds, 1),
            "trouble": self.trouble,
        }
