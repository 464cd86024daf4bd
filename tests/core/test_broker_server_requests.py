"""Stories of server requests: offered, answered, resolved. Each sentence of the rules, once."""

from __future__ import annotations

from typing import Any

import pytest

from mux.core.state.state import NEVER
from tests.core.stories import (
    APPROVAL,
    FIRST_ID,
    QUESTION,
    RESOLVED,
    Story,
    offered,
    two_followers,
)

ACCEPT = {"decision": "accept"}
TOKENS = {"accessToken": "secret", "chatgptAccountId": "account"}


# ── offered ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", [APPROVAL, QUESTION, "item/made/up"])
def test_it_is_offered_to_every_follower_under_an_id_of_the_brokers_own(method: str) -> None:
    story, a, b = two_followers()
    stranger = story.peer("stranger")
    story.asks(0, method, threadId="t", command="rm")
    offer = a.only()
    assert offer == b.only()
    assert offer["id"] > FIRST_ID
    assert offer == {
        "method": method,
        "id": offer["id"],
        "params": {"threadId": "t", "command": "rm"},
    }
    assert stranger.heard() == []


def test_ids_are_unique_over_restarts_of_the_app_server() -> None:
    story, a, _ = two_followers()
    story.asks(0, threadId="t")
    first = offered(a)["id"]
    story.exits()
    story.starts(2)
    story.initialized()
    for asked in story.written("thread/resume"):
        story.answers(asked, {"thread": {"id": "t"}})
    a.heard()
    story.asks(0, threadId="t")
    second = offered(a)["id"]
    assert second != first
    story.written()
    a.answers(first, ACCEPT)
    assert story.written() == []
    a.answers(second, ACCEPT)
    assert story.only() == {"id": 0, "result": ACCEPT}


def test_a_thread_by_its_older_name_has_the_same_followers() -> None:
    story, a, b = two_followers()
    story.asks(0, "execCommandApproval", conversationId="t")
    assert offered(a) == offered(b)


# ── answered ──────────────────────────────────────────────────────────────────────────────────────


def test_the_first_valid_answer_goes_up_once_and_everybody_hears_resolved() -> None:
    story, a, b = two_followers()
    story.asks(5, threadId="t")
    id = offered(a)["id"]
    assert offered(b)["id"] == id
    b.answers(id, ACCEPT)
    assert story.only() == {"id": 5, "result": ACCEPT}
    a.answers(id, {"decision": "decline"})
    b.answers(id, {"decision": "decline"})
    assert story.written() == []
    assert a.heard() == b.heard() == []
    story.notifies(RESOLVED, {"threadId": "t", "requestId": 5})
    for peer in (a, b):
        assert peer.only()["params"] == {"threadId": "t", "requestId": id}
    a.answers(id, ACCEPT)
    assert story.written() == []


def test_the_bytes_of_an_answer_pass_unchanged() -> None:
    story, a, _ = two_followers()
    story.asks(5, "item/made/up", threadId="t")
    id = offered(a)["id"]
    a.says(f'{{"jsonrpc":"2.0","result":{{"n":1.50,"s":"\\u00e9"}},"id":{id}}}')
    assert story.lines == [b'{"id":5,"result":{"n":1.50,"s":"\\u00e9"}}']


def test_late_double_and_unknown_answers_change_nothing() -> None:
    story, a, b = two_followers()
    stranger = story.peer("stranger")
    story.asks(0, threadId="t")
    id = offered(a)["id"]
    b.heard()
    for strange in (0, 1, id + 1, -id, str(id), "", 2**63 - 1):
        a.answers(strange, ACCEPT)
        a.refuses(strange)
    stranger.answers(id, ACCEPT)
    stranger.refuses(id)
    assert story.written() == []
    assert a.heard() == b.heard() == stranger.heard() == []
    a.answers(id, ACCEPT)
    assert story.only()["result"] == ACCEPT


def test_who_opted_out_of_resolved_does_not_hear_it() -> None:
    story = Story.begun()
    a, b = story.peer("a", optOutNotificationMethods=[RESOLVED]), story.peer("b")
    for peer in (a, b):
        story.follows(peer)
    story.asks(0, threadId="t")
    a.answers(offered(a)["id"], ACCEPT)
    b.heard()
    story.resolves(0)
    assert a.heard() == []
    assert b.heard_methods() == [RESOLVED]


