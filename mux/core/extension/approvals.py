"""``mux/approvals/*`` and ``mux/refused``: what waits for a person's word."""

from __future__ import annotations

from typing import Any

import msgspec

from mux.core.extension.parts import Described, Nothing, method, notification
from mux.core.scopes import Scope


class OfferedTo(msgspec.Struct):
    """A client that was offered it; ``name`` is null for one that gave none."""

    id: int
    name: str | None


class Approval(msgspec.Struct):
    """A server request that waits. ``params``: its own; ``item``: the one it is about, or null.

    ``needs``: the capability that one must have declared to answer, or null.
    """

    id: int
    method: str
    threadId: str | None
    ageSeconds: float
    needs: str | None
    params: Any
    item: Any
    offeredTo: list[OfferedTo]


class Approvals(msgspec.Struct):
    """Oldest first."""

    approvals: list[Approval]


class AnswerParams(msgspec.Struct):
    """``result``: what a client that was offered it would answer."""

    id: int
    result: Any


class Answered(msgspec.Struct):
    """The answer counts."""

    id: int
    method: str
    threadId: str | None


class Refused(msgspec.Struct):
    """Your answer to the server request counts for nothing: you lack the scope."""

    requestId: int
    needs: Scope
    has: list[Scope]


_ID = 1880000000000001
_METHOD = "item/commandExecution/requestApproval"
_THREAD = "0199f3a2-51c4-7a10-8f6e-3d2b1c0a9e87"

METHODS: dict[str, Described] = {
    "mux/approvals/list": method(
        "What waits for a person's word; no `initialize` needed.",
        Nothing(),
        Approvals(
            [
                Approval(
                    id=_ID,
                    method=_METHOD,
                    threadId=_THREAD,
                    ageSeconds=4.2,
                    needs=None,
                    params={"threadId": _THREAD, "itemId": "call_1", "command": "make test"},
                    item={"id": "call_1", "type": "commandExecution", "command": "make test"},
                    offeredTo=[OfferedTo(7, "desk")],
                )
            ]
        ),
    ),
    "mux/approvals/answer": method(
        "Answer one, offered to you or not; the first valid answer wins.",
        AnswerParams(_ID, {"decision": "decline"}),
        Answered(_ID, _METHOD, _THREAD),
    ),
}

NOTIFICATIONS: dict[str, Described] = {
    "mux/refused": notification(
        "You answered a server request without the scope to.",
        Refused(_ID, "approve", ["observe"]),
    ),
}
