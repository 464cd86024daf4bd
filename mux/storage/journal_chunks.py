"""The journal's chunks: turns entries into rows and rows into entries, and reads them.

The reader has a connection of its own. So a client that catches up doesn't wait while the disk
takes a write, nor the other way round. ``journal`` calls it in a worker thread.
"""

from __future__ import annotations

import contextlib
import heapq
import sqlite3
import sys
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, groupby
from operator import attrgetter, itemgetter
from pathlib import Path

import msgspec

from mux.core.part import Part
from mux.core.protocol.journal_entry import Entry, is_delta
from mux.storage import journal_schema, sqlite

BATCH_BYTES = 1024 * 1024
"""Most bytes of messages in one batch, and so in a row, except for a single larger message. The
bound limits what a reader holds in memory to put a batch's chunks in order."""

LATEST_THREADS, LATEST_CHUNKS = 200, 4
"""How much of the past is looked at for what lists show of threads: the threads of weeks, and of
each the last seconds of its last turn."""

_END = sys.maxsize

MANY_THREADS = 8
"""From so many threads on, one scan of everything is quicker than a search for each thread."""

Row = tuple[int, int, int, str | None, str, int, bytes]
"""The columns named in ``_ROW``: first_seq, last_seq, batch, thread, kind, crc, body."""
_ROW = "first_seq, last_seq, batch, thread, kind, crc, body"
_FIRST, _BATCH = itemgetter(0), itemgetter(2)
_seq = attrgetter("seq")
_message = attrgetter("message")
_stream = attrgetter("thread", "method")
_kept = attrgetter("seq", "method", "message")

_decode = msgspec.msgpack.Decoder(list[tuple[int, str, bytes]]).decode
_encode = msgspec.msgpack.Encoder().encode


def batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Split the entries into pieces of ``BATCH_BYTES``. A larger entry is a piece by itself."""
    ends = list(accumulate(map(len, map(_message, entries))))
    start = size = 0
    while start < len(entries):
        end = max(bisect_right(ends, size + BATCH_BYTES), start + 1)
        yield entries[start:end]
        start, size = end, ends[end - 1]


def rows(batch: Sequence[Entry], made_at: int) -> Iterator[tuple[object, ...]]:
    """Yield a batch as rows of the table ``chunk``, all columns in order."""
    first = batch[0].seq
    groups: dict[tuple[str | None, bool], list[tuple[int, str, bytes]]] = {}
    # By runs: a loop over single entries in Python would hold up the event loop (by the GIL).
    for (thread, method), run in groupby(batch, _stream):
        groups.setdefault((thread, is_delta(method)), []).extend(map(_kept, run))
    for (thread, delta), group in groups.items():
        body = _encode(group)
        key = (group[0][0], group[-1][0], first, thread, "delta" if delta else "event")
        yield (*key, made_at, len(body), journal_schema.checksum(body, *key), body)


def fitting(entries: list[Entry], room: int) -> list[Entry]:
    """Return the first entries, up to and including the one that fills ``room`` bytes."""
    for index, entry in enumerate(entries):
        room -= len(entry.message)
        if room <= 0:
            return entries[: index + 1]
    return entries


class Reader(Part):
    """Reads the file that the writer has open."""

    path: Path
    _connection: sqlite3.Connection | None = None
    _generation: int = 0

    def read(
        self,
        generation: int,
        after: int,
        until: int,
        threads: Collection[str] | None,
        max_bytes: int,
        *,
        deltas: bool = True,
    ) -> tuple[list[Entry], bool]:
        """Return entries as `Store.read` does, and whether these are all.

        Opens a new connection if ``generation`` isn't that of the last call. Raises
        ``sqlite3.Error``, and ``BrokenFile`` if the file doesn't hold what was written.
        """
        self._open(generation)
        assert self._connection
        try:
            # In one transaction all searches see the same batches.
            self._connection.execute("BEGIN")
            entries = _read(self._connection, after, until, threads, max_bytes, deltas=deltas)
            self._connection.execute("COMMIT")
        except BaseException:
            self.end()  # the next call begins with a new connection
            raise
        return entries

    def latest(self, generation: int) -> list[Entry]:
        """Return the last events of the threads that were written to last, in order.

        Some ``LATEST_CHUNKS`` chunks of each of ``LATEST_THREADS`` threads, written before now.
        Opens and raises as ``read`` does.
        """
        self._open(generation)
        assert self._connection
        try:
            entries = [
                entry for row in _latest(self._connection) for entry in _entries(row, 0, _END)
            ]
        except BaseException:
            self.end()  # the next call begins with a new connection
            raise
        entries.sort(key=_seq)
        return entries

    def _open(self, generation: int) -> None:
        if generation != self._generation:
            self.end()
            self._connection = journal_schema.connect_to_read(self.path)
            self._generation = generation

    def end(self) -> None:
        """Close the connection. Never raises."""
        connection, self._connection, self._generation = self._connection, None, 0
        if connection:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _read(
    connection: sqlite3.Connection,
    after: int,
    until: int,
    threads: Collection[str] | None,
    max_bytes: int,
    *,
    deltas: bool,
) -> tuple[list[Entry], bool]:
    # Begin with the batch that holds after + 1, or with one before it.
    nearest: Row | None = connection.execute(
        f"SELECT {_ROW} FROM chunk WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
        (after + 1,),
    ).fetchone()
    start = after + 1 if nearest is None else _checked(nearest)[2]
    all_entries: list[Entry] = []
    size = 0
    for _, batch in groupby(_rows(connection, start, until, threads, deltas), _BATCH):
        # Each chunk is in order, so these are a few sorted runs, which sort() merges quickly.
        of_batch = [entry for row in batch for entry in _entries(row, after, until)]
        of_batch.sort(key=_seq)
        all_entries += of_batch
        size += sum(len(entry.message) for entry in of_batch)
        if size >= max_bytes:
            return fitting(all_entries, max_bytes), False
    return all_entries, True


def _rows(
    connection: sqlite3.Connection,
    start: int,
    until: int,
    threads: Collection[str] | None,
    deltas: bool,
) -> Iterator[Row]:
    """Yield the chunks that begin in start..until, ordered by ``first_seq``, fetched as needed."""
    span = "first_seq BETWEEN ? AND ?" + ("" if deltas else " AND kind = 'event'")
    if threads is None:
        return connection.execute(
            f"SELECT {_ROW} FROM chunk WHERE {span} ORDER BY first_seq", (start, until)
        )
    if len(threads) > MANY_THREADS:
        marks = ",".join("?" * len(threads))
        return connection.execute(
            f"SELECT {_ROW} FROM chunk NOT INDEXED WHERE {span}"
            f" AND (thread IS NULL OR thread IN ({marks})) ORDER BY first_seq",
            (start, until, *threads),
        )
    return heapq.merge(
        *(
            connection.execute(
                f"SELECT {_ROW} FROM chunk INDEXED BY chunk_of_thread"
                f" WHERE thread IS ? AND {span} ORDER BY first_seq",
                (thread, start, until),
            )
            for thread in {None, *threads}
        ),
        key=_FIRST,
    )


def _latest(connection: sqlite3.Connection) -> Iterator[Row]:
    threads = connection.execute(
        "SELECT thread FROM chunk WHERE thread IS NOT NULL"
        " GROUP BY thread ORDER BY max(first_seq) DESC LIMIT ?",
        (LATEST_THREADS,),
    ).fetchall()
    for (thread,) in threads:
        yield from connection.execute(
            f"SELECT {_ROW} FROM chunk INDEXED BY chunk_of_thread"
            " WHERE thread = ? AND kind = 'event' ORDER BY first_seq DESC LIMIT ?",
            (thread, LATEST_CHUNKS),
        )


def _entries(row: Row, after: int, until: int) -> list[Entry]:
    """Return the entries of a chunk with ``after`` < seq <= ``until``."""
    thread, entries = _checked(row)[3], _decode(row[6])
    start, end = (bisect_right(entries, seq, key=_FIRST) for seq in (after, until))
    return [Entry(seq, thread, method, message) for seq, method, message in entries[start:end]]


def _checked(row: Row) -> Row:
    *key, crc, body = row
    if type(body) is not bytes or crc != journal_schema.checksum(body, *key):
        raise sqlite.BrokenFile(f"what it holds at {row[0]} isn't what was written")
    return row
