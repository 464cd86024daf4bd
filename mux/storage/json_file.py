"""A small file that is replaced as a whole: a reader sees the old text or the new one, never half.

The same holds after a power cut, as the new text is on the disk before it gets the file's name. A
JSON file names the version of its format, so that an older appmux doesn't misread it.

Used by: ``access.devices``, ``push.endpoints``, ``notices.preferences`` and ``small_file``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from mux.errors import AppmuxError
from mux.posix import private_file

NEW: Final = ".new"
"""Suffix of a file that isn't complete yet. A kill leaves such a file, and the next writer begins
it anew."""

BROKEN: Final = ".broken"
"""Suffix of a file that was damaged, for whoever wants to know why: one is kept of each file."""

log = structlog.get_logger()


def read(
    path: Path,
    version: int,
    what: str,
    error: type[AppmuxError],
    unreadable: Callable[[Path, str], AppmuxError],
) -> dict[str, Any] | None:
    """Read the JSON object in a file, which must be of this version. Blocks.

    Returns None if there is no such file. ``what`` names for people what the file should be. Raises
    what ``unreadable`` makes of the path and the reason if the file can't be read; if it is
    damaged, that error's cause is a ``DamagedError``. Raises ``error`` if a newer appmux wrote the
    file.
    """
    try:
        raw = private_file.read(path)
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise unreadable(path, failure.strerror or str(failure)) from failure
    try:
        document: dict[str, Any] = json.loads(raw.decode())
        document_version = document["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as failure:
        raise unreadable(path, f"it isn't {what}") from DamagedError(failure)
    if document_version != version:
        raise error(
            f"{path} is of version {document_version!r}, written by a newer appmux: run that one"
        )
    return document


class DamagedError(ValueError):
    """The cause of an error about a file that can be read but makes no sense."""


def set_aside(path: Path, lost: str, instead: str | None = None) -> None:
    """Rename a damaged file and log that. Blocks. Raises ``OSError``.

    ``lost`` says what is lost with the file. ``instead`` is the text that takes its place from then
    on; None leaves no file there.
    """
    aside = path.with_name(path.name + BROKEN)
    if instead is None:
        path.replace(aside)
    else:  # a link first, so that the file is never absent: that would mean something else
        new = prepare(path, instead)
        aside.unlink(missing_ok=True)
        os.link(path, aside)
        new.replace(path)
    private_file.sync_directory(path.parent)
    log.error(f"{path} is damaged: set aside, and a new one begun; {lost}", kept=str(aside))


def replace(path: Path, text: str) -> None:
    """Replace the file's text (mode 0600), so that it outlives a power cut. Blocks. Raises
    ``OSError``."""
    prepare(path, text).replace(path)
    private_file.sync_directory(path.parent)


def prepare(path: Path, text: str, ending: str = NEW) -> Path:
    """Put the text on the disk beside the file, and return the path of the new file.

    The caller still has to rename it to ``path``. Blocks. Raises ``OSError``.
    """
    new = path.with_name(path.name + ending)
    # A file left by an earlier life may be anything.
    new.unlink(missing_ok=True)
    descriptor = private_file.open_file(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        new.unlink(missing_ok=True)  # it takes space that is needed just now
        raise
    return new
