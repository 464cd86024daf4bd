"""The lock of the state directory, handed from broker to broker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mux.storage import state_dir


def _ended_pid() -> int:
    """Return the pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_dir, "ENDING_PATIENCE", 0.0)


def test_a_copy_of_the_lock_keeps_others_out_and_the_next_broker_goes_on_with_it(
    tmp_path: Path,
) -> None:
    first = state_dir.claim(tmp_path)
    held = os.dup(first.descriptor)  # the supervisor's
    (tmp_path / state_dir.LOCK).write_text(str(_ended_pid()))  # as if that broker were gone
    first.release()
    with pytest.raises(state_dir.StateDirError, match="whose broker is about to be started again"):
        state_dir.claim(tmp_path)
    following = state_dir.claim(tmp_path, os.dup(held))
    assert (tmp_path / state_dir.LOCK).read_text() == str(os.getpid())
    assert state_dir.named_holder(tmp_path) == os.getpid()
    with pytest.raises(state_dir.StateDirError, match=rf"another appmux \(pid {os.getpid()}\)"):
        state_dir.claim(tmp_path)
    os.close(held)
    following.release()
    state_dir.claim(tmp_path).release()


@pytest.mark.parametrize("change", ["another directory", "the file was removed"])
def test_a_lock_of_something_else_counts_for_nothing(tmp_path: Path, change: str) -> None:
    old = state_dir.claim(tmp_path / "old")
    inherited = os.dup(old.descriptor)
    place = tmp_path / ("new" if change == "another directory" else "old")
    if place.exists():
        (place / state_dir.LOCK).unlink()
    taken = state_dir.claim(place, inherited)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(inherited)
    with pytest.raises(state_dir.StateDirError):
        state_dir.claim(place)
    taken.release()
    old.release()


@pytest.mark.parametrize("text", ["", "x", "1.5", "²"])
def test_a_file_that_names_nobody(tmp_path: Path, text: str) -> None:
    taken = state_dir.claim(tmp_path)
    (tmp_path / state_dir.LOCK).write_text(text)
    assert state_dir.named_holder(tmp_path) is None
    with pytest.raises(state_dir.StateDirError, match="pid unknown"):
        state_dir.claim(tmp_path)
    taken.release()
    (tmp_path / state_dir.LOCK).unlink()
    assert state_dir.named_holder(tmp_path) is None
