"""The audit log's files: any tampering is found and named, a crash isn't taken for one."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mux.cli.oversight import audit
from mux.cli.oversight.audit import AuditError, moment, shown
from mux.posix import private_file
from mux.storage import audit_chain, audit_writer, json_file
from mux.storage.audit_chain import BATCH, BROKEN, HEAD, TRIMMED, verify
from mux.storage.audit_log import DIRECTORY, GATHER, TIDY_INTERVAL, UNWRITTEN, Audit
from mux.storage.audit_writer import DAY, AuditWriter, PendingRecord

YEAR = 365 * DAY
NOON = 1_764_000_000.0
PATIENCE = 20.0
UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
"""Each example makes its copy anew; and a busy machine is no bug (as in `conftest`, whose list this
one replaces)."""


class Clock:
    """Time as the test says."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def writer(
    directory: Path, clock: Callable[[], float] | None = None, **bounds: float
) -> AuditWriter:
    max_bytes = int(bounds.get("max_bytes", 2**30))
    return AuditWriter(directory, max_bytes, bounds.get("max_age", YEAR), clock or Clock())


def said(*kinds: str, at: float = NOON) -> list[PendingRecord]:
    return [
        PendingRecord(at, kind, {"by": {"client": 1, "name": "phone"}, "of": kind})
        for kind in kinds
    ]


def write(directory: Path, *batches: int, clock: Clock | None = None) -> AuditWriter:
    """So many records, in batches of these sizes."""
    made = writer(directory, clock)
    for number, size in enumerate(batches):
        made.work(said(*(f"turn/{number}-{each}" for each in range(size))))
    return made


def text_of(directory: Path) -> list[bytes]:
    """All lines, without line ends."""
    return [line.text for line in audit_chain.lines(directory)]


def put(directory: Path, lines: list[bytes]) -> None:
    """Replace the lines of the one file there is."""
    (path,) = audit_chain.files(directory)
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def faults(directory: Path) -> list[str]:
    return verify(directory).faults


# ── writing ───────────────────────────────────────────────────────────────────────────────────


def test_a_record_is_canonical_json_that_carries_the_digest_of_the_one_before(
    tmp_path: Path,
) -> None:
    write(tmp_path / "audit", 2, 1)
    (path,) = audit_chain.files(tmp_path / "audit")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    lines = text_of(tmp_path / "audit")
    before = audit_chain.NOTHING
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        assert line == json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        assert (record["n"], record["before"]) == (number, before)
        assert record["at"] == "2025-11-24T16:00:00.000Z"
        before = audit_chain.digest_of(line)
    verdict = verify(tmp_path / "audit")
    assert (verdict.records, verdict.first, verdict.last, verdict.digest) == (3, 1, 3, before)
    assert not verdict.faults + verdict.notes


def test_the_next_broker_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    write(tmp_path, 3)
    write(tmp_path, 2)
    assert verify(tmp_path).last == 5
    assert faults(tmp_path) == []
    assert len(audit_chain.files(tmp_path)) == 1


def test_what_cannot_be_written_as_text_costs_only_its_fields(tmp_path: Path) -> None:
    writer(tmp_path).work([*said("a"), PendingRecord(NOON, "b", {"odd": "\ud800"}), *said("c")])
    assert [json.loads(line)["kind"] for line in text_of(tmp_path)] == ["a", "b", "c"]
    assert faults(tmp_path) == []


def test_a_day_and_a_size_end_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    made = writer(tmp_path, clock)
    made.work(said("a"))
    clock.now += DAY
    made.work(said("b"))
    clock.now -= 3 * DAY  # set right by somebody: the order of the names stays that of the records
    made.work(said("c"))
    monkeypatch.setattr(audit_writer, "FILE_BYTES", 100)
    made.work(said("d"))
    assert [path.name for path in audit_chain.files(tmp_path)] == [
        "2025-11-24-000000000001.jsonl",
        "2025-11-25-000000000002.jsonl",
        "2025-11-25-000000000004.jsonl",
    ]
    assert faults(tmp_path) == []
    write(tmp_path, 1)
    assert faults(tmp_path) == []


# ── tampering ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit log of nine records."""
    directory = tmp_path_factory.mktemp("written") / "audit"
    write(directory, 4, 3, 2)
    return directory


@pytest.fixture
def tampered(written: Path, tmp_path: Path) -> Path:
    """A copy of it to tamper with."""
    shutil.copytree(written, tmp_path / "audit")
    return tmp_path / "audit"


def named(fault: str) -> int:
    """The record that a fault names."""
    found = re.search(r"records? (\d+)", fault)
    assert found is not None, fault
    return int(found[1])


@pytest.mark.parametrize("n", range(1, 10))
def test_a_changed_record_is_named(tampered: Path, n: int) -> None:
    lines = text_of(tampered)
    lines[n - 1] = lines[n - 1].replace(b"phone", b"phonf")
    put(tampered, lines)
    assert [named(each) for each in faults(tampered)] == [n]


@pytest.mark.parametrize("n", range(2, 10))
def test_a_record_whose_digest_of_the_one_before_was_changed_is_named(
    tampered: Path, n: int
) -> None:
    lines = text_of(tampered)
    before = json.loads(lines[n - 1])["before"].encode()
    lines[n - 1] = lines[n - 1].replace(before, before[::-1])
    put(tampered, lines)
    assert [named(each) for each in faults(tampered)] == [n]


