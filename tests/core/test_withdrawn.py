"""Stories of prompts that have become obsolete: whoever shows one is told, exactly once."""

from __future__ import annotations

import pytest

from tests.core.paced import PacedStory
from tests.core.stories import APPROVAL, QUESTION, RESOLVED, Json, Peer, Story, two_followers

ACCEPT = {"decision": "accept"}
ELICITATION = "mcpServer/elicitation/request"


def asked(story: Story, method: str = APPROVAL, turn: str | None = "t-turn") -> int:
    """A server request of the turn; the id under which it is offered."""
    story.asks(5, method, threadId="t", turnId=turn)
    return next(story.broker.state.pending_requests.pending()).id


def told(peer: Peer) -> list[Json]:
    return [each["params"] for each in peer.heard(RESOLVED)]


@pytest.mark.parametrize("method", [APPROVAL, QUESTION, ELICITATION, "item/made/up"])
@pytest.mark.parametrize("answered", [False, True])
def test_what_a_turn_asks_is_over_with_it(method: str, answered: bool) -> None:
    story, a, b = two_followers()
    story.begins_turn()
    id = asked(story, method)
    a.heard()
    if answered:
        valid = {"decision": "decline", "answers": {}, "action": "decline"}
        a.answers(id, valid)
        assert len(story.written()) == 1
    story.ends_turn()
    b_heard = b.heard_methods()
    assert b_heard[-2:] == ["turn/completed", RESOLVED]
    assert told(a) == [{"threadId": "t", "requestId": id}]
    story.resolves(5)
    b.answers(id, ACCEPT)
    assert story.written() == told(a) == told(b) == []
    assert story.records[-1].kind == "approval/" + ("resolved" if answered else "withdrawn")


def test_it_looks_like_the_native_one() -> None:
    story, a, _ = two_followers()
    story.begins_turn()
    asked(story)
    story.ends_turn()
    native = {"method", "params", "emittedAtMs"}
    assert a.heard(RESOLVED)[0].keys() == native


@pytest.mark.parametrize("turn", [None, "another"])
def test_what_is_not_the_turns_goes_on(turn: str | None) -> None:
    story, a, b = two_followers()
    story.begins_turn()
    id = asked(story, turn=turn)
    story.ends_turn()
    assert told(a) == told(b) == []
    a.answers(id, ACCEPT)
    assert story.only() == {"id": 5, "result": ACCEPT}
    story.resolves(5)
    assert len(told(a)) == len(told(b)) == 1


@pytest.mark.parametrize("end", ["thread/archived", "thread/closed", "thread/deleted"])
def test_what_a_thread_asks_is_over_with_it(end: str) -> None:
    story, a, b = two_followers()
    id = asked(story, turn=None)
    a.heard()
    b.heard()
    story.notifies(end, {"threadId": "t"})
    for peer in (a, b):
        assert peer.heard_methods() == [RESOLVED, end]
    story.resolves(5)
    a.answers(id, ACCEPT)
    assert told(a) == told(b) == story.written() == []


def test_one_that_is_behind_is_told_too_and_one_that_opted_out_is_not() -> None:
    story = PacedStory.with_disk()
    slow, deaf = story.peer("slow"), story.peer("deaf", optOutNotificationMethods=[RESOLVED])
    for peer in (slow, deaf):
        story.follows(peer)
    story.begins_turn()
    id = asked(story)
    slow.heard()
    story.lags(slow)
    story.ends_turn()
    story.resolves(5)
    assert told(slow) == told(deaf) == []
    assert story.drains(slow)
    assert [each["requestId"] for each in told(slow)] == [id]


def test_one_that_joins_after_that_is_not_asked() -> None:
    story, _, _ = two_followers()
    story.begins_turn()
    asked(story)
    story.ends_turn()
    late = story.peer("late")
    story.follows(late)
    story.asks(5, APPROVAL, threadId="t", turnId="t-turn")  # as a resume repeats what was pending
    assert late.heard(APPROVAL) == []
