"""A granted permission never exceeds what was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mux.core.protocol.answers import fault

METHOD = "item/permissions/requestApproval"
A, B = ({"type": "path", "path": f"/{name}"} for name in "ab")
ASKED = {
    "network": {"enabled": True},
    "fileSystem": {
        "entries": [{"path": A, "access": "write"}, {"path": B, "access": "read"}],
        "read": ["/r"],
        "write": None,
    },
}


def judged(granted: Any, asked: Any = ASKED) -> str | None:
    offer = {"method": METHOD, "id": 1, "params": {"threadId": "t", "permissions": asked}}
    answer = {"permissions": granted, "scope": "turn"}
    return fault(METHOD, json.dumps(offer).encode(), json.dumps(answer).encode())


@pytest.mark.parametrize(
    "granted",
    [
        {},
        ASKED,
        {"network": None, "fileSystem": None},
        {"network": {"enabled": False}},
        {"network": {"enabled": True}},
        {"fileSystem": {"entries": [{"path": A, "access": "read"}]}},
        {"fileSystem": {"entries": [{"path": {"type": "path", "path": "/x"}, "access": "deny"}]}},
        {"fileSystem": {"read": ["/r"], "entries": []}},
    ],
)
def test_all_or_part_of_what_was_asked_may_be_granted(granted: Any) -> None:
    assert judged(granted) is None


@pytest.mark.parametrize(
    "granted",
    [
        {"fileSystem": {"entries": [{"path": B, "access": "write"}]}},
        {"fileSystem": {"entries": [{"path": {"type": "path", "path": "/"}, "access": "read"}]}},
        {"fileSystem": {"write": ["/r"]}},
        {"fileSystem": {"read": ["/r", "/etc"]}},
        {"fileSystem": {"globScanMaxDepth": 9}},
        {"processes": {"all": True}},
    ],
)
def test_more_than_was_asked_is_no_answer(granted: Any) -> None:
    assert judged(granted) == "Object grants more than was asked for - at `$.permissions`"


def test_nothing_is_granted_where_nothing_was_asked() -> None:
    assert judged({"network": {"enabled": True}}, {}) is not None
    assert judged({"network": {"enabled": True}}, {"network": {"enabled": False}}) is not None
