"""Pages of the audit log: newest first, complete, bounded, and indifferent to what others wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.cli.oversight.audit import shown
from mux.storage import audit_chain, audit_pages
from mux.storage.audit_pages import AuditPageError, read_page
from mux.storage.audit_writer import DAY, AuditWriter, PendingRecord

NOON = 1_764_000_000.0


def written(directory: Path, days: list[list[str]], fill: int = 0) -> Path:
    """A log with a file for each day, of records of these kinds, each with so long a text."""
    for day, kinds in enumerate(days):
        now = NOON + day * DAY
        made = AuditWriter(directory, 2**30, 365 * DAY, partial(float, now))
        made.work([PendingRecord(now, kind, {"text": "x" * fill}) for kind in kinds])
    return directory


def pages(directory: Path, limit: int = 50, kinds: Collection[str] = ()) -> list[audit_pages.Page]:
    """All pages, one after another."""
    found = [read_page(directory, limit=limit, kinds=kinds)]
    while found[-1].cursor is not None:
        found.append(read_page(directory, limit=limit, cursor=found[-1].cursor, kinds=kinds))
    return found


def numbers(of: list[audit_pages.Page]) -> list[int]:
    return [record["n"] for page in of for record in page.records]


@given(
    st.lists(st.lists(st.sampled_from(["a/b", "a/c", "d/e"]), min_size=1, max_size=9), max_size=4),
    st.integers(1, 12),
    st.integers(20, 400),
    st.sampled_from([(), ("a",), ("a/c", "d"), ("e",)]),
)
def test_the_pages_together_are_the_log_read_backwards(
    tmp_path_factory: pytest.TempPathFactory,
    days: list[list[str]],
    limit: int,
    block: int,
    kinds: Collection[str],
) -> None:
    directory = written(tmp_path_factory.mktemp("audit"), days, fill=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_pages, "BLOCK", block)  # lines are cut by it anywhere
        found = pages(directory, limit, kinds)
    every = [kind for each in days for kind in each]
    wanted = [
        n for n, kind in enumerate(every, 1)
        if not kinds or kind in kinds or kind.split("/")[0] in kinds
    ]  # fmt: skip
    assert numbers(found) == wanted[::-1]
    assert all(len(page.records) <= limit for page in found)
    assert not any(page.unreadable for page in found)


def test_a_full_page_that_has_the_very_first_record_is_the_last_one(tmp_path: Path) -> None:
    (page,) = pages(written(tmp_path, [["a/b"] * 3]), limit=3)
    assert page.cursor is None


def test_a_log_that_has_not_begun_has_no_records(tmp_path: Path) -> None:
    assert read_page(tmp_path / "audit", limit=5) == audit_pages.Page([], None, 0)


def test_what_comes_meanwhile_does_not_shift_the_pages(tmp_path: Path) -> None:
    first = read_page(written(tmp_path, [["a/b"] * 6]), limit=4)
    written(tmp_path, [["a/b"] * 5])
    assert numbers([read_page(tmp_path, limit=4, cursor=first.cursor)]) == [2, 1]


def test_one_page_reads_so_much_and_says_where_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ["rare/one", *["often/one"] * 200]
    directory = written(tmp_path, [kinds, ["often/one"] * 200], fill=400)
    read = 0
    pread = os.pread

    def counted(descriptor: int, length: int, at: int) -> bytes:
        nonlocal read
        read += length
        return pread(descriptor, length, at)

    monkeypatch.setattr(os, "pread", counted)
    monkeypatch.setattr(audit_pages, "BLOCK", 1000)
    monkeypatch.setattr(audit_pages, "READ_BYTES", 20_000)
    page = read_page(directory, limit=5, kinds=["rare"])
    found = 0
    while page.cursor is not None:
        assert read <= audit_pages.READ_BYTES
        read, found = 0, found + len(page.records)
        page = read_page(directory, limit=5, cursor=page.cursor, kinds=["rare"])
    assert found + len(page.records) == 1


def test_a_page_has_so_many_bytes(tmp_path: Path) -> None:
    directory = written(tmp_path, [["a/b"] * 60], fill=16 * 1024)
    found = pages(directory, limit=200)
    assert numbers(found) == [*range(60, 0, -1)]
    most = audit_pages.PAGE_BYTES + 17 * 1024
    assert all(sum(len(str(each)) for each in page.records) <= most for page in found)


def test_lines_that_are_no_records_are_passed_over_and_counted(tmp_path: Path) -> None:
    directory = written(tmp_path, [["a/b"] * 3])
    (path,) = audit_chain.files(directory)
    one, two, three = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"no record\n" + one + b"\xff\n" + two + b'{"n": 4}\n' + three)
    found = pages(directory, limit=2)
    assert numbers(found) == [3, 2, 1]
    assert sum(page.unreadable for page in found) == 3


UNREADABLE = {
    "no UTF-8 in a text": b'"\xff"',
    "no UTF-8 in a key": b'{"\xff":1}',
    "half a character": b'"\\ud800"',
    "nested deeply": b"[" * 100_000 + b"]" * 100_000,
    "nested without end": b"[" * 100_000,
    "a number of 5000 digits": b"1" * 5000,
    "a number beyond all": b"1e999",
    "no number": b"NaN",
}


@pytest.mark.parametrize("damaged", UNREADABLE.values(), ids=UNREADABLE)
def test_a_record_whose_fields_cannot_be_read_is_none_for_anybody(
    tmp_path: Path, damaged: bytes
) -> None:
    """A page passes over it, `appmux audit` and the chain's check tell it, the writer goes on."""
    directory = written(tmp_path, [["a/b"] * 3])
    (path,) = audit_chain.files(directory)
    before = path.read_bytes().splitlines(keepends=True)
    for at in range(3):
        lines = [*before]
        lines[at] = lines[at].replace(b'"text":""', b'"text":' + damaged)
        path.write_bytes(b"".join(lines))
        found = pages(directory, limit=2)
        assert numbers(found) == [n for n in (3, 2, 1) if n != at + 1]
        assert sum(page.unreadable for page in found) == 1
        assert shown(lines[at].rstrip(b"\n")).startswith("(no record: ")
        assert any(f"record {at + 1} " in fault for fault in audit_chain.verify(directory).faults)
    written(directory, [["c/d"]])
    assert pages(directory)[0].records[0]["kind"] == "c/d"


