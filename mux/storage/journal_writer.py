"""Changes the journal's file: writes batches, trims, gives space back, recovers.

``journal`` calls it in one worker thread at a time.

Invariants, whatever fails: entries up to ``written`` are on disk, or counted as lost in ``lost``. A
batch is there whole or not at all. No number is given out twice in an epoch, since numbers are only
used below the mark ``reserved``, which is on disk before them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import cast

import msgspec
import structlog

from mux.core.part import Part
from mux.core.protocol.journal_entry import Entry
from mux.storage import journal_schema, sqlite
from mux.storage.journal_chunks import batches, rows
from mux.storage.sqlite import transaction

RESERVED = 2**30
"""How many numbers are reserved ahead. After a kill the next life begins past them. They are so
many that even a disk that is full for hours can't exhaust them (at 100,000 messages/s: three
hours), and so few that 8 million kills fit into the 53 bits which JSON's numbers have
everywhere."""

TRIMMED_SHARE = 16
"""Trimming frees a 16th of the bound at once, so that it is rare; that is 32 MiB by default."""

FREE_SHARE = 8
"""Free pages of more than an eighth of the bound are given back; fewer are soon written again."""

STEP_ROWS = 1000
"""Rows trimmed in one transaction: some milliseconds, so that entries don't wait long to be
written."""

STEP_PAGES = 1024
"""Pages given back in one transaction, 4 MiB: bounded for the same reason as ``STEP_ROWS``."""

Victim = tuple[int, int, int, str]
"""A chunk to delete: first_seq, last_seq, bytes, kind."""

_INSERT = "INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_seq = attrgetter("seq")

log = structlog.get_logger()


class FileState(msgspec.Struct, frozen=True):
    """The epoch and numbers that earlier lives left in a file."""

    epoch: str
    reserved: int
    """No number from here on was given out."""
    earliest: int
    """The last event that is no longer in the file; 0: none."""
    last: int
    """The number of the newest entry in the file; 0: none."""


class Rest(msgspec.Struct, frozen=True):
    """All that an earlier life had numbered and perhaps not written, when it was killed."""

    epoch: str
    entries: Sequence[Entry]


class JournalWriter(Part):
    """The only writer of the file. Its public fields may be read at any time, from any thread."""

    path: Path
    max_bytes: int
    max_age: float
    wall_clock: Callable[[], float]
    epoch: str
    """The epoch of this life, until `begin` takes over that of the file."""
    written: int = 0
    """The last number that memory needn't keep any more."""
    lost: int = 0
    """The last number of an event (or of a running item's delta) that was written and no longer is
    there."""
    used: int = 0
    """Bytes of the file that hold something, as of the last call."""
    generation: int = 0
    """Counts how often the file was opened. 0: never, so there is nothing to read."""
    suspicion: tuple[int, str] | None = None
    """A ``generation`` of the file, and why the next call is to move that file aside. Found by the
    reader or the writer; without effect if the generation is an earlier one."""
    rest: Rest | None = None
    """What the last life left unwritten. With it nothing is unknown, so no numbers are left out."""
    _connection: sqlite3.Connection | None = None
    _identity: tuple[int, int] = (0, 0)
    _reserved: int = 0
    _saved: int = 0

    # -- Opening ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open the file at the start, and continue its epoch and numbers if it has some.

        Raises ``StoreError`` if a newer appmux made it. After any other ``sqlite3.Error`` or
        ``OSError`` this life has an epoch of its own, which the file gets when it can be opened.
        """
        self._connect(adopt=True)

    def work(self, entries: Sequence[Entry], floor: int, shed: int) -> bool:
        """Write those of ``entries`` that aren't written, and do one step of trimming.

        Returns whether there is more to trim. Opens the file first if need be. ``floor``: deltas
        from this number on belong to running items. ``shed``: the last number that memory had to
        drop. Raises ``sqlite3.Error``, ``OSError`` or ``StoreError``; ``written`` then says how far
        it came.
        """
        try:
            connection = self._ready()
            for batch in batches(entries[bisect_right(entries, self.written, key=_seq) :]):
                self._write(connection, batch, shed)
            return self._trim(connection, floor) or self._shrink(connection)
        except (sqlite3.Error, OSError) as failure:
            self._give_up(failure)
            raise

    def end(self, last: int) -> None:
        """Close the file; ``last`` is the last number given out. Never raises."""
        with contextlib.suppress(sqlite3.Error):
            if self._connection and last <= self.written:
                # Take the reservation back, so that an orderly end leaves no gap in the numbers.
                _save(self._connection, last + 1, self.lost)
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._close()

    def _ready(self) -> sqlite3.Connection:
        if self.suspicion and self.suspicion[0] == self.generation:
            self._set_aside(self.suspicion[1])
        if self._connection is None:
            self._connect(adopt=False)
        elif self._identity != sqlite.identity(self.path):
            # SQLite would keep writing into the file without a name, and the entries be lost.
            raise sqlite.FileReplaced("it was removed or replaced")
        assert self._connection
        return self._connection

    def _connect(self, *, adopt: bool) -> None:
        try:
            self._open(adopt=adopt)
        except sqlite3.Error as failure:
            if not sqlite.is_broken(failure):
                raise
            self._set_aside(str(failure))
            self._open(adopt=adopt)

    def _open(self, *, adopt: bool) -> None:
        self._connection = journal_schema.connect(self.path)
        try:
            life = _life(self._connection)
            if life and adopt:
                self._adopt(self._connection, life)
            elif life and life.epoch == self.epoch:
                with transaction(self._connection):  # a failed commit may be on disk after all
                    self._connection.execute(
                        "DELETE FROM chunk WHERE first_seq > ?", (self.written,)
                    )
            else:
                self._start_over(self._connection)
            self._identity = sqlite.identity(self.path)
        except BaseException:
            self._close()
            raise
        self.generation += 1

    def _adopt(self, connection: sqlite3.Connection, life: FileState) -> None:
        """Continue the file's epoch. Take over nothing of it before the numbers are reserved."""
        written = max(life.reserved, life.last + 1) - 1
        if self.rest is not None and self.rest.epoch == life.epoch:
            written = self._write_rest(connection, life.last, self.rest.entries)
        reserved = written + 1 + RESERVED
        _save(connection, reserved, life.earliest)
        self._sync(connection)
        self.epoch, self.written, self.lost = life.epoch, written, life.earliest
        self._reserved, self._saved = reserved, life.earliest

    def _write_rest(
        self, connection: sqlite3.Connection, last: int, entries: Sequence[Entry]
    ) -> int:
        """Write what the last life left unwritten; returns the last number that it gave out."""
        left = [each for each in entries if each.seq > last]
        with transaction(connection):
            for batch in batches(left):
                connection.executemany(_INSERT, rows(batch, int(self.wall_clock())))
        return left[-1].seq if left else last

    def _start_over(self, connection: sqlite3.Connection) -> None:
        """Empty the file and give it this life's epoch. Entries of an earlier file are lost."""
        self.lost = max(self.lost, self.written)
        reserved = self.written + 1 + RESERVED
        with transaction(connection):
            connection.execute("DELETE FROM chunk")
            connection.execute("DELETE FROM life")
            connection.execute(
                "INSERT INTO life VALUES (?, ?, ?)", (self.epoch, reserved, self.lost)
            )
        self._sync(connection)
        self._reserved, self._saved = reserved, self.lost

    def _sync(self, connection: sqlite3.Connection) -> None:
        # A checkpoint syncs the file, so that not even a power cut takes a reservation back.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._used(connection)

    # -- Writing ----------------------------------------------------------------------------------

    def _write(self, connection: sqlite3.Connection, batch: Sequence[Entry], shed: int) -> None:
        last, lost = batch[-1].seq, max(self.lost, shed)
        reserved = self._reserved
        if last > reserved - RESERVED // 2:
            reserved = last + RESERVED
        with transaction(connection):
            connection.executemany(
                _INSERT,
                rows(batch, int(self.wall_clock())),
            )
            if (reserved, lost) != (self._reserved, self._saved):
                _save(connection, reserved, lost)
        self.written, self.lost = last, lost
        self._reserved, self._saved = reserved, lost

    # -- Trimming ---------------------------------------------------------------------------------

    def _trim(self, connection: sqlite3.Connection, floor: int) -> bool:
        victims = self._too_old(connection)
        if not victims and (excess := self._used(connection) - self.max_bytes) > 0:
            victims = _surplus(connection, floor, excess + self.max_bytes // TRIMMED_SHARE)
        if not victims:
            return False
        # Deltas of complete items are no loss: the item's last event has the whole text.
        losses = [last for _, last, _, kind in victims if kind != "delta" or last >= floor]
        # Set before the deletion, so that a reader never misses entries without being told.
        self.lost = max(self.lost, *losses, 0)
        with transaction(connection):
            connection.executemany(
                "DELETE FROM chunk WHERE first_seq = ?", [(first,) for first, _, _, _ in victims]
            )
            _save(connection, self._reserved, self.lost)
        self._saved = self.lost
        self._used(connection)
        return True

    def _too_old(self, connection: sqlite3.Connection) -> list[Victim]:
        limit = self.wall_clock() - self.max_age
        first = "FROM chunk ORDER BY first_seq LIMIT"
        oldest = connection.execute(f"SELECT made_at {first} 1").fetchone()
        if oldest is None or _whole(*oldest)[0] >= limit:
            return []
        return _until(
            self.max_bytes,
            connection.execute(
                f"SELECT first_seq, last_seq, bytes, kind FROM (SELECT * {first} ?)"
                " WHERE made_at < ?",
                (STEP_ROWS, limit),
            ),
        )

    def _used(self, connection: sqlite3.Connection) -> int:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        self.used = (pages - free) * size
        return self.used

    def _shrink(self, connection: sqlite3.Connection) -> bool:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        if sqlite.free_pages(connection) * size > self.max_bytes // FREE_SHARE:
            sqlite.give_back(connection, STEP_PAGES)
            return True
        if _size(self.path.with_name(self.path.name + "-wal")) > sqlite.WAL_BYTES:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return False

    # -- Trouble ----------------------------------------------------------------------------------

    def _give_up(self, failure: BaseException) -> None:
        """After a failure: keep the connection only if the file itself is beyond doubt."""
        if sqlite.is_broken(failure):
            self.suspicion = (self.generation, str(failure))
        self._saved = -1  # unknown: a rolled back value isn't saved
        if sqlite.code(failure) not in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}:
            self._close()

    def _set_aside(self, because: str) -> None:
        self._close()
        if self.path.exists():
            aside = sqlite.move_aside(self.path, self.wall_clock())
            log.error(
                "the journal's file is broken: moved aside, and a new one begun; what it held can't"
                " be caught up on",
                file=str(aside),
                because=because,
            )
        self.lost = max(self.lost, self.written)
        self.suspicion = None

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _life(connection: sqlite3.Connection) -> FileState | None:
    """Read the file's state; None for a new file.

    Raises ``BrokenFile`` if the file hasn't the tables of its version.
    """
    try:
        row = connection.execute("SELECT epoch, reserved, earliest FROM life").fetchone()
        newest = connection.execute(
            "SELECT batch FROM chunk ORDER BY first_seq DESC LIMIT 1"
        ).fetchone()
        last = (
            newest
            and connection.execute(
                "SELECT max(last_seq) FROM chunk WHERE first_seq >= ?", newest
            ).fetchone()
        )
    except sqlite3.OperationalError as failure:
        if sqlite.code(failure) == sqlite3.SQLITE_ERROR:
            raise sqlite.BrokenFile(str(failure)) from failure
        raise
    if row is None:
        return None
    if type(row[0]) is not str or not row[0]:
        raise sqlite.BrokenFile("its epoch is garbled")
    return FileState(row[0], *_whole(*row[1:], *(last or (0,))))


