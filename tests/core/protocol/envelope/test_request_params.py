"""The params of a request have one reading, whatever spelling the app-server takes for it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from mux.core.policy.principal import Principal
from mux.core.protocol.envelope.client_message import read_client
from mux.core.protocol.envelope.jsonrpc import (
    INVALID_REQUEST,
    BadMessageError,
    ClientMessage,
    read_fields,
)
from mux.core.protocol.envelope.request_params import canonical, read_plain, thread_id
from tests.core.stories import LOCAL, Peer, Story, dumps, offered

THREAD = "0199f3a1-5c1e-7d43-9a51-2f7c1de0b6aa"
WATCHER = Principal("ann", "device", scopes=frozenset({"observe"}))
DRIVER = Principal("bob", "device", scopes=frozenset({"observe", "drive"}), device="d1")
EXTENSION: dict[str, Any] = {"extensions": {"appmux": {}}}

SPELLINGS: dict[str, Callable[[str], str]] = {
    "its own": str,
    "upper case": str.upper,
    "mixed case": lambda id: id[:18].upper() + id[18:],
    "no hyphens": lambda id: id.replace("-", ""),
    "no hyphens, upper case": lambda id: id.replace("-", "").upper(),
    "braces": "{{{}}}".format,
    "a urn": "urn:uuid:{}".format,
    "a urn in upper case": lambda id: f"urn:uuid:{id.upper()}",
}
"""All that the real app-server takes (`tests/end_to_end/test_spellings.py` tries them on it)."""

OTHERS = [
    "", "t", f" {THREAD}", f"{THREAD} ", f"URN:UUID:{THREAD}", f"{{{THREAD}", f"{THREAD}}}",
    f"({THREAD})", f"urn:uuid:{{{THREAD}}}", "{" + THREAD.replace("-", "") + "}",
    "urn:uuid:" + THREAD.replace("-", ""), THREAD.replace("-", "", 1), THREAD + "\n", THREAD[:-1],
    THREAD.replace("0", "\uff10"), "g" + THREAD[1:], "\u0660" + THREAD[1:],
]  # fmt: skip
"""What it refuses, and so what is nobody's other name."""


def read(params: object, **layout: Any) -> ClientMessage:
    message = {"id": 1, "method": "thread/read", "params": params}
    return canonical(read_client(json.dumps(message, **layout).encode()))


def refusal(params: str, method: str = "thread/read") -> BadMessageError:
    with pytest.raises(BadMessageError) as caught:
        canonical(read_client(f'{{"id":"q","method":"{method}","params":{params}}}'.encode()))
    assert caught.value.id == b'"q"'
    return caught.value


# ── ids ───────────────────────────────────────────────────────────────────────────────────────────


@given(st.uuids(), st.sampled_from(list(SPELLINGS.values())), st.booleans(), st.data())
def test_any_spelling_of_an_id_is_one_id(
    id: uuid.UUID, spelt: Callable[[str], str], ascii: bool, data: st.DataObject
) -> None:
    text = spelt(str(id))
    assert thread_id(text) == str(id)
    spaces = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :\n")]))
    message = read({"x": [text], "threadId": text, "y": "é"}, ensure_ascii=ascii, separators=spaces)
    assert json.loads(message.params) == {"x": [text], "threadId": str(id), "y": "é"}


@pytest.mark.parametrize("text", OTHERS)
def test_what_is_no_spelling_of_it_stays_as_it_is(text: str) -> None:
    assert thread_id(text) == text
    assert json.loads(read({"threadId": text}).params) == {"threadId": text}


def test_params_that_need_nothing_are_the_bytes_that_came() -> None:
    params = f'{{ "threadId" : "{THREAD}", "x" : 1e2 }}'
    message = read_client(f'{{"id":1,"method":"m","params":{params}}}'.encode())
    assert canonical(message).params == params.encode()


def test_an_escape_is_no_other_spelling() -> None:
    params = r'{"thread\u0049d":"\u0030REST"}'.replace("REST", THREAD[1:].upper())
    text = f'{{"id":1,"method":"m","params":{params}}}'
    assert json.loads(canonical(read_client(text.encode())).params) == {"threadId": THREAD}


@pytest.mark.parametrize("value", [None, 5, True, [THREAD.upper()], {"id": THREAD.upper()}])
def test_an_id_that_is_no_text_is_the_app_servers_to_refuse(value: object) -> None:
    assert json.loads(read({"threadId": value}).params) == {"threadId": value}


def test_each_of_several_ids_is_spelt_as_its_own() -> None:
    ids = [spelt(THREAD) for spelt in SPELLINGS.values()]
    message = read({"threadIds": [*ids, "t", 5, None]})
    assert json.loads(message.params) == {"threadIds": [THREAD] * len(ids) + ["t", 5, None]}


