"""The envelope: whatever comes, it is passed on as it came, or refused with the reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mux.core.protocol.envelope import client_message, jsonrpc, structure, text_limits
from mux.core.protocol.envelope.client_message import read_client
from mux.core.protocol.envelope.jsonrpc import INVALID_REQUEST, PARSE_ERROR, BadMessageError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
ids = st.integers(client_message.MIN_ID, client_message.MAX_ID) | text
unknown_fields = st.dictionaries(
    text.filter(lambda name: name not in {"id", "method", "params", "result", "error", "trace"}),
    values,
    max_size=3,
)
blanks = st.text(" \t\r\n", max_size=3)


def refused(message: bytes | str) -> BadMessageError:
    with pytest.raises(BadMessageError) as caught:
        read_client(message.encode() if isinstance(message, str) else message)
    return caught.value


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Some way of ``json.dumps`` to write the same value."""
    comma, colon = draw(blanks) + "," + draw(blanks), draw(blanks) + ":" + draw(blanks)
    return {
        "ensure_ascii": draw(st.booleans()),
        "indent": draw(st.sampled_from([None, None, 0, 2, "\t"])),
        "separators": (comma, colon),
    }


@given(ids, text, values, unknown_fields, st.tuples(layouts(), blanks, blanks))
def test_a_request_means_the_same_after_its_way_through(
    id: int | str, method: str, params: Any, unknown: Any, written: tuple[Any, str, str]
) -> None:
    layout, before, after = written
    message = {"id": id, "method": method, **unknown, "params": params}
    read = read_client((before + json.dumps(message, **layout) + after).encode())
    assert (read.kind, read.method) == ("request", method)
    assert json.loads(read.id) == id
    assert type(json.loads(read.id)) is type(id)
    line = jsonrpc.write(read.fields)
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == message


@given(ids, values, unknown_fields, layouts())
def test_params_and_unknown_fields_keep_their_bytes(
    id: int | str, params: Any, unknown: Any, layout: Any
) -> None:
    layout["separators"] = (",", ":")
    layout["indent"] = None
    fields = {name: json.dumps(value, **layout) for name, value in unknown.items()}
    fields |= {"id": json.dumps(id), "method": '"x"', "params": json.dumps(params, **layout)}
    message = "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}"
    read = read_client(message.encode())
    assert read.fields == {name: value.encode() for name, value in fields.items()}
    assert read.params == fields["params"].encode()


@given(st.sampled_from(["result", "error"]), ids, values, unknown_fields)
def test_an_answer_is_told_by_its_field(kind: str, id: int | str, value: Any, unknown: Any) -> None:
    unknown.pop("kind", None)
    read = read_client(json.dumps({"id": id, kind: value, **unknown}).encode())
    assert read.kind == ("response" if kind == "result" else "error")
    assert json.loads(read.fields[kind]) == value


def test_a_message_without_an_id_is_a_notification() -> None:
    read = read_client(b'{"method":"initialized"}')
    assert (read.kind, read.id, read.params) == ("notification", b"null", b"null")


@pytest.mark.parametrize(
    "id",
    ["0", "-0", "-5", "1", '"1"', '""', '"\\u0000"', '"é"', "9007199254740993",
     "9223372036854775807", "-9223372036854775808"],
)  # fmt: skip
def test_ids_keep_their_text(id: str) -> None:
    assert read_client(f'{{"method":"x","id":{id}}}'.encode()).id == id.encode()


@pytest.mark.parametrize(
    "id",
    ["null", "1.0", "1e2", "true", "false", "{}", "[]", "[1]", "9223372036854775808",
     "-9223372036854775809", "1" + "0" * 400, "-0.0", "1E0"],
)  # fmt: skip
def test_ids_that_the_app_server_would_drop_in_silence_are_refused(id: str) -> None:
    for message in (f'{{"id":{id},"method":"x"}}', f'{{"result":1,"id":{id}}}'):
        bad = refused(message)
        assert (bad.code, bad.id) == (INVALID_REQUEST, b"null")
        assert "`id`" in str(bad)


