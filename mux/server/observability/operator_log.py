"""Lines of the log about approvals and turns, made of the records for the audit log.

The audit log has who, what and a digest, and is kept; the log has a line for whoever watches the
broker work. No person's words stand in either.

Used by ``serve``, between the core's ``Record`` and the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

LOGGED: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "approval/raised": ("approval waits", ("approval", "method", "thread")),
    "approval/voted": ("approval voted on", ("approval", "decision", "thread")),
    "approval/answered": ("approval answered", ("approval", "decision", "after", "thread")),
    "approval/given-up": ("approval given up", ("approval", "thread")),
    "approval/withdrawn": ("approval withdrawn", ("approval", "thread")),
    "turn/asked": ("turn asked for", ("method", "thread", "turn")),
    "turn/queued": ("turn queued", ("queued", "thread")),
    "turn/lost": ("turn not started", ("method", "thread")),
}
"""The records that make a line: its text, and the fields that it shows."""

log = structlog.get_logger()

Record = Callable[[str, dict[str, object]], None]


def logging(record: Record) -> Record:
    """Return a function that logs a record, if it is one of those, and then has it recorded."""

    def both(kind: str, fields: dict[str, object]) -> None:
        line = LOGGED.get(kind)
        if line is not None:
            text, shown = line
            log.info(text, **{name: fields[name] for name in shown if fields.get(name) is not None},
                     **_who(fields.get("by")))  # fmt: skip
        record(kind, fields)

    return both


def _who(actor: Any) -> dict[str, object]:
    if not isinstance(actor, dict):
        return {}
    return {"client": actor.get("client"), "name": actor.get("name"), "by": actor.get("principal")}
