"""A small file that is replaced as a whole: readers see the old text or the new one, never half.

Those in JSON name the version of their format, so that an older appmux doesn't misread them.

Hands to: the file system. Hears from: ``devices``, ``push.endpoints``, ``notices.wishes``, what
stands in their files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mux.errors import AppmuxError


def read(
    path: Path,
    version: int,
    what: str,
    error: type[AppmuxError],
    unreadable: Callable[[Path, str], AppmuxError],
) -> dict[str, Any] | None:
    """The JSON object that it holds, of this version; None if there is no such file. Blocks.

    ``what`` it should be, for people. Raises what ``unreadable`` makes of the path and the reason;
    ``error`` if a newer appmux wrote it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as failure:
        raise unreadable(path, str(failure)) from failure
    try:
        document: dict[str, Any] = json.loads(text)
        found = document["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as failure:
        raise unreadable(path, f"it isn't {what}") from failure
    if found != version:
        raise error(f"{path} is of version {found!r}, written by a newer appmux: run that one")
    return document


def replace(path: Path, text: str, *, safely: bool) -> None:
    """Write it, mode 0600; ``safely``: it outlives a power cut. Blocks. Raises ``OSError``."""
    new = path.with_name(path.name + ".new")
    # A file left by an earlier life may have another mode.
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        if safely:
            file.flush()
            os.fsync(file.fileno())
    new.replace(path)
    if safely:
        _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
