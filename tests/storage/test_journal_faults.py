"""The journal on disk, when something is wrong: kills, torn files, full and read-only disks.

The faults are real: a killed process, a small file system that is full, garbled bytes.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from structlog.typing import EventDict

from mux.storage import journal as store_module
from mux.storage import journal_schema, sqlite, write_behind
from mux.storage.journal import Store
from mux.storage.journal_schema import FILE
from mux.storage.journal_writer import JournalWriter
from mux.storage.sqlite import KEPT_BROKEN, StoreError
from tests.entries import (
    DAY,
    DELTA,
    EVENT,
    PATIENCE,
    at_rest,
    entries,
    entry,
    open_store,
    opened,
    put,
    read_all,
    running,
    select,
    until,
)

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture(name="said")
def _said() -> Iterator[list[EventDict]]:
    with structlog.testing.capture_logs() as logs:
        yield logs


def errors(said: list[EventDict]) -> list[str]:
    return [each["event"] for each in said if each["log_level"] == "error"]


def broken(path: Path) -> list[Path]:
    """The files that were moved aside."""
    return sorted(path.glob(f"{FILE}.broken-*Z"))


# --- Killed ---------------------------------------------------------------------------------------

WRITER = """
import sys, trio
from pathlib import Path
from tests.entries import entry, open_store

async def main():
    store = open_store(Path(sys.argv[1]))
    seq = store.next_seq
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        print(seq, flush=True)
        while True:
            for _ in range(100):
                store.append(entry(seq, f"t{seq % 3}"))
                seq += 1
            print(seq - 1, sum(store.writes.counts), flush=True)
            await trio.sleep(0.002)

trio.run(main)
"""
ROUNDS_IN_A_TENTH = 50
"""Of the above, on a machine that isn't busy otherwise. One that is slows both down, the writing
and the rounds: so it is by rounds that a kill's cost is counted, not by a clock."""


