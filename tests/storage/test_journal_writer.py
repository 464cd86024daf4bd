"""The journal's writer alone: how much it trims, and what it makes of a file that lets it down."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mux.storage import journal_writer, sqlite
from mux.storage.journal_schema import FILE
from mux.storage.journal_writer import FREE_SHARE, JournalWriter
from tests.entries import DELTA, EVENT, EVERYTHING, entries, select

ALL_COMPLETE = EVERYTHING
"""A floor: no item runs."""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[JournalWriter]:
    made = JournalWriter(tmp_path / FILE, 2**40, 1e12, lambda: 1e9, "an-epoch")
    made.begin()
    yield made
    made.end(0)


def fill(writer: JournalWriter, deltas: int = 5, events: int = 5) -> None:
    """Write chunks: first so many of ten deltas each, then so many of one event each."""
    for at in range(deltas):
        writer.work(entries(range(at * 10 + 1, at * 10 + 11), method=DELTA), ALL_COMPLETE, 0)
    for at in range(deltas * 10 + 1, deltas * 10 + 1 + events):
        writer.work(entries([at], method=EVENT), ALL_COMPLETE, 0)


def trim(writer: JournalWriter, floor: int) -> None:
    while writer.work([], floor, 0):
        pass


def connection(writer: JournalWriter) -> sqlite3.Connection:
    assert writer._connection is not None
    return writer._connection


def kinds(writer: JournalWriter) -> list[str]:
    rows = select(writer.path, "SELECT kind FROM chunk ORDER BY first_seq")
    return [str(kind) for (kind,) in rows]


def test_a_file_is_trimmed_once_it_is_a_byte_too_large(writer: JournalWriter) -> None:
    fill(writer)
    writer.max_bytes = writer.used
    assert not writer.work([], ALL_COMPLETE, 0)
    assert len(kinds(writer)) == 10
    writer.max_bytes = writer.used - 1
    assert writer.work([], ALL_COMPLETE, 0)
    assert len(kinds(writer)) < 10


def test_what_is_chosen_is_chosen_once_and_deltas_come_first(writer: JournalWriter) -> None:
    fill(writer)
    rows = select(writer.path, "SELECT bytes FROM chunk ORDER BY first_seq")
    sizes = [size for (size,) in rows if isinstance(size, int)]
    deltas = sum(sizes[:5])
    for excess, events in [(deltas - 1, 0), (deltas, 0), (deltas + 1, 1), (deltas + sizes[5], 1)]:
        chosen = journal_writer._surplus(connection(writer), ALL_COMPLETE, excess)
        assert [first for first, *_ in chosen] == [1, 11, 21, 31, 41, 51, 52][: 5 + events]
        assert sum(size for _, _, size, _ in chosen) >= excess


def test_a_step_that_is_full_of_deltas_takes_no_event(
    writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "STEP_ROWS", 3)
    fill(writer)
    writer.max_bytes = 1
    assert writer.work([], ALL_COMPLETE, 0)
    assert kinds(writer) == ["delta"] * 2 + ["event"] * 5
    assert writer.lost == 0


@pytest.mark.parametrize(("floor", "lost"), [(51, 0), (50, 50), (1, 50)])
def test_a_delta_is_a_loss_as_long_as_its_item_runs(
    writer: JournalWriter, floor: int, lost: int
) -> None:
    """The last delta has number 50; ``floor`` is the first that may belong to an item that runs."""
    fill(writer, events=0)
    writer.max_bytes = 1
    trim(writer, floor)
    assert not kinds(writer)
    assert writer.lost == lost


@pytest.mark.parametrize("column", ["last_seq", "bytes"])
@pytest.mark.parametrize("kind", ["delta", "event"])
def test_a_number_that_is_none_has_the_file_moved_aside(
    writer: JournalWriter, column: str, kind: str
) -> None:
    fill(writer)
    garble = f"UPDATE chunk SET {column} = 'x' WHERE kind = ?"
    connection(writer).execute(garble, (kind,))
    writer.max_bytes = 1
    with pytest.raises(sqlite.BrokenFile, match="numbers are garbled"):
        trim(writer, 0 if kind == "event" else ALL_COMPLETE)
    generation = writer.generation
    writer.max_bytes = 2**40
    assert not writer.work(entries([100]), ALL_COMPLETE, 0)
    assert writer.generation == generation + 1
    assert len(list(writer.path.parent.glob(f"{FILE}.broken-*"))) == 1
    assert kinds(writer) == ["delta"]


def test_a_full_disk_costs_neither_the_connection_nor_what_was_to_be_saved(
    writer: JournalWriter,
) -> None:
    """A failed commit saved no ``lost``, not even one that a field of ours may start with."""
    connection(writer).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    (pages,) = connection(writer).execute("PRAGMA page_count").fetchone()
    connection(writer).execute(f"PRAGMA max_page_count = {pages}")
    many = entries(range(2, 5_000), method=EVENT)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        writer.work(many, ALL_COMPLETE, 1)
    assert (writer.generation, writer.written) == (1, 0)
    connection(writer).execute("PRAGMA max_page_count = 100000")
    writer.work(many, ALL_COMPLETE, 1)
    assert (writer.generation, writer.written) == (1, many[-1].seq)
    assert select(writer.path, "SELECT earliest FROM life") == [(1,)]


def test_free_pages_of_more_than_an_eighth_are_given_back_so_many_at_a_time(
    writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "STEP_PAGES", 2)
    writer.work(entries(range(1, 2_000), method=EVENT), ALL_COMPLETE, 0)
    connection(writer).execute("DELETE FROM chunk")
    free = sqlite.free_pages(connection(writer))
    (size,) = connection(writer).execute("PRAGMA page_size").fetchone()
    writer.max_bytes = free * size * FREE_SHARE
    assert not writer.work([], ALL_COMPLETE, 0)
    assert sqlite.free_pages(connection(writer)) == free
    writer.max_bytes -= FREE_SHARE
    assert writer.work([], ALL_COMPLETE, 0)
    assert sqlite.free_pages(connection(writer)) == free - 2