def _save(connection: sqlite3.Connection, reserved: int, earliest: int) -> None:
    connection.execute("UPDATE life SET reserved = ?, earliest = ?", (reserved, earliest))


def _surplus(connection: sqlite3.Connection, floor: int, excess: int) -> list[Victim]:
    """Choose chunks of about ``excess`` bytes: deltas of complete items first, then any kind.

    The oldest come first, and no more than ``STEP_ROWS`` of each.
    """
    columns = "SELECT first_seq, last_seq, bytes, kind FROM chunk"
    victims = _until(
        excess,
        connection.execute(
            f"{columns} WHERE kind = 'delta' AND last_seq < ? ORDER BY first_seq LIMIT ?",
            (floor, STEP_ROWS),
        ),
    )
    if len(victims) == STEP_ROWS:
        return victims
    excess -= sum(size for _, _, size, _ in victims)
    marks = {first for first, _, _, _ in victims}
    oldest = connection.execute(f"{columns} ORDER BY first_seq LIMIT ?", (STEP_ROWS,))
    return victims + _until(excess, (row for row in oldest if row[0] not in marks))


def _until(excess: int, candidates: Iterable[Victim]) -> list[Victim]:
    victims: list[Victim] = []
    for first, last, size, kind in candidates:
        if excess <= 0:
            break
        _whole(last, size)
        victims.append((first, last, size, kind))
        excess -= size
    return victims


def _whole(*columns: object) -> tuple[int, ...]:
    """Return the columns. Raises ``BrokenFile`` unless they are integers: SQLite promises none."""
    if not all(type(column) is int for column in columns):
        raise sqlite.BrokenFile("its numbers are garbled")
    return cast("tuple[int, ...]", columns)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