@pytest.mark.parametrize("n", range(1, 10))
def test_a_removed_record_is_named(tampered: Path, n: int) -> None:
    lines = text_of(tampered)
    del lines[n - 1]
    put(tampered, lines)
    (fault,) = faults(tampered)
    assert named(fault) == n
    assert "missing" in fault


@pytest.mark.parametrize("n", range(1, 9))
def test_two_swapped_records_are_named(tampered: Path, n: int) -> None:
    lines = text_of(tampered)
    lines[n - 1], lines[n] = lines[n], lines[n - 1]
    put(tampered, lines)
    assert {named(each) for each in faults(tampered)} & {n, n + 1}


@pytest.mark.parametrize("left", range(9))
def test_a_truncated_tail_is_named(tampered: Path, left: int) -> None:
    put(tampered, text_of(tampered)[:left])
    (fault,) = faults(tampered)
    assert named(fault) == left + 1
    assert "missing at the end" in fault


def test_all_files_gone_is_found_and_so_is_a_head_that_is_gone(tampered: Path) -> None:
    (path,) = audit_chain.files(tampered)
    text = path.read_bytes()
    path.unlink()
    assert "records 1 to 9 are missing" in faults(tampered)[0]
    path.write_bytes(text)
    assert faults(tampered) == []
    (tampered / HEAD).unlink()
    assert "head.json is missing" in faults(tampered)[0]
    (tampered / HEAD).write_text("{")
    assert "head.json is missing" in faults(tampered)[0]


def test_a_head_that_was_set_back_with_the_tail_is_no_crash_if_a_record_was_changed(
    tampered: Path,
) -> None:
    head = json.loads((tampered / HEAD).read_text())
    (tampered / HEAD).write_text(json.dumps(head | {"n": 8}))
    assert [named(each) for each in faults(tampered)] == [8]


@settings(max_examples=300, suppress_health_check=UNCHECKED)
@given(data=st.data())
def test_any_change_of_any_byte_is_found(
    written: Path, tmp_path: Path, data: st.DataObject
) -> None:
    (path,) = audit_chain.files(written)
    text = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] ^= data.draw(st.integers(1, 255))
    copy = tmp_path / "audit"
    shutil.copytree(written, copy, dirs_exist_ok=True)
    (copy / path.name).write_bytes(text)
    changed = bytes(text[:at]).count(b"\n") + 1
    found = faults(copy)
    assert found
    if b"\n" not in (path.read_bytes()[at : at + 1], text[at : at + 1]):
        assert named(found[0]) in (changed, changed + 1)


@settings(max_examples=300, suppress_health_check=UNCHECKED)
@given(data=st.data())
def test_any_other_arrangement_of_the_lines_is_found(
    written: Path, tmp_path: Path, data: st.DataObject
) -> None:
    lines = text_of(written)
    chosen = data.draw(
        st.lists(st.sampled_from(range(len(lines))), max_size=12).filter(
            lambda order: order != list(range(len(lines)))
        )
    )
    copy = tmp_path / "audit"
    shutil.copytree(written, copy, dirs_exist_ok=True)
    put(copy, [lines[at] for at in chosen])
    assert faults(copy)


@settings(max_examples=200, suppress_health_check=UNCHECKED)
@given(cut=st.integers(min_value=1))
def test_any_cut_of_the_file_is_found(written: Path, tmp_path: Path, cut: int) -> None:
    (path,) = audit_chain.files(written)
    text = path.read_bytes()
    copy = tmp_path / "audit"
    shutil.copytree(written, copy, dirs_exist_ok=True)
    (copy / path.name).write_bytes(text[: len(text) - 1 - cut % len(text)])
    assert faults(copy)


@settings(max_examples=200, suppress_health_check=UNCHECKED)
@given(at=st.integers(0, 8), more=st.binary(min_size=1, max_size=40))
def test_anything_put_in_between_is_found(
    written: Path, tmp_path: Path, at: int, more: bytes
) -> None:
    lines = text_of(written)
    copy = tmp_path / "audit"
    shutil.copytree(written, copy, dirs_exist_ok=True)
    put(copy, [*lines[:at], more, *lines[at:]])
    assert faults(copy)


# ── crashes ───────────────────────────────────────────────────────────────────────────────────


def older_head(directory: Path, n: int) -> None:
    """The head as it was before the last batch: a crash came between the lines and it."""
    lines = text_of(directory)
    head = {"n": n, "digest": audit_chain.digest_of(lines[n - 1]) if n else audit_chain.NOTHING}
    (directory / HEAD).write_text(json.dumps(head))


@pytest.mark.parametrize("n", range(10))
@pytest.mark.parametrize("torn", [b"", b"{", b'{"n":10,"at":"2025-'])
def test_a_crash_between_the_lines_and_the_head_is_no_tampering(
    tampered: Path, n: int, torn: bytes
) -> None:
    older_head(tampered, n)
    (path,) = audit_chain.files(tampered)
    with path.open("ab") as file:
        file.write(torn)
    verdict = verify(tampered)
    assert not verdict.faults
    assert bool(verdict.notes) == bool(n < 9 or torn)
    write(tampered, 2)
    verdict = verify(tampered)
    assert (verdict.faults, verdict.notes, verdict.last) == ([], [], 11)
    assert BROKEN not in (json.loads(line)["kind"] for line in text_of(tampered))