@given(ids, st.data())
def test_a_doubled_key_is_found_wherever_it_stands(id: int | str, data: st.DataObject) -> None:
    names = data.draw(st.lists(text, min_size=1, max_size=4, unique=True))
    pairs = [("id", id), ("method", "x"), *((name, data.draw(values)) for name in names)]
    # The same value too: a key that stands twice with equal values is still doubled.
    name, value = data.draw(st.sampled_from(pairs))
    pairs.append((name, data.draw(st.just(value) | values)))
    pairs = data.draw(st.permutations(pairs))
    escaped = data.draw(st.booleans())
    written = [
        data.draw(blanks) + _key(key, escaped=escaped) + data.draw(blanks) + ":"
        + data.draw(blanks) + json.dumps(value) + data.draw(blanks)
        for key, value in pairs
    ]  # fmt: skip
    message = "{" + ",".join(written) + "}"
    if len({key for key, _ in pairs}) == len(pairs):
        read_client(message.encode())
        return
    assert "twice" in str(refused(message))


def _key(name: str, *, escaped: bool) -> str:
    if not escaped:
        return json.dumps(name)
    units = name.encode("utf-16-be")
    return '"' + "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)) + '"'


@pytest.mark.parametrize(
    "message",
    [
        '{"id":1,"id":1,"method":"x"}',
        '{"id":1,"method":"x","id":2}',
        '{"method":"x","id":1,"\\u0069d":1}',
        '{"method":"x","method":"x","id":1}',
        '{"id":1,"method":"x","params":{},"params":{}}',
        '{"id":1,"method":"x","params":{"a":[1,"}"]},"params":{"a":[1,"}"]}}',
        '{"":1,"id":1,"method":"x","":1}',
        '{ "id" : 1 ,\n "method" : "x" , "id" : 1 }',
        '{"id":1,"method":"x","a":"\\"","a":"\\""}',
        '{"id":1,"method":"x","trace":{},"trace":{}}',
    ],
)
def test_doubled_keys(message: str) -> None:
    assert "twice" in str(refused(message))


def test_doubled_keys_deeper_down_are_the_app_servers_to_judge() -> None:
    params = b'{"a":1,"a":2,"b":{"id":1,"id":1}}'
    assert read_client(b'{"id":1,"method":"x","params":' + params + b"}").params == params


def nested(depth: int, opening: str = "[", innermost: str = "") -> str:
    closing = {"[": "]", '{"k":': "}"}[opening]
    return opening * depth + innermost + ("0" if opening != "[" else "") + closing * depth


@pytest.mark.parametrize("opening", ["[", '{"k":'])
def test_nesting_is_taken_as_deep_as_the_app_server_takes_it(opening: str) -> None:
    inside = structure.MAX_DEPTH - 1  # the message itself is the first level
    read_client(f'{{"id":1,"method":"x","params":{nested(inside, opening)}}}'.encode())
    bad = refused(f'{{"id":7,"method":"x","params":{nested(inside + 1, opening)}}}')
    assert (bad.code, bad.id) == (INVALID_REQUEST, b"7")
    assert "127" in str(bad)


def test_nesting_counts_in_unknown_fields_and_in_answers_too() -> None:
    deep = nested(structure.MAX_DEPTH)
    assert "nested" in str(refused(f'{{"id":1,"method":"x","strange":{deep}}}'))
    assert "nested" in str(refused(f'{{"id":1,"result":{deep}}}'))


def test_nesting_beyond_every_parser_is_refused_and_quick() -> None:
    for depth in (1_000, 60_000):
        assert "nested" in str(refused(f'{{"id":1,"method":"x","params":{nested(depth)}}}'))


