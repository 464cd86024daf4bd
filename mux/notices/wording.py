"""The words of a push: its title and its one line.

Both are made for the level ``full``; ``mux.push`` removes what an endpoint's own level doesn't
allow. Text that others wrote (a command, a thread's name) is made harmless.
"""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Any, Final

import msgspec

from mux.core.features.notices.notice_sources import one_line
from mux.core.policy.notice import Kind, Notice
from mux.push import message
from mux.text import visible

KINDS: Final[dict[Kind, message.Kind]] = {
    "approval": "approval",
    "question": "question",
    "approval-lost": "interrupted",
    "turn-completed": "completed",
    "turn-failed": "failed",
    "turn-interrupted": "interrupted",
    "goal-reached": "goal",
    "goal-blocked": "goal",
    "usage-limit": "limit",
    "app-server-down": "down",
    "app-server-back": "back",
}

LOST: Final = "appmux was restarted while an approval waited; its turn was interrupted"

_SAID: Final[dict[Kind, str]] = {
    "approval-lost": LOST,
    "goal-reached": "The goal is reached",
    "goal-blocked": "The goal is blocked",
    "app-server-down": "It died too often; it is tried again, by `appmux restart` at once",
}

MOST_FILES: Final = 3
"""Most changed files that are named in a line."""


def title(notice: Notice) -> str | None:
    """Return the thread's name, or None if it has none."""
    return visible(notice.title) or None


def body(notice: Notice) -> str | None:
    """Return the most informative line about a notice, or None."""
    line = _request_text(notice) if notice.request is not None else ""
    known = _SAID.get(notice.kind, "")
    if not line and known and notice.line:
        line = f"{known}: {notice.line}"
    return visible(one_line(line or known or notice.line)) or None


def _request_text(notice: Notice) -> str:
    params, item = _object(notice.params), _object(notice.item)
    command = params.get("command") or item.get("command")
    if command is not None:
        words = " ".join(map(str, command)) if isinstance(command, list) else str(command)
        return f"$ {_unwrapped(words)}"
    paths = [str(each.get("path")) for each in _objects(item.get("changes"))]
    paths += [str(path) for path in params.get("fileChanges") or ()]
    if paths:
        named = ", ".join(PurePath(path).name for path in paths[:MOST_FILES])
        more = f" and {len(paths) - MOST_FILES} more" if len(paths) > MOST_FILES else ""
        return f"change {named}{more}"
    questions = _objects(params.get("questions"))
    if questions:
        return str(questions[0].get("question") or "")
    return str(params.get("reason") or params.get("message") or "")


def _unwrapped(command: str) -> str:
    """Return the command that was meant, without the shell that codex wraps around it."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    shell = len(words) == 3 and words[1] in ("-c", "-lc") and words[0].endswith("sh")  # noqa: PLR2004
    return words[2] if shell else command


def _object(text: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
