"""Limits of the texts that clients choose and that are stored, shown, logged or audited here.

Natively no such text has a limit: it costs its sender's process alone. Here everybody pays for it,
in each list of clients, each line of the log, each entry that is remembered.

Used wherever such texts are read. A text that is only passed on has no limit of its own.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

LONGEST_NAME: Final = 256
"""Characters of a name, or of an id that isn't a request's. Thread ids have 36, the longest method
of codex 50, programs' names 40."""

LONGEST_ID: Final = 1024
"""Bytes of a request's id, as JSON text: UUIDs, or a few words."""

MOST_NAMED: Final = 1024
"""Notifications that a client may opt out of: codex has a tenth of that."""

Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
"""A text of at most ``LONGEST_NAME`` characters, as the type of a field."""

TOO_LONG: Final = f"longer than {LONGEST_NAME} characters"

NO_HEADER_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Characters that HTTP headers can't hold: natively a name with one of them is refused."""


def is_short(text: str) -> bool:
    """Return whether a name or id has at most ``LONGEST_NAME`` characters."""
    return len(text) <= LONGEST_NAME
