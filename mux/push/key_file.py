"""The keys of the services: files that the settings name, readable by this user alone.

A file that is missing or readable by others is reported when it is needed, not at the start: a
broker without push is better than none.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from mux.posix import private_file
from mux.push.message import PushError

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
"""Permission bits that a key file must not have."""


def read(path: Path, setting: str) -> str:
    """Return the text of a key file, stripped. Blocks, shortly. Raises ``PushError``."""
    try:
        if path.stat().st_mode & OTHERS:
            raise PushError(f"{setting}: others may read {path}: `chmod 600 {path}`")
        secret = private_file.read_secret(path).decode().strip()
    except OSError as failure:
        raise PushError(f"{setting}: can't read {path}: {failure.strerror}") from failure
    except UnicodeDecodeError as failure:
        raise PushError(f"{setting}: {path} is no key: it isn't text") from failure
    if not secret:
        raise PushError(f"{setting}: {path} is empty")
    return secret
