"""Stories of texts that are too long to be kept: refused, or they leave nothing behind."""

from __future__ import annotations

import gc
import types
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from mux.core.features.notices.notice_sources import LONGEST_LINE
from mux.core.protocol.envelope.jsonrpc import INVALID_REQUEST
from mux.core.protocol.envelope.text_limits import LONGEST_ID, LONGEST_NAME, MOST_NAMED
from mux.core.state.clients.client import ClientState
from tests.core.lives import shared
from tests.core.stories import Json, Peer, Story, dumps

LONG = "W" * 200_000
FAIR, TOO_MUCH = "n" * LONGEST_NAME, "n" * (LONGEST_NAME + 1)


def refusal(peer: Peer) -> str:
    """What was wrong with the one thing that it said."""
    error = peer.only()["error"]
    assert error["code"] == INVALID_REQUEST
    return str(error["message"])


def introduced(story: Story, capabilities: object = None, **info: object) -> Peer:
    """A client that has said who it is."""
    peer = story.attach()
    who = {"name": "a", "version": "1"} | info
    peer.asks("initialize", {"clientInfo": who, "capabilities": capabilities})
    return peer


# ── who a client says it is ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["a\nb", "a\r\nb", "\0", "a\x1b[2J", "\x7f", "a\x1f"])
def test_a_name_that_is_no_header_value_is_refused_in_the_native_words(name: str) -> None:
    story = Story.begun()
    peer = introduced(story, name=name)
    words = f"Invalid clientInfo.name: '{name}'. Must be a valid HTTP header value."
    assert refusal(peer) == words
    peer.asks("thread/list")
    assert refusal(peer) == "Not initialized"
    peer.initializes("better")
    assert "result" in peer.only()


@pytest.mark.parametrize("name", ["", " a ", "a\tb", "Ü", "日本", "😀", "a\x85b", FAIR])
def test_every_other_name_is_taken(name: str) -> None:
    peer = introduced(Story.begun(), name=name)
    assert f"({name.lstrip()}; 1)" in peer.only()["result"]["userAgent"]


def test_a_version_loses_what_is_no_header_value_as_natively() -> None:
    for version, shown in (("1\n2\x7f😀\t", "1_2__"), ("1\t😀 ", "1\t😀")):
        peer = introduced(Story.begun(), version=version)
        assert f"(a; {shown})" in peer.only()["result"]["userAgent"]


@pytest.mark.parametrize("field", ["name", "version", "title"])
def test_what_a_client_says_of_itself_has_a_limit(field: str) -> None:
    story = Story.begun()
    assert "result" in introduced(story, **{field: FAIR}).only()
    peer = introduced(story, **{field: TOO_MUCH})
    assert refusal(peer) == f"Invalid clientInfo.{field}: longer than {LONGEST_NAME} characters"
    assert story.broker.state.clients[peer.id].state is ClientState.ATTACHED


def test_so_does_what_it_does_not_want_to_hear() -> None:
    story = Story.begun()
    many = [f"n/{number}" for number in range(MOST_NAMED)]
    assert "result" in introduced(story, {"optOutNotificationMethods": [*many]}).only()
    assert "more than" in refusal(introduced(story, {"optOutNotificationMethods": [*many, "x"]}))
    peer = introduced(story, {"optOutNotificationMethods": [LONG, "thread/closed"]})
    assert "thread/closed" in story.broker.state.clients[peer.id].opted_out


# ── the envelope ──────────────────────────────────────────────────────────────────────────────────


def test_a_method_has_a_limit() -> None:
    story = Story.begun()
    peer = story.peer()
    peer.asks(FAIR)
    assert story.only()["method"] == FAIR
    id = peer.asks(TOO_MUCH)
    error = peer.only()
    assert (error["id"], error["error"]["code"]) == (id, INVALID_REQUEST)
    assert "`method` is longer than" in error["error"]["message"]
    peer.notifies(TOO_MUCH)
    assert "`method` is longer than" in refusal(peer)
    assert story.written() == []
    assert all(len(str(each)) < 1000 for each in story.logs)


def test_an_id_has_a_limit() -> None:
    story = Story.begun()
    peer = story.peer()
    fair, too_much = "i" * (LONGEST_ID - 2), "i" * (LONGEST_ID - 1)
    peer.asks("thread/list", id=fair)
    story.answers(story.only(), {"data": []})
    assert peer.only()["id"] == fair
    peer.asks("thread/list", id=too_much)
    error = peer.only()
    assert error["id"] is None
    assert "`id` is longer than" in error["error"]["message"]
    peer.answers(too_much, {})
    assert "`id` is longer than" in refusal(peer)
    assert story.written() == []


# ── what it names ─────────────────────────────────────────────────────────────────────────────────