async def _killed_while_writing(path: Path, grace: float) -> tuple[int, list[tuple[int, int]]]:
    """Its first number; and of each round the last number, and how often it had written by then."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert process.stdout
    output = bytearray()

    async def kill_later() -> None:
        await until(lambda: output.count(b"\n") > 300)  # it is well under way
        await trio.sleep(grace)
        process.send_signal(signal.SIGKILL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_later)
        with trio.fail_after(2 * PATIENCE):
            while piece := await process.stdout.receive_some():
                output += piece
    await process.wait()
    await process.stdout.aclose()
    first, *lines = output[: output.rindex(b"\n")].decode().splitlines()
    return int(first), [(int(seq), int(writes)) for seq, writes in map(str.split, lines)]


async def test_a_kill_costs_a_tenth_of_a_second_and_tears_nothing(tmp_path: Path) -> None:
    costs = []
    for grace in (0.0, 0.013, 0.029, 0.041):  # at different moments of a batch
        first, rounds = await _killed_while_writing(tmp_path, grace)
        async with opened(tmp_path) as after:
            assert after.next_seq > rounds[-1][0]
            assert after.earliest == 0
            found = await read_all(after, after=first - 1)
            last = found[-1].seq
            assert found == [entry(seq, f"t{seq % 3}") for seq in range(first, last + 1)]
            assert last <= after.next_seq
        lost = [writes for seq, writes in rounds if seq > last]
        # The write under way when it came may lack it, the next one doesn't.
        assert all(rounds[-1][1] <= writes + 1 for writes in lost)
        costs.append(len(lost))
    assert store_module.FLUSH_INTERVAL <= 0.05, "half of the tenth: the rest is for the writing"
    assert min(costs) <= 2 * ROUNDS_IN_A_TENTH
    assert max(costs) <= 20 * ROUNDS_IN_A_TENTH
    assert select(tmp_path / FILE, "PRAGMA integrity_check") == [("ok",)]


# --- Torn and garbled -----------------------------------------------------------------------------


async def _written(path: Path) -> int:
    """A journal of some 600 KiB in many batches; its size."""
    async with opened(path) as store:
        for start in range(1, 5001, 100):
            await put(
                store,
                *[
                    entry(n, f"t{n % 3}", DELTA if n % 5 else EVENT)
                    for n in range(start, start + 100)
                ],
            )
    return (path / FILE).stat().st_size


TRUTH = {n: entry(n, f"t{n % 3}", DELTA if n % 5 else EVENT) for n in range(1, 5001)}


async def _survives(path: Path, epoch: str | None = None) -> Store:
    """Whatever the file is like: it starts, lies about nothing, and takes new entries."""
    opened_again = open_store(path)
    assert opened_again.trouble is None
    found = await read_all(opened_again)
    if not opened_again.earliest and opened_again.epoch == epoch:
        assert found == list(TRUTH.values()), "no loss is told, so there is none"
    assert all(each == TRUTH[each.seq] for each in found), "nothing is torn"
    await opened_again.flush()  # what the reader found out is acted on
    seq = opened_again.next_seq
    await put(opened_again, *entries(range(seq, seq + 10)))
    assert opened_again.trouble is None
    new = await read_all(opened_again, after=seq - 1)
    assert new == entries(range(seq, seq + 10))
    await opened_again.close()
    return opened_again


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.5, 0.9, 0.999])
async def test_a_truncated_file_is_moved_aside(
    tmp_path: Path, share: float, said: list[EventDict]
) -> None:
    size = await _written(tmp_path)
    epoch = select(tmp_path / FILE, "SELECT epoch FROM life")[0][0]
    os.truncate(tmp_path / FILE, int(size * share))
    after = await _survives(tmp_path)
    # The last page alone isn't looked at before it is read.
    assert after.epoch != epoch or after.earliest == 5000
    if share:  # an empty file is no broken one
        (aside,) = broken(tmp_path)
        assert aside.stat().st_size <= size
        (told,) = errors(said)
        assert "moved aside" in told


@pytest.mark.parametrize("offset", [0, 20, 60, 100, 4096, 8192, 3, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("length", [1, 64, 9000])
async def test_a_garbled_file_lies_about_nothing(
    tmp_path: Path, offset: float, length: int
) -> None:
    size = await _written(tmp_path)
    epoch = str(select(tmp_path / FILE, "SELECT epoch FROM life")[0][0])
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(int(size * offset) if 0 < offset < 1 else int(offset))
        piece = file.read(length)
        file.seek(-len(piece), os.SEEK_CUR)
        file.write(bytes(byte ^ 0xA5 for byte in piece))
    await _survives(tmp_path, epoch)


@pytest.mark.parametrize("content", [b"hello", b"\xff" * 10_000, b"SQLite format 3\0" + b"x" * 500])
async def test_something_else_under_that_name_is_moved_aside(
    tmp_path: Path, content: bytes, said: list[EventDict]
) -> None:
    (tmp_path / FILE).write_bytes(content)
    await _survives(tmp_path)
    (aside,) = broken(tmp_path)
    assert aside.read_bytes() == content
    assert len(errors(said)) == 1


async def test_another_programs_database_is_moved_aside(tmp_path: Path) -> None:
    select(tmp_path / FILE, "CREATE TABLE chunk (colour)")
    await _survives(tmp_path)
    (aside,) = broken(tmp_path)
    assert select(aside, "SELECT * FROM chunk") == []


async def test_only_the_newest_broken_files_are_kept(tmp_path: Path) -> None:
    clock = [0.0]
    for day in range(5):
        (tmp_path / FILE).write_bytes(b"broken %d" % day)
        clock[0] += DAY
        async with opened(tmp_path, wall_clock=lambda: clock[0]):
            pass
    assert [path.read_bytes() for path in broken(tmp_path)] == [b"broken 3", b"broken 4"]
    assert KEPT_BROKEN == 2


async def test_a_file_garbled_while_in_use_is_replaced(
    tmp_path: Path, said: list[EventDict]
) -> None:
    """The numbers go on, in the same epoch; what is gone is told by ``earliest``."""
    store = open_store(tmp_path)
    async with running(store):
        await put(store, *entries(range(1, 2001)))
        await at_rest(store)
        with (tmp_path / FILE).open("r+b") as file:
            file.truncate(30_000)
        (tmp_path / f"{FILE}-wal").write_bytes(b"")
        await read_all(store)
        assert store.earliest >= 2000, "told with the very answer that lacks them"
        for each in entries(range(2001, 2011)):
            store.append(each)
        await until(lambda: store.status()["unwrittenEntries"] == 0 and not store.trouble)
        assert await read_all(store, after=2000) == entries(range(2001, 2011))
        assert store.earliest == 2000
    async with opened(tmp_path) as after:
        assert (after.epoch, after.next_seq, after.earliest) == (store.epoch, 2011, 2000)
    assert broken(tmp_path)
    assert errors(said)


async def test_a_file_that_its_writer_finds_broken_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[EventDict]
) -> None:
    async with opened(tmp_path) as store:
        await put(store, *entries(range(1, 11)))

        def malformed(_writer: JournalWriter, _connection: object, _floor: int) -> bool:
            raise sqlite.BrokenFile("database disk image is malformed")

        with monkeypatch.context() as broken_once:
            broken_once.setattr(JournalWriter, "_trim", malformed)
            store.append(entry(11))
            await store.flush()
            assert "malformed" in str(store.trouble)
            assert not broken(tmp_path)
        store.append(entry(12))
        await store.flush()
        assert store.trouble is None
        (aside,) = broken(tmp_path)
        (line,) = [each for each in said if "file" in each]
        assert "moved aside" in line["event"]
        assert (line["file"], line["because"]) == (str(aside), "database disk image is malformed")
        assert store.earliest == 11
        assert await read_all(store, after=11) == [entry(12)]


@pytest.mark.parametrize("what", ["file", "all", "replaced"])
async def test_a_file_removed_while_in_use_is_made_anew(
    tmp_path: Path, what: str, said: list[EventDict]
) -> None:
    store = open_store(tmp_path)
    async with running(store):
        await put(store, *entries(range(1, 101)))
        await at_rest(store)
        (tmp_path / FILE).unlink()
        if what == "all":
            (tmp_path / f"{FILE}-wal").unlink()
            (tmp_path / f"{FILE}-shm").unlink()
        if what == "replaced":
            (tmp_path / FILE).write_bytes(b"something else")
        for each in entries(range(101, 201)):
            store.append(each)
        await until(lambda: store.status()["unwrittenEntries"] == 0 and not store.trouble)
        assert store.earliest == 100
        assert await read_all(store, after=100) == entries(range(101, 201))
    assert "removed or replaced" in errors(said)[0]
    async with opened(tmp_path) as after:
        assert (after.epoch, after.next_seq, after.earliest) == (store.epoch, 201, 100)
        assert await read_all(after) == entries(range(101, 201))


async def test_a_reader_finds_the_file_gone_though_nothing_is_written(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    async with running(store):
        await put(store, *entries(range(1, 101)))
        await at_rest(store)
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"{FILE}{suffix}").unlink()
        with pytest.raises(StoreError, match="can't be read"):
            await store.read(0, 100, None, MIB)
        await until(lambda: store.earliest == 100 and not store.trouble)
        assert await read_all(store) == []


async def test_a_reader_finds_the_file_gone_while_the_writer_ends_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    worked, may_end = threading.Event(), threading.Event()
    work = JournalWriter.work

    def slow_to_end(*args: Any) -> bool:
        more = work(*args)
        worked.set()
        assert may_end.wait(PATIENCE)
        return more

    async with running(store):
        await put(store, *entries(range(1, 101)))
        await at_rest(store)
        monkeypatch.setattr(JournalWriter, "work", slow_to_end)
        store.append(entry(101))
        await until(worked.is_set)
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"{FILE}{suffix}").unlink()
        with pytest.raises(StoreError, match="can't be read"):
            await store.read(0, 101, None, MIB)
        may_end.set()
        await until(lambda: store.earliest == 101 and not store.trouble)
        assert store.status()["unwrittenEntries"] == 0


async def test_a_commit_that_failed_but_came_true_doubles_nothing(tmp_path: Path) -> None:
    recorder = JournalWriter(tmp_path / FILE, 512 * MIB, 7 * DAY, time.time, "epoch")
    recorder.begin()
    recorder.work(entries(range(1, 101)), 0, 0)
    recorder._close()
    recorder.written = 0  # as if the commit had failed
    recorder.work(entries(range(1, 151)), 0, 0)
    recorder.end(150)
    async with opened(tmp_path) as store:
        assert await read_all(store) == entries(range(1, 151))


# --- No place to write ----------------------------------------------------------------------------


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """A small file system of its own. Skips the test where that isn't allowed."""
    path.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small file system to fill")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"can't mount a small file system to fill: {made.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def _remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


