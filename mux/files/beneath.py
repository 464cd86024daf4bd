"""Paths beneath a directory, opened one component at a time, without following links.

A path that is looked at and then opened may have become another one in between. So each directory
on the way is opened from the one before it, and what isn't a directory there is an error.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Final

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
REGULAR: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A pipe that somebody put there must not make us wait."""

NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def directory(root: str, *parts: str, make: bool = False) -> Iterator[int]:
    """Open ``root/part/part…`` and give its descriptor. ``make``: missing parts are made (0700).

    Links in ``root`` itself are the caller's business; those below it are refused. Raises
    ``OSError``.
    """
    opened = os.open(root, DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for part in parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=opened)
            below = os.open(part, DIRECTORY, dir_fd=opened)
            os.close(opened)
            opened = below
        yield opened
    finally:
        os.close(opened)


def open_file(root: str, path: str) -> int:
    """Open a regular file beneath a directory for reading, and return its descriptor.

    ``path`` is relative. Raises ``OSError``, also for what is no regular file, and for ``..``.
    """
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts:
        raise OSError(errno.EINVAL, "not a path beneath the directory", path)
    with directory(root, *parts[:-1]) as parent:
        opened = os.open(parts[-1], REGULAR, dir_fd=parent)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return opened
