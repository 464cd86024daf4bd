"""The journal: every message of a thread, numbered; and how deltas merge for one who comes late.

Made by ``broker`` at ``publish``; kept in memory here, on disk by the shell's ``store``.
"""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One numbered message, as its followers get it. ``thread`` None: for everybody."""

    seq: int
    thread: str | None
    method: str
    message: bytes


MERGEABLE = frozenset(
    {
        "item/agentMessage/delta",
        "item/plan/delta",
        "item/reasoning/textDelta",
        "item/reasoning/summaryTextDelta",
        "item/commandExecution/outputDelta",
        "item/fileChange/outputDelta",
    }
)
"""Notifications whose ``params.delta`` is a piece of text: two of one stream may become one."""


def is_delta(method: str) -> bool:
    """Whether an entry may be merged with its like, and dropped once its item is complete."""
    return method in MERGEABLE
