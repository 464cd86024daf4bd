"""Stories of the handshake: one ``initialize`` upstream, each client's own answered from it."""

from __future__ import annotations

import json

import pytest

from mux.core.commands import KillUpstream
from mux.core.limits import Limits
from mux.core.state.app_server import Introduction
from tests.core.stories import DELTA, INITIALIZED, Story

GREETINGS = [
    ("configWarning", {"summary": "no bubblewrap"}),
    ("remoteControl/status/changed", {"status": "disabled"}),
]


def test_the_app_server_is_initialized_once() -> None:
    story = Story()
    story.starts()
    asked = story.only()
    assert asked["method"] == "initialize"
    assert asked["params"]["clientInfo"]["name"] == "appmux"
    story.answers(asked, INITIALIZED)
    assert story.written() == [{"method": "initialized"}]
    for name in "abc":
        story.peer(name)
    assert story.written() == []


@pytest.mark.parametrize("attestation", [False, True])
def test_only_what_the_broker_can_honour_is_declared(attestation: bool) -> None:
    story = Story(introduction=Introduction("appmux", "0.1", request_attestation=attestation))
    story.starts()
    declared = story.only()["params"]["capabilities"]
    assert declared["experimentalApi"] is True
    assert declared["requestAttestation"] is attestation
    assert "optOutNotificationMethods" not in declared


def test_each_client_gets_the_answer_with_its_own_name() -> None:
    story = Story.begun()
    for name in ("codex-tui", "an (odd) name"):
        peer = story.attach()
        peer.initializes(name, id="initialize")
        answer = peer.only()
        assert answer["id"] == "initialize"
        agent = answer["result"].pop("userAgent")
        assert agent == f"appmux/0.163.0 (Debian 12.0.0; x86_64) xterm ({name}; 1.2)"
        assert answer["result"] == {k: v for k, v in INITIALIZED.items() if k != "userAgent"}


def test_without_initialize_only_initialize_may_be_asked() -> None:
    story = Story.begun()
    a = story.attach()
    for method in ("thread/start", "thread/unsubscribe", "command/exec", "no/such", "mux/replay"):
        id = a.asks(method, {"threadId": "t"})
        assert a.only() == {"id": id, "error": {"code": -32600, "message": "Not initialized"}}
    assert story.written() == []
    assert a.heard() == []


def test_a_client_that_is_not_ready_hears_nothing_and_says_nothing() -> None:
    story = Story.begun()
    a, ready = story.attach(), story.peer()
    story.notifies("thread/started", {"thread": {"id": "t"}})
    story.notifies("account/updated")
    story.asks(0, threadId="t")
    story.asks(1, "account/chatgptAuthTokens/refresh")
    a.notifies("x/y")
    assert a.heard() == []
    assert len(ready.heard("thread/started")) == 1
    assert story.written("x/y") == []


def test_a_second_initialize_is_an_error_that_changes_nothing() -> None:
    story = Story.begun()
    a = story.peer("a", optOutNotificationMethods=["account/updated"])
    id = a.initializes("other", optOutNotificationMethods=[])
    assert a.only() == {"id": id, "error": {"code": -32600, "message": "Already initialized"}}
    story.notifies("account/updated")
    assert a.heard() == []
    assert story.written() == []


def test_initialized_is_not_waited_for() -> None:
    story = Story.begun()
    a = story.peer()
    story.notifies("account/updated")
    assert a.heard_methods() == ["account/updated"]
    a.asks("x/y")
    assert story.only("x/y")


@pytest.mark.parametrize(
    "params",
    [
        {},
        5,
        None,
        {"clientInfo": {"name": "x"}},
        {"clientInfo": {"name": 1, "version": "1"}},
        {"clientInfo": {"name": "x", "version": "1"}, "capabilities": {"experimentalApi": "y"}},
    ],
)
def test_an_initialize_that_does_not_fit_is_the_app_servers_to_refuse(params: object) -> None:
    story = Story.begun()
    a = story.attach()
    a.says(json.dumps({"id": "i", "method": "initialize", "params": params}))
    asked = story.only("initialize")
    assert asked["params"] == params
    story.fails(asked, message="Invalid request: missing field `clientInfo`")
    assert a.only()["error"]["message"] == "Invalid request: missing field `clientInfo`"
    a.initializes()
    assert "result" in a.only()


def test_initialize_before_the_app_server_is_ready_waits_for_it() -> None:
    story = Story()
    a, gone = story.attach(), story.attach()
    first = a.initializes("a", id="early")
    gone.initializes("gone")
    story.starts()
    again = a.initializes("a", id="again")
    assert a.heard() == []
    gone.leaves()
    story.initialized()
    answer, second = a.heard()
    assert (answer["id"], second["id"]) == (first, again)
    assert answer["result"]["userAgent"].endswith("(a; 1.2)")
    assert second["error"]["message"] == "Already initialized"
    assert story.written() == [{"method": "initialized"}]