@pytest.mark.parametrize(
    "params",
    [
        '["' + "[{" * 5_000 + '"]',
        '["\\"' + "[" * 500 + '"]',
        '["\\\\",' + json.dumps("]" * 500 + '"\\') + "]",
        "[" + ",".join(["[]", "{}"] * 500) + "]",
        "[" + ",".join([nested(100)] * 20) + "]",
    ],
)
def test_many_brackets_are_not_depth(params: str) -> None:
    json.loads(params)
    read_client(f'{{"id":1,"method":"x","params":{params}}}'.encode())


MANY = {
    "keys of the message": '"method":"x",' + ",".join(f'"{n}":1' for n in range(100_000)),
    "one key of the message, doubled": '"method":"x",' + ",".join(['"a":1'] * 100_000),
    "keys": '"method":"x","params":{' + ",".join(f'"{n}":1' for n in range(100_000)) + "}",
    "parts": '"method":"x","params":[' + ",".join(['{"type":"text","text":"x"}'] * 100_000) + "]",
    "numbers": '"method":"x","params":[' + ",".join(["1"] * 100_000) + "]",
    "empty lists": '"method":"x","params":[' + ",".join(["[]"] * 100_000) + "]",
    "empty strings": '"method":"x","params":[' + ",".join(['""'] * 100_000) + "]",
    "an answer's": '"result":[' + ",".join(["1"] * 100_000) + "]",
    "strings that end in backslashes": '"method":"x","params":['
    + ",".join(['"\\\\"'] * 100_000)
    + "]",
}


@pytest.mark.parametrize("what", MANY)
def test_a_message_of_very_many_parts_is_refused_before_it_is_decoded(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    monkeypatch.setattr(client_message, "_read_fields", decoded.append)
    bad = refused(f'{{"id":7,{MANY[what]}}}')
    assert (bad.code, bad.id) == (jsonrpc.INVALID_REQUEST, b"7")
    assert "more than" in str(bad)
    assert decoded == []


def test_members_of_a_message_are_few_and_their_names_short() -> None:
    strange = ",".join(f'"{n}":1' for n in range(structure.MAX_MEMBERS - 1))
    assert "more than 256 members" in str(refused(f'{{"id":"a",{strange},"method":"x"}}'))
    some = strange.replace('"0":1,', "", 1)
    assert len(read_client(f'{{"id":"a",{some},"method":"x"}}'.encode()).fields) == 256
    read_client(f'{{"id":1,"method":"x","note":"{"one, two, " * 5_000}"}}'.encode())
    longest = "n" * text_limits.LONGEST_NAME
    read_client(f'{{"id":1,"method":"x","{longest}":1}}'.encode())
    assert "name" in str(refused(f'{{"id":1,"method":"x","{longest}n":1}}'))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("A" * 26 * 2**20, id="a picture"),
        pytest.param('a, [b], {c: d}\n"e"\\' * 100_000, id="a text full of signs"),
        pytest.param(["one, two"] * 60_000, id="a long list"),
        pytest.param({f"key {n}": [n, "a,b"] for n in range(20_000)}, id="a large object"),
    ],
)
def test_what_is_large_but_not_of_many_parts_passes(value: object) -> None:
    params = json.dumps({"value": value}).encode()
    message = read_client(b'{"id":1,"method":"x","params":' + params + b"}")
    assert message.params == params


@given(values, st.integers(0, 20))
def test_elements_are_counted_as_python_counts_them(value: Any, commas: int) -> None:
    told = {"a": value, "b": ["x"] * 1500, "," * commas + '"\\': '\\\\",'}
    text = json.dumps({"id": 1, "method": "x", "params": told})
    signs = structure.signs(text.encode())
    assert signs is not None
    assert structure.elements(signs) == elements(json.loads(text))
    assert structure.depth(signs) == depth(json.loads(text))


def elements(value: object) -> int:
    """The commas and opening brackets of a value outside of its strings."""
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return max(len(inner), 1) + sum(map(elements, inner))