def test_a_crash_at_the_first_record_of_a_file_is_no_tampering(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "2025-11-25-000000000004.jsonl").write_bytes(b'{"n":4,')
    assert not faults(tmp_path)
    write(tmp_path, 2, clock=Clock(NOON + DAY))
    assert (faults(tmp_path), verify(tmp_path).last) == ([], 5)


def test_more_than_a_batch_after_the_head_is_no_crash(tmp_path: Path) -> None:
    write(tmp_path, BATCH, BATCH // 2)
    older_head(tmp_path, BATCH // 2)
    assert not faults(tmp_path)
    older_head(tmp_path, BATCH // 2 - 1)
    assert "unknown to head.json" in faults(tmp_path)[0]


@pytest.mark.parametrize(
    "tamper",
    [
        lambda there, lines: put(there, lines[:5]),
        lambda there, lines: put(there, lines[:-1]),
        lambda there, lines: put(there, [*lines[:-1], lines[-1].replace(b"phone", b"phonf")]),
        lambda there, _: (there / HEAD).unlink(),
        lambda there, _: audit_chain.files(there)[0].unlink(),
    ],
)
def test_the_next_broker_does_not_cover_tampering_up(
    tampered: Path, tamper: Callable[[Path, list[bytes]], object]
) -> None:
    tamper(tampered, text_of(tampered))
    assert faults(tampered)
    write(tampered, 3)
    assert faults(tampered)
    kinds = [json.loads(line)["kind"] for line in text_of(tampered)]
    assert kinds[-4:] == [BROKEN, "turn/0-0", "turn/0-1", "turn/0-2"]
    write(tampered, 1)
    assert faults(tampered)


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (
            lambda there, lines: put(there, lines[:5]),
            "the end isn't the record 9 that head.json knows",
        ),
        (
            lambda there, lines: put(there, [*lines[:-1], lines[-1].replace(b"phone", b"phonf")]),
            "the end isn't the record 9 that head.json knows",
        ),
        (
            lambda there, lines: put(there, [*lines[:3], b"garbage", *lines[4:]]),
            "the end isn't the record 9 that head.json knows",
        ),
        (lambda there, _: (there / HEAD).unlink(), "head.json is missing or no head"),
        (lambda there, _: (there / HEAD).write_text("{"), "head.json is missing or no head"),
        (lambda there, _: audit_chain.files(there)[0].unlink(), "all of its 9 records are gone"),
    ],
)
def test_the_next_broker_says_what_it_found_and_goes_on_in_a_new_file(
    tampered: Path, tamper: Callable[[Path, list[bytes]], object], found: str
) -> None:
    before = text_of(tampered)
    tamper(tampered, before)
    there = audit_chain.files(tampered)
    kept = [path.read_bytes() for path in there]
    with capture_logs() as logs:
        made = write(tampered, 1, clock=Clock(NOON + 60))
    text = "the audit log isn't as it was left"
    assert logs == [{"event": text, "found": found, "path": str(tampered), "log_level": "error"}]
    assert [path.read_bytes() for path in there] == kept
    broken, last = (json.loads(line) for line in text_of(tampered)[-2:])
    assert (broken["kind"], broken["found"], broken["n"]) == (BROKEN, found, 10)
    assert broken["at"] == "2025-11-24T16:01:00.000Z"
    assert broken["before"] == audit_chain.digest_of(before[-1])
    assert (last["kind"], last["n"]) == ("turn/0-0", 11)
    assert made.used == sum(path.stat().st_size for path in audit_chain.files(tampered))
    with capture_logs() as logs:
        write(tampered, 1)
    assert not logs  # once


def test_what_came_after_the_head_hangs_together_or_is_told_of(tampered: Path) -> None:
    lines = text_of(tampered)
    older_head(tampered, 5)
    put(tampered, [*lines[:6], lines[6].replace(b"phone", b"phonf"), *lines[7:]])
    write(tampered, 1)
    broken = json.loads(text_of(tampered)[-2])
    told = "the end isn't the record 5 that head.json knows"
    assert (broken["kind"], broken["found"], broken["n"]) == (BROKEN, told, 10)


@pytest.mark.parametrize("tamper", [Path.unlink, lambda path: path.write_bytes(b"x" * 10_000)])
def test_a_file_that_goes_or_grows_under_the_broker_is_left_so(
    tmp_path: Path, tamper: Callable[[Path], object]
) -> None:
    made = write(tmp_path, 3)
    (path,) = audit_chain.files(tmp_path)
    tamper(path)
    with capture_logs() as logs:
        made.work(said("after"))
    assert [each["path"] for each in logs] == [str(path)]
    assert audit_chain.files(tmp_path)[-1].name == "2025-11-24-000000000004.jsonl"
    assert not path.exists() or path.read_bytes() == b"x" * 10_000


def test_a_whole_batch_after_the_head_is_a_crash(tmp_path: Path) -> None:
    write(tmp_path, 1, BATCH)
    older_head(tmp_path, 1)
    with capture_logs() as logs:
        write(tmp_path, 1)
        write(tmp_path, 1)
    assert not logs
    assert (faults(tmp_path), verify(tmp_path).last) == ([], BATCH + 3)


def test_a_writer_knows_what_is_there_before_it_writes(tampered: Path) -> None:
    made = writer(tampered)
    made.work([])
    (path,) = audit_chain.files(tampered)
    assert (made.n, made.used) == (9, path.stat().st_size)
    assert made.digest == audit_chain.digest_of(text_of(tampered)[-1])
    assert (made.taken, made._size, made._file) == (0, made.used, path)


@pytest.mark.parametrize("gone", ["the head", "the files"])
def test_what_is_wrong_stays_until_a_record_of_it_is_on_the_disk(
    tampered: Path, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that ends in between leaves it to the next one to find."""
    for path in [tampered / HEAD] if gone == "the head" else audit_chain.files(tampered):
        path.unlink()
    before = {path.name: path.read_bytes() for path in tampered.iterdir()}

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    made = writer(tampered)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        made.work([])
    monkeypatch.undo()
    after = {path.name: path.read_bytes() for path in tampered.iterdir() if path.stat().st_size}
    assert after == before
    writer(tampered).work(said("after"))
    assert BROKEN in [json.loads(line)["kind"] for line in text_of(tampered)]


@pytest.mark.parametrize("head", [True, False])
def test_a_last_file_that_makes_no_sense_stops_no_record(tmp_path: Path, head: bool) -> None:
    """The next file has another name, however little is known of the numbers."""
    write(tmp_path, 2)
    (path,) = audit_chain.files(tmp_path)
    (tmp_path / path.name.replace("-000000000001", "-000000000003")).write_bytes(b"nonsense\n")
    if not head:
        (tmp_path / HEAD).unlink()
    for kind in ("a", "b"):  # also after another start
        writer(tmp_path).work(said(kind))
    kinds = [json.loads(line)["kind"] for line in text_of(tmp_path) if line != b"nonsense"]
    assert kinds[-3:] == [BROKEN, "a", "b"]
    assert faults(tmp_path)


def test_a_first_record_that_the_head_knows_is_no_crash_when_it_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (path,) = audit_chain.files(tmp_path)
    os.truncate(path, 10)
    write(tmp_path, 1)
    assert path.stat().st_size == 10, "it stays as it is"
    assert faults(tmp_path)


def test_a_new_log_has_a_head_before_it_has_records(tmp_path: Path) -> None:
    with capture_logs() as logs:
        writer(tmp_path).work([])
        writer(tmp_path).work([])
    assert json.loads((tmp_path / HEAD).read_text()) == {"n": 0, "digest": audit_chain.NOTHING}
    assert not logs
    assert faults(tmp_path) == []


def test_a_file_that_stands_where_a_new_one_is_begun_is_not_written_to(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.work([])
    path = tmp_path / "2025-11-24-000000000001.jsonl"
    path.write_text("somebody's")
    with pytest.raises(FileExistsError):
        made.work(said("a"))
    assert (path.read_text(), made.taken) == ("somebody's", 0)


def test_a_new_file_that_was_half_written_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = writer(tmp_path)
    made.work([])

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                made.work(said("a", "b"))
            assert (made.taken, made.n) == (0, 0)
    made.work(said("c"))
    assert [json.loads(line)["kind"] for line in text_of(tmp_path)] == ["c"]
    assert faults(tmp_path) == []


def test_lines_are_on_the_disk_before_the_head_and_a_new_files_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = writer(tmp_path)
    made.work([])
    done: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _descriptor: done.append("lines"))
    monkeypatch.setattr(private_file, "sync_directory", lambda _path: done.append("name"))
    monkeypatch.setattr(json_file, "replace", lambda path, _text: done.append(path.name))
    made.work(said("a"))
    assert done == ["lines", "name", HEAD]
    del done[:]
    made.work(said("b"))
    assert done == ["lines", HEAD]


def test_a_file_is_full_at_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write(tmp_path, 1)
    monkeypatch.setattr(audit_writer, "FILE_BYTES", made._size + 1)
    made.work(said("b"))
    assert len(audit_chain.files(tmp_path)) == 1
    monkeypatch.setattr(audit_writer, "FILE_BYTES", made._size)
    made.work(said("c"))
    assert len(audit_chain.files(tmp_path)) == 2


def test_what_was_changed_far_from_the_end_is_found_however_much_comes_after(
    tampered: Path,
) -> None:
    lines = text_of(tampered)
    put(tampered, [*lines, *lines])
    write(tampered, 3)
    assert "out of its place" in faults(tampered)[0]


WRITING = """
import itertools, sys, time
from pathlib import Path
from mux.storage.audit_writer import PendingRecord as PendingRecord, AuditWriter
writer = AuditWriter(Path(sys.argv[1]), 2**30, 1e9)
for batch in itertools.count():
    writer.work([PendingRecord(time.time(), "turn/asked", {"batch": batch})] * 20)
    print(batch, flush=True)
"""


@pytest.mark.parametrize("batches", [1, 3, 10])
def test_kill_9_in_the_middle_of_writing_leaves_a_whole_chain(tmp_path: Path, batches: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITING, str(tmp_path / "audit")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(batches):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    verdict = verify(tmp_path / "audit")
    assert verdict.faults == []
    assert verdict.last >= 20 * batches
    write(tmp_path / "audit", 1)
    verdict = verify(tmp_path / "audit")
    assert verdict.faults + verdict.notes == []


# ── age and size ──────────────────────────────────────────────────────────────────────────────


def aged(directory: Path, days: int, **bounds: float) -> tuple[AuditWriter, Clock]:
    """A log with three records a day, for so many days."""
    clock = Clock()
    made = writer(directory, clock, **bounds)
    for _ in range(days):
        made.work(said("a", "b", "c", at=clock.now))
        clock.now += DAY
    return made, clock


def test_old_files_go_and_the_chain_still_verifies(tmp_path: Path) -> None:
    made, clock = aged(tmp_path, 5, max_age=10 * DAY)
    clock.now = NOON + 12.2 * DAY
    made.work(said("now", at=clock.now))
    left = [json.loads(line) for line in text_of(tmp_path)]
    assert left[0]["at"].startswith("2025-11-26")
    verdict = verify(tmp_path)
    assert (verdict.faults, verdict.first) == ([], 7)
    anchors = [each for each in left if each["kind"] == TRIMMED]
    assert [each["through"] for each in anchors] == [3, 6]
    assert anchors[-1]["digest"] == left[0]["before"]
    assert made.used == sum(path.stat().st_size for path in audit_chain.files(tmp_path))
    write(tmp_path, 1, clock=clock)
    assert faults(tmp_path) == []


def test_a_file_removed_by_somebody_else_is_found(tmp_path: Path) -> None:
    made, clock = aged(tmp_path, 5, max_age=10 * DAY)
    clock.now = NOON + 12.2 * DAY
    made.work(said("now", at=clock.now))
    there = audit_chain.files(tmp_path)
    there[1].rename(tmp_path / "kept")
    assert "records 10 to 12 are missing" in faults(tmp_path)[0]
    (tmp_path / "kept").rename(there[1])
    there[0].unlink()
    assert "not removed for their age" in faults(tmp_path)[0]


def test_the_files_are_bounded_in_size_and_the_last_one_stays(tmp_path: Path) -> None:
    made, _ = aged(tmp_path, 6, max_bytes=2_000)
    assert 1 < len(audit_chain.files(tmp_path)) < 6
    assert made.used <= 2_000
    assert faults(tmp_path) == []
    write(tmp_path, 50)
    made = writer(tmp_path, max_bytes=1)
    made.work([])
    assert len(audit_chain.files(tmp_path)) == 1
    assert faults(tmp_path) == []


@pytest.fixture
def _far_west(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host whose midnight isn't that of the files' names."""
    monkeypatch.setenv("TZ", "UTC+9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_far_west")
def test_a_file_goes_when_its_last_moment_is_too_old_and_not_before(tmp_path: Path) -> None:
    made, clock = aged(tmp_path, 2, max_age=10 * DAY)
    there = audit_chain.files(tmp_path)
    clock.now = datetime(2025, 11, 25, tzinfo=UTC).timestamp() + 10 * DAY
    made.work([])
    assert audit_chain.files(tmp_path) == there
    clock.now += 1
    made.work([])
    (left,) = audit_chain.files(tmp_path)[:1]
    assert left.name.startswith("2025-11-25")
    (anchor,) = [json.loads(line) for line in text_of(tmp_path)][-1:]
    assert (anchor["kind"], anchor["file"]) == (TRIMMED, "2025-11-24-000000000001.jsonl")


@pytest.mark.usefixtures("_far_west")
def test_a_file_is_named_after_the_day_that_its_records_name(tmp_path: Path) -> None:
    clock = Clock(datetime(2025, 11, 25, 2, tzinfo=UTC).timestamp())  # in the west, the day before
    writer(tmp_path, clock).work(said("early", at=clock.now))
    (path,) = audit_chain.files(tmp_path)
    assert path.name.startswith("2025-11-25")


def test_a_file_that_goes_for_its_age_takes_no_gap_behind_it_along(tmp_path: Path) -> None:
    made, clock = aged(tmp_path, 4, max_age=10 * DAY)
    audit_chain.files(tmp_path)[1].unlink()
    clock.now = NOON + 11.2 * DAY
    made.work([])
    anchors = [each for each in map(json.loads, text_of(tmp_path)) if each["kind"] == TRIMMED]
    assert [each["through"] for each in anchors] == [3]
    assert "records 1 to 6 are missing at the start" in faults(tmp_path)[0]


def test_what_it_writes_of_its_own_counts_as_no_record_that_it_took(tmp_path: Path) -> None:
    """Else one more would be dropped from memory unwritten, or all be written twice."""
    made, clock = aged(tmp_path, 2, max_age=10 * DAY)
    clock.now += 20 * DAY
    made.work(said("a", "b", at=clock.now))
    assert json.loads(text_of(tmp_path)[-1])["kind"] == TRIMMED
    assert made.taken == 2


def test_as_many_bytes_as_are_allowed_are_kept(tmp_path: Path) -> None:
    made, _ = aged(tmp_path, 3)
    made.max_bytes = made.used
    made.work([])
    there = audit_chain.files(tmp_path)
    assert len(there) == 3
    made.max_bytes -= 1
    made.work([])
    assert audit_chain.files(tmp_path)[:2] == there[1:]  # and a new one, which tells of it


def test_a_damaged_file_that_is_too_old_is_let_go_by_its_number(tmp_path: Path) -> None:
    made, clock = aged(tmp_path, 2, max_age=10 * DAY)
    oldest = audit_chain.files(tmp_path)[0]
    oldest.write_bytes(oldest.read_bytes() + b"garbage\n")
    clock.now = datetime(2025, 11, 25, tzinfo=UTC).timestamp() + 10 * DAY + 1
    made.work([])
    (anchor,) = [json.loads(line) for line in text_of(tmp_path)][-1:]
    assert (anchor["through"], anchor["digest"]) == (3, audit_chain.digest_of(b"garbage"))


def test_names_that_are_not_ours_have_no_date_and_no_number() -> None:
    ours = Path("2025-11-24-000000000012.jsonl")
    assert audit_writer._date_of(ours) == datetime(2025, 11, 24, tzinfo=UTC).date()
    assert audit_writer._number_of(ours) == 12
    assert audit_writer._number_of(Path("2025-11-24-123456789012.jsonl")) == 123456789012
    assert audit_writer._date_of(Path("odd.jsonl")) == datetime.min.date()
    assert audit_writer._number_of(Path("2025-11-24-odd.jsonl")) == 0


# ── the disk ──────────────────────────────────────────────────────────────────────────────────


async def running(audit: Audit, work: Callable[[], object]) -> None:
    """Have it run while `work` is done, and write the rest."""
    async with trio.open_nursery() as nursery:
        await nursery.start(audit.run)
        done = work()
        if done is not None:
            await done  # type: ignore[misc]
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 (nobody tells)
            await trio.sleep(0.005)


async def test_what_was_recorded_is_written_at_the_end(tmp_path: Path) -> None:
    audit = Audit.open(tmp_path, max_bytes=2**30, max_age=YEAR)
    count = 2 * BATCH + 7

    def record() -> None:
        for number in range(count):
            audit.record("turn/asked", {"number": number})

    await running(audit, record)
    assert verify(tmp_path / DIRECTORY).last == count
    assert faults(tmp_path / DIRECTORY) == []
    assert (audit.status()["records"], audit.status()["unwrittenRecords"]) == (count, 0)


async def test_a_disk_in_the_way_is_said_once_and_nothing_is_lost(tmp_path: Path) -> None:
    there = tmp_path / DIRECTORY
    there.write_text("in the way")
    audit = Audit.open(tmp_path, max_bytes=2**30, max_age=YEAR)

    async def work() -> None:
        audit.record("a", {})
        await until(lambda: audit.trouble)
        assert "can't be written" in (audit.trouble or "")
        audit.record("b", {})
        there.unlink()
        await until(lambda: audit.trouble is None)
        await until(lambda: audit.writer.n == 2)

    await running(audit, work)
    assert [json.loads(line)["kind"] for line in text_of(there)] == ["a", "b"]


async def test_too_many_for_the_memory_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mux.storage.write_behind.LAST_SECONDS", PATIENCE
    )  # however slow the disk is here
    there = tmp_path / DIRECTORY
    there.write_text("in the way")
    audit = Audit.open(tmp_path, max_bytes=2**30, max_age=YEAR)
    for number in range(UNWRITTEN + 5):
        audit.record("a", {"number": number})
    there.unlink()
    await running(audit, lambda: None)
    last = json.loads(text_of(there)[-1])
    assert (last["kind"], last["records"], last["n"]) == ("audit/lost", 5, UNWRITTEN + 1)
    assert faults(there) == []


async def test_its_status_says_where_it_is_how_far_and_what_is_wrong(tmp_path: Path) -> None:
    audit = Audit.open(tmp_path, max_bytes=2**30, max_age=YEAR, clock=Clock())
    nothing = {
        "path": str(tmp_path / DIRECTORY),
        "records": 0,
        "digest": audit_chain.NOTHING,
        "bytes": 0,
        "unwrittenRecords": 0,
        "lastWriteMilliseconds": 0.0,
        "trouble": None,
    }
    assert audit.status() == nothing
    audit.record("a", {})
    assert audit.status() == nothing | {"unwrittenRecords": 1}
    await audit.flush()
    (path,) = audit_chain.files(tmp_path / DIRECTORY)
    status = audit.status()
    took = status.pop("lastWriteMilliseconds")
    assert 0 < float(str(took)) < PATIENCE * 1000
    audit._behind.milliseconds = 12.345
    assert audit.status()["lastWriteMilliseconds"] == 12.3
    digest = audit_chain.digest_of(text_of(tmp_path / DIRECTORY)[0])
    del nothing["lastWriteMilliseconds"]
    written = {"records": 1, "digest": digest, "bytes": path.stat().st_size}
    assert status == nothing | written


async def test_a_disk_that_takes_nothing_is_told_of_once_and_when_it_is_over(
    tmp_path: Path,
) -> None:
    there = tmp_path / DIRECTORY
    there.write_text("in the way")
    audit = Audit.open(tmp_path, max_bytes=2**30, max_age=YEAR)
    audit.record("a", {})
    text = (
        f"the audit log {there} can't be written (it is a file, where a directory belongs): make"
        " room there, or make it writable; until then up to 10000 records are kept in memory"
    )
    waits = []
    with capture_logs() as logs:
        for _ in range(8):
            await audit.flush()
            waits.append(audit._behind.trouble.wait)
            assert (audit.trouble, audit.status()["trouble"]) == (text, text)
            assert audit.status()["unwrittenRecords"] == 1
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert logs == [{"event": text, "log_level": "error"}]
    there.unlink()
    with capture_logs() as logs:
        await audit.flush()
    assert (audit.trouble, audit._behind.trouble.wait) == (None, 0.0)
    again = "the audit log is written again"
    assert logs == [{"event": again, "path": str(there), "log_level": "info"}]
    audit._behind.failed(OSError("a word"))
    assert "can't be written (a word): make room" in (audit.trouble or "")


async def test_records_that_are_lost_at_the_end_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mux.storage.audit_log.UNWRITTEN", 3)
    (tmp_path / DIRECTORY).write_text("in the way")
    audit = Audit.open(tmp_path, max_bytes=2**30, max_age=YEAR)
    for _ in range(5):
        audit.record("a", {})
    with capture_logs() as logs:
        await running(audit, lambda: None)
    text = "the audit log's last records could not be written"
    # The two that had no room are one record that counts them.
    assert logs[-1] == {"event": text, "records": 4, "log_level": "error"}


def test_its_bounds_are_the_writers(tmp_path: Path) -> None:
    clock = Clock()
    made = Audit.open(tmp_path, max_bytes=7, max_age=8.0, clock=clock).writer
    assert (made.directory, made.max_bytes, made.max_age) == (tmp_path / DIRECTORY, 7, 8.0)
    assert made.clock is clock


async def test_one_thread_writes_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = Audit.open(tmp_path, max_bytes=2**30, max_age=YEAR)
    borrowed, limiter = [], audit._behind._one_writer

    def work(_writer: AuditWriter, _said: list[PendingRecord]) -> None:
        borrowed.append(trio.from_thread.run_sync(lambda: limiter.borrowed_tokens))

    monkeypatch.setattr(AuditWriter, "work", work)
    await audit.flush()
    assert (borrowed, limiter.total_tokens) == ([1], 1)


async def test_the_end_tries_a_disk_once_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit.open(tmp_path, max_bytes=2**30, max_age=YEAR)
    tried = []

    def work(_writer: AuditWriter, said: list[PendingRecord]) -> None:
        tried.append(len(said))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AuditWriter, "work", work)
    await running(audit, lambda: audit.record("a", {}))
    assert tried == [1]


