"""A small file that is replaced as a whole: readers see the old text or the new one, never half.

Hands to: the file system. Hears from: ``devices``, ``push.endpoints``, what stands in their files.
"""

from __future__ import annotations

import os
from pathlib import Path


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