def test_brackets_in_strings_hide_no_depth() -> None:
    hidden = '["]]]]\\"]]",' * 60 + nested(structure.MAX_DEPTH - 60) + "]" * 60
    json.loads(hidden)
    assert "nested" in str(refused(f'{{"id":1,"method":"x","params":{hidden}}}'))


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + max(map(depth, inner), default=0)


@given(values, st.integers(118, 130), st.sampled_from(["[", '{"k":']))
def test_depth_agrees_with_pythons_count(value: Any, around: int, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    params = opening * around + json.dumps(value) + closing * around
    message = f'{{"id":1,"method":"x","params":{params}}}'
    if depth(json.loads(message)) <= structure.MAX_DEPTH:
        read_client(message.encode())
    else:
        refused(message)


@pytest.mark.parametrize(
    "message",
    [
        b"", b" ", b"\n", b"{", b'{"id":1', b'{"id":1,}', b"{'id':1}", b"nul", b'{"id":01}',
        b'{"id":1,"method":"x","params":NaN}', b'{"id":1,"method":"x","params":Infinity}',
        b'{"id":1,"method":"x","params":[-Infinity]}', b'{"id":1,"method":"x","params":[1,]}',
        b'{"id":1,"method":"x","params":"\\ud800"}', b'{"id":1,"method":"x","params":"\\udc00"}',
        b'{"id":1,"method":"x","params":"\\ud800\\u0041"}', b'{"id":"\\ud800","method":"x"}',
        b'{"id":1,"method":"\\udfff"}', b'{"id":1,"method":"x","\\ud800":1}',
        b'{"id":1,"method":"x","params":"a\tb"}', b'{"id":1,"method":"x","params":"a\nb"}',
        b'{"id":1,"method":"x","params":"\\x"}', b'{"id":1,"method":"x","params":.5}',
        b'\xef\xbb\xbf{"id":1,"method":"x"}', b'{"id":1,"method":"x"}{"id":2,"method":"x"}',
        b'{"id":1,"method":"x"}\n{"id":2,"method":"x"}', b'{"id":1,"method":"x"} x',
    ],
)  # fmt: skip
def test_what_is_no_json_is_a_parse_error(message: bytes) -> None:
    bad = refused(message)
    assert (bad.code, bad.id) == (PARSE_ERROR, b"null")


@pytest.mark.parametrize(
    "message",
    [b"[]", b"[1]", b'[{"id":1,"method":"x"}]', b"1", b'"x"', b"null", b"true", b"-1.5"],
)
def test_what_is_no_object_is_no_request(message: bytes) -> None:
    bad = refused(message)
    assert (bad.code, bad.id) == (INVALID_REQUEST, b"null")
    assert "object" in str(bad)


@pytest.mark.parametrize(
    ("message", "id"),
    [
        ("{}", b"null"),
        ('{"id":1}', b"1"),
        ('{"id":"","params":{}}', b'""'),
        ('{"result":1}', b"null"),
        ('{"error":{}}', b"null"),
        ('{"params":{}}', b"null"),
        ('{"id":5,"result":1,"error":{}}', b"5"),
        ('{"id":5,"method":null}', b"5"),
        ('{"id":5,"method":1}', b"5"),
        ('{"method":["x"]}', b"null"),
        ('{"id":5,"method":"x","trace":"t"}', b"5"),
        ('{"id":5,"method":"x","trace":1}', b"5"),
        ('{"method":"x","trace":[]}', b"null"),
        ('{"id":5,"method":"x","trace":{"traceparent":1}}', b"5"),
        ('{"id":5,"method":"x","trace":{"traceparent":{}}}', b"5"),
        ('{"id":5,"method":"x","trace":{"x":1,"tracestate":[]}}', b"5"),
        ('{"id":5,"method":"x","trace":{"tracestate":true}}', b"5"),
        ('{"id":5,"method":"x","trace":{"traceparent":"a","traceparent":"a"}}', b"5"),
        ('{"id":5,"method":"x","trace":{"traceparent":"a","\\u0074raceparent":"a"}}', b"5"),
    ],
)
def test_what_is_no_message_is_refused_under_its_id(message: str, id: bytes) -> None:
    bad = refused(message)
    assert (bad.code, bad.id) == (INVALID_REQUEST, id)


@pytest.mark.parametrize(
    "trace",
    ["{}", "null", '{"traceparent":"x"}', '{"traceparent": null, "tracestate": "y", "z": 1}'],
)
def test_a_trace_passes(trace: str) -> None:
    read = read_client(f'{{"id":1,"method":"x","trace":{trace}}}'.encode())
    assert read.fields["trace"] == trace.encode()


def test_a_method_beside_an_answer_makes_it_a_request_as_natively() -> None:
    assert read_client(b'{"id":1,"method":"x","result":1,"error":2}').kind == "request"


def test_escapes_in_keys_and_method_are_understood() -> None:
    read = read_client(b'{"i\\u0064":1,"meth\\u006fd":"thread\\/list"}')
    assert (read.id, read.method) == (b"1", "thread/list")


@given(st.text(max_size=40).map(lambda text: text.encode(errors="replace")))
@example('{"id":1,"method":"é"}'.encode())
def test_no_text_at_all_raises_anything_else(message: bytes) -> None:
    try:
        read = read_client(message)
    except BadMessageError:
        return
    assert isinstance(json.loads(message), dict)
    assert json.loads(jsonrpc.write(read.fields)) == json.loads(message)


@given(st.text('{}[]":,\\ \n\r\tidmethox10-.eu\u00e9', max_size=30))
def test_nothing_that_looks_like_json_is_read_otherwise_than_python_does(message: str) -> None:
    try:
        read = read_client(message.encode())
    except BadMessageError:
        return
    assert json.loads(jsonrpc.write(read.fields)) == json.loads(message)


# ── the app-server's side ─────────────────────────────────────────────────────────────────────────


@given(st.none() | text, st.none() | ids, values, st.booleans(), layouts())
def test_a_line_of_the_app_server_is_read_as_far_as_routing_needs(
    method: str | None, id: int | str | None, value: Any, failed: bool, layout: Any
) -> None:
    message: dict[str, Any] = {"error" if failed else "result": value, "extra": value}
    if method is not None:
        message |= {"method": method, "params": {"x": value, "threadId": "t", "y": value}}
    if id is not None:
        message["id"] = id
    read = jsonrpc.read_upstream(json.dumps(message, **layout).encode())
    assert read is not None
    assert read.method == method
    assert read.thread == ("t" if method is not None else None)
    if id is None:
        assert read.id is jsonrpc.ABSENT
    else:
        assert json.loads(bytes(read.id)) == id
    if failed:
        assert json.loads(bytes(read.error)) == value
    else:
        assert read.error is jsonrpc.ABSENT


@pytest.mark.parametrize("params", [[], 5, "x", [{"threadId": "t"}], {"threadId": 5}])
def test_params_of_an_unknown_shape_still_make_a_message(params: object) -> None:
    read = jsonrpc.read_upstream(json.dumps({"method": "m", "params": params, "id": 3}).encode())
    assert read is not None
    assert (read.method, bytes(read.id), read.thread) == ("m", b"3", None)


def test_a_thread_goes_by_its_older_name_too() -> None:
    read = jsonrpc.read_upstream(b'{"method":"m","params":{"conversationId":"t"}}')
    assert read is not None
    assert read.thread == "t"


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"1", b'{"method":1}', b"[" * 100_000, b"\xff"])
def test_a_line_that_is_no_message_is_none(line: bytes) -> None:
    assert jsonrpc.read_upstream(line) is None


