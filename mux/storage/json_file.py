"""A small file that is replaced as a whole: readers see the old text or the new one, never half.

So it is after a power cut, too: the new text is on the disk before it gets the name. Those in JSON
name the version of their format, so that an older appmux doesn't misread them.

Hands to: the file system. Hears from: ``devices``, ``push.endpoints``, ``preferences`` and
``write_behind``, what stands in their files.
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
"""Ends the name of what isn't whole yet. A kill leaves one, and the next writer begins it anew."""

BROKEN: Final = ".broken"
"""Ends the name of what was damaged, for whoever wants to know why: one of each file."""

log = structlog.get_logger()


def read(
    path: Path,
    version: int,
    what: str,
    error: type[AppmuxError],
    unreadable: Callable[[Path, str], AppmuxError],
) -> dict[str, Any] | None:
    """The JSON object that it holds, of this version; None if there is no such file. Blocks.

    ``what`` it should be, for people. Raises what ``unreadable`` makes of the path and the reason:
    if it is damaged, with ``DamagedError`` as its cause; ``error`` if a newer appmux wrote it.
    """
    try:
        raw = private_file.read(path)
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise unreadable(path, failure.strerror or str(failure)) from failure
    try:
        document: dict[str, Any] = json.loads(raw.decode())
        found = document["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as failure:
        raise unreadable(path, f"it isn't {what}") from DamagedError(failure)
    if found != version:
        raise error(f"{path} is of version {found!r}, written by a newer appmux: run that one")
    return document


class DamagedError(ValueError):
    """The cause of an error about a file that can be read, and makes no sense."""


def set_aside(path: Path, lost: str, instead: str | None = None) -> None:
    """Give a damaged file another name, and say so; ``lost``: what is lost with it. Blocks.

    ``instead``: what stands in its place from then on. Raises ``OSError``.
    """
    aside = path.with_name(path.name + BROKEN)
    if instead is None:
        path.replace(aside)
    else:  # at no moment is there none: that would mean something else
        new = prepare(path, instead)
        aside.unlink(missing_ok=True)
        os.link(path, aside)
        new.replace(path)
    private_file.sync_directory(path.parent)
    log.error(f"{path} is damaged: set aside, and a new one begun; {lost}", kept=str(aside))


def replace(path: Path, text: str) -> None:
    """Write it, mode 0600, so that it outlives a power cut. Blocks. Raises ``OSError``."""
    prepare(path, text).replace(path)
    private_file.sync_directory(path.parent)


def prepare(path: Path, text: str, ending: str = NEW) -> Path:
    """Have the text on the disk beside the file; where. It still has to get its name.

    Blocks. Raises ``OSError``.
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
        new.unlink(missing_ok=True)  # it takes room that is wanted just now
        raise
    return new
