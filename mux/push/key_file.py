"""The keys of the services: files that the settings name, for this user's eyes alone.

A file that is gone or too open is told when it is wanted, not at the start: a broker without push
is better than none.

Hands to: the services, a key's text. Hears from: the settings, its path.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from mux.posix import private_file
from mux.push.message import PushError

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read(path: Path, setting: str) -> str:
    """The text of a key file, without blanks around it. Blocks, shortly. Raises ``PushError``."""
    try:
        if path.stat().st_mode & OTHERS:
            raise PushError(f"{setting}: others may read {path}: `chmod 600 {path}`")
        found = private_file.read_secret(path).decode().strip()
    except OSError as failure:
        raise PushError(f"{setting}: can't read {path}: {failure.strerror}") from failure
    except UnicodeDecodeError as failure:
        raise PushError(f"{setting}: {path} is no key: it isn't text") from failure
    if not found:
        raise PushError(f"{setting}: {path} is empty")
    return found
