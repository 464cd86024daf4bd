"""Stories of ids, and of what passes unchanged: issue by issue, client by client."""

from __future__ import annotations

import json

import pytest

from mux.core.protocol.methods import REQUESTS
from tests.core.stories import Story

ODD_IDS = [0, -5, 1, "1", "", "null", 2**53, 2**53 + 1, 2**63 - 1, -(2**63), "é\n", "0"]


def test_equal_ids_of_three_clients_come_back_each_to_its_own() -> None:
    story = Story.begun()
    a, b, c = (story.peer(name) for name in "abc")
    for peer in (a, b, c):
        peer.asks("thread/list", {"of": peer.id}, id=1)
        peer.asks("thread/list", {"of": peer.id, "text": True}, id="1")
    asked = story.written("thread/list")
    assert len({each["id"] for each in asked}) == 6
    for each in reversed(asked):
        story.answers(each, each["params"])
    for peer in (a, b, c):
        assert peer.heard() == [
            {"id": "1", "result": {"of": peer.id, "text": True}},
            {"id": 1, "result": {"of": peer.id}},
        ]


def test_an_id_comes_back_with_its_type_and_value() -> None:
    story = Story.begun(burst=len(ODD_IDS))
    a = story.peer()
    for id in ODD_IDS:
        a.asks("model/list", id=id)
    asked = story.written("model/list")
    assert all(type(each["id"]) is int and each["id"] > 0 for each in asked)
    for at, each in enumerate(asked):
        (story.answers if at % 2 else story.fails)(each)
    heard = [each["id"] for each in a.heard()]
    assert heard == ODD_IDS
    assert [type(id) for id in heard] == [type(id) for id in ODD_IDS]


def test_one_id_twice_in_flight_is_answered_twice_as_natively() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("thread/read", {"n": 1}, id="x")
    a.asks("thread/read", {"n": 2}, id="x")
    for each in story.written():
        story.answers(each, each["params"])
    assert a.heard() == [{"id": "x", "result": {"n": 1}}, {"id": "x", "result": {"n": 2}}]


def test_unknown_top_level_fields_and_the_bytes_of_params_pass_upstream() -> None:
    story = Story.begun()
    a = story.peer()
    params = '{"a":1.50,"b":"\\u00e9/\\/","c":1e999,"d":{"x":1,"x":2},"e" : [ ]}'
    story.lines.clear()
    a.says(
        '{"jsonrpc":"2.0","trace":{"t":1},"id":"q","method":"x/y","params":' + params + ',"z":0}'
    )
    (line,) = story.lines
    assert params.encode() in line
    (message,) = story.written()
    assert message == {
        "jsonrpc": "2.0",
        "trace": {"t": 1},
        "id": message["id"],
        "method": "x/y",
        "params": json.loads(params),
        "z": 0,
    }


def test_the_bytes_of_a_result_and_what_stands_beside_it_pass_downstream() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("x/y", id="q")
    id = story.only()["id"]
    story.says(f'{{"id":{id},"result":{{"n":1.50,"s":"\\u00e9","d":[1,1]}},"more":1.0}}')
    assert a.raw[-1] == b'{"id":"q","result":{"n":1.50,"s":"\\u00e9","d":[1,1]},"more":1.0}'


def test_an_error_keeps_everything_but_its_id() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("x/y", id="q")
    id = story.only()["id"]
    story.says(f'{{"error":{{"code":-32600,"message":"no","data":{{"id":{id}}}}},"id":{id}}}')
    assert a.only() == {
        "error": {"code": -32600, "message": "no", "data": {"id": id}},
        "id": "q",
    }


def test_notifications_pass_to_followers_byte_for_byte() -> None:
    story = Story.begun()
    a = story.peer()
    story.follows(a)
    line = '{"method":"item/x","params":{"threadId":"t","n":1.50,"s":"\\u00e9"},"emittedAtMs":1}'
    story.says(line)
    assert a.raw == [line.encode()]


def test_params_that_are_absent_stay_absent() -> None:
    story = Story.begun()
    a = story.peer()
    a.says('{"id":1,"method":"config/read"}')
    assert "params" not in story.only("config/read")


def test_clients_notifications_go_nowhere() -> None:
    """Natively they are ignored, but for `initialized`; a newer codex may know others."""
    story = Story.begun()
    a = story.peer()
    a.notifies("initialized")
    assert story.logs[-1].event != "notification dropped"
    a.says('{"method":"$/cancelRequest","params":{"id":1},"x":1}')
    a.says('{"method":"thread/archive","params":["t"]}')
    a.notifies("x" * 200)  # (longer ones are refused)
    dropped = [each.fields["method"] for each in story.logs if each.event.endswith("dropped")]
    assert dropped == ["$/cancelRequest", "thread/archive", "x" * 128]
    assert story.written() == a.heard() == []


def test_an_answer_that_nobody_waits_for_changes_nothing() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("x/y")
    asked = story.only()
    for id in ("99999", '"1"', f'"{asked["id"]}"', "null", "-1", "1.5", "{}"):
        story.says(f'{{"id":{id},"result":{{}}}}')
    assert a.heard() == []
    story.answers(asked)
    story.answers(asked)
    assert len(a.heard()) == 1


