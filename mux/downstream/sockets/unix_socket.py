"""The claim to a unix socket's path: finds out whose it is, and keeps others from taking it.

A path is claimed under a lock file beside it: of two brokers that start in the same moment, one
gets the path and the other an error. Codex's own listener doesn't know this lock, but it has one of
its own for the control socket (``StartupLock``), which is taken too. At other paths only the file
system tells: a socket that answers is in use, a socket that refuses is stale.

A socket's address has room for about 100 bytes. For a longer path the socket is where Codex's own
listener puts each of its sockets, ``/tmp/codex-daemon-UID/SHA256-OF-THE-PATH``, and a symbolic link
is at the path. Codex's programs and ours (``locate.address``) follow the link before they connect.

Used by ``listener``, and by ``take_over``, which holds Codex's own lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import msgspec.structs
import structlog

from mux.config import locate
from mux.config.locate import LONGEST_ADDRESS
from mux.downstream.sockets.peer import who_is_there
from mux.downstream.sockets.socket_directory import ListenError as ListenError  # noqa: PLC0414 (for listeners)
from mux.downstream.sockets.socket_directory import (
    prepare_directory,
    prepare_short_places,
    short_place,
)
from mux.posix import private_file

PRIVATE_SOCKET = 0o600

log = structlog.get_logger()


_Taken = TypeVar("_Taken")

STARTUP_LOCK = "app-server-startup.lock"
"""The file beside the control socket that Codex locks (flock) while it probes and binds there."""

STARTING_PATIENCE = 5.0
"""Seconds to wait for a lock. Codex holds its own for milliseconds; an appmux that takes over holds
it until the daemon has ended."""

STARTING_LOOK = 0.02
"""Seconds between two tries to get a lock."""


def claim_path(path: Path, *, control: bool, backlog: int, startup_held: bool = False) -> Claim:
    """Bind and listen at an absolute path; only this user may connect.

    A stale socket or a dangling symlink is replaced. ``control``: the directory is Codex's and may
    be made private. ``startup_held``: the caller holds the ``StartupLock`` already. Raises
    ``ListenError``.
    """
    try:
        prepare_directory(path.parent, control=control)
        lock = _take_lock(path)
        try:
            with nullcontext() if startup_held or not control else _startup(path):
                _clear(path)
                if len(os.fsencode(path)) > LONGEST_ADDRESS:
                    return _bind_elsewhere(path, lock, backlog)
                return _bind(path, lock, backlog)
        except BaseException:
            lock.release()
            raise
    except OSError as failure:
        where = f" ({failure.filename})" if failure.filename else ""
        raise ListenError(f"can't listen on unix://{path}: {failure.strerror}{where}") from failure


def reclaim_path(path: Path, bound: socket.socket) -> Claim:
    """Claim a path anew whose listening socket an earlier broker has left, open as it was.

    Raises ``ListenError``: another process has claimed the path meanwhile, or it leads elsewhere.
    """
    try:
        lock = _take_lock(path)
    except OSError as failure:
        raise ListenError(f"can't listen on unix://{path}: {failure.strerror}") from failure
    place = Path(bound.getsockname())
    try:
        made = [(each, _identity(each.lstat())) for each in dict.fromkeys((path, place))]
        if path.resolve() != place.resolve():
            raise ListenError(in_use(path, "it leads to another socket by now"))
    except OSError as failure:
        lock.release()
        raise ListenError(f"can't listen on unix://{path}: {failure.strerror}") from failure
    except BaseException:
        lock.release()
        raise
    return Claim(path, bound, tuple(made), lock)


# -- the lock --------------------------------------------------------------------------------------


class _Lock(msgspec.Struct):
    path: Path
    descriptor: int | None

    def release(self) -> None:
        if self.descriptor is not None:
            # Removed while still held: another process finds either this file, locked, or none.
            self.path.unlink(missing_ok=True)
            os.close(self.descriptor)
            self.descriptor = None


def _take_lock(path: Path) -> _Lock:
    lock = _try_lock(path)
    if lock is None:
        raise _in_use(path, _probe(path) or "an appmux that is just starting")
    return lock


def _try_lock(path: Path) -> _Lock | None:
    """Lock the file beside the path; None if another process holds the lock."""
    lock_path = path.with_name(f"{path.name}.lock")
    while True:
        descriptor = private_file.open_file(lock_path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _still_there(lock_path, _identity(os.fstat(descriptor))):
                return _Lock(lock_path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        # Locked, but its last holder had removed the file by then: others would lock a new file.
        os.close(descriptor)


class StartupLock(msgspec.Struct):
    """Codex's own lock for the control socket: only its holder may probe and bind there.

    A `codex app-server` that starts meanwhile waits for the lock, then finds out who listens. The
    file is Codex's and stays.
    """

    _descriptor: int | None

    @classmethod
    def acquire(cls, path: Path) -> StartupLock | None:
        """Lock the socket at ``path``; None if another process holds it. Raises ``OSError``."""
        descriptor = private_file.open_file(path.with_name(STARTUP_LOCK), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Release the lock. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def _startup(path: Path) -> Iterator[None]:
    """Hold the ``StartupLock`` inside. Raises ``ListenError`` if another process keeps it."""
    lock = _patiently(path, lambda: StartupLock.acquire(path))
    try:
        yield
    finally:
        lock.release()


def _patiently(path: Path, take: Callable[[], _Taken | None]) -> _Taken:
    """Call ``take`` until it returns a lock. Raises ``ListenError`` after `STARTING_PATIENCE`."""
    deadline = time.monotonic() + STARTING_PATIENCE
    while (lock := take()) is None:
        if time.monotonic() > deadline:
            raise ListenError(
                in_use(path, "a codex or an appmux is just starting there; try again")
            )
        time.sleep(STARTING_LOOK)
    return lock


# -- what is at the path already -------------------------------------------------------------------


def _clear(path: Path) -> None:
    """Remove a stale socket at the path. Raises ``ListenError`` for anything else there."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(kind):
        # Codex's own listener puts a symlink here, to a socket in a directory for temporary files.
        try:
            kind = path.stat().st_mode
        except FileNotFoundError:
            path.unlink(missing_ok=True)
            return
    if not stat.S_ISSOCK(kind):
        raise ListenError(
            f"app-server control socket path exists and is not a socket: {path}; move it away, or"
            " choose another path with --listen unix://PATH"
        )
    holder = _probe(path)
    if holder is not None:
        raise _in_use(path, holder)
    path.unlink(missing_ok=True)


