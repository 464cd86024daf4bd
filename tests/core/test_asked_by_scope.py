"""A server request names the scope of who may be asked: nobody else is offered it, or answers."""

from __future__ import annotations

import json

import pytest

from mux.core.policy.principal import Principal
from mux.core.policy.scopes import ALL
from mux.core.protocol.methods import SERVER_REQUESTS
from mux.core.protocol.rules import OfferTo
from mux.core.protocol.scope import Scope
from tests.core.paced import AWARE, EPOCH, PacedStory
from tests.core.stories import APPROVAL, REFRESH, TOOL_CALL, Json, Peer, Story, offered

ATTEST = "attestation/generate"
TIME = "currentTime/read"
UNKNOWN = "novel/ask"

NEEDS: dict[str, Scope] = {
    **dict.fromkeys(SERVER_REQUESTS, "approve"),
    TOOL_CALL: "drive",
    TIME: "drive",
    REFRESH: "admin",
    ATTEST: "admin",
}
"""By method, written down again: a row that changes is looked at twice."""

ANSWERS: dict[str, Json] = {
    APPROVAL: {"decision": "accept"},
    TOOL_CALL: {"contentItems": [], "success": True},
    REFRESH: {"accessToken": "secret", "chatgptAccountId": "account"},
    ATTEST: {"token": "secret"},
    TIME: {"currentTimeAt": 1},
    UNKNOWN: {"anything": 1},
}


def holder(*scopes: Scope, name: str = "x") -> Principal:
    return Principal(name, "device", None, frozenset(scopes), name)


def is_request(message: Json) -> bool:
    return "method" in message and "id" in message


def followed_by(*scopes: Scope, thread: str = "t") -> tuple[Story, Peer]:
    """A thread that a client with these scopes follows, besides nobody."""
    story = Story.begun()
    peer = story.peer(principal=holder("observe", *scopes), requestAttestation=True)
    story.follows(peer, thread)
    story.written()
    peer.heard()
    return story, peer


def test_each_row_names_its_scope() -> None:
    assert {method: rule.scope for method, rule in SERVER_REQUESTS.items()} == NEEDS
    for method, rule in SERVER_REQUESTS.items():
        assert rule.shown == (rule.offer_to is OfferTo.FOLLOWERS), method


@pytest.mark.parametrize("held", [*sorted(ALL)])
@pytest.mark.parametrize("method", [TOOL_CALL, REFRESH, ATTEST, TIME])
def test_a_machines_request_is_put_to_none_without_its_scope(method: str, held: Scope) -> None:
    story, peer = followed_by(held)
    story.asks(5, method, threadId="t", tool="x")
    asked = [each for each in peer.heard() if is_request(each)]
    if NEEDS[method] != held:
        assert asked == []
        for id in range(7_000, 7_010):  # nor by a guess
            peer.answers(id, ANSWERS[method])
        assert [each for each in story.written() if "result" in each] == []
    else:
        peer.answers(asked[0]["id"], ANSWERS[method])
        assert story.only()["result"] == ANSWERS[method]


def test_whoever_observes_sees_what_people_are_asked_and_answers_nothing() -> None:
    story, watcher = followed_by()
    story.asks(5, threadId="t")
    seen = offered(watcher)
    watcher.answers(seen["id"], ANSWERS[APPROVAL])
    assert story.written() == []
    assert watcher.only()["params"]["needs"] == "approve"


@pytest.mark.parametrize("held", [*sorted(ALL)])
def test_of_a_newer_codex_a_threads_request_is_for_those_who_approve(held: Scope) -> None:
    story, peer = followed_by(held)
    story.asks(5, UNKNOWN, threadId="t")
    asked = [each for each in peer.heard() if is_request(each)]
    if held != "approve":
        assert asked == []
        peer.asks("mux/approvals/list", id="l")
        assert peer.only()["result"]["approvals"] == []
    else:
        peer.answers(asked[0]["id"], ANSWERS[UNKNOWN])
        assert story.only()["result"] == ANSWERS[UNKNOWN]


