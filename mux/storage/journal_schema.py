"""The journal's file: its tables and their versions.

    life    one row: the epoch of the numbers, and how far they may have been given out
    chunk   entries of one thread and one kind that were written together, as one value

A *batch* is what was written in one transaction: consecutive entries, bounded in bytes, as one
chunk for each thread and kind among them. A chunk's ``batch`` is the first number in its batch. So
batches don't overlap, but the chunks of one batch do: a reader that needs entries in order sorts
within a batch. A row for each entry would make a hundred times as many rows, and could not be
written at the pace of a busy app-server.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

from mux.storage import sqlite

FILE = "journal.sqlite3"

APPLICATION = 0x6D757831
"""``mux1``, in the file's header."""

_TABLES = """
CREATE TABLE life (
    epoch TEXT NOT NULL,
    reserved INTEGER NOT NULL,   -- no number from here on was handed out
    earliest INTEGER NOT NULL    -- the last event that is no longer here, 0 if none
);
CREATE TABLE chunk (
    first_seq INTEGER PRIMARY KEY,
    last_seq INTEGER NOT NULL,
    batch INTEGER NOT NULL,      -- the first number of the transaction that wrote it
    thread TEXT,                 -- NULL: for everybody
    kind TEXT NOT NULL,          -- 'delta' or 'event'
    made_at INTEGER NOT NULL,    -- Unix time, seconds
    bytes INTEGER NOT NULL,      -- of body
    crc INTEGER NOT NULL,        -- see `checksum`
    body BLOB NOT NULL           -- MessagePack: [[seq, method, message], …]
);
CREATE INDEX chunk_of_thread ON chunk (thread, first_seq);
CREATE INDEX chunk_of_kind ON chunk (kind, first_seq, last_seq, bytes);
"""


def _first(connection: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";"):
        connection.execute(statement)


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [_first]
"""The migrations, as ``sqlite.Form.migrations`` describes them. Append, never edit."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal for writing. Raises what ``sqlite.connect`` does."""
    without = "clients then can't catch up on what they missed"
    return sqlite.connect(path, sqlite.Form("the journal", APPLICATION, MIGRATIONS, without))


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open an existing journal for reading. Raises ``sqlite3.Error`` if there is none."""
    connection = sqlite.open_file(path, "rw")  # "ro" can't always use the write-ahead log
    connection.execute("PRAGMA query_only = ON")
    return connection


def checksum(body: bytes, *columns: object) -> int:
    """Return a checksum of a chunk's body and other columns, so that any flipped bit is noticed."""
    return zlib.crc32(body, zlib.crc32(repr(columns).encode()))