@pytest.mark.parametrize(
    "changed",
    [
        {"at": "0001-01-01T00:00:00+14:00"},
        {"at": "9999-12-31T23:59:59-14:00"},
        {"votes": [5, {"by": 5}, {}, None]},
        {"votes": {"by": 5}},
        {"by": {"client": {}, "name": [], "principal": None}},
        {"config": 5, "text": "one"},
    ],
    ids=str,
)
def test_a_record_that_somebody_changed_is_printed_all_the_same(changed: dict[str, object]) -> None:
    line = audit_chain.write(7, "2026-12-01T10:00:00.000Z", "a/b", {"text": "one"}, "0" * 64)
    text = shown(json.dumps(json.loads(line) | changed).encode())
    assert "a/b" in text
    assert "text one" in text


def test_what_is_not_a_whole_line_yet_is_no_record(tmp_path: Path) -> None:
    directory = written(tmp_path, [["a/b"] * 2])
    (path,) = audit_chain.files(directory)
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines()[0])
    page = read_page(directory, limit=9)
    assert (numbers([page]), page.unreadable) == ([2, 1], 0)


@pytest.mark.parametrize("place", ["end", "middle", "start"])
def test_a_line_without_end_fills_no_memory_and_hides_nothing(tmp_path: Path, place: str) -> None:
    directory = written(tmp_path, [["a/b"] * 2])
    (path,) = audit_chain.files(directory)
    one, two = path.read_bytes().splitlines(keepends=True)
    huge = b"x" * (audit_pages.READ_BYTES + 3 * audit_pages.BLOCK) + b"\n"
    parts = {"end": [one, two, huge], "middle": [one, huge, two], "start": [huge, one, two]}
    path.write_bytes(b"".join(parts[place]))
    found = pages(directory)
    assert numbers(found) == [2, 1]
    assert sum(page.unreadable for page in found) >= 1


def test_files_that_are_removed_for_their_age_end_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = written(tmp_path, [["a/b"] * 2, ["a/b"] * 2])
    old, new = audit_chain.files(directory)
    cursor = f"{old.name}:{old.stat().st_size}"
    old.unlink()
    assert read_page(directory, limit=9, cursor=cursor) == audit_pages.Page([], None, 0)
    # Between the listing and the reading, too.
    monkeypatch.setattr(audit_chain, "files", lambda _: [old, new])
    page = read_page(directory, limit=9)
    assert (numbers([page]), page.cursor) == ([4, 3], None)


@pytest.mark.parametrize("cursor", ["", "x", ":1", "../../etc/passwd:10", "a:b", "a:-1", "a b:1"])
def test_a_cursor_that_no_page_gave_is_refused(tmp_path: Path, cursor: str) -> None:
    with pytest.raises(AuditPageError, match="cursor"):
        read_page(written(tmp_path, [["a/b"]]), limit=9, cursor=cursor)


def test_a_cursor_past_the_end_of_its_file_is_its_end(tmp_path: Path) -> None:
    directory = written(tmp_path, [["a/b"] * 2])
    (path,) = audit_chain.files(directory)
    assert numbers([read_page(directory, limit=9, cursor=f"{path.name}:99999999")]) == [2, 1]


def test_a_log_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    directory = written(tmp_path, [["a/b"]])
    (path,) = audit_chain.files(directory)
    path.unlink()
    path.mkdir()
    with pytest.raises(AuditPageError, match="it is a directory"):
        read_page(directory, limit=9)