async def test_the_end_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    audit = Audit.open(tmp_path, max_bytes=2**30, max_age=YEAR)
    tried = []

    def work(writer: AuditWriter, said: list[PendingRecord]) -> None:
        tried.append(len(said))
        writer.taken = len(said)
        trio.from_thread.run_sync(mock_clock.jump, 3.0)

    monkeypatch.setattr(AuditWriter, "work", work)
    for _ in range(5 * BATCH):
        audit.record("a", {})
    with capture_logs() as logs:
        await audit._close()
    assert tried == [BATCH] * 2  # five seconds of it
    assert logs[-1]["records"] == 3 * BATCH


async def test_when_records_are_written(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    audit = Audit.open(tmp_path, max_bytes=2**30, max_age=YEAR)

    async def waited(record_at: float | None = None) -> float:
        begun = trio.current_time()

        async def later() -> None:
            if record_at is not None:
                await trio.sleep(record_at)
                audit.record("a", {})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            await audit._behind.until_due()
        return trio.current_time() - begun

    assert await waited() == pytest.approx(TIDY_INTERVAL + GATHER)
    assert await waited(record_at=10.0) == pytest.approx(10.0 + GATHER)
    assert await waited() == pytest.approx(GATHER)  # what came while it was written
    for _ in range(BATCH - 2):
        audit.record("a", {})
    assert await waited() == pytest.approx(GATHER)
    audit.record("a", {})
    assert await waited() == 0.0  # a whole batch
    audit._behind.trouble.wait = 0.8
    assert await waited() == pytest.approx(0.8)


FULL = """
import resource, signal, sys
from pathlib import Path
from mux.storage.audit_writer import PendingRecord as PendingRecord, AuditWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = AuditWriter(Path(sys.argv[1]), 2**30, 1e9)
said = [PendingRecord(1764000000.0 + n, "turn/asked", {"n-th": n}) for n in range(30)]
writer.work(said[:5])
size = writer._size
for limit in (1, 50, 100, 1000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + limit, resource.RLIM_INFINITY))
    try:
        writer.work(said[5:])
    except OSError as failure:
        print(failure.errno, writer.taken)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.work(said[5:] if writer.taken == 0 else [])
"""


def test_a_disk_that_is_full_in_the_middle_of_a_record_leaves_no_piece_of_it(
    tmp_path: Path,
) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "audit")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert [each.split()[1] for each in done.stdout.splitlines()] == ["0"] * 4
    assert [json.loads(line).get("n-th") for line in text_of(tmp_path / "audit")] == list(range(30))
    assert faults(tmp_path / "audit") == []


