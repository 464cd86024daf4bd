"""`mux.files.uploads`: uploads on a real file system, and whatever happens to them meanwhile."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mux.core.events import FilePlaced
from mux.core.policy.principal import Principal
from mux.files import limits, placing
from mux.files.errors import UploadError
from mux.files.spool import Spool
from mux.files.uploads import More, Upload, Uploads

ADA = Principal("Ada's phone", "device", device="1")
BOB = Principal("Bob's phone", "device", device="2")
THREAD = "0199b3f2-7f6a-7d30-a3f2-4e1c7d1f0a11"


class BrokenError(OSError):
    """The connection broke."""


class KilledError(BaseException):
    """The broker was killed."""


@attrs.define
class Desk:
    """A state directory, a thread's, and brokers that work with them one after the other."""

    place: Path
    told: list[FilePlaced] = attrs.field(factory=list)
    now: float = 1_000_000.0
    may: set[str] = attrs.field(factory=lambda: {"1", "2"})
    known: bool = True
    """True if the broker knows the thread's directory."""

    @property
    def work(self) -> Path:
        return self.place / "work"

    @property
    def state(self) -> Path:
        return self.place / "state"

    @property
    def spool(self) -> Path:
        return self.state / "uploads"

    def broker(self, *, in_threads: bool = True) -> Uploads:
        """A broker that has just started."""
        return Uploads(
            Spool(self.spool),
            lambda _thread: str(self.work) if self.known else "",
            self.told.append,
            lambda principal: principal.device in self.may,
            in_threads=in_threads,
            clock=lambda: self.now,
        )


@contextmanager
def desk() -> Iterator[Desk]:
    with tempfile.TemporaryDirectory() as place:
        made = Desk(Path(place))
        made.work.mkdir()
        made.state.mkdir(mode=0o700)
        yield made


@pytest.fixture(name="desk")
def _desk() -> Iterator[Desk]:
    with desk() as made:
        yield made


def coming(*pieces: bytes, breaks: bool = False, before: Callable[[int], object] = id) -> More:
    """A body in pieces; ``before`` is called with each piece's number."""
    left = list(enumerate(pieces))

    async def more(write: Callable[[memoryview], None]) -> bool:
        if not left:
            if breaks:
                raise BrokenError
            return False
        number, piece = left.pop(0)
        before(number)
        await trio.to_thread.run_sync(write, memoryview(piece))
        return True

    return more


async def begin(broker: Uploads, body: bytes, name: str = "a.bin", **more: Any) -> Upload:
    return await broker.begin(more.pop("whose", ADA), len(body), name=name, thread=THREAD, **more)


async def refused(status: int, awaited: Any) -> str:
    """The text of a refusal, which says what is wrong."""
    with pytest.raises(UploadError) as told:
        await awaited
    assert told.value.status == status
    return str(told.value)


def files(folder: Path) -> dict[str, bytes]:
    """What lies there, by name."""
    if not folder.is_dir():
        return {}
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}


# --- Any course of events ------------------------------------------------------------------------


@attrs.frozen
class Step:
    """One connection: what it brings, and how it ends."""

    sizes: tuple[int, ...]
    breaks: bool
    checksum: bool | None
    """None: it has none; else whether it is right."""
    killed: bool
    """Whether the broker is killed after it."""


