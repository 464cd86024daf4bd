"""`mux.storage.small_file`: what a disk doesn't take is written later, and never something
older."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from mux.storage import json_file
from mux.storage.small_file import SELDOM, SmallFile
from tests.end_to_end.scenes import eventually


@attrs.define
class Disk:
    """A file that is kept, and whether its disk takes anything."""

    path: Path
    text: str = "first"
    full: bool = False
    file: SmallFile = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        copy = self.path.with_name("copy")
        self.file = SmallFile(self.path, lambda: self.text, "the file", lambda: "woe", copy)

    def kept(self) -> str:
        return self.path.read_text()

    async def keeps(self, text: str) -> None:
        """Wait until that is on the disk."""
        await eventually(lambda: self.path.exists() and self.kept() == text, "it is written")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(tmp_path / "file")
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if made.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return made


@asynccontextmanager
async def writing(disk: Disk) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.file.run)
        yield
        nursery.cancel_scope.cancel()


async def test_what_a_full_disk_did_not_take_is_written_once_there_is_room(disk: Disk) -> None:
    disk.full = True
    async with writing(disk):
        with pytest.raises(OSError, match="No space") as full:
            disk.file.write()
        disk.file.owe(full.value)
        assert disk.file.trouble is not None
        assert "(No space left on device)" in disk.file.trouble
        assert disk.file.trouble.endswith("and until then woe")
        await trio.sleep(0.3)  # it is tried, in vain
        assert not disk.path.exists()
        assert disk.file.trouble is not None
        disk.full = False
        await disk.keeps("first")
        assert disk.path.with_name("copy").read_text() == "first"
        await eventually(lambda: not disk.file.trouble, "all is well")


async def test_what_is_not_worth_a_wait_is_gathered(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    writes: list[float] = []

    async def writing_at_once() -> None:
        while True:
            await disk.file._until_owed()
            writes.append(trio.current_time() - began)
            disk.file.write()

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writing_at_once)
        for _ in range(10):
            disk.file.owe_seldom()
            await trio.sleep(SELDOM / 4 - 0.1)
        assert writes == [SELDOM, pytest.approx(2 * SELDOM + SELDOM / 4 - 0.5)]
        # What matters doesn't wait for the rest of the minute, and takes the rest along.
        disk.text = "matters"
        disk.file.owe()
        await trio.testing.wait_all_tasks_blocked()
        assert disk.kept() == "matters"
        assert writes[2:] == [trio.current_time() - began]
        await trio.sleep(3 * SELDOM)
        assert len(writes) == 3
        # Nor is it written twice, if somebody has written everything meanwhile.
        disk.file.owe_seldom()
        disk.file.write()
        disk.file.owe_seldom()
        await trio.sleep(SELDOM + 1)
        assert len(writes) == 4
        nursery.cancel_scope.cancel()


async def test_nothing_older_is_written_over_what_came_meanwhile(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, reached = trio.Event(), trio.Event()
    prepare = json_file.prepare

    def slowly(path: Path, text: str, ending: str = json_file.NEW) -> Path:
        if text == "older":
            trio.from_thread.run_sync(reached.set)
            trio.from_thread.run(go.wait)
        return prepare(path, text, ending)

    monkeypatch.setattr(json_file, "prepare", slowly)
    disk.text = "older"
    async with writing(disk):
        disk.file.owe()
        await reached.wait()
        disk.text = "newer"
        disk.file.write()
        go.set()
        disk.text = "never asked for"
        for _ in range(20):
            await trio.sleep(0.01)
            assert disk.kept() == "newer"


def test_at_the_end_all_is_written_or_told(disk: Disk) -> None:
    disk.file.flush()
    assert not disk.path.exists(), "nothing was owed"
    disk.file.owe()
    disk.full = True
    disk.file.flush()
    assert disk.file.trouble is not None
    disk.full = False
    disk.file.flush()
    assert disk.kept() == "first"
    assert disk.file.trouble is None


@pytest.mark.parametrize("left", ["file.new", "file.next"])
async def test_what_a_kill_left_is_no_hindrance(disk: Disk, left: str) -> None:
    (disk.path.parent / left).symlink_to("elsewhere")
    disk.file.write()
    disk.text = "second"
    async with writing(disk):
        disk.file.owe()
        await disk.keeps("second")
    assert not (disk.path.parent / "elsewhere").exists()
    assert sorted(each.name for each in disk.path.parent.iterdir()) == ["copy", "file"]


def every_write(record: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Note what is synced, and what gets its name, in order."""

    def noted(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*given: object, **named: object) -> object:
            record.append(name)
            return call(*given, **named)

        return wrapped

    monkeypatch.setattr(os, "fsync", noted("sync", os.fsync))
    monkeypatch.setattr(Path, "replace", noted("name", Path.replace))


async def test_a_text_is_on_the_disk_before_it_gets_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut leaves the name with nothing behind it. Whoever writes, and whatever."""
    record: list[str] = []
    every_write(record, monkeypatch)
    file = SmallFile(tmp_path / "file", lambda: "text", "the file")
    file.write()
    assert record == ["sync", "name", "sync"]
    for owe in (file.owe, file.owe_seldom):
        record.clear()
        owe()
        file.flush()
        assert record == ["sync", "name", "sync"]
    record.clear()
    file.owe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.run)
        await eventually(lambda: len(record) > 2, "it is written")
        nursery.cancel_scope.cancel()
    assert record == ["sync", "name", "sync"]
