"""Who registered which tool."""

from __future__ import annotations

from typing import Any

import pytest

from mux.core.policy.principal import Owner
from mux.core.state.requests import tool_owners
from mux.core.state.requests.tool_owners import ToolCall, ToolOwners
from tests.core.stories import LOCAL, dumps

A, B = Owner(1, "a", LOCAL), Owner(2, "b", LOCAL)
LOOK = {"type": "function", "name": "look", "description": "", "inputSchema": {}}


def registered(params: object, owner: Owner = A) -> ToolOwners:
    known = ToolOwners()
    known.register("t", dumps(params), owner)
    return known


def test_functions_and_namespaces() -> None:
    space = {"type": "namespace", "name": "space", "tools": [LOOK, {"name": "find"}]}
    known = registered({"dynamicTools": [LOOK, space]})
    for tool, namespace in (("look", None), ("look", ""), ("look", "space"), ("find", "space")):
        assert known.owner("t", ToolCall(tool, namespace)) is A
    assert known.owner("t", ToolCall("find")) is None
    assert known.owner("t", ToolCall("space")) is None
    assert known.owner("u", ToolCall("look")) is None
    assert known.owner(None, ToolCall("look")) is None


def test_the_last_to_register_a_tool_owns_it() -> None:
    known = registered({"dynamicTools": [LOOK, {"name": "find"}]})
    known.register("t", dumps({"dynamicTools": [LOOK]}), B)
    assert known.owner("t", ToolCall("look")) is B
    assert known.owner("t", ToolCall("find")) is A


@pytest.mark.parametrize(
    "params",
    [None, [], {}, {"dynamicTools": None}, {"dynamicTools": []}, {"dynamicTools": [{"x": 1}]},
     {"dynamicTools": {"look": {}}}],
)  # fmt: skip
def test_params_without_tools_register_none(params: object) -> None:
    assert registered(params).owner("t", ToolCall("look")) is None


def test_forgotten_with_its_thread() -> None:
    known = registered({"dynamicTools": [LOOK]})
    known.forget("t")
    known.forget("t")
    assert known.owner("t", ToolCall("look")) is None


def test_a_call_names_its_tool() -> None:
    params: dict[str, Any] = {"threadId": "t", "tool": "look", "namespace": None, "arguments": {}}
    call = tool_owners.read_call(dumps({"method": "item/tool/call", "id": 0, "params": params}))
    assert call is not None
    assert call.key == ("", "look")
    assert tool_owners.read_call(dumps({"params": {}})) is None
    assert tool_owners.read_call(b"x") is None
