"""Stories of interrupts that come behind the end of their turn: nobody waits for their answers."""

from __future__ import annotations

import pytest

from mux.core.protocol.envelope.jsonrpc import INVALID_REQUEST
from mux.core.state.state import NEVER
from tests.core.lives import reasons, stops
from tests.core.stories import Json, Peer, Story

INTERRUPT = "turn/interrupt"
NOTHING_RUNS = {"code": INVALID_REQUEST, "message": "no active turn to interrupt"}


def begun() -> tuple[Story, Peer, Peer]:
    """A turn runs, of a thread that one of two follows."""
    story = Story.begun(probe_interval=NEVER)
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    story.begins_turn()
    a.heard()
    return story, a, b


def interrupts(peer: Peer, id: str, turn: str = "t-turn") -> None:
    peer.asks(INTERRUPT, {"threadId": "t", "turnId": turn}, id=id)


def answers(peer: Peer) -> list[Json]:
    return [each for each in peer.heard() if "method" not in each]


def test_the_first_ones_are_the_app_servers_to_answer() -> None:
    story, a, b = begun()
    interrupts(a, "1")
    interrupts(b, "2")
    for asked in story.written(INTERRUPT):
        story.answers(asked)
    story.ends_turn()
    assert answers(a) == [{"id": "1", "result": {}}]
    assert answers(b) == [{"id": "2", "result": {}}]


def test_one_of_a_turn_that_is_over_is_answered_here() -> None:
    story, _, b = begun()
    story.ends_turn()
    interrupts(b, "late")
    assert answers(b) == [{"id": "late", "error": NOTHING_RUNS}]
    assert story.written() == []
    outcomes = [each.fields["outcome"] for each in story.records if each.kind == "turn/answered"]
    assert outcomes == ["failed"]


def test_one_that_the_end_finds_upstream_is_answered_behind_it_and_once() -> None:
    story, a, _ = begun()
    interrupts(a, "late")
    asked = story.only(INTERRUPT)
    story.ends_turn()
    ended, answer = a.heard()
    assert (ended["method"], answer) == ("turn/completed", {"id": "late", "error": NOTHING_RUNS})
    story.answers(asked)  # as codex 0.163 does when the next turn has ended
    assert a.heard() == []


def test_while_another_turn_runs_it_is_told_which() -> None:
    story, a, _ = begun()
    story.ends_turn()
    story.begins_turn(id="next")
    interrupts(a, "late")
    (answer,) = answers(a)
    text = "expected active turn id t-turn but found next"
    assert answer["error"] == {"code": INVALID_REQUEST, "message": text}
    assert story.written() == []


@pytest.mark.parametrize("turn", ["next", "", "made up"])
def test_any_other_is_the_app_servers_to_answer(turn: str) -> None:
    story, a, _ = begun()
    interrupts(a, "early", turn)
    story.ends_turn()
    story.begins_turn(id="next")
    interrupts(a, "now", turn)
    assert len(story.written(INTERRUPT)) == 2
    assert answers(a) == []


def test_a_review_is_over_under_either_id() -> None:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a)
    for id in ("r", "s"):
        turn: Json = {"id": id, "rootTurnId": "r", "status": "inProgress", "items": []}
        story.notifies("turn/started", {"threadId": "t", "turn": turn})
    story.ends_turn(id="r")
    for id in ("r", "s"):
        interrupts(a, id, id)
    assert [each["error"] for each in answers(a)] == [NOTHING_RUNS, NOTHING_RUNS]


def test_one_that_waited_for_its_turn_is_not_sent_behind_the_end() -> None:
    story = Story.begun(in_flight_per_client=1)
    a = story.peer("a")
    story.follows(a)
    story.begins_turn()
    a.asks("thread/list", id="list")
    interrupts(a, "late")
    story.ends_turn()
    story.answers(story.only("thread/list"))
    assert [each["id"] for each in answers(a)] == ["list", "late"]
    assert story.written() == []


def test_what_waits_behind_one_that_is_not_answered_goes_up() -> None:
    story = Story.begun(in_flight_per_client=1)
    a = story.peer("a")
    story.follows(a)
    story.begins_turn()
    story.written()
    interrupts(a, "late")
    a.asks("thread/list", id="list")
    assert len(story.written()) == 1
    story.ends_turn()
    assert story.only()["method"] == "thread/list"


def test_of_a_thread_that_nobody_follows_the_answer_to_the_first_tells_the_end() -> None:
    story = Story.begun(probe_interval=NEVER)
    a = story.peer("a")
    status = "thread/status/changed"
    story.notifies(status, {"threadId": "t", "status": {"type": "active"}})
    interrupts(a, "first")
    interrupts(a, "second")
    story.answers(story.written(INTERRUPT)[0])
    interrupts(a, "third")
    assert story.written() == []
    story.notifies(status, {"threadId": "t", "status": {"type": "idle"}})
    told = answers(a)
    assert [each["id"] for each in told] == ["first", "third", "second"]
    assert [each["error"] for each in told[1:]] == [NOTHING_RUNS, NOTHING_RUNS]


def test_a_planned_restart_does_not_wait_for_one() -> None:
    story, a, b = begun()
    interrupts(b, "late")
    a.asks("mux/restart")
    assert reasons(story) == ["1 running turn(s)", "requests in flight"]
    story.ends_turn()
    assert stops(story)
    story.exits()
    assert [each["id"] for each in answers(b)] == ["late"]


def test_its_deadline_passes_without_a_word() -> None:
    story, a, _ = begun()
    interrupts(a, "late")
    story.ends_turn()
    a.heard()
    story.waits(200)
    assert a.heard() == []
    assert story.broker.state.scheduler.in_flight == 0
