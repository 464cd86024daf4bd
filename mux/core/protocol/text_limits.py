"""How long the texts may be that a client chooses and that are kept here, shown, logged or audited.

Natively none has a limit: they cost their sender's process. Here everybody else pays for them, in
each picture of who is here, each line of the log, each entry that is remembered.

Read by all parts that read such texts. A text that has its say and passes has no limit of its own.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

LONGEST_NAME: Final = 256
"""Characters of a name or id that isn't a request's: thread ids have 36, the longest method of
codex 50, programs' names 40."""

LONGEST_ID: Final = 1024
"""Bytes of a request's id, as JSON text: UUIDs, or a few words."""

MOST_NAMED: Final = 1024
"""Notifications that a client may opt out of: codex has a tenth of that."""

Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
"""A text of at most so many characters, for what is decoded into classes."""

TOO_LONG: Final = f"longer than {LONGEST_NAME} characters"

NO_HEADER_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What HTTP headers can't hold: natively a name with it is refused."""


def is_short(text: str) -> bool:
    """Whether a name or id has at most ``LONGEST_NAME`` characters."""
    return len(text) <= LONGEST_NAME