@given(st.integers(0, 10**6), ids, values, layouts(), st.booleans())
def test_with_id_changes_the_id_alone(
    old: int, new: int | str, value: Any, layout: Any, first: bool
) -> None:
    rest = {"result": value, "params": {"id": old}, "z": old}
    message = {"id": old, **rest} if first else {**rest, "id": old}
    line = jsonrpc.with_id(
        json.dumps(message, **layout).encode(), b"%d" % old, json.dumps(new).encode()
    )
    assert json.loads(line) == message | {"id": new}
    assert b"\n" not in line


def test_with_id_keeps_the_bytes_behind_it() -> None:
    rest = b',"result":{"id":1,"n":1.50,"s":"\\u00e9"},"x": 1 }'
    assert jsonrpc.with_id(b'{"id":1' + rest, b"1", b'"a"') == b'{"id":"a"' + rest


def test_with_id_is_not_fooled_by_a_longer_id() -> None:
    assert json.loads(jsonrpc.with_id(b'{"id":12,"result":1}', b"1", b"7")) == {
        "id": 7,
        "result": 1,
    }


@given(values)
def test_fields_of_what_is_no_object_are_none(value: Any) -> None:
    fields = jsonrpc.read_fields(json.dumps(value).encode())
    if isinstance(value, dict):
        assert fields is not None
        assert {name: json.loads(each) for name, each in fields.items()} == value
    else:
        assert fields is None


