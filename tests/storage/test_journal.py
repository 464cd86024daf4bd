"""The journal on disk, as long as nothing is wrong with the disk."""

# ruff: noqa: ASYNC240 (files on the local disk; nothing else runs meanwhile)
from __future__ import annotations

import sqlite3
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mux.core.protocol.journal_entry import Entry
from mux.storage import journal_schema
from mux.storage.journal import FLUSH_INTERVAL, Store
from mux.storage.journal_chunks import BATCH_BYTES
from mux.storage.journal_schema import FILE
from mux.storage.journal_writer import RESERVED, STEP_PAGES, Rest
from mux.storage.sqlite import WAL_BYTES, StoreError
from tests.entries import (
    DAY,
    DELTA,
    EVENT,
    EVERYTHING,
    entries,
    entry,
    open_store,
    opened,
    put,
    read_all,
    running,
    select,
    tidy,
    until,
)

KIB = 1024
MIB = 1024 * KIB

# --- The file and its numbers ---------------------------------------------------------------------


async def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert (store.next_seq, store.earliest, store.trouble) == (1, 0, None)
        assert store.epoch
        await put(store, entry(1))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {FILE: 0o600, f"{FILE}-wal": 0o600, f"{FILE}-shm": 0o600}


async def test_a_file_that_others_could_read_is_tightened(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    (tmp_path / FILE).chmod(0o644)
    async with opened(tmp_path):
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


async def test_the_next_life_goes_on_where_this_one_ended(tmp_path: Path) -> None:
    async with opened(tmp_path) as first:
        await put(first, *entries(range(1, 101)))
    async with opened(tmp_path) as second:
        assert (second.epoch, second.next_seq, second.earliest) == (first.epoch, 101, 0)
        assert await read_all(second) == entries(range(1, 101))
    async with opened(tmp_path) as third:
        assert third.next_seq == 101, "a life in which nothing happened uses no numbers"


async def test_another_directory_is_another_epoch(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with opened(tmp_path / "a") as one, opened(tmp_path / "b") as other:
        assert one.epoch != other.epoch


async def test_numbers_go_on_past_those_that_were_never_written(tmp_path: Path) -> None:
    """As after a kill: what was handed out last isn't known, how far it may have gone is."""
    async with opened(tmp_path) as store:
        await put(store, *entries(range(1, 11)))
        store.append(entry(11))
        image = (tmp_path / FILE).read_bytes(), (tmp_path / f"{FILE}-wal").read_bytes()
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / FILE).write_bytes(image[0])
    (killed / f"{FILE}-wal").write_bytes(image[1])
    async with opened(killed) as after:
        assert (after.epoch, after.next_seq) == (store.epoch, 1 + RESERVED)
        await put(after, entry(after.next_seq))
        assert await read_all(after) == [*entries(range(1, 11)), entry(after.next_seq)]


async def _killed(path: Path, last: int) -> tuple[Path, str]:
    """A directory as a kill leaves it, with entries up to this one; and the journal's epoch."""
    async with opened(path) as store:
        await put(store, *entries(range(1, last + 1)))
        killed = path / "killed"
        killed.mkdir()
        for name in (FILE, f"{FILE}-wal"):
            (killed / name).write_bytes((path / name).read_bytes())
    return killed, store.epoch


@pytest.mark.parametrize(
    ("rest", "known"), [(range(8, 14), 13), (range(11, 12), 11), (range(1, 11), 10), ((), 10)]
)
async def test_what_the_last_life_left_unwritten_is_written_and_no_number_left_out(
    tmp_path: Path, rest: Iterable[int], known: int
) -> None:
    killed, epoch = await _killed(tmp_path, 10)
    left = Rest(epoch, entries(rest))
    after = Store.open(
        killed, max_bytes=512 * MIB, max_age=1e12, wall_clock=lambda: 1000.0, rest=left
    )
    assert (after.epoch, after.next_seq, after.earliest) == (epoch, known + 1, 0)
    assert await read_all(after) == entries(range(1, known + 1))
    reserved = select(killed / FILE, "SELECT reserved FROM life")
    assert reserved == [(known + 1 + RESERVED,)]
    if known > 10:
        made = select(killed / FILE, "SELECT made_at FROM chunk ORDER BY first_seq DESC LIMIT 1")
        assert made == [(1000,)]
    await put(after, entry(known + 1))
    assert await read_all(after) == entries(range(1, known + 2))
    await after.close()


async def test_what_another_journals_life_left_is_not_written(tmp_path: Path) -> None:
    killed, epoch = await _killed(tmp_path, 10)
    left = Rest("another", entries(range(8, 14)))
    after = Store.open(
        killed, max_bytes=512 * MIB, max_age=7 * DAY, wall_clock=time.time, rest=left
    )
    assert (after.epoch, after.next_seq) == (epoch, 1 + RESERVED)
    assert await read_all(after) == entries(range(1, 11))
    assert select(killed / FILE, "SELECT reserved FROM life") == [(1 + 2 * RESERVED,)]
    await after.close()


async def test_a_reservation_that_was_lost_gives_no_number_twice(tmp_path: Path) -> None:
    killed, _ = await _killed(tmp_path, 10)
    connection = sqlite3.connect(killed / FILE)
    connection.execute("UPDATE life SET reserved = 5")
    connection.commit()
    connection.close()
    async with opened(killed) as after:
        assert after.next_seq == 11


async def test_numbers_are_reserved_long_before_they_run_out(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await put(store, entry(RESERVED // 2 - 5))
        assert select(tmp_path / FILE, "SELECT reserved FROM life") == [(1 + RESERVED,)]
        await put(store, entry(RESERVED // 2 + 5))
        last = RESERVED // 2 + 5
        assert select(tmp_path / FILE, "SELECT reserved FROM life") == [(last + RESERVED,)]


# --- Versions -------------------------------------------------------------------------------------


def _journal_of_version(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    for migration in journal_schema.MIGRATIONS[:version]:
        migration(connection)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()


async def test_an_older_file_moves_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as old:
        await put(old, *entries(range(1, 11)))

    def add_a_column(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE life ADD COLUMN colour TEXT DEFAULT 'blue'")

    monkeypatch.setattr(journal_schema, "MIGRATIONS", [*journal_schema.MIGRATIONS, add_a_column])
    async with opened(tmp_path) as new:
        assert (new.epoch, new.next_seq, new.trouble) == (old.epoch, 11, None)
        assert await read_all(new) == entries(range(1, 11))
    assert select(tmp_path / FILE, "SELECT colour FROM life") == [("blue",)]
    assert select(tmp_path / FILE, "PRAGMA user_version") == [(len(journal_schema.MIGRATIONS),)]


async def test_a_migration_happens_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as old:
        await put(old, entry(1))
    version = len(journal_schema.MIGRATIONS)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE life ADD COLUMN colour TEXT")
        raise OSError("the machine is on fire")

    with monkeypatch.context() as patched:
        patched.setattr(journal_schema, "MIGRATIONS", [*journal_schema.MIGRATIONS, half])
        async with opened(tmp_path) as store:
            assert store.trouble
            assert "on fire" in store.trouble
    assert select(tmp_path / FILE, "PRAGMA user_version") == [(version,)]
    columns = [row[1] for row in select(tmp_path / FILE, "PRAGMA table_info(life)")]
    assert columns == ["epoch", "reserved", "earliest"]


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    _journal_of_version(tmp_path / FILE, 0)
    async with opened(tmp_path) as store:
        await put(store, entry(1))
        assert store.trouble is None
    assert select(tmp_path / FILE, "SELECT count(*) FROM chunk") == [(1,)]


async def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await put(store, entry(1))
    newer = len(journal_schema.MIGRATIONS) + 1
    select(tmp_path / FILE, f"PRAGMA user_version = {newer}")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(StoreError) as refusal:
        open_store(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    for told in (str(tmp_path / FILE), "newer appmux", f"is {newer}", "--state-dir"):
        assert told in str(refusal.value)
    assert refusal.value.exit_status == 1


# --- Writing and reading --------------------------------------------------------------------------


async def test_one_row_for_each_thread_and_kind_of_a_batch(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for seq in range(1, 1001):
            store.append(entry(seq, f"t{seq % 3}", EVENT if seq % 10 == 0 else DELTA))
        await store.flush()
        rows = select(tmp_path / FILE, "SELECT thread, kind, batch, bytes FROM chunk")
        assert len(rows) == 6
        assert {row[2] for row in rows} == {1}
        found = await read_all(store)
        assert [each.seq for each in found] == list(range(1, 1001))


async def test_a_row_stays_below_a_mebibyte_and_a_huge_entry_is_alone(tmp_path: Path) -> None:
    several = [entry(seq, size=300 * KIB) for seq in range(1, 10)]
    several += [entry(10, size=3 * MIB), entry(11), entry(12, size=BATCH_BYTES)]
    async with opened(tmp_path) as store:
        await put(store, *several)
        rows = select(tmp_path / FILE, "SELECT first_seq, last_seq, bytes FROM chunk")
        assert (10, 10) in {row[:2] for row in rows}
        assert all(int(str(row[2])) < 1.01 * MIB for row in rows if row[0] != 10)
        assert await read_all(store) == several


async def test_what_is_not_written_yet_is_read_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await put(store, *entries(range(1, 51)))
        for each in entries(range(51, 101)):
            store.append(each)
        assert await read_all(store) == entries(range(1, 101))
        assert await read_all(store, after=60, until=90) == entries(range(61, 91))
        assert await read_all(store, after=40, until=45) == entries(range(41, 46))
        assert store.status()["unwrittenEntries"] == 50


async def test_a_thread_is_read_with_what_is_for_everybody(tmp_path: Path) -> None:
    several = [
        entry(seq, [None, "a", "b", "c"][seq % 4], DELTA if seq % 3 else EVENT)
        for seq in range(1, 201)
    ]
    async with opened(tmp_path) as store:
        for start in range(0, 200, 25):
            await put(store, *several[start : start + 25])
        for wanted in (["a"], ["a", "c"], [], ["nobody"], [str(n) for n in range(20)] + ["b"]):
            mine = [each for each in several if each.thread is None or each.thread in wanted]
            assert await read_all(store, threads=wanted) == mine
            assert await read_all(store, threads=wanted, max_bytes=500) == mine
        assert await read_all(store) == several


async def test_a_piece_ends_with_the_entry_that_fills_it(tmp_path: Path) -> None:
    """So a piece with fewer bytes is the last, and one that isn't empty always comes."""
    async with opened(tmp_path) as store:
        await put(store, *entries(range(1, 21)))
        await put(store, entry(21, size=10_000), *entries(range(22, 31)))
        assert await store.read(0, 30, None, 550) == entries(range(1, 7))
        assert await store.read(0, 30, None, 500) == entries(range(1, 6))
        assert await store.read(0, 30, None, 1) == [entry(1)]
        assert await store.read(20, 30, None, 550) == [entry(21, size=10_000)]
        assert await store.read(27, 30, None, 550) == entries(range(28, 31)), "the last"
        assert await store.read(30, 30, None, 550) == []
        for each in entries(range(31, 41)):
            store.append(each)
        assert await store.read(30, 40, None, 550) == entries(range(31, 37)), "from memory"
        assert await store.read(27, 40, None, 550) == entries(range(28, 34)), "from both"


async def test_the_last_events_of_each_thread_are_found_from_its_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert await store.latest() == []
        for seq in range(1, 41):
            thread, method = ("busy", DELTA) if seq % 2 else ("slow", EVENT)
            await put(store, entry(seq, thread=thread, method=method))
        await put(store, entry(41, thread="busy", method=EVENT))
        await put(store, entry(42, thread=None, method=EVENT))
        found = [(each.seq, each.thread) for each in await store.latest()]
    assert found == [(34, "slow"), (36, "slow"), (38, "slow"), (40, "slow"), (41, "busy")]


async def test_reading_without_deltas_gives_the_events_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for seq in range(1, 11):
            await put(store, entry(seq, thread="t", method=DELTA if seq % 2 else EVENT))
        found = await store.read(0, 10, {"t"}, MIB, deltas=False)
    assert [each.seq for each in found] == [2, 4, 6, 8, 10]


async def test_reading_leaves_the_event_loop_free(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await put(store, *[entry(seq, size=20_000) for seq in range(1, 2001)])
        steps = 0

        async def walk() -> None:
            nonlocal steps
            while True:
                steps += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(walk)
            found = await store.read(0, 2000, None, 64 * MIB)
            nursery.cancel_scope.cancel()
        assert len(found) == 2000
        assert steps > 5


# --- When it writes -------------------------------------------------------------------------------


async def test_entries_are_written_by_themselves(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    async with running(store):
        for each in entries(range(1, 101)):
            store.append(each)
        await until(lambda: store.status()["unwrittenEntries"] == 0)
        assert select(tmp_path / FILE, "SELECT max(last_seq) FROM chunk") == [(100,)]
        assert float(str(store.status()["lastWriteMilliseconds"])) > 0


async def test_the_end_writes_the_rest(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    async with running(store):
        for each in entries(range(1, 101)):
            store.append(each)
    assert store.status()["unwrittenEntries"] == 0
    assert not (tmp_path / f"{FILE}-wal").exists(), "closed in order"
    async with opened(tmp_path) as after:
        assert await read_all(after) == entries(range(1, 101))


class Steps(trio.abc.Instrument):
    """Counts the steps of tasks by name."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count[task.name] = self.count.get(task.name, 0) + 1


async def test_it_does_not_wake_when_idle(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    async with running(store):
        store.append(entry(1))
        await until(lambda: store.status()["unwrittenEntries"] == 0 and not store._behind.more)
        await trio.testing.wait_all_tasks_blocked(0.01)
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(6 * FLUSH_INTERVAL)
        trio.lowlevel.remove_instrument(steps)
    assert not [name for name in steps.count if "store" in name.lower()], steps.count
    assert steps.count, "the instrument saw this very task"


# --- Bounds ---------------------------------------------------------------------------------------


def _size(path: Path) -> int:
    return (path / FILE).stat().st_size


async def _seqs(store: Store) -> tuple[list[int], list[int]]:
    """Numbers of the deltas, and of the events, that are there."""
    found = await read_all(store)
    return (
        [each.seq for each in found if each.method == DELTA],
        [each.seq for each in found if each.method == EVENT],
    )


async def _fill(store: Store, seqs: range) -> None:
    """Batches of 9 deltas and an event, 10 KiB each."""
    for seq in seqs:
        store.append(entry(seq, "t", DELTA if seq % 10 else EVENT, 10 * KIB))
        if seq % 10 == 0:
            await store.flush()
    await tidy(store)


async def test_deltas_of_complete_items_go_first_the_oldest_first(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=2 * MIB) as store:
        await _fill(store, range(1, 401))
        deltas, events = await _seqs(store)
        assert events == list(range(10, 401, 10)), "no event had to go"
        assert store.earliest == 0
        assert deltas, "and not all deltas"
        assert deltas == [seq for seq in range(deltas[0], 401) if seq % 10], "the newest"
        assert _size(tmp_path) <= 2.1 * MIB


async def test_then_the_oldest_events_go_and_it_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=2 * MIB) as store:
        await _fill(store, range(1, 4001))
        deltas, events = await _seqs(store)
        assert deltas == []
        assert 0 < store.earliest < 4000
        assert events == list(range(store.earliest + 10, 4001, 10))
        assert _size(tmp_path) <= 2.1 * MIB
    async with opened(tmp_path, max_bytes=2 * MIB) as after:
        assert after.earliest == store.earliest, "the file knows"


async def test_deltas_of_running_items_stay_as_long_as_events(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=2 * MIB) as store:
        store.running_floor = 201
        await _fill(store, range(1, 261))
        deltas, events = await _seqs(store)
        assert deltas[-54:] == [seq for seq in range(201, 261) if seq % 10]
        assert events == list(range(10, 261, 10))
        await _fill(store, range(261, 2001))
        deltas, events = await _seqs(store)
        assert store.earliest >= 201, "they had to go at last, and that is a loss"
        present = sorted(deltas + events)
        assert present == list(range(store.earliest + 1, 2001))
        assert _size(tmp_path) <= 2.1 * MIB


async def test_what_is_too_old_goes(tmp_path: Path) -> None:
    now = 1_000_000_000.0
    async with opened(tmp_path, max_age=7 * DAY, wall_clock=lambda: now) as store:
        await _fill(store, range(1, 101))
        now += 4 * DAY
        await _fill(store, range(101, 201))
        now += 4 * DAY
        await tidy(store)
        assert store.earliest == 100
        assert [each.seq for each in await read_all(store)] == list(range(101, 201))
        now += 4 * DAY
        await tidy(store)
        assert await read_all(store) == []
        assert store.earliest == 200
    async with opened(tmp_path, wall_clock=lambda: now) as after:
        assert (after.next_seq, after.earliest) == (201, 200)


async def test_a_file_that_holds_little_is_small_again(tmp_path: Path) -> None:
    now = 1_000_000_000.0
    async with opened(tmp_path, 64 * MIB, 7 * DAY, lambda: now) as store:
        await put(store, *[entry(seq, size=MIB // 2) for seq in range(1, 61)])
        assert int(str(store.status()["bytes"])) > 30 * MIB
        now += 8 * DAY
        await tidy(store)
        assert int(str(store.status()["bytes"])) < MIB
    assert _size(tmp_path) <= 64 * MIB // 8 + MIB


async def test_free_pages_are_given_back_many_at_a_time(tmp_path: Path) -> None:
    """After a quiet week: of 47 MiB a page at a time were 12,000 flushes."""
    now = 1_000_000_000.0
    async with opened(tmp_path, 64 * MIB, 7 * DAY, lambda: now) as store:
        await put(store, *[entry(seq, size=MIB // 2) for seq in range(1, 95)])
        now += 8 * DAY
        flushes, changed = 1, 0
        await store.flush()
        pages = _pages(tmp_path)
        while store._behind.more:
            flushes += 1
            await store.flush()
            changed += _pages(tmp_path) < pages
            pages = _pages(tmp_path)
        assert flushes <= 47 * MIB // (STEP_PAGES * 4096) + 3
        assert changed >= flushes - 3, "each gives some back"
        assert pages * 4096 <= 64 * MIB // 8 + MIB


def _pages(tmp_path: Path) -> int:
    [(count,)] = select(tmp_path / FILE, "PRAGMA page_count")
    return int(str(count))


async def test_a_lower_bound_holds_from_the_next_start_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for seq in range(1, 101):
            await put(store, entry(seq, size=100 * KIB))
    async with opened(tmp_path, max_bytes=MIB) as store:
        await tidy(store)
        assert int(str(store.status()["bytes"])) <= MIB
        deltas, _ = await _seqs(store)
        assert deltas == list(range(101 - len(deltas), 101))
        assert deltas
    assert _size(tmp_path) <= 1.2 * MIB


async def test_the_write_ahead_log_is_bounded_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for seq in range(1, 121):
            await put(store, entry(seq, size=MIB // 2))
            assert (tmp_path / f"{FILE}-wal").stat().st_size <= WAL_BYTES + 2 * MIB


# --- All of it against a plain list ---------------------------------------------------------------

_operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"),
            st.sampled_from([None, "a", "b", "c"]),
            st.sampled_from([DELTA, EVENT]),
            st.sampled_from([1, 50, 700, 20_000]),
        ),
        st.tuples(st.just("flush")),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("floor"), st.integers(0, 60)),
        st.tuples(
            st.just("read"),
            st.integers(0, 60),
            st.integers(0, 60),
            st.none() | st.sets(st.sampled_from(["a", "b", "c", "d"])),
            st.sampled_from([1, 100, 5_000, MIB]),
        ),
    ),
    max_size=60,
)


class _Asked(NamedTuple):
    after: int
    end: int
    threads: set[str] | None
    room: int


@hypothesis_settings(max_examples=60)
@given(operations=_operations, small=st.booleans())
def test_any_order_of_operations_equals_a_list(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[Any, ...]], small: bool
) -> None:
    trio.run(_compare, tmp_path_factory.mktemp("journal"), operations, small)


async def _compare(path: Path, operations: list[tuple[Any, ...]], small: bool) -> None:
    max_bytes = 80 * KIB if small else 512 * MIB
    store, truth, floor = open_store(path, max_bytes), list[Entry](), 2**63 - 1
    for name, *arguments in operations:
        match name:
            case "append":
                thread, method, size = arguments
                truth.append(entry(len(truth) + 1, thread, method, size))
                store.append(truth[-1])
            case "flush":
                await store.flush()
            case "reopen":
                await store.close()
                store = open_store(path, max_bytes)
                store.running_floor = floor
                assert store.next_seq == len(truth) + 1
            case "floor":
                floor = store.running_floor = max(arguments[0], floor if floor < EVERYTHING else 0)
            case "read":
                await _compare_read(store, truth, _Asked(*arguments), floor, small)
    await _compare_read(store, truth, _Asked(0, EVERYTHING, None, MIB), floor, small)
    await store.close()
    assert _size(path) <= max_bytes + 64 * KIB


async def _compare_read(
    store: Store, truth: list[Entry], asked: _Asked, floor: int, small: bool
) -> None:
    after, end, threads, room = asked
    wanted = [
        each
        for each in truth
        if after < each.seq <= end
        and (threads is None or each.thread is None or each.thread in threads)
    ]
    found = await read_all(store, after, end, threads, room)
    if not small:
        assert store.earliest == 0
        assert found == wanted
        return
    here = {each.seq for each in found}
    assert found == [each for each in wanted if each.seq in here], "in order, whole, none twice"
    for each in wanted:
        if each.seq > store.earliest and (each.method == EVENT or each.seq >= floor):
            assert each.seq in here, "what `earliest` promises"
