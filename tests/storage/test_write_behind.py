"""`mux.storage.write_behind`: when it writes, what it says of a full disk, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from mux.storage import write_behind
from mux.storage.write_behind import FIRST_RETRY, LAST_RETRY, LAST_SECONDS, Trouble, WriteBehind

GATHER, IDLE, BATCH = 0.5, 100.0, 5


@attrs.define(eq=False)
class Disk:
    """Takes what is pending and remembers when, and how much; ``take`` is called in a thread."""

    full: bool = False
    more: bool = False
    take: Callable[[], object] | None = None
    abandons: bool = True
    pending: int = 0
    written: list[tuple[float, int]] = attrs.field(factory=list)
    behind: WriteBehind = attrs.field(init=False)
    begun: float = attrs.field(factory=trio.current_time)

    def __attrs_post_init__(self) -> None:
        self.behind = WriteBehind(
            trouble=Trouble("the file", Path("/there/file")),
            pending=lambda: self.pending,
            write=self._write,
            explain=lambda failure: f"the disk says: {failure}",
            gather=GATHER,
            batch=BATCH,
            idle=IDLE,
            abandons=self.abandons,
        )

    def add(self, count: int = 1) -> None:
        self.pending += count
        self.behind.wake()

    async def _write(self) -> bool:
        if self.full:
            raise OSError("full")
        if self.take is not None:
            await self.behind.in_thread(self.take)
        else:
            await trio.lowlevel.checkpoint()
        self.written.append((round(trio.current_time() - self.begun, 1), self.pending))
        self.pending, more, self.more = 0, self.more, False
        return more


async def ran(disk: Disk, *moments: tuple[float, Callable[[], None]]) -> None:
    """Run it, and have each called at its moment; all ends at the last one."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.behind.run)
        for moment, call in moments:
            await trio.sleep_until(disk.begun + moment)
            call()
        nursery.cancel_scope.cancel()


async def test_what_comes_within_a_moment_is_written_together(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = Disk()
    await ran(disk, (1.0, disk.add), (1.2, disk.add), (3.0, disk.add), (9.0, lambda: None))
    assert disk.written == [(1.5, 2), (3.5, 1)]


async def test_a_whole_batch_and_what_is_left_over_wait_for_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = Disk(more=True)
    await ran(disk, (1.0, lambda: disk.add(BATCH)), (9.0, lambda: None))
    assert disk.written == [(1.0, BATCH), (1.0, 0)]


async def test_where_nothing_comes_it_is_called_to_tidy_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = Disk()
    await ran(disk, (2.5 * IDLE, lambda: None))
    assert [at for at, _ in disk.written] == [IDLE + GATHER, 2 * (IDLE + GATHER)]


async def test_more_that_is_asked_for_while_it_writes_is_not_forgotten() -> None:
    disk = Disk()

    def ask() -> None:
        disk.take = None
        disk.behind.more = True

    disk.take = ask
    disk.add()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.behind.run)
        while len(disk.written) < 2:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert [count for _, count in disk.written] == [1, 0]


async def test_a_disk_that_takes_nothing_is_tried_ever_less_often_and_said_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = Disk(full=True)
    waits = []
    with capture_logs() as logs:
        for _ in range(8):
            await disk.behind.flush()
            waits.append(disk.behind.trouble.wait)
    assert waits == [FIRST_RETRY, 0.2, 0.4, 0.8, 1.6, 3.2, LAST_RETRY, LAST_RETRY]
    assert logs == [{"event": "the disk says: full", "log_level": "error"}]
    assert disk.behind.trouble.text == "the disk says: full"
    assert disk.behind.writes.total == 0.0

    def empty() -> None:
        disk.full = False

    with capture_logs() as logs:
        await ran(disk, (4.0, empty), (9.0, lambda: None))
    assert [at for at, _ in disk.written] == [LAST_RETRY]
    over = {"event": "the file is written again", "path": "/there/file", "log_level": "info"}
    assert logs == [over]
    assert not disk.behind.trouble.text
    assert disk.behind.trouble.wait == 0.0
    assert sum(disk.behind.writes.counts) == 1


async def test_what_went_wrong_beside_the_write_is_not_over_with_it() -> None:
    disk = Disk()

    def lose() -> None:
        disk.take = None
        disk.behind.trouble.report("some were dropped")
        disk.behind.lasts()

    disk.take = lose
    await disk.behind.flush()
    assert disk.behind.trouble.text == "some were dropped"
    await disk.behind.flush()
    assert disk.behind.trouble.text is None


async def test_the_end_writes_the_rest_and_closes() -> None:
    disk, closed = Disk(pending=3), []

    async def close() -> None:
        closed.append(disk.pending)

    assert await disk.behind.finish(close)
    assert [count for _, count in disk.written] == [3]
    assert closed == [0]
    assert await disk.behind.finish()
    assert len(disk.written) == 1, "nothing was left"


async def test_the_end_tries_a_full_disk_once() -> None:
    disk = Disk(full=True, pending=3)
    with trio.CancelScope() as cancelled:
        cancelled.cancel()
        assert await disk.behind.finish()  # also where everything is cancelled
    assert disk.behind.trouble.wait == FIRST_RETRY
    assert disk.pending == 3


async def test_the_end_leaves_a_thread_that_hangs_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LAST_SECONDS == 5.0
    monkeypatch.setattr(write_behind, "LAST_SECONDS", 0.1)
    release = threading.Event()
    disk = Disk(pending=1, take=lambda: release.wait(60))
    try:
        assert not await disk.behind.finish()
        assert disk.written == []
        later: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disk.behind.in_thread, later.append, 1)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not later, "one thread at a time"
            release.set()
        assert later == [1]
    finally:
        release.set()


async def test_one_that_may_not_be_abandoned_is_awaited() -> None:
    release = threading.Event()
    disk = Disk(pending=1, abandons=False, take=lambda: release.wait(60))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.behind.flush)
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
        release.set()
    assert [count for _, count in disk.written] == [1]