STEPS = st.lists(
    st.builds(
        Step,
        st.lists(st.integers(1, 700), max_size=4).map(tuple),
        st.booleans(),
        st.sampled_from([None, None, True, False]),
        st.booleans(),
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=60)
@given(steps=STEPS, size=st.integers(1, 3000), announced=st.booleans())
def test_whatever_happens_the_file_is_whole_or_not_there(
    steps: list[Step], size: int, *, announced: bool
) -> None:
    body = os.urandom(size)

    async def story(at: Desk) -> None:
        broker = at.broker()
        digest = hashlib.sha256(body).hexdigest()
        upload = await begin(broker, body, sha256=digest if announced else "")
        id = upload.about.id
        for step in [*steps, Step((size,), breaks=False, checksum=None, killed=False)]:
            upload = await broker.find(ADA, id)
            if upload.placed is not None:
                break
            before = upload.offset
            part = body[before : before + sum(step.sizes)]
            await _connect(broker, upload, part, step)
            proven = step.checksum is None or (step.checksum and not step.breaks)
            assert upload.offset == before + (len(part) if proven else 0)
            if step.killed:
                broker = at.broker()
        placed = (await broker.find(ADA, id)).placed
        assert placed is not None
        assert placed.sha256 == digest
        assert files(at.work / "uploads") == {".gitignore": b"*\n", "a.bin": body}
        assert at.told == [placed]

    with desk() as at:
        trio.run(story, at)


async def _connect(broker: Uploads, upload: Upload, part: bytes, step: Step) -> None:
    pieces, rest = [], part
    for size in step.sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    check = None
    if step.checksum is not None:
        sum = hashlib.sha1(part if step.checksum else part + b"x").digest()
        check = ("sha1", sum)
    more = coming(*filter(None, pieces), breaks=step.breaks)
    try:
        await broker.receive(upload, ADA, upload.offset, more, check)  # type: ignore[arg-type]
    except BrokenError:
        assert step.breaks
    except UploadError as wrong:
        told = (wrong.status, step.checksum)
        assert told == (460, False)


async def test_bytes_that_have_yet_to_prove_right_go_with_a_killed_broker(desk: Desk) -> None:
    broker = desk.broker()
    upload = await begin(broker, bytes(10))
    await broker.receive(upload, ADA, 0, coming(b"0123"))

    def killed(number: int) -> None:
        if number == 1:
            raise KilledError

    more = coming(b"45", b"67", before=killed)
    part = desk.spool / f"{upload.about.id}.part"
    seen = []

    async def until_killed(write: Callable[[memoryview], None]) -> bool:
        going = await more(write)
        seen.append(part.stat().st_size)
        _copy_state(desk)
        return going

    with pytest.raises(KilledError):
        await broker.receive(upload, ADA, 4, until_killed, ("sha256", b"?"))
    assert seen == [6]  # they were on the disk
    _restore_state(desk)
    assert (await desk.broker().find(ADA, upload.about.id)).offset == 4


def _copy_state(at: Desk) -> None:
    for each in at.spool.iterdir():
        (at.place / f"kept-{each.name}").write_bytes(each.read_bytes())


def _restore_state(at: Desk) -> None:
    for each in at.spool.iterdir():
        each.unlink()
    for each in at.place.glob("kept-*"):
        each.rename(at.spool / each.name.removeprefix("kept-"))


@pytest.mark.parametrize("step", ["place", "told", "describe", "unlink"])
async def test_a_broker_that_is_killed_while_it_finishes_does_it_again(
    desk: Desk, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, body = desk.broker(), b"whole"
    upload = await begin(broker, body)

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as killing:
        match step:
            case "place":
                place = placing.place

                def place_and_die(*arguments: Any) -> str:
                    place(*arguments)
                    raise KilledError

                killing.setattr("mux.files.uploads.place", place_and_die)
            case "told":
                broker.placed = die
            case "describe":
                killing.setattr(Spool, "describe", die)
            case _:
                unlink = Path.unlink

                def unlink_or_die(path: Path, **options: Any) -> None:
                    if path.suffix == ".part":
                        raise KilledError
                    unlink(path, **options)

                killing.setattr(Path, "unlink", unlink_or_die)
        with pytest.raises(KilledError):
            await broker.receive(upload, ADA, 0, coming(body))
    again = await desk.broker().find(ADA, upload.about.id)
    assert again.placed is not None
    assert again.placed.path == str(desk.work / "uploads" / "a.bin")
    assert files(desk.work / "uploads") == {".gitignore": b"*\n", "a.bin": body}
    assert {each.path for each in desk.told} == {again.placed.path}


# --- Races ---------------------------------------------------------------------------------------


async def test_two_uploads_of_one_name_at_once(desk: Desk) -> None:
    broker = desk.broker()
    bodies = [os.urandom(200_000) for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for body in bodies:
            upload = await begin(broker, body)
            pieces = coming(*(body[at : at + 7_000] for at in range(0, len(body), 7_000)))
            nursery.start_soon(broker.receive, upload, ADA, 0, pieces)
    found = files(desk.work / "uploads")
    assert set(found) == {".gitignore", "a.bin", "a-2.bin", "a-3.bin", "a-4.bin"}
    assert {found[name] for name in found if name != ".gitignore"} == set(bodies)


async def test_a_thread_that_is_not_known_any_more_has_its_directory_still(desk: Desk) -> None:
    """It was archived, or the broker has just started and hasn't heard of it yet."""
    broker = desk.broker()
    upload = await begin(broker, b"abc")
    desk.known = False
    await broker.receive(upload, ADA, 0, coming(b"abc"))
    assert files(desk.work / "uploads")["a.bin"] == b"abc"


def _remove(at: Desk) -> None:
    at.work.rmdir()


def _replace_by_a_file(at: Desk) -> None:
    at.work.rmdir()
    at.work.write_text("")


def _link_below(at: Desk) -> None:
    (at.place / "elsewhere").mkdir()
    (at.work / "uploads").symlink_to(at.place / "elsewhere")


def _forbid(at: Desk) -> None:
    (at.work / "uploads").write_text("a file")


@pytest.mark.parametrize("happens", [_remove, _replace_by_a_file, _link_below, _forbid])
async def test_a_directory_that_is_no_place_any_more(
    desk: Desk, happens: Callable[[Desk], None]
) -> None:
    broker = desk.broker()
    upload = await begin(broker, b"abcdef")

    def once(number: int) -> None:
        if not number:
            happens(desk)

    more = coming(b"abc", b"def", before=once)
    await broker.receive(upload, ADA, 0, more)
    assert upload.placed is not None
    folder = desk.state / "files" / THREAD
    assert upload.placed.path == str(folder / "a.bin")
    assert files(folder)["a.bin"] == b"abcdef"
    assert files(desk.place / "elsewhere") == {}


async def test_a_directory_that_is_moved_is_followed_where_the_broker_knows_it(desk: Desk) -> None:
    broker = desk.broker()
    upload = await begin(broker, b"abc")
    moved = desk.place / "moved"
    desk.work.rename(moved)
    broker.directory_of = lambda _thread: str(moved)
    await broker.receive(upload, ADA, 0, coming(b"abc"))
    assert files(moved / "uploads")["a.bin"] == b"abc"


async def test_files_place_state(desk: Desk) -> None:
    broker = desk.broker(in_threads=False)
    upload = await begin(broker, b"abc")
    await broker.receive(upload, ADA, 0, coming(b"abc"))
    assert files(desk.state / "files" / THREAD)["a.bin"] == b"abc"
    assert not (desk.work / "uploads").exists()


async def test_a_device_that_is_shut_out_meanwhile_sends_no_more(desk: Desk) -> None:
    broker = desk.broker()
    upload = await begin(broker, bytes(9))

    def shut_out(_number: int) -> None:
        desk.may = set()

    more = coming(*[bytes(3)] * 3, before=shut_out)
    text = await refused(401, broker.receive(upload, ADA, 0, more))
    assert "any more" in text
    assert upload.offset == 3
    assert desk.told == []


async def test_the_newer_of_two_connections_goes_on(desk: Desk) -> None:
    broker, body = desk.broker(), b"abcdef"
    upload = await begin(broker, body)
    stuck = trio.Event()

    async def lost(write: Callable[[memoryview], None]) -> bool:
        if not stuck.is_set():
            await trio.to_thread.run_sync(write, memoryview(b"abc"))
            stuck.set()
            return True
        await trio.sleep_forever()
        raise AssertionError

    async def older() -> None:
        assert "another connection" in await refused(409, broker.receive(upload, ADA, 0, lost))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(older)
        await stuck.wait()
        assert "is at 3" in await refused(409, broker.receive(upload, ADA, 0, coming(b"abc")))
        await broker.receive(upload, ADA, 3, coming(b"def"))
    assert files(desk.work / "uploads")["a.bin"] == body


async def test_dropped_while_it_comes(desk: Desk) -> None:
    broker = desk.broker()
    upload = await begin(broker, bytes(6))
    came = trio.Event()

    async def slow(write: Callable[[memoryview], None]) -> bool:
        await trio.to_thread.run_sync(write, memoryview(b"abc"))
        came.set()
        await trio.sleep_forever()
        raise AssertionError

    async def sender() -> None:
        await refused(409, broker.receive(upload, ADA, 0, slow))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender)
        await came.wait()
        await broker.drop(upload)
    await refused(404, broker.find(ADA, upload.about.id))
    assert list(desk.spool.iterdir()) == []


# --- A disk that is full -------------------------------------------------------------------------


async def test_a_full_disk_keeps_what_came_and_goes_on_when_it_has_room(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, body = desk.broker(), os.urandom(1000)
    upload = await begin(broker, body)
    write, room = os.write, [300]

    def full(file: int, piece: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = write(file, piece[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(os, "write", full)
    text = await refused(507, broker.receive(upload, ADA, 0, coming(body[:200], body[200:])))
    assert "No space left on device" in text
    assert "later" in text
    assert upload.offset == 300
    room[0] = 10_000
    await broker.receive(upload, ADA, 300, coming(body[300:]))
    assert upload.placed is not None
    assert upload.placed.sha256 == hashlib.sha256(body).hexdigest()


async def test_what_others_need_of_the_disk_is_left_free(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = desk.broker()
    upload = await begin(broker, bytes(9))
    monkeypatch.setattr(Spool, "free", lambda _spool: -1)
    assert "nearly full" in await refused(507, broker.receive(upload, ADA, 0, coming(bytes(9))))
    assert upload.offset == 0


# --- Limits --------------------------------------------------------------------------------------


async def test_a_file_has_a_most(desk: Desk) -> None:
    broker = desk.broker()
    asked = broker.begin(ADA, limits.FILE_BYTES + 1, name="a", thread=None)
    assert "2048 MiB at most" in await refused(413, asked)
    upload = await begin(broker, bytes(3))
    text = await refused(413, broker.receive(upload, ADA, 0, coming(b"ab", b"cd")))
    assert "more bytes came" in text
    assert upload.offset == 2


async def test_all_unfinished_ones_have_a_most(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNFINISHED_OF_DEVICE", 3)
    monkeypatch.setattr(limits, "UNFINISHED", 5)
    broker = desk.broker()
    for _ in range(3):
        await begin(broker, bytes(1))
    assert "too many unfinished" in await refused(429, begin(broker, bytes(1)))
    upload, _ = [await begin(broker, bytes(1), whose=BOB) for _ in range(2)]
    await refused(429, begin(broker, bytes(1), whose=BOB))
    await broker.receive(upload, BOB, 0, coming(b"x"))  # finished: it doesn't count
    await begin(broker, bytes(1), whose=BOB)


async def test_all_unfinished_bytes_have_a_most(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNFINISHED_BYTES", 100)
    broker = desk.broker()
    await begin(broker, bytes(60))
    assert "finish or delete" in await refused(507, begin(broker, bytes(41), whose=BOB))
    await begin(broker, bytes(40), whose=BOB)


async def test_what_is_announced_must_fit_with_all_that_is_on_its_way(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spool, "free", lambda _spool: 100)
    broker = desk.broker()
    await begin(broker, bytes(60))
    assert "no room" in await refused(507, begin(broker, bytes(41)))
    refusals: list[str] = []

    async def one() -> None:
        try:
            await begin(broker, bytes(30))
        except UploadError as full:
            refusals.append(str(full))

    async with trio.open_nursery() as nursery:  # at once, too
        for _ in range(3):
            nursery.start_soon(one)
    assert len(refusals) == 2


# --- Its time ------------------------------------------------------------------------------------


async def test_unfinished_ones_expire_and_finished_ones_are_remembered(desk: Desk) -> None:
    broker = desk.broker()
    upload = await begin(broker, bytes(2))
    done = await begin(broker, b"x", name="done")
    await broker.receive(done, ADA, 0, coming(b"x"))
    desk.now += limits.FINISHED_SECONDS - 1
    assert (await desk.broker().find(ADA, done.about.id)).placed == done.placed
    await broker.receive(upload, ADA, 0, coming(b"x"))
    desk.now += limits.UNFINISHED_SECONDS - 1
    assert upload.offset == 1
    await broker.sweep()
    await refused(404, broker.find(ADA, done.about.id))
    assert (await broker.find(ADA, upload.about.id)) is upload
    desk.now += 1
    assert "expired" in await refused(410, broker.find(ADA, upload.about.id))
    await broker.sweep()
    assert list(desk.spool.iterdir()) == []
    assert files(desk.work / "uploads")["done"] == b"x"


async def test_a_whole_one_that_nobody_asks_about_is_finished(desk: Desk) -> None:
    broker = desk.broker()
    upload = await begin(broker, b"x")
    (desk.spool / f"{upload.about.id}.part").write_bytes(b"x")  # and the broker was killed
    await desk.broker().sweep()
    assert [each.name for each in desk.told] == ["a.bin"]


async def test_only_so_many_finished_ones_are_remembered(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FINISHED", 3)
    broker = desk.broker()
    done = [await begin(broker, b"") for _ in range(5)]
    await broker.sweep()
    await refused(404, broker.find(ADA, done[1].about.id))
    assert (await broker.find(ADA, done[2].about.id)).placed is not None


async def test_to_others_it_is_not_there(desk: Desk) -> None:
    broker = desk.broker()
    upload = await begin(broker, bytes(2))
    assert await refused(404, broker.find(BOB, upload.about.id)) == await refused(
        404, broker.find(BOB, "nonsense")
    )


async def test_another_file_than_was_announced_is_refused(desk: Desk) -> None:
    broker = desk.broker()
    upload = await begin(broker, bytes(2), sha256="0" * 64)
    text = await refused(460, broker.receive(upload, ADA, 0, coming(bytes(2))))
    assert "begin it anew" in text
    assert list(desk.spool.iterdir()) == []
    assert files(desk.work / "uploads") == {}


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff"])
async def test_what_makes_no_sense_in_the_spool_is_removed(desk: Desk, damage: bytes) -> None:
    broker = desk.broker()
    upload = await begin(broker, bytes(2))
    kept = await begin(broker, bytes(2))
    (desk.spool / f"{upload.about.id}.json").write_bytes(damage)
    (desk.spool / "stray.part").write_bytes(b"x")
    again = desk.broker()
    await refused(404, again.find(ADA, upload.about.id))
    assert (await again.find(ADA, kept.about.id)).offset == 0
    assert {each.name for each in desk.spool.iterdir()} == {
        f"{kept.about.id}.json", f"{kept.about.id}.part",
    }  # fmt: skip
