"""The state directory: one broker owns it, and announces in it how that broker can be reached."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import structlog

from mux.config.locate import ADDRESS, announced
from mux.core.part import Part
from mux.errors import AppmuxError
from mux.posix import private_file
from mux.storage import json_file

LOCK = "broker.lock"

ENDING_PATIENCE = 1.0
"""Seconds to wait for the directory: a broker whose supervisor was killed ends a moment later."""

ENDING_LOOK = 0.02
"""Seconds between two tries."""

log = structlog.get_logger()


class StateDirError(AppmuxError):
    """The state directory can't be used, or no broker has announced itself in it."""


class StateDir(Part):
    """A state directory that belongs to this process until ``release``."""

    path: Path
    _lock: TextIO
    settings: Mapping[str, Any] | None = None
    """The settings that this broker runs with, for `appmux doctor`."""

    @property
    def descriptor(self) -> int:
        """The lock's. A copy of it, wherever it is, keeps the directory locked."""
        return self._lock.fileno()

    def announce(self, urls: list[str]) -> None:
        """Write where this broker listens, for `appmux status` and similar commands."""
        document = {"pid": os.getpid(), "listeners": urls, "settings": self.settings}
        text = json.dumps(document, default=str)
        try:
            json_file.replace(self.path / ADDRESS, text)
        except OSError as failure:
            # A full disk is no reason to refuse clients.
            path = str(self.path / ADDRESS)
            log.error("`appmux status` won't find this broker", why=failure.strerror, path=path)

    def release(self) -> None:
        """Remove the announcement and unlock the directory. The process's end unlocks it too."""
        with contextlib.suppress(OSError):
            (self.path / ADDRESS).unlink()
        self._lock.close()


def claim(path: Path, inherited: int | None = None) -> StateDir:
    """Make the directory (mode 0700) and lock it.

    ``inherited``: the descriptor of an earlier broker's lock. It counts if that is of this
    directory still.
    Raises ``StateDirError`` if it can't be used, for example because another broker has it.
    """
    try:
        private_file.make_directory(path, links=True)
        lock = os.fdopen(private_file.open_file(path / LOCK, os.O_RDWR | os.O_CREAT), "r+")
    except private_file.UnfitError as failure:
        raise StateDirError(
            f"can't use the state directory {path}: {failure.filename}: {failure.strerror}; put"
            " that right, or name another directory with --state-dir"
        ) from failure
    except OSError as failure:
        raise StateDirError(
            f"can't use the state directory {path}: {failure.strerror}; make it writable, or name"
            " another with --state-dir"
        ) from failure
    if inherited is not None:
        if os.path.sameopenfile(inherited, lock.fileno()):
            lock.close()
            lock = os.fdopen(inherited, "r+")
        else:
            os.close(inherited)
    if not _locked(lock):
        holder = _holder(lock)
        lock.close()
        raise StateDirError(
            f"another appmux ({holder}) uses the state directory {path}: stop it, or give this"
            " one its own with --state-dir"
        )
    lock.seek(0)  # where a broker before this one has written
    lock.truncate(0)
    with contextlib.suppress(OSError):  # the lock counts; the number is for people
        lock.write(str(os.getpid()))
        lock.flush()
    return StateDir(path, lock)


def _holder(lock: TextIO) -> str:
    """Return in words who has locked the file. Its supervisor has, too, while no broker runs."""
    lock.seek(0)
    pid = _pid(lock.read())
    if pid is None:
        return "pid unknown"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "whose broker is about to be started again"
    except OSError:  # another user's
        pass
    return f"pid {pid}"


def named_holder(path: Path) -> int | None:
    """Return the pid of the broker that locked this state directory last; None if none says so."""
    try:
        with os.fdopen(private_file.open_file(path / LOCK, os.O_RDONLY)) as lock:
            return _pid(lock.read())
    except (OSError, ValueError):
        return None


def _pid(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _locked(lock: TextIO) -> bool:
    """Lock the file; False if another process has it, and doesn't end just now. Blocks."""
    deadline = time.monotonic() + ENDING_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(ENDING_LOOK)
        else:
            return True


def listeners(path: Path) -> list[str]:
    """Return the URLs at which the broker of this state directory listens.

    Raises ``StateDirError`` if no broker runs on it.
    """
    urls = announced(path)
    if urls is None:
        raise StateDirError(
            f"no appmux runs on the state directory {path}: start one with `appmux serve`, or name"
            " its directory with --state-dir"
        )
    return urls
