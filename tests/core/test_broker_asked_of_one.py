"""Stories of server requests that aren't everybody's: by capability, by tool, one after another."""

from __future__ import annotations

import pytest

from mux.core.policy.principal import Principal
from tests.core.stories import (
    APPROVAL,
    REFRESH,
    TOOL_CALL,
    Json,
    Peer,
    Story,
    offered,
    two_followers,
)

TOKENS = {"accessToken": "secret", "chatgptAccountId": "account"}


# ── capabilities ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "params", "declared"),
    [
        (APPROVAL, {"kind": "humanCommand"}, {"requiredHumanApproval": True}),
        (
            "mcpServer/elicitation/request",
            {"mode": "openai/form"},
            {"extensions": {"openai/form": {}}},
        ),
        (
            "mcpServer/elicitation/request",
            {"mode": "openai/form"},
            {"mcpServerOpenaiFormElicitation": True},
        ),
    ],
)
def test_what_needs_a_capability_goes_to_those_that_declared_it(
    method: str, params: Json, declared: Json
) -> None:
    story = Story.begun()
    able, other = story.peer("able", **declared), story.peer("other")
    for peer in (able, other):
        story.follows(peer)
    story.asks(0, method, threadId="t", **params)
    assert other.heard() == []
    able.refuses(offered(able)["id"])
    assert "error" in story.written()[-1]


def test_the_same_method_without_the_special_kind_needs_none() -> None:
    story, a, b = two_followers()
    story.asks(0, threadId="t", kind="command")
    story.asks(1, "mcpServer/elicitation/request", threadId="t", mode="form")
    assert len(a.heard()) == len(b.heard()) == 2


def test_what_nobody_there_is_able_to_answer_waits_for_somebody_who_is() -> None:
    story, a, _ = two_followers()
    story.asks(0, threadId="t", kind="humanCommand")
    assert a.heard() == []
    assert story.written() == []
    able = story.peer("able", requiredHumanApproval=True)
    story.follows(able)
    assert offered(able)["params"]["kind"] == "humanCommand"


# ── tools ─────────────────────────────────────────────────────────────────────────────────────────

FUNCTION = {"type": "function", "name": "look", "description": "", "inputSchema": {}}
SPACE = {"type": "namespace", "name": "codex_tui", "description": "", "tools": [FUNCTION]}
DONE: Json = {"contentItems": [{"type": "inputText", "text": "x"}], "success": True}


def tool_story() -> tuple[Story, Peer, Peer]:
    """``a`` started the thread with tools, ``b`` follows it."""
    story = Story.begun()
    a, b = story.peer("owner"), story.peer("b")
    story.creates(a, dynamicTools=[FUNCTION, SPACE])
    story.follows(b)
    story.written()
    return story, a, b


def readable(message: Json) -> str:
    """What an answer to a tool call says to the model that the call failed."""
    assert message["result"]["success"] is False
    (item,) = message["result"]["contentItems"]
    assert item["type"] == "inputText"
    return str(item["text"])


@pytest.mark.parametrize("namespace", [None, "codex_tui"])
def test_a_tool_call_goes_to_the_client_that_registered_it(namespace: str | None) -> None:
    story, a, b = tool_story()
    story.asks(0, TOOL_CALL, threadId="t", turnId="u", tool="look", namespace=namespace)
    assert b.heard() == []
    a.answers(offered(a)["id"], DONE)
    assert story.only() == {"id": 0, "result": DONE}
    assert a.heard() == []


def test_a_call_whose_tool_failed_is_an_answer() -> None:
    story, a, _ = tool_story()
    story.asks(0, TOOL_CALL, threadId="t", tool="look")
    a.answers(offered(a)["id"], DONE | {"success": False})
    assert story.only()["result"] == DONE | {"success": False}


def test_a_call_whose_owner_has_gone_gets_an_error_that_the_model_can_read() -> None:
    story, a, b = tool_story()
    a.leaves()
    story.asks(0, TOOL_CALL, threadId="t", tool="look")
    assert "look" in readable(story.only())
    assert b.heard() == []


def test_a_call_whose_owner_leaves_gets_an_error_that_the_model_can_read() -> None:
    story, a, b = tool_story()
    story.asks(0, TOOL_CALL, threadId="t", tool="look")
    a.leaves()
    assert "owner" in readable(story.only())
    assert b.heard() == []


@pytest.mark.parametrize("malformed", [True, False])
def test_a_call_that_its_owner_cannot_answer_gets_an_error_that_the_model_can_read(
    malformed: bool,
) -> None:
    story, a, _ = tool_story()
    story.asks(0, TOOL_CALL, threadId="t", tool="look")
    id = offered(a)["id"]
    a.answers(id, {}) if malformed else a.refuses(id)
    assert readable(story.only())
    a.answers(id, DONE)
    assert story.written() == []


def test_an_owner_that_came_back_is_called_again() -> None:
    story, a, _ = tool_story()
    a.leaves()
    returned = story.peer("owner")
    somebody = story.peer("owner", principal=Principal("else", "jwt"))
    for peer in (somebody, returned):
        story.follows(peer)
    story.written()
    story.asks(0, TOOL_CALL, threadId="t", tool="look")
    assert somebody.heard() == []
    returned.answers(offered(returned)["id"], DONE)
    assert story.only()["result"] == DONE