def _fill(path: Path) -> Path:
    """A file that takes all space there is."""
    ballast = path / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return ballast


async def test_a_full_disk_is_survived_and_told(tmp_path: Path, said: list[EventDict]) -> None:
    with mounted(tmp_path / "disk", "size=4m") as disk:
        store = open_store(disk)
        async with running(store):
            await put(store, *entries(range(1, 101)))
            ballast = _fill(disk)
            written = 100
            while not store.trouble:  # the write-ahead log has some room of its own
                written += 100
                for each in entries(range(written - 99, written + 1)):
                    store.append(each)
                await store.flush()
            assert "free some space" in store.trouble
            assert str(disk / FILE) in store.trouble
            for each in entries(range(written + 1, written + 201)):
                store.append(each)
            assert await read_all(store) == entries(range(1, written + 201)), "served all the same"
            ballast.unlink()
            # A write that had begun before the last entries came may be the one that mends it.
            await until(lambda: not store.trouble and store.status()["unwrittenEntries"] == 0)
            assert store.earliest == 0
        assert len(errors(said)) == 1, "once, not with each attempt"
        assert [each["event"] for each in said if each["log_level"] == "info"] == [
            "the journal is written again"
        ]
        async with opened(disk) as after:
            assert (after.epoch, after.next_seq) == (store.epoch, written + 201)
            assert await read_all(after) == entries(range(1, written + 201))


