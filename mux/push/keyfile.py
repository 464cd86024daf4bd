"""The keys of the services: files that the settings name, for this user's eyes alone.

A file that is gone or too open is told when it is wanted, not at the start: a broker without push
is better than none.

Hands to: the services, a key's text. Hears from: the settings, its path.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from mux.push.push import PushError

MOST_BYTES: Final = 64 * 1024
"""A service account's JSON has 2 KiB; who names a video by mistake is told so at once."""

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read(path: Path, setting: str) -> str:
    """The text of a key file, without blanks around it. Blocks, shortly. Raises ``PushError``."""
    try:
        mode = path.stat().st_mode
        if mode & OTHERS:
            raise PushError(f"{setting}: others may read {path}: `chmod 600 {path}`")
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise PushError(f"{setting}: {path} is no key: it has more than {MOST_BYTES} bytes")
        found = text.decode().strip()
    except OSError as failure:
        raise PushError(f"{setting}: can't read {path}: {failure.strerror}") from failure
    except UnicodeDecodeError as failure:
        raise PushError(f"{setting}: {path} is no key: it isn't text") from failure
    if not found:
        raise PushError(f"{setting}: {path} is empty")
    return found