@pytest.mark.parametrize("held", [*sorted(ALL)])
def test_of_a_newer_codex_the_hosts_request_is_for_those_who_administer(held: Scope) -> None:
    story, peer = followed_by(held)
    story.asks(5, UNKNOWN)
    asked = [each for each in peer.heard() if is_request(each)]
    assert bool(asked) is (held == "admin")
    if held == "approve":
        (pending,) = story.broker.state.pending_requests.pending()
        peer.asks("mux/approvals/answer", {"id": pending.id, "result": ANSWERS[UNKNOWN]})
        assert "needs the scope `admin`" in peer.only()["error"]["message"]
        assert story.written() == []
    elif asked:
        peer.answers(asked[0]["id"], ANSWERS[UNKNOWN])
        assert story.only()["result"] == ANSWERS[UNKNOWN]


def test_no_device_is_told_of_what_is_no_persons_to_answer() -> None:
    story, _ = followed_by("approve")
    story.asks(5, UNKNOWN, reason="a secret of the host's")
    assert story.notices == []
    assert story.broker.state.notices.unended == {}


def test_who_comes_back_is_not_given_what_was_not_for_it() -> None:
    story = PacedStory.with_disk()
    desk, watcher = story.peer("desk"), story.peer("phone", holder("observe"), **AWARE)
    for peer in (desk, watcher):
        story.follows(peer)
    watcher.heard()
    state = story.broker.state
    after = {"epoch": EPOCH, "seq": state.journal.head}
    watcher.leaves()
    story.asks(5, UNKNOWN, threadId="t")
    story.asks(6, APPROVAL, threadId="t")
    story.resolves(6)
    story.delta()
    back = story.peer("phone", holder("observe"), **AWARE)
    back.asks("mux/replay", {"after": after})
    story.settles()
    heard = [each.get("method") for each in back.heard()]
    assert UNKNOWN not in heard
    assert APPROVAL in heard
    assert "serverRequest/resolved" in heard
    pending = {each.method: set(each.offered) for each in state.pending_requests.pending()}
    assert pending[UNKNOWN] == {desk.id}


def test_an_unknown_request_that_names_a_clients_own_is_that_clients() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        story.follows(peer)
    a.asks("thread/sample", id="s")
    wire = story.written("thread/sample")[-1]["id"]
    story.asks(5, UNKNOWN, threadId="t", requestId=wire)
    asked = offered(a)
    assert asked["params"] == {"threadId": "t", "requestId": "s"}
    assert b.heard() == []
    b.answers(asked["id"], {"no": 1})
    assert story.written() == []
    a.answers(asked["id"], {"yes": 1})
    assert story.only() == {"id": 5, "result": {"yes": 1}}


@pytest.mark.parametrize("named", [{"requestId": 10**6}, {"watchId": "w"}, {"watchId": "77:w"}])
def test_one_that_names_nobodys_is_put_to_nobody(named: Json) -> None:
    story, peer = followed_by("approve", "admin")
    story.asks(5, UNKNOWN, threadId="t", **named)
    assert peer.heard() == []
    assert "error" in story.only()


def test_a_tool_without_a_known_owner_is_for_those_who_drive() -> None:
    story = Story.begun()
    watcher, driver = (
        story.peer("w", holder("observe")),
        story.peer("d", holder("observe", "drive")),
    )
    for peer in (watcher, driver):
        story.follows(peer)
    story.asks(5, TOOL_CALL, threadId="t", tool="x", arguments={}, callId="c", turnId="u")
    assert json.dumps(watcher.heard()) == "[]"
    driver.answers(offered(driver)["id"], ANSWERS[TOOL_CALL])
    assert story.only()["result"] == ANSWERS[TOOL_CALL]


def test_one_that_only_approves_is_told_nothing_and_answers_by_id() -> None:
    story, desk = followed_by("approve")
    phone = story.peer("phone", Principal("p", "device", None, frozenset({"approve"}), "d2"))
    story.asks(5, threadId="t")
    id = offered(desk)["id"]
    for method in ("thread/resume", "mux/replay", "mux/approvals/list", "thread/start"):
        phone.asks(method, {"threadId": "t"})
        assert phone.only()["error"]["code"] == -32003
    asked = phone.asks("mux/approvals/answer", {"id": id, "result": ANSWERS[APPROVAL]})
    assert story.only() == {"id": 5, "result": ANSWERS[APPROVAL]}
    answer = phone.only()
    assert (answer["id"], answer["result"]["decided"]) == (asked, True)
    story.resolves(5)
    assert phone.heard() == []
