"""Files that are let out: opened when they are asked for, and sent under a URL that is good once.

A file is opened at once, beneath its thread's directory if it lies there, and never by a link: what
is sent is what was judged, whatever becomes of its name. A URL is good until the whole file was
sent, or for ten minutes; a client whose connection breaks goes on under it.

Used by ``web``, which sends them, and ``server``, which answers ``mux/files/open``.
"""

from __future__ import annotations

import mimetypes
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec
import trio

from mux.core.extension.files import Opened
from mux.core.part import Part
from mux.core.policy.principal import Principal
from mux.errors import AppmuxError
from mux.files.beneath import open_file

PATH: Final = "/v1/files/of/"
TOKEN_BYTES: Final = 24
SECONDS: Final = 600.0
"""A large file over a bad network takes that long; the answer's URL is used at once, else."""

OPEN: Final = 64
"""Files that are open at once, each a descriptor; the oldest is closed for the newest."""

OCTETS: Final = "application/octet-stream"


class FileError(AppmuxError):
    """A file can't be opened."""


class BrokenOffError(OSError):
    """A response is broken off: nobody takes what was sent for the whole file."""


class Download(msgspec.Struct, eq=False):
    """A file that may be fetched."""

    file: int
    """Its descriptor."""
    name: str
    bytes: int
    type: str
    mark: str
    """Changes when the file does (an ``ETag``)."""
    until: float
    """On trio's clock."""
    whose: Principal
    """Whom it was opened for."""
    busy: int = 0
    """Requests that read from it."""
    over: bool = False
    """True once it may not be fetched again; closed when nobody reads from it."""

    def has_changed(self) -> bool:
        """Return whether the file isn't any more what it was when it was opened."""
        return _mark(os.fstat(self.file)) != self.mark

    def release(self) -> None:
        """Close the file if it is over and nobody reads from it."""
        if self.over and not self.busy and self.file >= 0:
            os.close(self.file)
            self.file = -1


class Downloads(Part):
    """The files that may be fetched, by the token in their URL."""

    may: Callable[[Principal], bool] = lambda _principal: True
    """Returns whether a principal still has what it had: it may have been shut out meanwhile."""
    _open: OrderedDict[str, Download] = msgspec.field(default_factory=OrderedDict)

    def offer(self, path: str, directory: str, whose: Principal) -> Opened:
        """Open a file and return under which URL it is fetched. Raises ``FileError``."""
        try:
            file = _opened(path, directory)
        except OSError as failure:
            raise FileError(f"{path} can't be opened: {failure.strerror}") from failure
        about = os.fstat(file)
        name = PurePosixPath(path).name
        kind = mimetypes.guess_type(name)[0] or OCTETS
        self._drop_old(OPEN - 1)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        until = trio.current_time() + SECONDS
        self._open[token] = Download(file, name, about.st_size, kind, _mark(about), until, whose)
        return Opened(
            url=PATH + token,
            name=name,
            bytes=about.st_size,
            type=kind,
            expiresInSeconds=int(SECONDS),
        )

    def find(self, token: str) -> Download | None:
        """Return what may be fetched under a token."""
        self._drop_old()
        download = self._open.get(token)
        if download is not None and not self.may(download.whose):
            self.drop(token)
            return None
        return download

    def require_unchanged(self, download: Download) -> None:
        """Raise ``BrokenOffError`` if a file that is sent isn't what it was, or isn't for it."""
        if download.has_changed():
            raise BrokenOffError("the file changed while it was sent")
        if not self.may(download.whose):
            raise BrokenOffError("the device was shut out while the file was sent")

    def drop(self, token: str) -> None:
        """End a URL; the file is closed when nobody reads from it."""
        download = self._open.pop(token, None)
        if download is not None:
            download.over = True
            download.release()

    def _drop_old(self, most: int = OPEN) -> None:
        now = trio.current_time()
        for token, download in list(self._open.items()):
            if download.until <= now or len(self._open) > most:
                self.drop(token)


def _opened(path: str, directory: str) -> int:
    """Open a file that may be anywhere, without following links on its way."""
    if directory and path.startswith(directory.rstrip("/") + "/"):
        # The thread's directory itself is where it is, links and all: it was judged as that.
        return open_file(directory, path[len(directory.rstrip("/")) + 1 :])
    return open_file("/", str(Path(path).relative_to("/")))


def _mark(about: os.stat_result) -> str:
    # A file can be given an older time of change, but not one of its inode.
    return f"{about.st_ino:x}-{about.st_size:x}-{about.st_mtime_ns:x}-{about.st_ctime_ns:x}"
