"""The queue on disk: ``pushes.sqlite3`` in the state directory, a row for each push and endpoint.

The file holds the content of a push only while it waits. Everything here blocks: it runs in one
worker thread at a time, or at the start.

Used by: ``queue_writer``.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
import structlog
from msgspec.structs import replace

from mux.core.part import Part
from mux.push.message import Push, PushError
from mux.push.queue import Row
from mux.storage import sqlite
from mux.storage.sqlite import BrokenFile, FileReplaced, Form, transaction

FILE: Final = "pushes.sqlite3"

APPLICATION: Final = 0x6D757870
"""``muxp``, in the file's header."""

_TABLE = """
CREATE TABLE push (
    n INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    service TEXT NOT NULL,
    push TEXT NOT NULL,          -- JSON; never its ticket, and no title and body once it is settled
    raised REAL NOT NULL,        -- Unix seconds, like all moments
    due REAL NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,   -- counted before the service is called
    settled REAL,
    said TEXT
)
"""

COLUMNS: Final = (
    "n", "device", "endpoint", "service", "push", "raised", "due", "state", "attempts", "settled",
    "said",
)  # fmt: skip

FREE_PAGES: Final = 256
"""Free pages that are kept, as they are soon written again: 1 MiB."""

STEP_PAGES: Final = 256
"""Pages given back after one write: some milliseconds, in which nothing else is written."""

log = structlog.get_logger()


def _first(connection: sqlite3.Connection) -> None:
    connection.execute(_TABLE)


MIGRATIONS: Final[list[Callable[[sqlite3.Connection], None]]] = [_first]
"""The migrations, as ``sqlite.Form.migrations`` describes them. Append, never edit."""

FORM: Final = Form(
    "the queue of pushes", APPLICATION, MIGRATIONS, "what waits there isn't sent", forgets=True
)


class QueueFile(Part):
    """The queue's file."""

    path: Path
    wall_clock: Callable[[], float] = time.time
    whole: bool = True
    """True if the file holds all that it was given; otherwise everything must be written again."""
    _connection: sqlite3.Connection | None = None
    _identity: tuple[int, int] = (0, 0)
    _remembers: bool = True
    """True if the write-ahead log may hold content of rows that are settled by now."""

    def load(self) -> list[Row]:
        """Read all rows, in order. A file that can't be read as a queue is moved aside.

        Raises ``StoreError`` if a newer appmux made it, ``sqlite3.Error`` or ``OSError`` if it
        can't be opened now.
        """
        try:
            return self._load()
        except sqlite3.Error as failure:
            if not sqlite.is_broken(failure):
                raise
            self._set_aside(str(failure))
            return self._load()

    def _load(self) -> list[Row]:
        connection = self._opened()
        names = ", ".join(COLUMNS)
        try:
            rows = connection.execute(f"SELECT {names} FROM push ORDER BY n").fetchall()
        except sqlite3.OperationalError as failure:
            if sqlite.code(failure) == sqlite3.SQLITE_ERROR:  # no such table or column
                raise BrokenFile(str(failure)) from failure
            raise
        self._forget(connection)
        return [_row(columns) for columns in rows]

    def write(self, rows: Sequence[Row], removed: Iterable[int]) -> None:
        """Write these rows as they are and remove some, in one transaction.

        Raises ``sqlite3.Error``, ``OSError``, ``StoreError``. After an error, or if the file had to
        be begun anew, check ``whole``.
        """
        try:
            connection = self._opened()
            marks = ", ".join("?" * len(COLUMNS))
            with transaction(connection):
                connection.executemany(
                    f"INSERT OR REPLACE INTO push VALUES ({marks})", [_columns(row) for row in rows]
                )
                connection.executemany("DELETE FROM push WHERE n = ?", [(n,) for n in removed])
            if sqlite.free_pages(connection) > FREE_PAGES:
                sqlite.give_back(connection, STEP_PAGES)
            self._remembers |= any(row.state != "queued" for row in rows)
            self._forget(connection)
        except sqlite3.Error as failure:
            if sqlite.is_broken(failure):
                self._set_aside(str(failure))
            elif sqlite.code(failure) not in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}:
                self.close()
            raise

    def _forget(self, connection: sqlite3.Connection) -> None:
        """Remove the content of settled rows from the write-ahead log, too; if busy, the next
        time."""
        if self._remembers:
            self._remembers = not sqlite.empty_log(connection)

    def close(self) -> None:
        """Close the file. Never raises."""
        connection, self._connection = self._connection, None
        if connection:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._identity != sqlite.identity(self.path):
            self.close()
            self.whole = False
            raise FileReplaced("it was removed or replaced")
        if self._connection is None:
            self._connection = sqlite.connect(self.path, FORM)
            self._identity = sqlite.identity(self.path)
        return self._connection

    def _set_aside(self, because: str) -> None:
        self.close()
        self.whole = False
        if self.path.exists():
            aside = sqlite.move_aside(self.path, self.wall_clock())
            log.error(
                "the queue of pushes is broken: moved aside, and a new one begun",
                file=str(aside),
                because=because,
            )


def _columns(row: Row) -> tuple[Any, ...]:
    values = attrs.asdict(row, recurse=False)
    # A ticket ends with the broker, as its approval does: on the disk it could only be stolen.
    stripped = replace(row.push, ticket=None, actions=())
    values["push"] = msgspec.json.encode(stripped).decode()
    return tuple(values[name] for name in COLUMNS)


def _row(columns: tuple[Any, ...]) -> Row:
    values = dict(zip(COLUMNS, columns, strict=True))
    try:
        values["push"] = msgspec.json.decode(values["push"], type=Push)
        return msgspec.convert(values, Row)
    except (msgspec.DecodeError, PushError, TypeError) as failure:
        raise BrokenFile(f"row {values['n']} is garbled") from failure
