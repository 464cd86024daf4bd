"""What the shells answer reaches a client in its place, also one that is behind."""

from __future__ import annotations

from mux.core.events import AnsweredOutside
from tests.core.paced import PacedStory

DELTA = "item/agentMessage/delta"
ANSWER = b'{"id":7,"result":{}}'


def test_it_goes_out_at_once_to_one_that_is_live() -> None:
    story = PacedStory.with_disk()
    a = story.peer()
    story.tell(AnsweredOutside(a.id, ANSWER, "mux/status"))
    assert a.only() == {"id": 7, "result": {}}


def test_it_waits_its_turn_for_one_that_is_behind() -> None:
    story = PacedStory.with_disk()
    a = story.peer()
    story.follows(a)
    story.lags(a)
    story.delta(text="before")
    story.tell(AnsweredOutside(a.id, ANSWER, "mux/status"))
    story.notifies("turn/plan/updated", {"threadId": "t"})
    assert a.heard() == []
    assert story.drains(a)
    heard = [message.get("method", "answer") for message in a.heard()]
    assert heard == [DELTA, "answer", "turn/plan/updated"]
