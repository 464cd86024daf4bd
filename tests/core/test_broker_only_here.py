"""Stories of threads that the app-server couldn't load again: fresh ones, and ephemeral ones."""

from __future__ import annotations

import pytest

from mux.core.state import NEVER
from tests.core.stories import DELTA, Json, Peer, Story


def given_back(story: Story) -> list[str]:
    return [each["params"]["threadId"] for each in story.written("thread/unsubscribe")]


def ephemeral(story: Story, peer: Peer) -> None:
    peer.asks("thread/start", {"ephemeral": True})
    thread: Json = {"id": "t", "ephemeral": True, "turns": []}
    story.answers(story.only("thread/start"), {"thread": thread, "model": "m"})
    peer.heard()


def test_a_thread_that_is_only_here_is_kept_a_while_for_a_return() -> None:
    story = Story.begun(kept_for_return=600)
    a = story.peer()
    ephemeral(story, a)
    a.leaves()
    story.waits(599)
    assert given_back(story) == []
    story.waits(2)
    assert given_back(story) == ["t"]


@pytest.mark.parametrize("what", ["a turn", "an approval"])
def test_one_that_is_kept_and_still_busy_is_given_back_when_it_is_done(what: str) -> None:
    story = Story.begun(kept_for_return=600, probe_interval=NEVER)
    a = story.peer()
    ephemeral(story, a)
    if what == "a turn":
        story.begins_turn()
    else:
        story.asks(0, threadId="t")
    a.leaves()
    story.waits(700)  # the story sees to it that nobody is woken without end
    assert given_back(story) == []
    if what == "a turn":
        story.ends_turn()
    else:
        story.resolves(0)
    assert given_back(story) == ["t"]


def test_a_thread_is_kept_for_a_return_only_while_there_is_a_reason() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.creates(a)
    story.follows(b)
    a.leaves()  # nobody could load the thread yet
    story.begins_turn()
    story.ends_turn()
    b.leaves()
    assert given_back(story) == ["t"]


def test_one_that_is_only_here_is_given_back_at_once_by_who_unsubscribes() -> None:
    story = Story.begun()
    a = story.peer()
    ephemeral(story, a)
    a.asks("thread/unsubscribe", {"threadId": "t"})
    assert given_back(story) == ["t"]


def test_a_resume_that_only_the_broker_can_answer_is_answered_by_it() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    ephemeral(story, a)
    b.asks("thread/resume", {"threadId": "t"}, id="r")
    story.fails(story.only("thread/resume"), message="no rollout found for thread id t")
    answer = b.only()
    assert answer["id"] == "r"
    assert answer["result"]["model"] == "m"
    assert answer["result"]["thread"]["id"] == "t"
    story.delta()
    assert b.heard_methods() == [DELTA]