@pytest.mark.parametrize("params", [None, 5, "x", True])
def test_params_that_are_no_object_are_the_app_servers_to_refuse(params: object) -> None:
    message = read_client(dumps({"id": 1, "method": "m", "params": params}))
    assert canonical(message) is message


# ── what can be read in two ways ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("params", ["[]", '["t"]', f'[ "{THREAD}" ]', "[{}]"])
@pytest.mark.parametrize("method", ["thread/unsubscribe", "fs/unwatch", "turn/start", "new/one"])
def test_a_list_is_no_params(method: str, params: str) -> None:
    refused = refusal(params, method)
    assert refused.code == INVALID_REQUEST
    assert "`params` must be an object" in str(refused)


@pytest.mark.parametrize(
    "params",
    [
        '{"threadId":1,"threadId":"t"}',
        '{"threadId":"t","threadId":"t"}',
        '{"threadId":null, "a":{"b":1}, "threadId":"t"}',
        r'{"threadId":"x","thread\u0049d":"t"}',
        '{"":1,"":1}',
        '{"a:b":1,"a:b":2,"c":":"}',
        '{"zzz":[1,2],"zzz":":"}',
    ],
)
def test_of_a_key_of_params_that_stands_twice_the_last_value_counts(params: str) -> None:
    message = canonical(read_client(f'{{"id":1,"method":"m","params":{params}}}'.encode()))
    assert json.loads(message.params) == json.loads(params)
    assert len(message.params) < len(params)
    assert {name: json.loads(bytes(raw)) for name, raw in message.named.items()} == json.loads(
        params
    )


@given(
    st.lists(
        st.tuples(st.text('ab:"\\é', max_size=2), st.sampled_from(["1", '":"', '{"a":1}', "[]"])),
        max_size=5,
    ),
    st.sampled_from([(",", ":"), (", ", ": "), ("\t,", " :")]),
)
def test_params_are_written_anew_just_where_a_key_stands_twice(
    pairs: list[tuple[str, str]], spaces: tuple[str, str]
) -> None:
    comma, colon = spaces
    params = "{" + comma.join(json.dumps(key) + colon + value for key, value in pairs) + "}"
    message = read_client(f'{{"id":1,"method":"m","params":{params}}}'.encode())
    once = len({key for key, _ in pairs}) == len(pairs)
    assert (canonical(message).params == params.encode()) is once
    assert json.loads(canonical(message).params) == json.loads(params)


PRIVATE = [
    '{"$serde_json::private::RawValue":"1"}',
    '{"threadId":{"$serde_json::private::RawValue":"1"}}',
    '{"x":[{"a":1,"$serde_json::private::Number" : "7"}]}',
    r'{"x":{"\u0024serde_json::private::RawValue":"1"}}',
    r'{"x":{"$serde_json::private::\u0052awValue":"1"}}',
    r'{"x":"\\","y":{"$serde\u005Fjson::private::RawValue":"1"}}',
    r'{"x":"\"","$serd\u0065_json::private::RawValue":"1"}',
]


@pytest.mark.parametrize("params", PRIVATE)
def test_keys_that_mean_something_to_the_parser_are_refused_at_any_depth(params: str) -> None:
    assert "no field is called `$serde_json::private::" in str(refusal(params))
    answer = f'{{"id":"q","result":{params}}}'.encode()
    with pytest.raises(BadMessageError, match="no field is called"):
        read_client(answer)


@pytest.mark.parametrize(
    "value",
    [
        "$serde_json::private::RawValue",
        '{"$serde_json::private::RawValue":"1"}',
        '"$serde_json::private::RawValue":',
        {"serde_json::private::RawValue": 1},
        {"$serde_json": "$serde_json::private::RawValue"},
    ],
)
@pytest.mark.parametrize("escaped", [False, True])
def test_in_a_text_they_are_words(value: object, escaped: bool) -> None:
    params = json.dumps({"x": value})
    if escaped:
        params = params.replace("$", r"\u0024")
    message = read_client(f'{{"id":1,"method":"m","params":{params}}}'.encode())
    assert json.loads(canonical(message).params) == {"x": value}


# ── what hung on it ───────────────────────────────────────────────────────────────────────────────


def following() -> tuple[Story, Peer, Peer]:
    """A thread that one client follows, and a client that only watches."""
    story = Story.begun()
    desk, watcher = story.peer("desk"), story.peer("watcher", WATCHER)
    story.follows(desk, THREAD)
    story.written()
    return story, desk, watcher


@pytest.mark.parametrize("spelt", SPELLINGS.values(), ids=SPELLINGS)
def test_nobody_is_unsubscribed_by_another(spelt: Callable[[str], str]) -> None:
    story, desk, watcher = following()
    watcher.asks("thread/unsubscribe", {"threadId": spelt(THREAD)})
    assert story.written() == []
    assert watcher.only()["result"] == {"status": "notSubscribed"}
    story.delta(THREAD)
    assert desk.heard_methods() == ["item/agentMessage/delta"]