def test_an_id_of_its_own_thing_has_a_limit() -> None:
    story = Story.begun()
    peer = story.peer()
    id = peer.asks("process/spawn", {"processHandle": TOO_MUCH, "command": ["x"], "cwd": "/"})
    error = peer.only()
    assert error["id"] == id
    assert "`processHandle` is longer than" in error["error"]["message"]
    assert story.written() == []


def test_a_message_id_has_a_limit_as_it_is_remembered() -> None:
    story = Story.begun()
    [peer] = shared(story, "a")
    params = {"threadId": "t", "input": [], "clientUserMessageId": TOO_MUCH}
    for _ in range(2):
        peer.asks("turn/start", params)
        assert "`clientUserMessageId` is longer than" in refusal(peer)
    assert story.written() == []


def test_a_focus_has_a_limit() -> None:
    story = Story.begun()
    peer = story.peer()
    peer.asks("mux/focus", {"threadId": LONG})
    assert "length <= 256" in refusal(peer)
    peer.notifies("mux/focus", {"threadId": LONG})
    assert peer.heard() == []
    assert story.broker.state.clients[peer.id].focus is None


def test_of_a_threads_name_no_more_is_kept_than_is_told() -> None:
    story = Story.begun()
    shared(story, "a")
    story.notifies("thread/name/updated", {"threadId": "t", "threadName": LONG})
    assert len(story.broker.state.threads.get("t").name) == LONGEST_LINE


# ── all of it: nothing stays ──────────────────────────────────────────────────────────────────────


def texts_in(thing: object) -> Iterator[str | bytes]:
    """All texts that it holds, however deep."""
    seen: set[int] = set()
    left = [thing]
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(each))
        if isinstance(each, str | bytes):
            yield each
        elif isinstance(each, msgspec.Raw):
            yield bytes(each)
        else:
            left += gc.get_referents(each)


def everything(long: str) -> list[tuple[str, Json]]:
    """Requests that name something by so long a text."""
    named: dict[str, Any] = {"threadId": long, "input": [], "turnId": long, "expectedTurnId": long}
    return [
        (method, named)
        for method in (
            "thread/resume", "thread/fork", "thread/unsubscribe", "thread/archive", "thread/read",
            "turn/start", "turn/steer", "turn/interrupt", "review/start", "thread/name/set",
            "mux/focus", "mux/queue/list", "mux/queue/start", "mux/queue/remove",
        )
    ] + [
        ("turn/start", named | {"ifBusy": "queue"}),
        ("turn/start", {"threadId": "t", "input": [], "clientUserMessageId": long}),
        ("process/spawn", {"processHandle": long, "command": ["x"], "cwd": "/"}),
        ("command/exec", {"processId": long, "command": ["x"]}),
        ("fs/watch", {"watchId": long, "path": "/"}),
        ("fuzzyFileSearch/sessionStart", {"sessionId": long, "roots": ["/"]}),
        ("mux/approvals/answer", {"id": long, "result": {}}),
        (long, {}),
        ("config/value/write", {"keyPath": long, "value": long}),
        ("made/up", {long: long}),
    ]  # fmt: skip


@pytest.mark.parametrize("fails", [True, False])
def test_nothing_that_is_too_long_is_kept_of_what_a_client_says(fails: bool) -> None:
    story = Story.begun()
    [first] = shared(story, "first")
    extensions = {"appmux": {"version": 1, "x": LONG}, LONG: {}, "openai/form": {"y": LONG}}
    aware = introduced(story, {"extensions": extensions, "optOutNotificationMethods": [LONG]})
    state = story.broker.state
    assert state.clients[aware.id].declared("openaiForm")
    assert state.clients[aware.id].knows_extension
    for field in ("name", "version", "title"):
        introduced(story, **{field: LONG})
    for peer in (first, aware):
        for method, params in everything(LONG):
            peer.asks(method, params)
            peer.notifies(method, params)
            peer.asks("thread/list", id=LONG)
        peer.answers(LONG, LONG)
        peer.refuses(1, LONG)
    while asked := [each for each in story.written() if "id" in each]:
        for each in asked:
            if fails or each["method"] not in ("turn/start", "thread/list"):
                story.fails(each, message="no such thing")
            else:
                story.answers(each, {"turn": {"id": "t-turn", "status": "inProgress"}})
    story.waits(700.0)
    story.records.clear()
    first.notifies("initialized")
    kept = [each[:40] for each in texts_in(story.broker) if len(each) > len(LONG) // 2]
    assert kept == []


def test_nor_does_any_of_it_get_into_the_log_or_the_audit() -> None:
    story = Story.begun()
    [peer] = shared(story, "a")
    story.logs.clear()
    story.records.clear()
    for method, params in everything(LONG):
        peer.asks(method, params)
        peer.notifies(method, params)
    peer.says(dumps({"id": LONG, "method": LONG}))
    peer.leaves()
    assert max(len(str(each)) for each in (*story.logs, *story.records)) < 4 * LONGEST_NAME