def test_what_is_asked_behind_an_initialize_that_waits_is_answered_too() -> None:
    story = Story()
    a, gone = story.attach(), story.attach()
    first = a.initializes()
    gone.initializes()
    gone.asks("thread/list")
    asked = [a.asks("thread/list"), a.asks("thread/unsubscribe", {"threadId": "t"})]
    again = a.initializes()
    story.starts()
    gone.leaves()
    assert a.heard() == []
    story.initialized()
    written = [each for each in story.written() if "id" in each]
    assert [each["method"] for each in written] == ["thread/list", "thread/unsubscribe"]
    for each in written:
        story.answers(each)
    answers = {each["id"]: each for each in a.heard()}
    assert list(answers) == [first, again, *asked]
    assert all("result" in answers[id] for id in (first, *asked))
    assert answers[again]["error"]["message"] == "Already initialized"


def test_what_is_asked_behind_an_initialize_is_bounded() -> None:
    story = Story(Limits(queued_per_client=2))
    a = story.attach()
    first, held = a.initializes(), a.asks("x/y")
    refused = a.asks("x/y")
    assert a.only()["id"] == refused
    story.starts()
    story.initialized()
    assert a.only()["id"] == first
    assert story.written("x/y")
    assert held != refused


def test_what_is_asked_behind_an_initialize_that_is_refused_is_refused_too() -> None:
    story = Story()
    a = story.attach()
    a.asks("initialize", {})
    a.asks("x/y", id="q")
    story.starts()
    story.initialized()
    assert a.only()["error"]["message"] == "Not initialized"
    story.fails(story.only("initialize"))
    assert "error" in a.only()


def test_what_is_asked_before_the_app_server_is_ready_is_not_sent_to_it() -> None:
    story = Story()
    a = story.attach()
    a.asks("x/y")
    story.starts()
    assert [each["method"] for each in story.written()] == ["initialize"]
    assert a.only()["error"]["message"] == "Not initialized"


@pytest.mark.parametrize("answer", [{}, {"userAgent": 5}, [], None])
def test_an_initialize_answer_that_cannot_be_used_ends_the_app_server(answer: object) -> None:
    story = Story()
    story.starts()
    asked = story.only()
    story.says(json.dumps({"id": asked["id"], "result": answer}))
    assert story.given_up or story.lives
    assert story.written() == []


def test_no_answer_to_initialize_is_given_up_on() -> None:
    story = Story.begun()
    assert not story.given_up
    silent = Story()
    silent.starts()
    silent.waits(silent.limits.request_deadline)
    [killed] = silent.lives
    assert isinstance(killed, KillUpstream)
    silent.exits(killed.reason)
    assert silent.given_up == [killed.reason]


def test_greetings_are_repeated_to_each_newcomer() -> None:
    story = Story.begun()
    first = story.peer()
    for method, params in GREETINGS:
        story.notifies(method, params)
    assert first.heard_methods() == [method for method, _ in GREETINGS]
    second = story.attach()
    id = second.initializes()
    heard = second.heard()
    assert heard[0]["id"] == id
    assert [(each["method"], each["params"]) for each in heard[1:]] == GREETINGS
    assert first.heard() == []
    opted_out = story.peer(optOutNotificationMethods=["configWarning"])
    assert opted_out.heard() == []
    opted_out = story.attach()
    opted_out.initializes(optOutNotificationMethods=["configWarning"])
    assert opted_out.heard_methods()[1:] == ["remoteControl/status/changed"]


def test_greetings_said_before_the_first_client_are_not_lost() -> None:
    story = Story.begun()
    for method, params in GREETINGS:
        story.notifies(method, params)
    a = story.attach()
    a.initializes()
    assert a.heard_methods()[1:] == [method for method, _ in GREETINGS]


def test_of_a_status_the_last_one_greets_and_of_warnings_each_once() -> None:
    story = Story.begun()
    for status in ("connecting", "connected"):
        story.notifies("remoteControl/status/changed", {"status": status})
    for text in ("one", "two", "one"):
        story.notifies("configWarning", {"summary": text})
    a = story.attach()
    a.initializes()
    heard = a.heard()[1:]
    assert [each["params"].get("status") for each in heard] == ["connected", None, None]
    assert [each["params"].get("summary") for each in heard][1:] == ["one", "two"]


def test_opt_outs_are_each_clients_own() -> None:
    story = Story.begun()
    a = story.peer("a", optOutNotificationMethods=[DELTA, "thread/started", "no/such"])
    b = story.peer("b")
    for peer in (a, b):
        story.follows(peer)
    story.notifies("thread/started", {"thread": {"id": "z"}})
    story.delta()
    story.notifies("item/completed", {"threadId": "t", "item": {"id": "i", "type": "x"}})
    assert a.heard_methods() == ["item/completed"]
    assert b.heard_methods() == ["thread/started", DELTA, "item/completed"]


def test_an_opt_out_holds_for_notifications_only() -> None:
    story = Story.begun()
    methods = ["item/commandExecution/requestApproval", "currentTime/read", "initialize"]
    a = story.peer(optOutNotificationMethods=methods)
    story.follows(a)
    story.asks(0, threadId="t")
    story.asks(1, "currentTime/read", threadId="t")
    assert a.heard_methods() == methods[:2]