@pytest.mark.parametrize(
    "params",
    [f'["{THREAD}"]', PRIVATE[0], PRIVATE[1]],
)
def test_nor_by_params_that_only_the_app_server_can_read(params: str) -> None:
    story, _, watcher = following()
    watcher.says(f'{{"id":1,"method":"thread/unsubscribe","params":{params}}}')
    assert story.written() == []
    assert watcher.only()["error"]["code"] == INVALID_REQUEST


def test_nor_by_a_name_that_stands_twice() -> None:
    story, _, watcher = following()
    params = f'{{"threadId":1,"threadId":"{THREAD}"}}'
    watcher.says(f'{{"id":1,"method":"thread/unsubscribe","params":{params}}}')
    assert story.written() == []
    assert watcher.only()["result"] == {"status": "notSubscribed"}


@pytest.mark.parametrize("spelt", SPELLINGS.values(), ids=SPELLINGS)
def test_a_thread_is_followed_by_any_spelling(spelt: Callable[[str], str]) -> None:
    story = Story.begun()
    peer = story.peer()
    peer.asks("thread/resume", {"threadId": spelt(THREAD)})
    asked = story.only("thread/resume")
    assert asked["params"]["threadId"] == THREAD
    story.answers(asked, {"thread": {"id": THREAD}})
    peer.heard()
    story.asks(5, threadId=THREAD)
    assert offered(peer)["params"]["threadId"] == THREAD
    peer.asks("thread/unsubscribe", {"threadId": spelt(THREAD)})
    assert peer.only()["result"] == {"status": "unsubscribed"}


@pytest.mark.parametrize("spelt", SPELLINGS.values(), ids=SPELLINGS)
def test_a_message_sent_twice_runs_once_by_any_spelling(spelt: Callable[[str], str]) -> None:
    story = Story.begun()
    peer = story.peer()
    story.follows(peer, THREAD)
    story.written()
    told = {"input": [], "clientUserMessageId": "m1"}
    peer.asks("turn/start", {"threadId": THREAD, **told})
    story.answers(story.only(), {"turn": {"id": "u", "status": "inProgress", "items": []}})
    peer.heard()
    peer.asks("turn/start", {"threadId": spelt(THREAD), **told})
    assert story.written() == []
    assert peer.only()["result"]["turn"]["id"] == "u"


