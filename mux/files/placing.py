"""The end of an upload: the file's place in its thread's directory, or in the state directory.

It gets there whole, under a name that is new, mode 0600, never over another file and never through
a link. Done again it has the same outcome: a broker may be killed at any moment.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from mux.files import names
from mux.files.beneath import NEW_FILE, directory

UPLOADS: Final = "uploads"
IGNORED: Final = b"*\n"
"""The ``.gitignore`` beside uploads: an agent's ``git add .`` must not publish them."""


def place(data: Path, name: str, root: str, *parts: str) -> str:
    """Give a file the name ``root/part…/name``, or one like it too, and return its whole path.

    ``root`` must exist. Raises ``OSError``. Its old name stays, for the caller to remove.
    """
    with directory(root, *parts, make=True) as folder:
        _ignore(folder)
        for candidate in names.alternatives(name):
            try:
                _put(data, candidate, folder)
            except FileExistsError:
                if not _same(data, candidate, folder):
                    continue
            return os.path.join(root, *parts, candidate)  # noqa: PTH118 (no Path is wanted)
    raise OSError(errno.EEXIST, "too many files of this name", name)


def _ignore(folder: int) -> None:
    try:
        file = os.open(".gitignore", NEW_FILE, 0o600, dir_fd=folder)
    except FileExistsError:
        return
    with os.fdopen(file, "wb") as ignore:
        ignore.write(IGNORED)


def _put(data: Path, name: str, folder: int) -> None:
    """Give a file another place, if nothing is there. Raises ``FileExistsError``, ``OSError``."""
    try:
        os.link(data, name, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as failure:
        if failure.errno not in {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK}:
            raise
        _copy(data, name, folder)  # another disk, or one without hard links


def _same(data: Path, name: str, folder: int) -> bool:
    """Return whether a name is the file's own, given it before a kill."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return os.path.samestat(found, data.stat())


def _copy(data: Path, name: str, folder: int) -> None:
    """Copy a file, under a hidden name first: nobody sees a part of it under its own."""
    hidden = f".{data.name}"
    with suppress(FileNotFoundError):
        os.unlink(hidden, dir_fd=folder)  # of a broker that was killed meanwhile
    try:
        with (
            data.open("rb") as source,
            os.fdopen(os.open(hidden, NEW_FILE, 0o600, dir_fd=folder), "wb") as target,
        ):
            shutil.copyfileobj(source, target, 2**20)
        try:
            os.link(hidden, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as failure:
            if failure.errno not in {errno.EPERM, errno.ENOTSUP}:
                raise
            # No hard links: whoever takes the name in this moment loses it, but only there.
            os.close(os.open(name, NEW_FILE, 0o600, dir_fd=folder))
            os.rename(hidden, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(hidden, dir_fd=folder)