def test_a_head_that_cannot_be_written_makes_no_record_twice(
    tmp_path: Path,
) -> None:
    made = write(tmp_path, 2)
    (tmp_path / f"{HEAD}.new").mkdir()
    with pytest.raises(OSError, match=r"head\.json\.new"):
        made.work(said("a", "b"))
    assert made.taken == 2
    (tmp_path / f"{HEAD}.new").rmdir()
    made.work(said("c"))
    kinds = [json.loads(line)["kind"] for line in text_of(tmp_path)]
    assert kinds == ["turn/0-0", "turn/0-1", "a", "b", "c"]
    assert faults(tmp_path) == []


async def test_a_head_that_could_not_be_written_is_written_without_another_record(
    tmp_path: Path,
) -> None:
    """Else a crash after it would be told of as a change: the head would be too far behind."""
    audit = Audit.open(tmp_path, max_bytes=2**30, max_age=YEAR)
    there = tmp_path / DIRECTORY
    audit.record("a", {})
    await audit.flush()
    (there / f"{HEAD}.new").mkdir()
    audit.record("b", {})
    await audit.flush()
    assert audit.status()["unwrittenRecords"] == 0, "the record itself is there"
    assert "can't be written" in (audit.trouble or "")
    assert json.loads((there / HEAD).read_text())["n"] == 1
    (there / f"{HEAD}.new").rmdir()
    await audit.flush()
    assert audit.trouble is None
    digest = audit_chain.digest_of(text_of(there)[-1])
    assert json.loads((there / HEAD).read_text()) == {"n": 2, "digest": digest}
    (there / HEAD).unlink()
    await audit.flush()
    assert not (there / HEAD).exists(), "it is owed no more"