def _probe(path: Path) -> str | None:
    """Return in words which process listens at the path; None if none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(locate.address(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except OSError as failure:
            # Its queue is full, we may not connect, or it isn't a stream: it is in use, anyway.
            return f"a program that can't be asked ({failure.strerror})"
        peer = who_is_there(probe.getsockopt)
    return "another program" if peer.pid is None else f"process {peer.pid}"


def in_use(path: Path, reason: str) -> str:
    """Return the error text for a path in use; ``reason`` says by whom, and what to do about it."""
    return (
        f"app-server control socket is already in use at {path}: {reason}; or choose another path"
        " with --listen unix://PATH"
    )


def _in_use(path: Path, holder: str) -> ListenError:
    ours = "stop it (Codex's own daemon: `appmux serve --take-over` does, once nothing runs in it)"
    return ListenError(in_use(path, f"{holder} listens there; {ours}"))


# -- the socket ------------------------------------------------------------------------------------


class Claim(msgspec.Struct):
    """A listening socket and the path that leads to it."""

    path: Path
    socket: socket.socket
    _made: tuple[tuple[Path, tuple[int, int]], ...]
    """Paths that lead to the socket, the link first where there is one. Each stands with its device
    and inode, which tell that it is still ours."""
    _lock: _Lock

    def leave(self) -> None:
        """Leave the path as it is to whoever goes on with the socket. Idempotent."""
        self._lock.release()

    def release(self) -> None:
        """Remove the path, if it still leads to this socket, and the lock. Idempotent.

        Call it before the socket is closed: until then its inode can't become another's.
        """
        try:
            if self._lock.descriptor is not None:
                for path, identity in self._made:
                    if _still_there(path, identity):
                        path.unlink()
            self._lock.release()
        except OSError as failure:
            log.warning("socket file left behind", path=str(self.path), reason=failure.strerror)


def _bind(path: Path, lock: _Lock, backlog: int) -> Claim:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A new socket has the mode that the umask leaves: others can't connect for a moment even.
        former = os.umask(0o777 & ~PRIVATE_SOCKET)
        try:
            bound.bind(str(path))
        finally:
            os.umask(former)
        bound.listen(backlog)
        return Claim(path, bound, ((path, _identity(path.lstat())),), lock)
    except OSError as failure:
        bound.close()
        if failure.errno == errno.EADDRINUSE:
            # Bound since it was cleared, by a program that doesn't know the lock.
            raise _in_use(path, _probe(path) or "a program that is just starting") from failure
        raise


def _bind_elsewhere(path: Path, lock: _Lock, backlog: int) -> Claim:
    """Bind at the short path, and make a link to it at the long one."""
    place = short_place(path)
    prepare_short_places(place.parent)
    # Codex holds this lock only while it binds there and while it ends, so we hold it no longer.
    at_place = _take_place(path, place)
    try:
        claim = _bind(place, lock, backlog)
        try:
            path.symlink_to(place)
            link = (path, _identity(path.lstat()))
        except BaseException:
            place.unlink(missing_ok=True)
            claim.socket.close()
            raise
        return msgspec.structs.replace(claim, path=path, _made=(link, *claim._made))
    finally:
        at_place.release()


def _take_place(path: Path, place: Path) -> _Lock:
    """Lock the short path once it is free.

    A codex that ends removes its link first, so the socket behind it may stay for a moment.
    """
    deadline = time.monotonic() + STARTING_PATIENCE
    while True:
        lock = _patiently(path, lambda: _try_lock(place))
        try:
            _clear(place)
        except ListenError:
            lock.release()
            if time.monotonic() > deadline:
                raise
            time.sleep(STARTING_LOOK)
        except BaseException:
            lock.release()
            raise
        else:
            return lock


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _still_there(path: Path, identity: tuple[int, int]) -> bool:
    try:
        return _identity(path.lstat()) == identity
    except FileNotFoundError:
        return False
