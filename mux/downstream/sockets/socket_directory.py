"""The directories of unix sockets: made private, or refused where others could interfere."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from mux.errors import AppmuxError

SHORT_PLACES = Path("/tmp")
"""The parent of the directory for sockets of long paths; as in Codex, ``TMPDIR`` doesn't count."""

PRIVATE_DIRECTORY = 0o700
NOT_OWNER = 0o077


class ListenError(AppmuxError):
    """A listener that can't be opened; the text names it, what is in the way, and the remedy."""


def prepare_directory(directory: Path, *, control: bool) -> None:
    """Make the directory of a unix socket, or check the one that is there.

    ``control``: it is of Codex's control socket, and is made private if it is our own.

    Raises ``ListenError`` if others could put a socket of theirs in our socket's place.
    """
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    for parent in reversed(missing):
        try:
            parent.mkdir(mode=PRIVATE_DIRECTORY)
        except FileExistsError:  # another broker is making it, too
            continue
        parent.chmod(PRIVATE_DIRECTORY)
    status, own_uid = directory.stat(), os.geteuid()
    if control and status.st_uid == own_uid:
        if status.st_mode & NOT_OWNER:
            directory.chmod(PRIVATE_DIRECTORY)
        return
    # The socket's own mode keeps others from connecting to it. But the directory's owner could
    # replace it, and so could everybody if everybody may write there.
    if own_uid != 0 and status.st_uid not in (0, own_uid):
        raise ListenError(
            f"can't listen in {directory}: it belongs to another user (uid {status.st_uid}), who"
            " could put another socket in this one's place; choose a directory of your own"
        )
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise ListenError(
            f"can't listen in {directory}: everybody may write there and could put another socket"
            f" in this one's place; `chmod o-w {directory}`, or choose a directory of your own"
        )


def short_place(path: Path) -> Path:
    """Return the path at which Codex's own listener puts the socket of this path."""
    real = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 (no link itself)
    name = hashlib.sha256(os.fsencode(real)).hexdigest()
    return SHORT_PLACES.resolve() / f"codex-daemon-{os.geteuid()}" / name


def prepare_short_places(directory: Path) -> None:
    """Make the directory of short paths, or check it: its parent is writable for everybody, so
    another user may have made it."""
    directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ListenError(
            f"can't listen in {directory}, where the sockets of long paths are: it belongs to"
            " somebody else; have it removed, or choose a shorter path"
        )
    if status.st_mode & NOT_OWNER:
        directory.chmod(PRIVATE_DIRECTORY)