@pytest.mark.parametrize("existing", [False, True])
async def test_a_disk_that_is_full_at_the_start(tmp_path: Path, existing: bool) -> None:
    """The numbers of the old epoch can't be reserved, so it isn't continued."""
    with mounted(tmp_path / "disk", "size=4m") as disk:
        epoch = None
        if existing:
            async with opened(disk) as old:
                await put(old, *entries(range(1, 101)))
                epoch = old.epoch
        ballast = _fill(disk)
        store = open_store(disk)
        assert store.trouble
        assert (store.next_seq, store.earliest) == (1, 0)
        assert store.epoch != epoch
        async with running(store):
            for each in entries(range(1, 51), "mine"):
                store.append(each)
            assert await read_all(store) == entries(range(1, 51), "mine")
            ballast.unlink()
            # A write that had begun before the last entries came may be the one that mends it.
            await until(lambda: not store.trouble and store.status()["unwrittenEntries"] == 0)
        async with opened(disk) as after:
            assert (after.epoch, after.next_seq, after.earliest) == (store.epoch, 51, 0)
            assert await read_all(after) == entries(range(1, 51), "mine")


async def test_a_directory_that_is_read_only_at_the_start(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=4m") as disk:
        async with opened(disk) as old:
            await put(old, *entries(range(1, 101)))
        _remount(disk, "ro")
        store = open_store(disk)
        assert store.trouble
        assert "this user can write" in store.trouble
        assert store.epoch != old.epoch
        async with running(store):
            for each in entries(range(1, 51), "mine"):
                store.append(each)
            assert await read_all(store) == entries(range(1, 51), "mine")
            _remount(disk, "rw")
            await until(lambda: not store.trouble)
        async with opened(disk) as after:
            assert (after.epoch, after.next_seq, after.earliest) == (store.epoch, 51, 0)
            assert await read_all(after) == entries(range(1, 51), "mine")


@pytest.mark.parametrize("missing", [False, True])
async def test_a_directory_that_is_none_at_the_start(tmp_path: Path, missing: bool) -> None:
    """As the read-only one, but shown for any user."""
    place = tmp_path / "state"
    if not missing:
        place.write_text("in the way")
    store = open_store(place)
    assert store.trouble
    assert "this user can write" in store.trouble
    async with running(store):
        for each in entries(range(1, 51)):
            store.append(each)
        await until(lambda: store._behind.trouble.wait > write_behind.FIRST_RETRY)
        assert store.status()["unwrittenEntries"] == 50
        place.unlink(missing_ok=True)
        place.mkdir()
        await until(lambda: not store.trouble)
    async with opened(place) as after:
        assert await read_all(after) == entries(range(1, 51))


async def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """A limit of the process, so shown for any user: the write fails with another error."""
    store = open_store(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with running(store):
        await put(store, *entries(range(1, 101)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 * KIB, hard))
        try:
            await put(store, entry(101, size=MIB))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert store.trouble
        assert "look after its disk" in store.trouble
        assert await read_all(store) == [*entries(range(1, 101)), entry(101, size=MIB)]
        await until(lambda: not store.trouble)
    async with opened(tmp_path) as after:
        assert (after.next_seq, after.earliest) == (102, 0)
        assert await read_all(after) == [*entries(range(1, 101)), entry(101, size=MIB)]


async def test_a_newer_file_put_there_while_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with opened(tmp_path / "other"):
        pass
    select(tmp_path / "other" / FILE, f"PRAGMA user_version = {len(journal_schema.MIGRATIONS) + 1}")
    store = open_store(tmp_path)
    async with running(store):
        await put(store, entry(1))
        await at_rest(store)
        (tmp_path / "other" / FILE).rename(tmp_path / FILE)
        store.append(entry(2))
        await until(lambda: "newer appmux" in (store.trouble or ""))
        assert store.status()["unwrittenEntries"] == 1


# --- What memory takes meanwhile ------------------------------------------------------------------


async def test_memory_is_bounded_while_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "UNWRITTEN_BYTES", MIB)
    place = tmp_path / "state"
    store = open_store(place)
    for seq in range(1, 10_001):
        store.append(entry(seq, "t", DELTA if seq % 100 else EVENT, KIB))
    found = await read_all(store)
    events = [each.seq for each in found if each.method == EVENT]
    deltas = [each.seq for each in found if each.method == DELTA]
    assert events == list(range(100, 10_001, 100)), "deltas go first"
    assert deltas == [seq for seq in range(deltas[0], 10_001) if seq % 100], "the oldest"
    assert store.earliest == 0
    assert sum(len(each.message) for each in found) <= MIB

    store.running_floor = 10_001
    for seq in range(10_001, 12_001):
        store.append(entry(seq, "t", DELTA, KIB))
    found = await read_all(store)
    assert 10_001 < store.earliest < 12_000, "then entries are lost, and it is told"
    assert [each.seq for each in found] == list(range(store.earliest + 1, 12_001))

    place.mkdir()
    await store.flush()
    assert store.trouble is None
    lost = store.earliest
    await store.close()
    async with opened(place) as after:
        assert after.earliest == lost, "the file knows"
        assert await read_all(after) == found


async def test_a_disk_that_is_too_slow_is_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[EventDict]
) -> None:
    monkeypatch.setattr(store_module, "UNWRITTEN_BYTES", MIB)
    async with opened(tmp_path) as store:
        for seq in range(1, 2001):  # nothing is written between two flushes
            store.append(entry(seq, "t", DELTA, KIB))
        assert store.trouble
        assert "more slowly than they come" in store.trouble
        await store.flush()
        assert store.status()["trouble"] is None
    assert len(errors(said)) == 1
