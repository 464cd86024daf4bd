"""The journal on disk: takes entries at the pace of the app-server, and returns them in order.

Used by: ``dispatcher``, which appends each entry in the order of its number and reads for clients
that catch up.

An entry is first in memory (``_pending``), then being written (``_writing``), then in the file. If
the disk doesn't take entries, clients don't notice: the entries stay in memory, bounded, and are
written when the disk takes them again. `Store.trouble` says so meanwhile.

*Epoch and numbers.* An epoch is continued only if numbers can be reserved in its file first. If
they can't be (the disk is full, the directory read-only), this life of the broker has an epoch of
its own: otherwise the next life would give the same numbers to other entries.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Collection
from functools import partial
from operator import attrgetter
from pathlib import Path
from secrets import token_hex

import attrs
import structlog
import trio

from mux.core.protocol.journal_entry import Entry, is_delta
from mux.storage import journal_schema, sqlite
from mux.storage.journal_chunks import Reader, fitting
from mux.storage.journal_writer import JournalWriter, Rest
from mux.storage.sqlite import StoreError as StoreError  # noqa: PLC0414 (for those who read)
from mux.storage.timings import Histogram
from mux.storage.write_behind import Trouble, WriteBehind

MIB = 1024 * 1024

FLUSH_INTERVAL = 0.05
"""Seconds for which entries are gathered before they are written together. With the time that
writing takes, this stays below the 100 ms that a kill may cost."""

UNWRITTEN_BYTES = 64 * MIB
"""Most bytes that are kept in memory while the disk takes nothing: minutes of several busy
threads."""

SHED_SHARE = 4
"""When entries in memory are too many, a quarter of the bound is freed at once: going through them
costs some 30 ms, in which no message moves."""

ENTRY_BYTES = 150
"""Bytes that an entry costs in memory beside its message."""

TIDY_INTERVAL = 3600.0
"""Seconds after which an idle broker looks for entries that have become too old."""

_seq = attrgetter("seq")

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class Store:
    """The journal. ``_recorder`` and ``_reader`` work in worker threads, all else in trio's."""

    next_seq: int
    """The first number of this life: above all that were given out before in this epoch."""
    _recorder: JournalWriter
    _reader: Reader
    running_floor: int = sys.maxsize
    """The number at which the oldest item that still runs began. Deltas from there on are kept as
    long as events are. Set before each write; with the default, every delta may be trimmed."""
    fresh: list[Entry] | None = None
    """Gets every entry that is appended, if somebody has set it: the broker's state."""
    _last: int = 0
    _shed: int = 0
    _pending: list[Entry] = attrs.field(factory=list)
    _pending_bytes: int = 0
    _writing: list[Entry] = attrs.field(factory=list)
    _writing_bytes: int = 0
    _before_flush: Callable[[], None] = lambda: None
    _behind: WriteBehind = attrs.field(init=False)
    _one_reader: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    def __attrs_post_init__(self) -> None:
        self._behind = WriteBehind(
            trouble=Trouble("the journal", self._recorder.path),
            pending=self._left,
            write=self._write,
            explain=self._explain,
            gather=FLUSH_INTERVAL,
            idle=TIDY_INTERVAL,
            more=True,  # at the start there may be something to trim
        )

    @classmethod
    def open(
        cls,
        state_dir: Path,
        *,
        max_bytes: int,
        max_age: float,
        wall_clock: Callable[[], float] = time.time,
        rest: Rest | None = None,
    ) -> Store:
        """Open ``journal.sqlite3`` in ``state_dir``; make, migrate or replace it as needed.

        ``max_bytes`` and ``max_age`` (seconds) bound what is kept. ``rest``: entries that the last
        life had no time to write. Blocks: call it at the start.
        Raises ``StoreError`` only if a newer appmux made the file. After any other failure the
        journal serves from memory, says so in ``trouble``, and `run` tries again.
        """
        path = state_dir / journal_schema.FILE
        recorder = JournalWriter(path, max_bytes, max_age, wall_clock, token_hex(8))
        recorder.rest = rest
        failure: Exception | None = None
        try:
            recorder.begin()
        except (sqlite3.Error, OSError) as caught:
            failure = caught
        store = cls(recorder.written + 1, recorder, Reader(path), last=recorder.written)
        if failure:
            store._behind.failed(failure)
        return store

    @property
    def trouble(self) -> str | None:
        """A text for people of why entries can't be written at present and what to do; or None."""
        return self._behind.trouble.text

    @property
    def writes(self) -> Histogram:
        """The durations of successful writes."""
        return self._behind.writes

    @property
    def epoch(self) -> str:
        """The name of the series of numbers. Numbers of another epoch mean nothing here."""
        return self._recorder.epoch

    @property
    def directory(self) -> Path:
        """The directory in which the journal's file stands."""
        return self._recorder.path.parent

    def unwritten(self) -> list[Entry]:
        """Return the entries that may not be on the disk yet."""
        return self._writing + self._pending

    @property
    def earliest(self) -> int:
        """The smallest cursor to catch up from: the journal has every event above it.

        Deltas above it may be missing, but none of an item that still runs (``running_floor``). It
        moves up when events are trimmed, or are lost with a broken file or a full memory. 0:
        nothing is missing.
        """
        return max(self._recorder.lost, self._shed)

    def append(self, *entries: Entry) -> None:
        """Keep entries, whose numbers are above those of all before. Never blocks, never fails."""
        if not self._pending:
            self._behind.wake()
        self._pending += entries
        if self.fresh is not None:
            self.fresh += entries
        self._last = entries[-1].seq
        self._pending_bytes += sum([len(each.message) for each in entries])
        self._pending_bytes += len(entries) * ENTRY_BYTES
        if self._pending_bytes + self._writing_bytes > UNWRITTEN_BYTES:
            self._drop_some()

    async def run(
        self,
        before_flush: Callable[[], None] = lambda: None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Write what was appended, trim and recover until cancelled; then write the rest.

        Wakes only for entries, for trouble, and once an hour. ``before_flush`` is called before
        each write: the moment to set ``running_floor`` and to read ``earliest``.
        """
        self._before_flush = before_flush
        task_status.started()
        try:
            await self._behind.run()
        finally:
            await self.close()

    async def close(self) -> None:
        """Write what is left, and close the file. `run` calls it at its end."""
        in_time = await self._behind.finish(self._end)
        if self._left() or not in_time:
            log.error("the journal's last entries could not be written", entries=self._left())

    async def _end(self) -> None:
        if self.trouble and not self._left():  # open the file, so that it is closed in order
            await self.flush()
        await self._behind.in_thread(self._recorder.end, self._last)
        await trio.to_thread.run_sync(
            self._reader.end, limiter=self._one_reader, abandon_on_cancel=True
        )

    def _left(self) -> int:
        return len(self._writing) + len(self._pending)

    async def flush(self) -> None:
        """Write now. A failure becomes ``trouble``; what isn't written stays in memory."""
        await self._behind.flush()

    async def _write(self) -> bool:
        self._before_flush()
        self._writing, self._pending = self._writing + self._pending, []
        self._writing_bytes += self._pending_bytes
        self._pending_bytes = 0
        try:
            # Abandoned only when `run` is cancelled; the last flush then waits for this thread.
            return await self._behind.in_thread(
                self._recorder.work, self._writing, self.running_floor, self._shed
            )
        finally:
            self._settle()

    async def read(
        self,
        after: int,
        until: int,
        threads: Collection[str] | None,
        max_bytes: int,
        *,
        deltas: bool = True,
    ) -> list[Entry]:
        """Return the entries with ``after`` < seq <= ``until``, in order, written or not.

        ``threads`` limits them to entries of these threads and those for everybody; None: all
        entries. Without ``deltas`` those are left out, as far as they are on disk. The list ends
        with the entry that fills ``max_bytes`` of messages. If it has fewer bytes, there are no
        more entries; otherwise read again after the last one's seq.

        Entries may be trimmed, or found broken, while they are read. So compare ``after`` with
        `earliest` once the list is there: nothing is missing only if ``after`` isn't below it.
        Raises ``StoreError`` if the file can't be read at the moment.
        """
        generation = self._recorder.generation
        fresh = fitting(self._unwritten(after, until, threads), max_bytes)
        if after >= self._recorder.written:
            await trio.lowlevel.checkpoint()
            return fresh
        try:
            written, complete = await trio.to_thread.run_sync(
                partial(self._reader.read, deltas=deltas),
                generation,
                after,
                until,
                threads,
                max_bytes,
                limiter=self._one_reader,
            )
        except sqlite3.Error as failure:
            self._suspect(generation, failure)
            return fresh
        if not complete:
            return written
        last = written[-1].seq if written else after
        return fitting(written + [entry for entry in fresh if entry.seq > last], max_bytes)

    async def latest(self) -> list[Entry]:
        """Return the last events on disk of the threads that were written to last, in order.

        Raises ``StoreError`` if the file can't be read at the moment.
        """
        generation = self._recorder.generation
        if not self._recorder.written:
            return []
        try:
            return await trio.to_thread.run_sync(
                self._reader.latest, generation, limiter=self._one_reader
            )
        except sqlite3.Error as failure:
            self._suspect(generation, failure)
            return []

    def status(self) -> dict[str, object]:
        """Return the journal's part of ``mux/status``. ``bytes``: the size of the file's
        content."""
        return {
            "path": str(self._recorder.path),
            "epoch": self.epoch,
            "nextSeq": self._last + 1,
            "earliest": self.earliest,
            "bytes": self._recorder.used,
            "unwrittenEntries": self._left(),
            "trouble": self.trouble,
            "lastWriteMilliseconds": round(self._behind.milliseconds, 1),
        }

    def _settle(self) -> None:
        """Drop from memory the entries that are written."""
        done = bisect_right(self._writing, self._recorder.written, key=_seq)
        self._writing = self._writing[done:]
        self._writing_bytes = sum(len(entry.message) + ENTRY_BYTES for entry in self._writing)

    # -- What memory holds ------------------------------------------------------------------------

    def _unwritten(self, after: int, until: int, threads: Collection[str] | None) -> list[Entry]:
        entries_found = []
        for entries in (self._writing, self._pending):
            if entries and entries[0].seq <= until and entries[-1].seq > after:
                start = bisect_right(entries, after, key=_seq)
                end = bisect_right(entries, until, key=_seq)
                entries_found += entries[start:end]
        if threads is None:
            return entries_found
        return [entry for entry in entries_found if entry.thread is None or entry.thread in threads]

    def _drop_some(self) -> None:
        """Make room in memory: drop the oldest deltas of complete items, then the oldest entries.

        Entries that are being written stay, as the worker thread holds them anyway.
        """
        excess = self._pending_bytes + self._writing_bytes
        excess -= UNWRITTEN_BYTES - UNWRITTEN_BYTES // SHED_SHARE
        pending = []
        for entry in self._pending:
            if excess > 0 and entry.seq < self.running_floor and is_delta(entry.method):
                excess -= len(entry.message) + ENTRY_BYTES
            else:
                pending.append(entry)
        gone = 0
        while excess > 0 and gone < len(pending):
            excess -= len(pending[gone].message) + ENTRY_BYTES
            gone += 1
        if gone:
            self._shed = pending[gone - 1].seq
            self._behind.lasts()
        self._pending = pending[gone:]
        self._pending_bytes = sum(len(entry.message) + ENTRY_BYTES for entry in self._pending)
        if not self.trouble:
            self._behind.trouble.report(
                f"the journal {self._recorder.path} takes entries more slowly than they come; some"
                " were dropped; look after its disk"
            )

    # -- Trouble ----------------------------------------------------------------------------------

    def _explain(self, failure: Exception) -> str:
        kept = f"the last {UNWRITTEN_BYTES // MIB} MiB are kept in memory"
        if isinstance(failure, StoreError):
            return f"{failure}; until then {kept}"
        path, advice = self._recorder.path, sqlite.advice(self._recorder.path, failure)
        return f"the journal {path} can't be written ({failure}): {advice}; until then {kept}"

    def _suspect(self, generation: int, failure: sqlite3.Error) -> None:
        """Have the file checked after a failed read, and replaced if it is broken or gone."""
        self._behind.more = True
        self._behind.wake()
        if not sqlite.is_broken(failure):
            raise StoreError(f"the journal {self._recorder.path} can't be read: {failure}")
        self._recorder.suspicion = (generation, str(failure))
        if self._recorder.written > self._shed:
            self._shed = self._recorder.written
            self._behind.lasts()