def test_an_interrupt_resolves_what_nobody_answered() -> None:
    story, a, b = two_followers()
    story.asks(0, threadId="t")
    id = offered(a)["id"]
    b.heard()
    story.resolves(0)
    assert a.only()["params"]["requestId"] == b.only()["params"]["requestId"] == id
    story.resolves(0)
    a.answers(id, ACCEPT)
    assert a.heard() == story.written() == []


def test_what_is_resolved_and_was_never_asked_is_told_to_nobody() -> None:
    story, a, b = two_followers()
    story.resolves(3)
    story.notifies(RESOLVED, {})
    story.notifies(RESOLVED, [3])
    assert a.heard() == b.heard() == []


# ── abstaining ────────────────────────────────────────────────────────────────────────────────────

MALFORMED: list[tuple[str, Any]] = [
    (APPROVAL, {"decision": "sure"}),
    (APPROVAL, {"decision": None}),
    (APPROVAL, {"decision": ["accept"]}),
    (APPROVAL, {"bogus": 1}),
    (APPROVAL, None),
    (APPROVAL, []),
    (APPROVAL, "accept"),
    (APPROVAL, {"decision": {}}),
    ("item/fileChange/requestApproval", {"decision": "sure"}),
    ("item/permissions/requestApproval", {"permissions": None}),
    (QUESTION, {"answers": ["A"]}),
    ("mcpServer/elicitation/request", {"action": "sure"}),
    ("item/made/up", None),
    ("item/made/up", [1]),
    ("item/made/up", 5),
]


@pytest.mark.parametrize(("method", "malformed"), MALFORMED)
def test_a_malformed_answer_counts_as_abstaining(method: str, malformed: object) -> None:
    story, a, b = two_followers()
    story.asks(0, method, threadId="t")
    id = offered(a)["id"]
    b.heard()
    a.answers(id, malformed)
    assert story.written() == []
    assert a.heard() == []
    b.answers(id, malformed)
    error = story.only()
    assert error["id"] == 0
    assert method in error["error"]["message"]
    story.resolves(0)
    assert a.heard_methods() == b.heard_methods() == [RESOLVED]


def test_only_when_all_abstained_an_error_goes_up() -> None:
    story, a, b = two_followers()
    c = story.peer("c")
    story.follows(c)
    story.written()
    story.asks(0, threadId="t")
    id = offered(a)["id"]
    a.refuses(id)
    a.refuses(id)
    b.refuses(id)
    assert story.written() == []
    c.refuses(id)
    assert story.only()["error"]["code"] == -32603
    a.answers(id, ACCEPT)
    c.refuses(id)
    assert story.written() == []


def test_who_abstained_may_still_answer() -> None:
    story, a, _ = two_followers()
    story.asks(0, threadId="t")
    id = offered(a)["id"]
    a.refuses(id)
    a.answers(id, ACCEPT)
    assert story.only() == {"id": 0, "result": ACCEPT}


@pytest.mark.parametrize("decision", ["decline", "cancel", "acceptForSession"])
def test_decline_is_an_answer(decision: str) -> None:
    story, a, _ = two_followers()
    story.asks(0, threadId="t")
    a.answers(offered(a)["id"], {"decision": decision})
    assert story.only()["result"] == {"decision": decision}


def test_a_decision_that_the_request_itself_lists_is_valid() -> None:
    story, a, b = two_followers()
    listed: list[object] = ["accept", "later", {"withRule": {"rule": [1]}}]
    story.asks(0, threadId="t", availableDecisions=listed)
    id = offered(a)["id"]
    b.answers(id, {"decision": "never"})
    assert story.written() == []
    a.answers(id, {"decision": {"withRule": {"rule": [1]}}})
    assert story.only()["result"] == {"decision": listed[2]}


def test_a_client_that_left_has_not_abstained() -> None:
    story, a, b = two_followers()
    story.asks(0, threadId="t")
    id = offered(a)["id"]
    a.refuses(id)
    b.leaves()
    assert story.written() == []
    c = story.peer("c")
    story.follows(c)
    assert offered(c)["id"] == id
    story.written()
    c.answers(id, ACCEPT)
    assert story.only()["result"] == ACCEPT


# ── nobody there, and newcomers ───────────────────────────────────────────────────────────────────