def test_own_messages() -> None:
    assert json.loads(jsonrpc.request(3, "m", {"a": 1})) == {
        "id": 3,
        "method": "m",
        "params": {"a": 1},
    }
    assert json.loads(jsonrpc.notification("m", [])) == {"method": "m", "params": []}
    assert jsonrpc.result(b'"a"', {"b": msgspec.Raw(b"1.50")}) == b'{"id":"a","result":{"b":1.50}}'
    error = json.loads(jsonrpc.error(b"null", -1, 'a "quoted"\ntext', {"x": 1}))
    assert error == {
        "id": None,
        "error": {"code": -1, "message": 'a "quoted"\ntext', "data": {"x": 1}},
    }
    assert "data" not in json.loads(jsonrpc.error(b"1", -1, "t"))["error"]


@pytest.mark.parametrize(
    ("value", "read"),
    [(None, None), (b"5", None), (b"null", None), (b'""', ""), (b'"\\u00e9"', "é")],
)
def test_read_text(value: bytes | None, read: str | None) -> None:
    assert jsonrpc.read_text(value) == read


def test_a_line_that_is_too_deep_is_no_message_whatever_its_params_are() -> None:
    deep = b"[" * 3000 + b"]" * 3000
    assert jsonrpc.read_upstream(b'{"method":"x","params":{"threadId":' + deep + b"}}") is None
    assert jsonrpc.read_upstream(b'{"method":"x","params":[],"more":' + deep + b"}") is None


LONG_TEXT = '"%s"' % ('a:,"\\"{'.replace('"\\"', '\\"') * 12_000)
"""A value that is long enough for the keys to be walked along, and full of their signs."""


@pytest.mark.parametrize(
    ("members", "once"),
    [
        ('"a":{long}', True),
        ('"a" : {long} , "b" : 1', True),
        ('"b": 1, "a": {long}', True),
        ('"a:b": {long}, "b:": [1, {{"a": 2, "a": 3}}]', True),
        ('"a":1,"a":{long}', False),
        ('"a": {long}, "a": 1', False),
        ('"a": {long}, "\\u0061": {long}', False),
        ('"a": {long}, "b": 1, "b": 1', False),
        ('"b": 1, "a": {long}, "b": 1', False),
    ],
)
def test_a_doubled_key_is_found_beside_a_long_value(members: str, once: bool) -> None:
    text = "{" + members.format(long=LONG_TEXT) + "}"
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    assert client_message.each_key_once(text.encode(), fields) == once
