"""The log's lines about approvals and turns."""

from __future__ import annotations

import structlog

from mux.server.observability.operator_log import logging

BY = {"client": 3, "name": "phone", "principal": "Ada's phone", "kind": "device", "from": "x:1"}


def test_approvals_and_turns_are_lines_with_who_did_it_and_without_words() -> None:
    recorded: list[str] = []
    both = logging(lambda kind, _fields: recorded.append(kind))
    with structlog.testing.capture_logs() as lines:
        both("approval/raised", {"approval": 7, "method": "m", "thread": "t", "text": "secret"})
        both("approval/answered", {"approval": 7, "decision": "accept", "after": 1.5,
                                   "thread": "t", "by": BY, "digest": "d"})  # fmt: skip
        both("turn/asked", {"method": "turn/start", "thread": "t", "turn": None, "by": BY})
        both("client/attached", {"by": BY})
    assert lines == [
        {"event": "approval waits", "log_level": "info", "approval": 7, "method": "m",
         "thread": "t"},
        {"event": "approval answered", "log_level": "info", "approval": 7, "decision": "accept",
         "after": 1.5, "thread": "t", "client": 3, "name": "phone", "by": "Ada's phone"},
        {"event": "turn asked for", "log_level": "info", "method": "turn/start", "thread": "t",
         "client": 3, "name": "phone", "by": "Ada's phone"},
    ]  # fmt: skip
    assert recorded == ["approval/raised", "approval/answered", "turn/asked", "client/attached"]