@pytest.mark.parametrize("spelt", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("if_busy", ["reject", "queue"])
def test_a_busy_thread_is_busy_by_any_spelling(spelt: Callable[[str], str], if_busy: str) -> None:
    story = Story.begun()
    peer = story.peer("phone", **EXTENSION)
    story.follows(peer, THREAD)
    story.begins_turn(THREAD)
    story.written()
    peer.heard()
    peer.asks("turn/start", {"threadId": spelt(THREAD), "input": [], "ifBusy": if_busy})
    assert story.written() == []
    (answer,) = [each for each in peer.heard() if "id" in each]
    if if_busy == "reject":
        assert answer["error"]["code"] == -32012
    else:
        assert answer["result"]["appmux"]["queued"]["threadId"] == THREAD
        peer.asks("mux/queue/list", {"threadId": spelt(THREAD)})
        (listed,) = [each for each in peer.heard() if "id" in each]
        assert len(listed["result"]["queues"]) == 1


@pytest.mark.parametrize("spelt", SPELLINGS.values(), ids=SPELLINGS)
def test_whoever_began_the_turn_is_its_owner_by_any_spelling(spelt: Callable[[str], str]) -> None:
    story = Story.begun()
    driver, other = story.peer("driver", DRIVER), story.peer("other", LOCAL)
    for peer in (driver, other):
        story.follows(peer, THREAD)
    story.written()
    driver.asks("turn/start", {"threadId": spelt(THREAD), "input": []})
    story.answers(story.only(), {"turn": {"id": "u", "status": "inProgress", "items": []}})
    known = story.broker.state.threads.known
    assert set(known) == {THREAD}
    owner = known[THREAD].running.actor
    assert owner is not None
    assert owner.client == driver.id


# ── requests as nearly all are written ────────────────────────────────────────────────────────────

TOKENS = st.sampled_from(
    [
        b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\r", b'"', b"\\", b"0", b"1", b"-0",
        b"1e2", b"1.0", b"01", b"9223372036854775808", b"null", b"true", b'"id"', b'"id":',
        b'"method"', b'"method":', b'"params"', b'"params":', b'"\\u0069d":', b'"trace":{},',
        b'"jsonrpc":"2.0",',
        b'"a"', b'"\\u0061"', b'"threadId":', b'"%b"' % THREAD.encode(), dumps(THREAD.upper()),
        b'"threadIds":[],', b"\xc3\xa9", b'"\\ud800"', b"$serde_json::private::RawValue",
        b'{"id":1,', b'"method":"a",', b'"params":{}', b'"params":{"a":1}', b'"id":2,', b"{}",
    ]
)  # fmt: skip
PLAIN = [
    b'{"id":1,"method":"thread/read","params":{"threadId":"%b"}}' % THREAD.encode(),
    b'{"id":-7,"method":"a","params":{}}',
    b'{"id":"x","method":"a","params":{"b":[1, 2],"c":{"d":"e"}}}',
    b'{"id":0,"method":"a","params":{"":null}}',
    b'{"id":123456789012345678,"method":"a","params":{"text":"a\\nb \\"c\\" $d"}}',
    b'{"method":"a","id":1,"params":{"a":1,"b":{"c":[]}}}',
    b'{"id": 1, "method": "a", "params": {"a": 1, "b": {"c": []}}}',
    b'{"method": "a", "id": "x-1", "params": {"a": 1}}',
    b'{"method": "a", "params": {"a": 1}, "id": 1}',
    b'{"method":"a","params":{"id":1},"id":"2"}',
    b'{"jsonrpc":"2.0","id":1,"method":"thread/read","params":{"threadId":"%b"}}' % THREAD.encode(),
    b'{"jsonrpc": "2.0", "method": "a", "params": {}, "id": 1}',
    '{"id":"é","method":"é","params":{"ab":"é"}}'.encode(),
]


@st.composite
def nearly_plain(draw: st.DrawFn) -> bytes:
    """A plain request with some of its bytes cut out, and others put in."""
    text = draw(st.sampled_from(PLAIN))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(TOKENS) + text[at + draw(st.integers(0, 12)) :]
    return text


Outcome = ClientMessage | tuple[int, str, bytes] | None


def outcome(read: Callable[[bytes], ClientMessage | None], text: bytes) -> Outcome:
    """What reading it gives, or the error with which it is refused."""
    try:
        return read(text)
    except BadMessageError as bad:
        return bad.code, str(bad), bad.id


@given(nearly_plain() | st.lists(TOKENS, max_size=12).map(b"".join))
@example(b'{"id":1,"method":"a","params":{"x":1},"params":{"y":2}}')
@example(b'{"id":1,"method":"a","params":{"x":1,"x":1}}')
@example(b'{"id":1,"method":"a","params":{},"id":1}')
@example(b'{"id":1e2,"method":"a","params":{}}')
@example(b'{"method":"a","id":1,"params":{},"id":2}')
@example(b'{"method":"a","params":{"a":{},"id":2}}')
@example(b'{"method":"a","params":{},"params":{"a":1},"id":2}')
@example(b'{"method":"a","params":{"a":"b,"id":2}')
@example(b'{"method": "a", "params": {"x": 1, "x": 1}, "id": 1}')
@example(b'{"jsonrpc":"2.0","id":1,"method":"a","params":{},"jsonrpc":"2.0"}')
@example(b'{"id":1,"method":"a","params":{"a":1}} ')
@example(b'{"id":1,"method":"a","params":{"$serde_json::private::RawValue":"{}"}}')
@example(b'{"id":1,"method":"a","params":{"x":{"\\u0024serde_json::private::RawValue":"{}"}}}')
@example(b'{"id":1,"method":"a","params":' + b"{" * 200 + b"}" * 200 + b"}")
def test_the_short_way_reads_what_the_careful_one_does(text: bytes) -> None:
    text = text.decode(errors="replace").encode()  # as `downstream` hands it over
    short, careful = outcome(read_plain, text), outcome(lambda t: canonical(read_client(t)), text)
    if not isinstance(short, ClientMessage):
        assert short in (None, careful)
        return
    assert isinstance(careful, ClientMessage)
    assert short.around is not None
    assert short.id.join(short.around) == text
    line = b"7".join(short.around)
    assert read_fields(line) == careful.fields | {"id": b"7"}
    named = {name: bytes(raw) for name, raw in short.named.items()}
    assert named == {name: bytes(raw) for name, raw in careful.named.items()}
    fields = {name: careful.fields[name] for name in ("id", "method", "params")}
    assert structs.replace(short, around=None, named={}) == structs.replace(
        careful, fields=fields, named={}
    )


@pytest.mark.parametrize("text", PLAIN[:-1])
def test_what_clients_write_goes_the_short_way(text: bytes) -> None:
    assert read_plain(text) is not None


def test_other_params_are_written_anew() -> None:
    message = read_plain(PLAIN[0])
    assert message is not None
    assert message.around
    other = message.with_params(b'{"a":1}', came=message.params)
    assert (other.params, other.came, other.around) == (b'{"a":1}', message.params, None)