def test_an_owner_that_unfollowed_meanwhile_still_answers_for_its_tool() -> None:
    story, a, _ = tool_story()
    story.asks(0, TOOL_CALL, threadId="t", tool="look")
    id = offered(a)["id"]
    a.asks("thread/unsubscribe", {"threadId": "t"})
    a.answers(id, DONE)
    # Either its answer counts, or the model has been told that none will come: never silence.
    assert len([each for each in story.written() if each.get("id") == 0]) == 1


def test_a_tool_that_nobody_registered_here_is_put_to_all_followers() -> None:
    story, a, b = tool_story()
    story.asks(0, TOOL_CALL, threadId="t", tool="unheard of")
    id = offered(a)["id"]
    assert offered(b)["id"] == id
    a.refuses(id)
    assert story.written() == []
    b.answers(id, DONE)
    assert story.only()["result"] == DONE


def test_a_tool_call_ends_with_its_turn() -> None:
    story, a, _ = tool_story()
    story.begins_turn()
    story.asks(0, TOOL_CALL, threadId="t", tool="look")
    id = offered(a)["id"]
    story.ends_turn()
    a.answers(id, DONE)
    assert story.written() == []


# ── one after another ─────────────────────────────────────────────────────────────────────────────


def three_ready() -> tuple[Story, Peer, Peer, Peer]:
    story = Story.begun()
    return story, story.peer("a"), story.peer("b"), story.peer("c")


def test_a_machines_request_goes_to_one_client_and_then_the_next() -> None:
    story, a, b, c = three_ready()
    story.asks(0, REFRESH, reason="unauthorized")
    id = offered(a)["id"]
    assert b.heard() == c.heard() == []
    a.refuses(id)
    assert offered(b)["id"] == id
    b.answers(id, {})
    assert story.written() == []
    c.answers(offered(c)["id"], TOKENS)
    assert story.only() == {"id": 0, "result": TOKENS}


def test_none_left_is_an_error() -> None:
    story, *all_of_them = three_ready()
    story.asks(0, REFRESH)
    for peer in all_of_them:
        assert story.written() == []
        peer.refuses(offered(peer)["id"])
    assert "error" in story.only()


def test_nobody_there_is_an_error_at_once() -> None:
    story = Story.begun()
    story.asks(0, REFRESH)
    assert "error" in story.only()


def test_one_that_does_not_answer_is_waited_for_no_longer_than_its_deadline() -> None:
    story, a, b, c = three_ready()
    story.asks(0, REFRESH)
    id = offered(a)["id"]
    story.waits(story.limits.one_client_deadline - 0.1)
    assert b.heard() == []
    story.waits(0.2)
    assert offered(b)["id"] == id
    story.waits(story.limits.one_client_deadline)
    assert offered(c)["id"] == id
    assert story.written() == []
    story.waits(story.limits.one_client_deadline)
    assert "error" in story.written()[0]


def test_one_that_leaves_is_followed_by_the_next() -> None:
    story, a, b, c = three_ready()
    story.asks(0, REFRESH)
    b.leaves()
    a.leaves()
    c.answers(offered(c)["id"], TOKENS)
    assert story.only()["result"] == TOKENS


def test_a_late_answer_of_an_earlier_one_still_counts() -> None:
    story, a, b, _ = three_ready()
    story.asks(0, REFRESH)
    id = offered(a)["id"]
    story.waits(story.limits.one_client_deadline)
    a.answers(id, TOKENS)
    assert story.only()["result"] == TOKENS
    b.answers(id, TOKENS)
    assert story.written() == []


@pytest.mark.parametrize("how", ["refuses", "leaves"])
def test_a_late_refusal_of_an_earlier_one_does_not_hurry_the_present_one(how: str) -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.asks(0, REFRESH)
    id = offered(a)["id"]
    story.waits(story.limits.one_client_deadline)
    assert offered(b)["id"] == id
    a.refuses(id) if how == "refuses" else a.leaves()
    assert story.written() == []
    b.answers(id, TOKENS)
    assert story.only()["result"] == TOKENS


def test_attestation_is_asked_of_those_that_declared_it() -> None:
    story = Story.begun()
    other, able = story.peer("other"), story.peer("able", requestAttestation=True)
    story.asks(0, "attestation/generate")
    assert other.heard() == []
    able.answers(offered(able)["id"], {"token": "x"})
    assert story.only()["result"] == {"token": "x"}
    able.leaves()
    story.asks(1, "attestation/generate")
    assert "error" in story.only()
    assert other.heard() == []


def test_the_time_of_a_thread_is_asked_of_its_followers() -> None:
    story = Story.begun()
    stranger, a = story.peer("stranger"), story.peer("a")
    story.follows(a)
    story.written()
    story.asks(0, "currentTime/read", threadId="t")
    assert stranger.heard() == []
    a.answers(offered(a)["id"], {"currentTimeAt": 5})
    assert story.only()["result"] == {"currentTimeAt": 5}
