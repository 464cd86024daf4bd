"""Of a codex that nobody has looked at, no id of a client's gets to another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.policy import scopes
from mux.core.protocol import methods
from mux.core.state.requests import id_fields
from mux.core.state.requests.id_fields import (
    LONGEST_NAME,
    Kind,
    any_in,
    kind_of,
    owned,
    request_id,
    translated,
)
from tests.core.stories import Json, Peer, Story, dumps

STREAM = "thread/search/stream"
PARTIAL = "thread/search/partial"

NAMES = {
    Kind.REQUEST: ["requestId", "requestIds", "parentRequestId"],
    Kind.OWN: [
        "watchId", "processId", "sessionId", "subscriptionId", "searchId", "streamId",
        "processHandle", "handle", "cancellationToken", "progressToken", "fileWatchIds",
    ],
    None: [
        "threadId", "turnId", "itemId", "callId", "approvalId", "loginId", "query", "Id", "id",
        "request", "requests", "refreshToken", "authBearerToken", "maxTokens", "tokenBudget",
        "clientUserMessageId", "", "x" * LONGEST_NAME + "requestId",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names]
)
def test_a_name_says_what_an_id_stands_for(kind: Kind | None, name: str) -> None:
    assert kind_of(name) is kind
    for _ in range(2):  # at once, and remembered
        assert any_in([name]) is (kind is not None)
        assert any_in(["threadId", name, "cwd"]) is (kind is not None)


def test_no_more_names_are_remembered_than_a_schema_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_fields, "_harmless", set())
    for start in range(0, 2 * id_fields.REMEMBERED_NAMES, 100):
        assert not any_in([f"name{number}" for number in range(start, start + 100)])
    assert len(id_fields._harmless) <= id_fields.REMEMBERED_NAMES
    assert any_in(["requestId"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["requestId", "handle", "a", "é"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values)
def test_every_id_is_translated_wherever_it_stands_and_nothing_else(value: Any) -> None:
    found: list[bytes] = []

    def mark(_: Kind, id: bytes) -> bytes:
        found.append(id)
        return b'"<' + b"%d" % len(found) + b'>"'

    def expected(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: ids(v) if kind_of(name) else expected(v) for name, v in value.items()}
        return [expected(each) for each in value] if isinstance(value, list) else value

    def ids(value: Any) -> Any:
        if isinstance(value, list):
            return [ids(each) for each in value]
        if value is None or isinstance(value, dict):
            return expected(value)
        return f"<{next(count)}>"

    count: Iterator[int] = iter(range(1, 1_000))
    assert json.loads(translated(dumps(value), mark)) == expected(value)


@pytest.mark.parametrize("value", [b"null", b"true", b"7.0", b"7e0", b"1" * 20, b'{"a":1}'])
def test_what_can_be_no_requests_id_is_the_app_servers_to_refuse(value: bytes) -> None:
    assert request_id(3, value, []) == value


# ── a story of a method that nobody has looked at ─────────────────────────────────────────────────


@pytest.fixture(params=["seen", "unseen"])
def story(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Story:
    """With the table as it is, and as if nobody had looked at the streamed search."""
    if request.param == "unseen":
        for method in (STREAM, f"{STREAM}/cancel", "thread/search/cancel"):
            monkeypatch.delitem(methods.REQUESTS, method, raising=False)
            monkeypatch.delitem(scopes.SCOPES, method)
        monkeypatch.delitem(methods.NOTIFICATIONS, PARTIAL)
    return Story.begun(burst=100)


def searching(story: Story) -> tuple[Peer, Peer, Json, Json]:
    """Two clients that search under the same id, and what the app-server was asked for each."""
    a, b = story.peer("a"), story.peer("b")
    a.asks(STREAM, {"searchTerm": "x"}, id="s")
    for_a = story.only(STREAM)
    b.asks(STREAM, {"searchTerm": "x"}, id="s")
    return a, b, for_a, story.only(STREAM)


def test_partial_results_go_to_their_asker_under_its_own_id(story: Story) -> None:
    a, b, for_a, for_b = searching(story)
    data = [{"thread": {"id": "t", "sessionId": "t"}, "snippet": "x"}]
    for asked, peer, other in ((for_a, a, b), (for_b, b, a)):
        story.notifies(PARTIAL, {"requestId": asked["id"], "data": data})
        assert peer.only()["params"] == {"requestId": "s", "data": data}
        assert other.heard() == []


def test_a_cancel_ends_the_own_search_and_no_other(story: Story) -> None:
    a, b, for_a, for_b = searching(story)
    a.asks(f"{STREAM}/cancel", {"requestId": "s"})
    assert story.only()["params"] == {"requestId": for_a["id"]}
    for foreign in (for_b["id"], str(for_b["id"]), "other"):
        a.asks(f"{STREAM}/cancel", {"requestId": foreign})
        assert story.only()["params"] == {"requestId": f"{a.id}:{foreign}"}
    assert b.heard() == []


def test_partial_results_of_what_is_over_are_told_to_nobody(story: Story) -> None:
    a, b, for_a, for_b = searching(story)
    story.answers(for_a)
    b.leaves()
    a.heard()
    for id in (for_a["id"], for_b["id"], 10**9, "s", "1:s"):
        story.notifies(PARTIAL, {"requestId": id, "data": []})
    assert a.heard() == []


def test_a_search_whose_asker_has_left_is_cancelled() -> None:
    story = Story.begun()
    a, b, for_a, _ = searching(story)
    a.leaves()
    assert story.only(f"{STREAM}/cancel")["params"] == {"requestId": for_a["id"]}
    assert b.heard() == []


@pytest.mark.parametrize("spelt", [r'"\u0073"', '"s"'])
def test_an_id_of_a_request_is_the_same_in_every_spelling(spelt: str) -> None:
    story = Story.begun()
    a = story.peer()
    a.says('{"id":"s","method":"thread/sample","params":{}}')
    asked = story.only()
    a.says(f'{{"id":1,"method":"thread/sample/cancel","params":{{"requestId":{spelt}}}}}')
    assert story.only()["params"] == {"requestId": asked["id"]}


def test_a_request_that_waits_for_its_turn_can_be_named() -> None:
    story = Story.begun(waiting_per_client=2)
    a = story.peer()
    for id in ("x", "y"):
        a.asks("thread/sample", id=id)
    first, second = story.written("thread/sample")
    a.asks("thread/sample/cancel", {"requestId": "y"})
    assert story.only()["params"] == {"requestId": second["id"]} != {"requestId": first["id"]}


# ── things of a method that nobody has looked at ──────────────────────────────────────────────────


def test_a_thing_of_an_unknown_method_is_its_clients_own() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    wires = {}
    for peer in (a, b):
        peer.asks("tail/start", {"of": {"streamId": "w"}, "streamHandle": "w", "path": "/x"})
        asked = story.only()
        assert asked["params"]["path"] == "/x"
        assert asked["params"]["of"]["streamId"] == asked["params"]["streamHandle"]
        wires[peer] = asked["params"]["streamHandle"]
        story.fails(asked, message=f"no such stream: {wires[peer]}")
        assert peer.only()["error"]["message"] == "no such stream: w"
    assert len(set(wires.values())) == 2
    for peer, other in ((a, b), (b, a)):
        story.notifies("tail/said", {"streamHandle": wires[peer], "threadId": "t"})
        assert peer.only()["params"] == {"streamHandle": "w", "threadId": "t"}
        story.notifies("tail/said", {"about": [{"streamHandle": wires[peer], "n": 1}]})
        assert peer.only()["params"] == {"about": [{"streamHandle": "w", "n": 1}]}
        assert other.heard() == []


def test_what_names_things_of_several_or_of_nobody_is_told_to_nobody() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    for ids in (["1:w", "2:w"], ["9:w"], ["w"], [""], [":w"], ["1w"], [5], ["\u0661:w"]):
        story.notifies("tail/said", {"streamIds": ids})
    assert a.heard() == b.heard() == []


@pytest.mark.parametrize("listed", [False, True])
def test_a_request_of_nobodys_that_stands_deep_in_a_notification_is_told_to_nobody(
    listed: bool,
) -> None:
    story = Story.begun(burst=100)
    a, b = story.peer("a"), story.peer("b")
    a.asks("thread/sample", {})
    left = story.only()
    b.asks("thread/sample", {})
    over = story.only()
    story.answers(over)
    a.leaves()
    own = next(each for each in story.written() if each["method"] == "thread/sample/cancel")
    b.heard()
    for asked in (left, own, over):  # its client has left; the broker's own; answered just now
        about = {"about": [{"requestId": asked["id"], "text": "x"}]}
        story.notifies("novel/said", [about] if listed else about)
    assert b.heard() == []
    story.answers(own)  # and so is the broker's own, once it is answered
    about = {"about": [{"requestId": own["id"], "text": "x"}]}
    story.notifies("novel/said", [about] if listed else about)
    assert b.heard() == []


def test_an_answer_names_all_ids_of_a_request_as_its_client_does() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("tail/start", {"streamId": "w", "watchId": "v", "requestId": "x", "n": 1})
    asked = story.only()
    ids = [asked["params"][name] for name in ("streamId", "watchId", "requestId")]
    assert ids == [f"{a.id}:w", f"{a.id}:v", f"{a.id}:x"]
    story.fails(asked, message=f"no such things: {', '.join(ids)}")
    assert a.only()["error"]["message"] == "no such things: w, v, x"


def test_an_unknown_notification_without_such_ids_is_as_any() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    params = {"threadId": "t", "streamId": None, "thread": {"id": "t", "sessionId": "t"}}
    story.notifies("thread/novel", params)
    assert a.only()["params"] == params
    assert b.heard() == []
    story.notifies("novel", {"x": 1})
    assert (len(a.heard()), len(b.heard())) == (1, 1)


def test_ids_that_the_app_server_has_given_stay_as_they_are() -> None:
    story = Story.begun()
    a = story.peer()
    for method, params in {
        "thread/backgroundTerminals/terminate": {"threadId": "t", "processId": "12"},
        "accountSession/switch": {"sessionId": "s", "accountId": "a"},
        "thread/realtime/list": {"threadId": "t", "sessionId": "s"},
    }.items():
        a.asks(method, params)
        assert story.only()["params"] == params
    story.follows(a)
    seen = {"threadId": "t", "processId": "12", "stdin": "x"}
    story.notifies("item/commandExecution/terminalInteraction", seen)
    assert a.only()["params"] == seen


def test_a_message_without_params_names_nobody() -> None:
    for line in (b'{"method":"x"}', b'{"method":"x","params":[{"a":1}]}', b"{}"):
        assert owned(line, {}, deeply=True) is None