def test_a_file_changed_under_the_broker_is_left_and_a_new_one_begun(tmp_path: Path) -> None:
    made = write(tmp_path, 3)
    (path,) = audit_chain.files(tmp_path)
    os.truncate(path, 10)
    with capture_logs() as logs:
        made.work(said("after"))
    text = "somebody else has changed the audit log; a new file is begun"
    assert logs == [{"event": text, "path": str(path), "log_level": "error"}]
    assert path.stat().st_size == 10
    assert len(audit_chain.files(tmp_path)) == 2
    assert faults(tmp_path)


# ── shown ─────────────────────────────────────────────────────────────────────────────────────


def run(state: Path, capsys: pytest.CaptureFixture[str], **options: object) -> tuple[int, str]:
    given_options = {"since": None, "as_json": False, "verify": False} | options
    status = audit.run(state, **given_options)  # type: ignore[arg-type]
    return status, capsys.readouterr().out


def test_it_is_shown_since_a_time_ago(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = writer(tmp_path / DIRECTORY, time.time)
    made.work([*said("long/ago", at=time.time() - 7200), *said("just/now", at=time.time())])
    assert "long/ago" in run(tmp_path, capsys)[1]
    status, out = run(tmp_path, capsys, since="1h")
    assert (status, len(out.splitlines())) == (0, 1)
    assert "just/now" in out
    assert len(run(tmp_path, capsys, since="3h", as_json=True)[1].splitlines()) == 2


def test_verify_exits_1_and_names_the_record(
    tampered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = run(tampered.parent, capsys, verify=True)
    assert (status, "9 records, 1 to 9: as they were written" in out) == (0, True)
    lines = text_of(tampered)
    put(tampered, [*lines[:3], lines[3].replace(b"phone", b"\x1b[2J"), *lines[4:]])
    status, out = run(tampered.parent, capsys, verify=True)
    assert status == 1
    assert "FAULT: record 4 (" in out
    status, out = run(tampered.parent, capsys, verify=True, as_json=True)
    verdict = json.loads(out)
    assert (status, verdict["ok"], len(verdict["faults"])) == (1, False, 1)
    assert "\x1b" not in run(tampered.parent, capsys)[1]


def test_a_state_directory_without_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no audit log"):
        audit.run(tmp_path, since=None, as_json=False, verify=False)


def test_a_line_says_who_and_is_harmless() -> None:
    by = {"client": 3, "name": "pho\x1bne", "principal": "pixel", "kind": "device"}
    fields: dict[str, object] = {"by": by, "decision": "accept", "thread": None, "digest": "a" * 64}
    line = shown(audit_chain.write(1, "2025-11-24T16:00:00.000Z", "approval/answered", fields, "0"))
    assert "pho\\x1bne (pixel, client 3)  " in line
    assert "decision accept" in line
    assert "thread" not in line
    assert "digest aaaaaaaaaaaa…" in line


def test_a_moment_is_a_time_ago_or_a_date() -> None:
    now = datetime(2025, 11, 24, 16, tzinfo=UTC)
    assert moment("2h", now) == now - timedelta(hours=2)
    assert moment("1w", now) == now - timedelta(days=7)
    assert moment("2025-11-20T10:00:00+00:00", now) == datetime(2025, 11, 20, 10, tzinfo=UTC)
    assert moment("2025-11-20", now).tzinfo is not None
    for wrong in ("", "2 hours", "soon", "h", "-1h", "2y"):
        with pytest.raises(AuditError, match="--since"):
            moment(wrong, now)
