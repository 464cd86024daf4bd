"""The end of one unfinished upload's file, to which a connection writes. Used in threads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import structlog

from mux.core.part import Part
from mux.files.errors import CHECKSUM_MISMATCH, NO_ROOM, TOO_MUCH, UploadError
from mux.files.limits import FREE_EVERY

Algorithm = Literal["sha1", "sha256"]

APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC

log = structlog.get_logger()


class UploadWriter(Part):
    """Appends bytes to a file, not past its announced length, and digests them."""

    path: Path
    length: int
    """Bytes that the file is to have."""
    digest: hashlib._Hash | None
    """The digest of all that has come; None where a part of it was written without us."""
    checksum: tuple[Algorithm, bytes] | None
    """What the bytes that come now must have."""
    free: Callable[[], int]
    """Returns the bytes that the disk has left for us."""
    at: int = 0
    """Bytes that the file has."""
    _begin: int = 0
    _file: int = -1
    _check: hashlib._Hash | None = None
    _before: hashlib._Hash | None = None
    """The digest, as it was before these bytes."""
    _checked_at: int = 0

    def open(self) -> None:
        """Open the file. Raises ``UploadError``."""
        try:
            self._file = os.open(self.path, APPEND)
            self.at = self._begin = self._checked_at = os.fstat(self._file).st_size
        except OSError as failure:
            raise refused_by_disk(failure) from failure
        if self.checksum is not None:
            self._check = hashlib.new(self.checksum[0])
            self._before = None if self.digest is None else self.digest.copy()

    def write(self, piece: memoryview) -> None:
        """Append bytes. Raises ``UploadError``; what was written until then stays."""
        if self.at + len(piece) > self.length:
            raise UploadError(TOO_MUCH, "more bytes came than were announced")
        if self.at >= self._checked_at:
            self._checked_at = self.at + FREE_EVERY
            if self.free() < 0:
                raise UploadError(NO_ROOM, "the host's disk is nearly full: go on later")
        written = 0
        while written < len(piece):
            try:
                count = os.write(self._file, piece[written:])
            except OSError as failure:
                raise refused_by_disk(failure) from failure
            for digest in (self.digest, self._check):
                if digest is not None:
                    digest.update(piece[written : written + count])
            written += count
            self.at += count

    def close(self, *, whole: bool) -> None:
        """Close the file. ``whole``: all has come that was to come now.

        With a checksum the bytes stay if it is right, and else go. Raises ``UploadError``.
        """
        right = self.checksum is None or (whole and self._sum() == self.checksum[1])
        try:
            if not right:
                os.ftruncate(self._file, self._begin)
                self.at, self.digest = self._begin, self._before
        except OSError as failure:
            raise refused_by_disk(failure) from failure
        finally:
            os.close(self._file)
            self._file = -1
        if whole and not right:
            text = "the checksum isn't that of the bytes that came: send them again"
            raise UploadError(CHECKSUM_MISMATCH, text)

    def _sum(self) -> bytes:
        return b"" if self._check is None else self._check.digest()


def refused_by_disk(failure: OSError) -> UploadError:
    """Return the error for a disk that refuses the data."""
    log.warning("an upload can't be written", error=failure.strerror)
    return UploadError(
        NO_ROOM, f"the host's disk doesn't take it ({failure.strerror}): go on later"
    )
