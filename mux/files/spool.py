"""Unfinished uploads on disk: for each a file with what has come, and one that describes it.

The length of the first is how far the upload is, so that no write is needed to keep it: a killed
broker finds all that it had taken. While bytes come that have yet to prove right by a checksum, a
third file says where they begin: after a kill they go. A finished upload is described for a while,
so that a client that lost the answer finds it. Everything here blocks.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec

from mux.files import limits
from mux.posix import private_file
from mux.posix.private_file import UnfitError
from mux.storage import json_file

FOLDER: Final = "uploads"
DATA, ABOUT, UNPROVEN = ".part", ".json", ".from"
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
    """Hex digest that its bytes must have; empty if none was announced. Once placed: that of its
    bytes."""
    directory: str = ""
    """Its thread's, when it was announced: a broker that has just started may not know it."""
    path: str = ""
    """Where its file lies; empty until it is placed."""


class FoundUpload(msgspec.Struct, frozen=True):
    """An upload that another broker has left."""

    about: Description
    size: int
    touched: float
    """When it was last written to, in Unix seconds."""


class Spool(msgspec.Struct, frozen=True):
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

    def describe(self, description: Description) -> None:
        """Replace an upload's description. Raises ``OSError``."""
        text = msgspec.json.encode(description).decode()
        json_file.replace(self._about(description.id), text)

    def settle(self, description: Description) -> None:
        """Describe an upload that is placed, and forget what has come. Raises ``OSError``."""
        self.describe(description)
        self.data(description.id).unlink(missing_ok=True)

    def load(self) -> list[FoundUpload]:
        """Return all uploads. What makes no sense is removed. Raises ``OSError``."""
        found = []
        for about in sorted(self.folder.glob(f"*{ABOUT}")):
            id = about.name.removesuffix(ABOUT)
            try:
                found.append(self._found(id, about))
            except (FileNotFoundError, UnfitError, msgspec.DecodeError):
                self.remove(id)
        known = {each.about.id for each in found}
        for file in self.folder.glob("*"):
            if file.name.partition(".")[0] not in known:
                file.unlink(missing_ok=True)
        return found

    def _found(self, id: str, about: Path) -> FoundUpload:
        description = msgspec.json.decode(private_file.read(about), type=Description)
        if description.path:
            self.data(id).unlink(missing_ok=True)
            return FoundUpload(description, description.length, about.stat().st_mtime)
        begin = self._unproven(id)
        if begin.exists():
            if text := private_file.read(begin):  # else the kill came before any byte
                os.truncate(self.data(id), int(text))
            begin.unlink()
        data = self.data(id).stat()
        return FoundUpload(description, data.st_size, data.st_mtime)

    def distrust(self, id: str, begin: int) -> None:
        """Note that what comes from here on has yet to prove right. Raises ``OSError``."""
        with open(self._unproven(id), "wb", opener=_private) as file:
            file.write(b"%d" % begin)

    def trust(self, id: str) -> None:
        """Note that all that has come is right."""
        self._unproven(id).unlink(missing_ok=True)

    def remove(self, id: str) -> None:
        """Remove an upload's files, as far as they are there."""
        for file in (self._about(id), self.data(id), self._unproven(id)):
            file.unlink(missing_ok=True)

    def data(self, id: str) -> Path:
        """Return the file of what has come."""
        return self.folder / f"{id}{DATA}"

    def _about(self, id: str) -> Path:
        return self.folder / f"{id}{ABOUT}"

    def _unproven(self, id: str) -> Path:
        return self.folder / f"{id}{UNPROVEN}"

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
