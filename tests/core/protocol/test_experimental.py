"""What a client gets only with the capability; on small bundles of the schema's own shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.events import ExperimentalSchemaLoaded
from mux.core.protocol.experimental import HIDDEN, Gate, gate_of, without_hidden
from tests.core.stories import APPROVAL, Json, Story
from tests.core.work import calls

PATH = {"type": "string", "description": "absolute"}
POLICY = {"oneOf": [{"enum": ["never"], "type": "string"}, {"type": "object", "properties": {}}]}


def request(method: str, params: Json) -> Json:
    return {"properties": {"method": {"enum": [method]}, "params": params}}


def ref(name: str) -> Json:
    return {"$ref": f"#/definitions/v2/{name}"}


def bundle(requests: list[Json], **types: Json) -> bytes:
    definitions = {"ClientRequest": {"oneOf": requests}, "v2": types}
    return json.dumps({"definitions": definitions}).encode()


def struct(properties: Json, *required: str) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


SPAWN = struct({"command": {"type": "array"}, "cwd": ref("AbsolutePathBuf")}, "command", "cwd")
START: Json = {"model": {"type": ["string", "null"]}, "approvalPolicy": ref("Policy")}
NEW: Json = {
    "tools": {"type": ["array", "null"], "items": ref("Tool")},
    "raw": {"type": "boolean"},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "any": True,
    "mode": {"anyOf": [{"enum": ["a", "b"], "type": "string"}, {"type": "null"}]},
}
TYPES: Json = {"Policy": POLICY, "AbsolutePathBuf": PATH, "Tool": struct({"name": PATH}, "name")}
STABLE = bundle([request("thread/start", ref("Start"))], **TYPES, Start=struct(START))
WHOLE = bundle(
    [
        request("thread/start", ref("Start")),
        request("process/spawn", ref("Spawn")),
        request("memory/reset", {"type": "null"}),
    ],
    **TYPES,
    Start=struct(START | NEW),
    Spawn=SPAWN,
    Unused=struct({"x": ref("Unused")}),
)
ORDER = {"v2/Start": ["model", "mode", "labels", "approvalPolicy", "raw", "tools"]}


@pytest.fixture
def gate() -> Gate:
    return gate_of("1.2.3", STABLE, WHOLE, ORDER)


def test_what_is_experimental_is_the_difference(gate: Gate) -> None:
    assert gate.methods == {"process/spawn", "memory/reset"}
    names = ["mode", "labels", "approvalPolicy", "raw", "tools", "any"]
    assert gate.fields == {"thread/start": names}
    assert gate.definitions.keys() == {"v2/Start", "v2/Spawn", *(f"v2/{name}" for name in TYPES)}
    assert "description" not in json.dumps(gate.definitions)


def test_without_an_order_it_is_the_schema_s() -> None:
    found = gate_of("1", STABLE, WHOLE, {}).fields["thread/start"]
    assert found == ["tools", "raw", "labels", "any", "mode", "approvalPolicy"]


@pytest.mark.parametrize(
    ("method", "params", "told"),
    [
        ("process/spawn", {"command": [], "cwd": "/"}, "process/spawn"),
        ("memory/reset", None, "memory/reset"),
        ("memory/reset", {}, "memory/reset"),
        ("thread/start", {"tools": [{"name": "x"}]}, "thread/start.tools"),
        ("thread/start", {"tools": []}, "thread/start.tools"),
        ("thread/start", {"tools": None}, None),
        ("thread/start", {"raw": True}, "thread/start.raw"),
        ("thread/start", {"raw": False}, None),
        ("thread/start", {"labels": {}}, None),
        ("thread/start", {"labels": {"a": "b"}}, "thread/start.labels"),
        ("thread/start", {"any": False}, "thread/start.any"),
        ("thread/start", {"any": {}}, "thread/start.any"),
        ("thread/start", {"any": None}, None),
        ("thread/start", {"mode": "a", "raw": True, "tools": []}, "thread/start.mode"),
        ("thread/start", {"raw": True, "tools": []}, "thread/start.raw"),
        ("thread/start", {"approvalPolicy": {"granular": {}}}, "askForApproval.granular"),
        ("thread/start", {"approvalPolicy": "never"}, None),
        ("thread/start", {"model": "x"}, None),
        ("thread/start", {}, None),
        ("unknown/method", {"tools": []}, None),
        # What the app-server can't parse is for it to say.
        ("process/spawn", {}, None),
        ("process/spawn", None, None),
        ("process/spawn", {"command": "x", "cwd": "/"}, None),
        ("process/spawn", {"command": [], "cwd": "relative"}, None),
        ("process/spawn", {"command": [], "cwd": 5}, None),
        ("process/spawn", ["x"], None),
        ("memory/reset", {"a": 1}, None),
        ("thread/start", {"tools": [], "model": 5}, None),
        ("thread/start", {"tools": [{}]}, None),
        ("thread/start", {"tools": [{"name": True}]}, None),
        ("thread/start", {"mode": "c"}, None),
        ("thread/start", {"raw": 1}, None),
        ("thread/start", {"labels": []}, None),
        ("thread/start", {"tools": [], "unknown": 5}, "thread/start.tools"),
        ("thread/start", [], None),
    ],
)
def test_what_is_refused(gate: Gate, method: str, params: Any, told: str | None) -> None:
    assert gate.refuses(method, json.dumps(params).encode()) == told


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"no",
        b'{"definitions": {"v2": {}}}',
        b'{"definitions": {"ClientRequest": 5}}',
        b'{"definitions": {"ClientRequest": {"oneOf": [{"properties": []}]}}}',
        b'{"definitions": {"ClientRequest": {"oneOf": [{"properties": {"method": {"enum": 1}}}]}}}',
    ],
)
def test_what_is_no_bundle_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="definition"):
        gate_of("1", text, WHOLE, {})


def test_a_hidden_field_is_left_out_and_nothing_else_changes() -> None:
    method, field = next(iter(HIDDEN.items()))
    message = b'{"method":"m","id":1,"params":{"a":1.0,"%s":{"x":[1]},"b":"\\u00e9"},"x":0}'
    less = without_hidden(method, message % field.encode())
    assert less == b'{"method":"m","id":1,"params":{"a":1.0,"b":"\\u00e9"},"x":0}'
    assert without_hidden("item/made/up", message % field.encode()) is None
    assert without_hidden(method, b'{"id":1,"params":{"a":1}}') is None
    assert without_hidden(method, b'{"id":1,"params":{"a":"%s"}}' % field.encode()) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NEW, "cwd", "command", "name", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.sampled_from(["process/spawn", "memory/reset", "thread/start"]), JSON)
def test_whatever_the_params_it_answers(method: str, params: Any) -> None:
    gate = gate_of("1.2.3", STABLE, WHOLE, ORDER)
    told = gate.refuses(method, json.dumps(params).encode())
    assert told in (None, method, "askForApproval.granular", *(f"{method}.{name}" for name in NEW))


def test_types_in_circles_and_made_to_take_long_end() -> None:
    deep = {"oneOf": [struct({"in": ref("Deep"), "no": {"enum": [1]}}) for _ in range(8)]}
    types = {"Loop": ref("Loop"), "Deep": deep, "Params": struct({"loop": ref("Loop"), "in": deep})}
    requests = [request("a/b", ref("Params"))]
    gate = gate_of("1", bundle([]), bundle(requests, **types), {})
    value: Any = 5
    for _ in range(100):
        value = {"in": value}
    told = []
    params = json.dumps({"loop": 5, "in": value}).encode()
    assert calls(lambda: told.append(gate.refuses("a/b", params))) < 15_000
    assert told == ["a/b"]


# ── told as stories ───────────────────────────────────────────────────────────────────────────────


def counted(story: Story) -> int:
    """How many processes the app-server was asked to spawn since the last look."""
    return len(story.written("process/spawn"))


def test_a_client_without_the_capability_is_refused_and_others_aren_t(gate: Gate) -> None:
    story = Story.begun()
    able, plain = story.peer("able"), story.peer("plain", experimentalApi=False)
    params = {"command": ["x"], "cwd": "/", "processHandle": "h"}
    plain.asks("process/spawn", params)  # nothing is known yet
    assert counted(story) == 1
    story.tell(ExperimentalSchemaLoaded(gate))
    id = plain.asks("process/spawn", params)
    text = "process/spawn requires experimentalApi capability"
    assert plain.heard() == [{"id": id, "error": {"code": -32600, "message": text}}]
    assert counted(story) == 0
    able.asks("process/spawn", params)
    assert counted(story) == 1
    plain.asks("process/spawn", {"processHandle": "h2"})  # the app-server says what is missing
    assert counted(story) == 1
    story.tell(ExperimentalSchemaLoaded(None))
    plain.asks("process/spawn", params | {"processHandle": "h3"})
    assert counted(story) == 1


def test_not_initialized_is_told_first(gate: Gate) -> None:
    story = Story.begun()
    story.tell(ExperimentalSchemaLoaded(gate))
    stranger = story.attach()
    stranger.asks("process/spawn", {"command": ["x"], "cwd": "/"})
    assert stranger.only()["error"]["message"] == "Not initialized"


def test_each_life_may_be_of_another_binary() -> None:
    story = Story.begun()
    assert story.learning == 1
    story.exits()
    story.starts(2)
    assert story.learning == 2


def test_an_approval_hides_what_is_experimental() -> None:
    story = Story.begun()
    peers = [
        story.peer("able"),
        story.peer("plain", experimentalApi=False),
        story.peer("aware", experimentalApi=False, extensions={"appmux": {"version": 1}}),
    ]
    for each in peers:
        story.follows(each)
    wider: dict[str, Any] = {
        "threadId": "t",
        "additionalPermissions": {"network": None},
        "command": "x",
    }
    story.asks(0, **wider)
    late = story.peer("late", experimentalApi=False)
    story.follows(late)
    offers = [each.heard(APPROVAL)[0] for each in (*peers, late)]
    less = {"threadId": "t", "command": "x"}
    assert [each["params"] for each in offers] == [wider, less, less, less]
    assert len({each["id"] for each in offers}) == 1
    assert [each for each in offers if "seq" in each] == [offers[2]]
    story.written()
    late.answers(offers[3]["id"], {"decision": "accept"})
    assert story.only() == {"id": 0, "result": {"decision": "accept"}}