@pytest.mark.parametrize(
    "field_and_method",
    [("requestId", method) for method, rule in REQUESTS.items() if rule.names_request],
)
def test_a_request_that_names_another_names_it_by_its_wire_id(
    field_and_method: tuple[str, str],
) -> None:
    field, method = field_and_method
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    a.asks("userVerification/verify", id="v")
    first = story.only()
    b.asks("userVerification/verify", id="v")
    second = story.only()
    a.asks(method, {field: "v", "x": 1})
    assert story.only(method)["params"] == {field: first["id"], "x": 1}
    b.asks(method, {field: "v"})
    asked = story.only(method)
    assert asked["params"] == {field: second["id"]}
    story.answers(asked)
    for foreign in ("other", first["id"], str(first["id"]), 0, -7):
        b.asks(method, {field: foreign}, id="c")
        asked = story.only(method)
        assert asked["params"] == {field: f"{b.id}:{foreign}"}
        story.answers(asked)


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────

BAD = {
    "no json": ("{", -32700, None),
    "nothing": ("", -32700, None),
    "a batch": ('[{"id":1,"method":"x"}]', -32600, None),
    "a scalar": ("5", -32600, None),
    "an empty object": ("{}", -32600, None),
    "an id alone": ('{"id":1}', -32600, 1),
    "an id of null": ('{"id":null,"method":"x"}', -32600, None),
    "a float id": ('{"id":1.5,"method":"x"}', -32600, None),
    "an integral float id": ('{"id":1.0,"method":"x"}', -32600, None),
    "an id past 64 bits": ('{"id":9223372036854775808,"method":"x"}', -32600, None),
    "two documents": ('{"id":1,"method":"x"}{"id":2,"method":"x"}', -32700, None),
    "two lines": ('{"id":1,"method":"x"}\n{"id":2,"method":"x"}', -32700, None),
    "deep nesting": ('{"id":1,"method":"x","params":' + "[" * 500 + "]" * 500 + "}", -32600, 1),
    "deepest nesting": (
        '{"id":1,"method":"x","params":' + "[" * 10**5 + "]" * 10**5 + "}",
        0,
        None,
    ),
    "NaN": ('{"id":1,"method":"x","params":NaN}', -32700, None),
    "a lone surrogate": ('{"id":1,"method":"x","params":"\\ud800"}', -32700, None),
    "a doubled key": ('{"id":1,"method":"x","id":1}', -32600, None),
    "a line end in a string": ('{"id":1,"method":"x","params":"a\nb"}', -32700, None),
    "a method that is none": ('{"id":1,"method":5}', -32600, 1),
    "a result and an error": ('{"id":1,"result":1,"error":1}', -32600, 1),
}


@pytest.mark.parametrize(("text", "code", "id"), BAD.values(), ids=BAD)
def test_bad_input_is_answered_to_its_sender_alone(text: str, code: int, id: object) -> None:
    story = Story.begun()
    a, b, unready = story.peer("a"), story.peer("b"), story.attach()
    for peer in (a, unready):
        peer.says(text)
        answer = peer.only()
        assert answer["id"] == id
        assert answer["error"]["code"] == code or code == 0
        assert answer["error"]["message"]
    assert b.heard() == []
    assert story.written() == []
    a.asks("x/y")
    story.answers(story.only("x/y"), {"alive": True})
    assert a.only()["result"] == {"alive": True}


def test_a_binary_frame_is_answered_with_an_error() -> None:
    story = Story.begun()
    a = story.peer()
    a.says_binary()
    answer = a.only()
    assert (answer["id"], answer["error"]["code"]) == (None, -32600)
    assert "binary" in answer["error"]["message"]
    assert story.written() == []


def test_pretty_printed_json_is_one_line_upstream() -> None:
    story = Story.begun()
    a = story.peer()
    message = {"id": 1, "method": "x/y", "params": {"a": [1, {"b": "c d"}], "e": "\n"}, "z": []}
    a.says(json.dumps(message, indent=4).replace("\n", "\r\n"))
    asked = story.only("x/y")  # the story checks each line for line ends
    assert asked == message | {"id": asked["id"]}


def test_pretty_printed_params_with_ids_of_the_clients_own_are_one_line_too() -> None:
    story = Story.begun()
    a = story.peer()
    message = {"id": 1, "method": "fs/watch", "params": {"watchId": "w", "path": "/x"}}
    a.says(json.dumps(message, indent=1))
    assert story.only("fs/watch")["params"]["path"] == "/x"


def test_a_pretty_printed_answer_is_one_line_too() -> None:
    story = Story.begun()
    a = story.peer()
    story.follows(a)
    story.asks(0, threadId="t")
    offer = a.only()
    a.says(json.dumps({"id": offer["id"], "result": {"decision": "accept"}}, indent=2))
    assert story.only() | {} == {"id": 0, "result": {"decision": "accept"}}
