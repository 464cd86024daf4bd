"""Files that are this user's alone: every state, token, secret and key file is opened here.

Something else may stand in the place of such a file: a pipe that nobody writes into, a device, a
link, a file that others may change. So the path is checked before it is opened, opened without
waiting, and checked again through its descriptor. An unfit file is refused, and the error names it.

Too permissive modes of our own files are tightened, with a line in the log. New files have the
right mode, whatever the umask. A link is followed for reading only, and only where the settings
name the file, since secrets are often mounted so.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

PRIVATE_FILE: Final = 0o600
PRIVATE_DIRECTORY: Final = 0o700

OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

MOST_BYTES: Final = 64 * 1024 * 1024
"""Most bytes of a state file: the largest, the notice preferences of 512 devices, has a quarter of
it."""

MOST_OF_A_SECRET: Final = 64 * 1024
"""Most bytes of a secret. A service account's JSON has 2 KiB; a video that was named by mistake is
refused at once."""

_ALWAYS: Final = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

_KINDS: Final = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnfitError(OSError):
    """The file at the path can't be used; ``strerror`` says why, for people."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(errno.EINVAL, reason, str(path))


# -- files -----------------------------------------------------------------------------------------


def read(path: Path, *, links: bool = False, foreign: bool = False) -> bytes:
    """Read a file. ``links`` and ``foreign``: see ``open_file``.

    Raises ``UnfitError``, other ``OSError``.
    """
    return _read(open_file(path, os.O_RDONLY, links=links, foreign=foreign), path, MOST_BYTES)


def read_secret(path: Path) -> bytes:
    """Read a token, secret or key file that the settings name. A link to it is followed.

    Raises ``UnfitError``, other ``OSError``.
    """
    descriptor = open_file(path, os.O_RDONLY, links=True)
    if os.fstat(descriptor).st_mode & stat.S_IROTH:
        _warn("everybody on this host can read a secret: `chmod 600` its file", path)
    return _read(descriptor, path, MOST_OF_A_SECRET)


def _read(descriptor: int, path: Path, most: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UnfitError(path, f"it has more than {most} bytes")
    return content


def open_file(path: Path, flags: int, *, links: bool = False, foreign: bool = False) -> int:
    """Open a file as ``os.open`` does, and return its descriptor. Never waits for another program.

    With ``os.O_CREAT`` in ``flags`` a missing file is made. ``links``: the path may be a link to a
    file. ``foreign``: others may own and change the file. Raises ``UnfitError``, other ``OSError``.
    """
    if not flags & os.O_EXCL:
        try:
            _require_file(path.stat() if links else path.lstat(), path)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
    descriptor = os.open(path, flags | _ALWAYS | (0 if links else os.O_NOFOLLOW), PRIVATE_FILE)
    try:
        status = os.fstat(descriptor)
        _require_file(status, path)
        if not foreign:
            _require_ours(status, path, descriptor)
        if flags & os.O_CREAT and _is_own(status) and stat.S_IMODE(status.st_mode) != PRIVATE_FILE:
            os.fchmod(descriptor, PRIVATE_FILE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check(path: Path) -> bool:
    """Check a file that another library will open. Return whether it exists.

    The file isn't opened: closing it again would end the locks that this process has on it. Raises
    like ``open_file``.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    _require_file(status, path)
    _require_ours(status, path, path)
    if _is_own(status) and stat.S_IMODE(status.st_mode) != PRIVATE_FILE:
        path.chmod(PRIVATE_FILE)
    return True


# -- directories -----------------------------------------------------------------------------------


def make_directory(path: Path, *, links: bool = False) -> None:
    """Make a directory that only this user may write in, or check it if it exists.

    ``links``: the path may be a link to a directory. Raises ``UnfitError``, other ``OSError``.
    """
    missing = [each for each in (path, *path.parents) if not os.path.lexists(each)]
    for parent in reversed(missing):
        try:
            parent.mkdir(mode=PRIVATE_DIRECTORY)
        except FileExistsError:  # another process makes it, too
            continue
        parent.chmod(PRIVATE_DIRECTORY)
    flags = os.O_RDONLY | os.O_DIRECTORY | _ALWAYS | (0 if links else os.O_NOFOLLOW)
    status = path.stat() if links else path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UnfitError(path, f"it is {_kind(status)}, where a directory belongs")
    descriptor = os.open(path, flags)
    try:
        _require_ours(os.fstat(descriptor), path, descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Sync a directory's names to the disk. Blocks. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _ALWAYS)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- checks ----------------------------------------------------------------------------------------


def _require_file(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnfitError(path, f"it is {_kind(status)}, where a file belongs")


def _kind(status: os.stat_result) -> str:
    return next((name for test, name in _KINDS if test(status.st_mode)), "something else")


def _is_own(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid()


def _require_ours(status: os.stat_result, path: Path, handle: int | Path) -> None:
    """Refuse a file that other users (but root) can change; if it is ours, tighten its mode."""
    if not _is_own(status) and status.st_uid != 0:
        raise UnfitError(
            path,
            f"it belongs to another user (uid {status.st_uid}), who could change it: `chown` it, or"
            " use another",
        )
    if not status.st_mode & OTHERS_WRITE:
        return
    if not _is_own(status):
        raise UnfitError(path, "others may write there: `chmod go-w` it")
    os.chmod(handle, stat.S_IMODE(status.st_mode) & ~OTHERS_WRITE)  # noqa: PTH101 (a descriptor)
    _warn("others could write there; now they can't (`chmod go-w`)", path)


def _warn(text: str, path: Path) -> None:
    import structlog  # noqa: PLC0415 (the stdio bridge and the hooks of a start do without it)

    structlog.get_logger().warning(text, path=str(path))
