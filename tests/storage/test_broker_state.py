"""What a killed broker leaves: whole batches, in order, and what it had read and not handled."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.protocol.journal_entry import Entry
from mux.storage import broker_state
from mux.storage.broker_state import EPOCH, FILE, BrokerState


@attrs.define
class Journal:
    """What of a `Store` the broker's state needs."""

    epoch: str = "e1"
    fresh: list[Entry] | None = None
    pending: list[Entry] = attrs.field(factory=list)

    def append(self, entry: Entry) -> None:
        assert self.fresh is not None
        self.pending.append(entry)
        self.fresh.append(entry)

    def unwritten(self) -> list[Entry]:
        return list(self.pending)


def begun(directory: Path, journal: Journal | None = None) -> BrokerState:
    return BrokerState.begin(directory / FILE, journal or Journal(), None)  # type: ignore[arg-type]


def left(directory: Path) -> broker_state.Saved:
    """What the next broker reads, without the first one's having ended."""
    saved = broker_state.load(directory / FILE)
    assert saved is not None
    return saved


def test_nothing_is_there_before_it_is_committed_and_all_is_after(tmp_path: Path) -> None:
    journal = Journal()
    state = begun(tmp_path, journal)
    state.put("a", b"1")
    state.put("b", b"2")
    journal.append(Entry(7, "t", "m", b"{}"))
    assert left(tmp_path).values == {EPOCH: b"e1"}
    state.commit()
    state.put("a", None)
    state.commit()
    saved = left(tmp_path)
    assert saved.values == {EPOCH: b"e1", "b": b"2"}
    assert saved.entries == [Entry(7, "t", "m", b"{}")]


def test_what_was_read_is_left_until_it_is_handled(tmp_path: Path) -> None:
    state = begun(tmp_path)
    state.received(b"one\ntwo\nthr")
    assert left(tmp_path).read == b"one\ntwo\nthr", "at once, without a commit"
    state.handled(4)
    assert left(tmp_path).read == b"one\ntwo\nthr", "nothing that follows from it went out yet"
    state.commit()
    state.received(b"ee\n")
    assert left(tmp_path).read == b"two\nthree\n"
    state.handled(10)
    state.commit()
    assert left(tmp_path).read == b""
    state.received(b"of a dead one")
    state.renewed()
    state.commit()
    assert left(tmp_path).read == b""


@given(st.data())
def test_cut_anywhere_it_is_as_after_some_whole_batch(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    state = begun(directory)
    began = (directory / FILE).stat().st_size
    states = [dict(left(directory).values)]
    for number in range(data.draw(st.integers(1, 4))):
        state.put(f"k{number}", b"v" * number)
        state.put("last", b"%d" % number)
        state.commit()
        states.append(dict(left(directory).values))
    whole = (directory / FILE).read_bytes()
    (directory / FILE).write_bytes(whole[: data.draw(st.integers(began, len(whole)))])
    assert left(directory).values in states


def test_a_large_file_is_replaced_by_what_still_counts(tmp_path: Path) -> None:
    journal = Journal()
    state = begun(tmp_path, journal)
    state.put("kept", b"x")
    for number in range(3 * broker_state.ROTATE_BYTES // 100_000):
        state.received(b"y" * 99_999 + b"\n")
        state.handled(100_000)
        state.put("number", b"%d" % number)
        journal.append(Entry(number + 1, None, "m", b""))
        state.commit()
        assert (tmp_path / FILE).stat().st_size < 2 * broker_state.ROTATE_BYTES
    journal.pending = journal.pending[-3:]  # the others are on the disk
    state.received(b"half")
    state.rotate()
    saved = left(tmp_path)
    assert saved.values == {EPOCH: b"e1", "kept": b"x", "number": b"%d" % number}
    assert (saved.entries, saved.read) == (journal.pending, b"half")


def test_a_full_disk_leaves_nothing_rather_than_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = begun(tmp_path)
    state.put("a", b"1")
    state.commit()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", full)
        state.put("b", b"2")
        state.commit()
        assert "make room" in str(state.trouble)
        assert broker_state.load(tmp_path / FILE) is None
    state.put("c", b"3")
    state.commit()
    assert state.trouble
    monkeypatch.setattr("time.monotonic", lambda: math.inf)
    state.put("c", b"3")
    state.commit()
    assert not state.trouble
    assert left(tmp_path).values == {EPOCH: b"e1", "a": b"1", "b": b"2", "c": b"3"}


def test_of_a_very_long_line_only_that_it_was_cut_is_kept(tmp_path: Path) -> None:
    state = begun(tmp_path)
    piece = b"x" * (broker_state.MOST_UNHANDLED // 3)
    state.received(b"before\n")
    state.handled(7)
    state.commit()
    for _ in range(8):
        state.received(piece)
    assert (left(tmp_path).read, left(tmp_path).cut) == (b"", True)
    assert (tmp_path / FILE).stat().st_size < 3 * broker_state.MOST_UNHANDLED
    state.rotate()
    assert (left(tmp_path).read, left(tmp_path).cut) == (b"", True)
    state.received(b"end\nnext\nand")
    assert (left(tmp_path).read, left(tmp_path).cut) == (b"next\nand", False)
    state.handled(8 * len(piece) + 4)
    state.commit()
    assert left(tmp_path).read == b"next\nand"
    state.handled(5)
    state.commit()
    assert (left(tmp_path).read, left(tmp_path).cut) == (b"and", False)


def test_another_versions_file_is_none(tmp_path: Path) -> None:
    begun(tmp_path)
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content.replace(b"state 1\n", b"state 2\n"))
    assert broker_state.load(tmp_path / FILE) is None
    assert broker_state.load(tmp_path / "absent") is None


def test_an_answer_that_only_its_asker_waits_for_is_not_written(tmp_path: Path) -> None:
    state = begun(tmp_path)
    state.put("wire/8", b"1")
    state.commit()
    size = (tmp_path / FILE).stat().st_size
    for answer in (b'{"id":7,"result":{}}\n', b'{"id":7,"error":{"code":1,"message":"m"}}\n'):
        state.received(answer)
        assert left(tmp_path).read == b""
        state.handled(len(answer))
        state.commit()
    assert (tmp_path / FILE).stat().st_size == size
    state.received(b"next\n")
    assert left(tmp_path).read == b"next\n"


@pytest.mark.parametrize(
    "read",
    [
        b'{"id":8,"result":{}}\n',  # a turn's start, say
        b'{"id":7,"result":{}}\n{"method":"m"}\n',
        b'{"id":7,"result":{}}\n{"id":8,"resu',
        b'{"id":7,"result":{}',
        b'{"id":7,"method":"m"}\n',
        b'{"method":"m","id":7}\n',
        b'{"id":7}\n',
        b"\n",
    ],
)
def test_all_else_that_was_read_is_written(read: bytes, tmp_path: Path) -> None:
    state = begun(tmp_path)
    state.put("wire/8", b"1")
    state.received(read)
    state.commit()
    assert left(tmp_path).read == read


def test_an_answer_behind_an_unfinished_line_is_written(tmp_path: Path) -> None:
    state = begun(tmp_path)
    state.received(b'{"method":"m","params":')
    state.received(b'{"id":7,"result":{}}\n')
    assert left(tmp_path).read == b'{"method":"m","params":{"id":7,"result":{}}\n'