def test_with_nobody_attached_it_stays_pending_and_a_newcomer_is_offered_it() -> None:
    story = Story.begun(probe_interval=NEVER)
    a = story.peer()
    story.follows(a)
    story.begins_turn()
    a.leaves()
    story.asks(0, threadId="t")
    story.waits(3600)
    assert [each for each in story.written() if "method" not in each] == []
    b = story.peer("b")
    b.asks("thread/resume", {"threadId": "t"}, id="r")
    assert b.heard() == []
    asked = story.only("thread/resume")
    story.asks(0, threadId="t")  # natively sent again, under the same id
    assert b.heard() == []
    story.answers(asked, {"thread": {"id": "t"}})
    story.asks(0, threadId="t")
    answer, offer = [each for each in b.heard() if each.get("method") != "turn/started"]
    assert answer["id"] == "r"
    assert offer["method"] == APPROVAL
    b.answers(offer["id"], ACCEPT)
    assert story.only() == {"id": 0, "result": ACCEPT}
    story.resolves(0)
    assert b.only()["params"]["requestId"] == offer["id"]


def test_a_newcomers_resume_offers_it_to_that_client_alone() -> None:
    story, a, b = two_followers()
    story.asks(0, threadId="t")
    id = offered(a)["id"]
    b.heard()
    c = story.peer("c")
    story.follows(c)
    story.asks(0, threadId="t")
    assert offered(c)["id"] == id
    assert a.heard() == b.heard() == []
    c.answers(id, ACCEPT)
    story.resolves(0)
    assert a.heard_methods() == b.heard_methods() == c.heard_methods() == [RESOLVED]


def test_a_resume_of_ones_own_offers_it_once_more_under_its_id() -> None:
    story, a, b = two_followers()
    story.asks(0, threadId="t")
    id = offered(a)["id"]
    b.heard()
    for _ in range(2):
        story.follows(a)
        story.asks(0, threadId="t")
        assert offered(a)["id"] == id
    assert b.heard() == []
    a.answers(id, ACCEPT)
    story.follows(a)
    assert a.heard() == []
    story.resolves(0)
    assert a.heard_methods() == b.heard_methods() == [RESOLVED]


def test_what_is_answered_is_never_offered() -> None:
    story, a, b = two_followers()
    story.asks(0, threadId="t")
    a.answers(offered(a)["id"], ACCEPT)
    b.heard()
    c = story.peer("c")
    story.follows(c)
    story.asks(0, threadId="t")
    assert c.heard() == []
    story.resolves(0)
    story.asks(0, threadId="t")
    story.follows(c)
    assert c.heard() == a.heard(APPROVAL) == b.heard(APPROVAL) == []


def test_who_unsubscribed_is_offered_it_again_when_it_comes_back() -> None:
    story, a, b = two_followers()
    story.asks(0, threadId="t")
    id = offered(a)["id"]
    b.heard()
    a.asks("thread/unsubscribe", {"threadId": "t"})
    story.follows(a)
    assert offered(a)["id"] == id
    assert b.heard() == []


def test_a_server_request_before_the_answer_that_creates_its_thread() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("thread/start", {}, id="s")
    asked = story.only()
    story.asks(0, "item/made/up", threadId="t")
    assert a.heard() == []
    story.answers(asked, {"thread": {"id": "t"}})
    assert a.heard_methods() == ["s", "item/made/up"]


def test_a_thread_that_is_closed_takes_its_server_requests_with_it() -> None:
    story, a, _ = two_followers()
    story.asks(0, threadId="t")
    id = offered(a)["id"]
    story.notifies("thread/closed", {"threadId": "t"})
    a.answers(id, ACCEPT)
    assert story.written() == []


# ── unknown ───────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_server_request_without_a_thread_is_put_to_everybody() -> None:
    story = Story.begun()
    a, b, c = (story.peer(name) for name in "abc")
    story.asks(0, "made/up", x=1)
    ids = {offered(peer)["id"] for peer in (a, b, c)}
    (id,) = ids
    a.refuses(id)
    b.answers(id, {"any": "object"})
    c.answers(id, {"too": "late"})
    assert story.only() == {"id": 0, "result": {"any": "object"}}


def test_two_at_once_are_not_confused() -> None:
    story, a, b = two_followers()
    story.asks(0, threadId="t", n=0)
    story.asks(1, QUESTION, threadId="t", n=1)
    first, second = a.heard()
    assert [first["params"]["n"], second["params"]["n"]] == [0, 1]
    b.answers(second["id"], {"answers": {"q": {"answers": ["A"]}}})
    a.answers(first["id"], ACCEPT)
    assert [each["id"] for each in story.written()] == [1, 0]
