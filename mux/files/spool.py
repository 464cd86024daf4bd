"""Unfinished uploads on disk: for each a file with what has come, and one that describes it.

The length of the first is how far the upload is, so that no write is needed to keep it: a killed
broker finds all that it had taken. Nothing here waits for anything but the disk; the caller uses a
thread where that may take long.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

import attrs
import msgspec

from mux.files import limits
from mux.posix import private_file

FOLDER: Final = "uploads"
DATA, ABOUT = ".part", ".json"
ID_BYTES: Final = 24
"""Random bytes of an upload's id: whoever doesn't know it can't guess it."""

COPY_BYTES: Final = 2**20


class Description(msgspec.Struct, frozen=True, omit_defaults=True):
    """An upload as its client announced it."""

    id: str
    owner: str
    """Key of the principal that began it; to others it isn't there."""
    by: str
    """That principal's name, for people."""
    name: str
    """Safe (``names``)."""
    length: int
    created: float
    """Unix seconds."""
    thread: str | None = None
    type: str = ""
    sha256: str = ""
    """Hex digest that its bytes must have; empty if none was announced."""


@attrs.frozen
class Spool:
    """The folder of unfinished uploads."""

    folder: Path

    def begin(self, description: Description) -> None:
        """Make an upload's two files. Raises ``OSError``."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.data(description.id), "xb", opener=_private):
            pass
        about = self._about(description.id)
        with open(about, "xb", opener=_private) as file:
            file.write(msgspec.json.encode(description))

    def load(self) -> dict[str, tuple[Description, int]]:
        """Return all uploads, and how many bytes of each have come.

        What can't be read is removed.
        """
        uploads = {}
        for about in sorted(self.folder.glob(f"*{ABOUT}")):
            id = about.name.removesuffix(ABOUT)
            try:
                description = msgspec.json.decode(private_file.read(about), type=Description)
                uploads[id] = description, self.data(id).stat().st_size
            except (OSError, msgspec.DecodeError):
                self.remove(id)
        for data in self.folder.glob(f"*{DATA}"):
            if data.name.removesuffix(DATA) not in uploads:
                data.unlink(missing_ok=True)
        return uploads

    def remove(self, id: str) -> None:
        """Remove an upload's files, as far as they are there."""
        self._about(id).unlink(missing_ok=True)
        self.data(id).unlink(missing_ok=True)

    def data(self, id: str) -> Path:
        """Return the file of what has come."""
        return self.folder / f"{id}{DATA}"

    def _about(self, id: str) -> Path:
        return self.folder / f"{id}{ABOUT}"

    def digest(self, id: str) -> str:
        """Return the SHA-256 of what has come, in hex. Takes a second a gigabyte."""
        digest = hashlib.sha256()
        with self.data(id).open("rb") as data:
            while piece := data.read(COPY_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    def free(self) -> int:
        """Return the bytes that the disk has left for us."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize - limits.FREE_BYTES


def new_id() -> str:
    """Make up an upload's id."""
    return secrets.token_urlsafe(ID_BYTES)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
