"""The view by which a person judges an approval, read from its params and the item it is about.

The command is shown as it will run: the whole of what the app-server says, not the part of it that
it parsed. Texts are a stranger's; who shows them makes them safe.

Used by ``approval_list`` and ``inbox_picture``.
"""

from __future__ import annotations

import shlex
from typing import Any, Final

import msgspec

from mux.core.extension.approvals import FileChange
from mux.core.features.approvals.approval_items import item_about, params_of
from mux.core.features.history import file_changes
from mux.core.policy import risk
from mux.core.policy.notice import Risk
from mux.core.state.requests.pending_requests import ServerRequest
from mux.core.state.state import State
from mux.core.state.threads.threads import Thread

QUESTIONS: Final = frozenset({"item/tool/requestUserInput", "mcpServer/elicitation/request"})
"""Server requests that ask for words, not for leave."""

LONGEST_TEXT: Final = 16 * 1024
"""Characters of a command, a reason or a question in lists: params have the whole."""

_DECISIONS: Final = ("accept", "acceptForSession", "decline", "cancel")
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    risk.COMMAND: _DECISIONS,
    risk.FILES: _DECISIONS,
    "mcpServer/elicitation/request": ("accept", "decline", "cancel"),
    **dict.fromkeys(
        risk.REVIEWS, ("approved", "approved_for_session", "denied", "timed_out", "abort")
    ),
}
"""What may be answered where the request doesn't list it: ``decision``, or a form's ``action``."""


class View(msgspec.Struct, frozen=True):
    """The parts of a request that a person judges it by."""

    turn: str | None
    item: str | None
    reason: str | None
    command: str | None
    cwd: str | None
    files: list[FileChange]
    """The files, with their diffs if these were requested."""
    risks: list[Risk]
    choices: list[Any]
    text: str | None
    """The first question of a request that asks for words."""


def view(state: State, request: ServerRequest, *, diffs: bool = False) -> View:
    """Return what a request asks for."""
    params, item = params_of(request), item_about(state, request)
    fields, about = _read(params), _read(item)
    root = root_of(state, request.thread)
    workspace = root.directory if root is not None else ""
    is_question = request.method in QUESTIONS
    return View(
        turn=request.turn,
        item=_text(fields.get("itemId")),
        reason=_text(fields.get("reason")),
        command=_command(fields.get("command")) or _command(about.get("command")),
        cwd=_text(fields.get("cwd")) or _text(about.get("cwd")),
        files=file_changes.changes_in(item, diffs=diffs),
        risks=[] if is_question else list(risk.risks(request.method, params, item, workspace)),
        choices=_choices(request.method, fields.get("availableDecisions")),
        text=_question(fields) if is_question else None,
    )


def root_of(state: State, thread: str | None) -> Thread | None:
    """Return the thread that a person sees: the one whose sub-agent, at any depth, this one is."""
    known = state.threads.known
    at = known.get(thread or "")
    for _ in range(len(known)):
        above = known.get(at.parent) if at is not None and at.parent else None
        if above is None:
            break
        at = above
    return at


def _read(text: bytes) -> dict[str, Any]:
    try:
        return _decoder.decode(text) or {}
    except msgspec.DecodeError:
        return {}


def _text(value: Any) -> str | None:
    return value[:LONGEST_TEXT] if isinstance(value, str) else None


def _command(value: Any) -> str | None:
    if isinstance(value, list):
        value = shlex.join(map(str, value))
    return _text(value) or None


def _choices(method: str, listed: Any) -> list[Any]:
    return listed if isinstance(listed, list) else list(_CHOICES.get(method, ()))


def _question(request: dict[str, Any]) -> str | None:
    questions = request.get("questions")
    first = questions[0] if isinstance(questions, list) and questions else {}
    question = first.get("question") if isinstance(first, dict) else None
    return _text(question) or _text(request.get("message"))


_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(dict[str, Any] | None)
