"""Stories of messages that carry an id of their sender's: sent twice, they run once."""

from __future__ import annotations

import pytest

from mux.core.policy.principal import Principal
from mux.core.protocol.envelope.jsonrpc import APP_SERVER_GONE
from tests.core.lives import next_life
from tests.core.stories import Json, Peer, Story

STEER, START = "turn/steer", "turn/start"
TURN: Json = {"turn": {"id": "t-turn", "status": "inProgress", "items": []}}


def message(id: str | None = "m1", thread: str = "t") -> Json:
    return {"threadId": thread, "clientUserMessageId": id, "input": [{"type": "text", "text": "x"}]}


@pytest.mark.parametrize("method", [START, STEER])
def test_sent_again_it_gets_the_first_ones_answer_and_does_not_run(method: str) -> None:
    story = Story.begun()
    peer = story.peer()
    first = peer.asks(method, message())
    story.answers(story.only(method), TURN)
    again = peer.asks(method, message(), id="again")
    assert peer.heard() == [{"id": first, "result": TURN}, {"id": again, "result": TURN}]
    assert story.written() == []


def test_sent_again_before_the_answer_came_it_waits_for_that() -> None:
    story = Story.begun()
    phone = story.peer("phone")
    phone.asks(START, message())
    [asked] = story.written(START)
    phone.leaves()
    back = story.peer("phone")
    again = back.asks(START, message())
    assert back.heard() == []
    story.answers(asked, TURN)
    assert back.only() == {"id": again, "result": TURN}
    assert story.written(START) == []


@pytest.mark.parametrize(
    "other",
    [message("m2"), message(thread="u"), message(None), message("")],
    ids=["id", "thread", "none", "empty"],
)
def test_what_is_another_message_runs(other: Json) -> None:
    story = Story.begun()
    peer = story.peer()
    for _ in range(2):
        peer.asks(START, message())
        peer.asks(START, other)
    # Without an id nothing is known of it, so it runs each time.
    assert len(story.written(START)) == (2 if other["clientUserMessageId"] else 3)


def test_another_principals_id_is_another_id() -> None:
    story = Story.begun()
    for name in ("ann", "ben"):
        story.peer(principal=Principal(name, "jwt")).asks(START, message())
    assert len(story.written(START)) == 2


def test_one_that_failed_may_be_tried_again() -> None:
    story = Story.begun()
    a, b = story.peer(), story.peer()
    a.asks(START, message())
    b.asks(START, message())
    story.fails(story.only(START), message="thread not found: t")
    errors = [peer.only()["error"]["message"] for peer in (a, b)]
    assert errors == ["thread not found: t"] * 2
    a.asks(START, message())
    assert len(story.written(START)) == 1


def test_one_that_the_app_server_died_with_may_be_tried_again() -> None:
    story = Story.begun()
    a, b = story.peer(), story.peer()
    a.asks(START, message())
    b.asks(START, message())
    story.exits()
    for peer in (a, b):
        assert peer.only()["error"]["code"] == APP_SERVER_GONE
    next_life(story)
    again = a.asks(START, message())
    story.answers(story.only(START), TURN)
    assert a.only() == {"id": again, "result": TURN}


def test_one_that_never_went_up_may_be_tried_again() -> None:
    story = Story.begun(coming_up=5.0)
    peer = story.peer()
    story.exits()
    peer.asks(START, message())
    story.waits(5.0)
    assert peer.only()["error"]["code"] == APP_SERVER_GONE
    peer.asks(START, message())
    assert [each["method"] for each in next_life(story)] == [START]


def test_one_refused_for_a_full_queue_may_be_tried_again() -> None:
    story = Story.begun(in_flight_per_client=1, queued_per_client=1)
    peer = story.peer()
    busy = [peer.asks("thread/list") for _ in range(2)]
    peer.asks(START, message())
    assert peer.only()["error"]["code"] == -32001
    for _ in busy:
        story.answers(story.only("thread/list"))
    peer.heard()
    again = peer.asks(START, message())
    story.answers(story.only(START), TURN)
    assert peer.only() == {"id": again, "result": TURN}


@pytest.mark.parametrize("planned", [False, True])
def test_queued_when_its_client_left_it_runs_for_who_sent_it_again(planned: bool) -> None:
    """A phone's old connection is found dead only after the new one has sent it again."""
    story = Story.begun()
    operator, old, new = story.peer(), story.peer("phone"), story.peer("phone")
    if planned:
        held_back(story, operator)
    else:
        story.exits()
    old.asks(START, message())
    again = new.asks(START, message())
    old.leaves()
    if planned:
        operator.asks("mux/restart", {"now": True})
        story.exits()
    asked = next_life(story)
    assert [each["method"] for each in asked] == [START]
    story.answers(asked[0], TURN)
    assert new.heard()[-1] == {"id": again, "result": TURN}
    assert story.written() == []


@pytest.mark.parametrize("planned", [False, True])
def test_queued_when_its_client_left_it_runs_all_the_same_and_its_answer_is_kept(
    planned: bool,
) -> None:
    story = Story.begun()
    operator, old = story.peer(), story.peer("phone")
    if planned:
        held_back(story, operator)
    else:
        story.exits()
    old.asks(START, message())
    old.leaves()
    if planned:
        operator.asks("mux/restart", {"now": True})
        story.exits()
    [asked] = next_life(story)
    story.answers(asked, TURN)
    new = story.peer("phone")
    again = new.asks(START, message())
    assert new.only() == {"id": again, "result": TURN}
    assert story.written() == []


def held_back(story: Story, operator: Peer) -> None:
    """A restart is wanted, and waits for a request that somebody has in flight."""
    operator.asks("thread/list")
    operator.asks("mux/restart")
    story.written()


def test_an_answer_that_comes_too_late_is_still_the_answer() -> None:
    story = Story.begun(request_deadline=10.0, probe_interval=1000.0)
    peer = story.peer()
    peer.asks(START, message())
    [asked] = story.written(START)
    story.waits(10.0)
    assert "error" in peer.only()
    again = peer.asks(START, message())
    assert story.written(START) == []
    story.answers(asked, TURN)
    assert peer.only() == {"id": again, "result": TURN}


def test_if_it_never_comes_the_app_servers_end_answers() -> None:
    story = Story.begun(request_deadline=10.0, probe_interval=1000.0)
    peer = story.peer()
    peer.asks(START, message())
    story.waits(10.0)
    assert "error" in peer.only()
    peer.asks(START, message())
    story.exits()
    assert peer.only()["error"]["code"] == APP_SERVER_GONE


def test_so_many_are_remembered() -> None:
    story = Story.begun(remembered_messages=3)
    peer = story.peer()
    for number in range(4):
        peer.asks(START, message(f"m{number}"))
        story.answers(story.only(START), TURN)
    peer.asks(START, message("m3"))
    assert story.written(START) == []
    peer.asks(START, message("m0"))
    assert len(story.written(START)) == 1


# ── taken back ────────────────────────────────────────────────────────────────────────────────────


def revert(story: Story, peer: Peer, before: str, *, fails: bool = False) -> None:
    """``thread/revert``: the turn ``before`` and all later ones are no more."""
    peer.asks("thread/revert", {"threadId": "t", "beforeTurnId": before})
    if fails:
        story.fails(story.only("thread/revert"))
    else:
        story.answers(story.only("thread/revert"), {"thread": {"id": "t"}})
        story.notifies("thread/reverted", {"threadId": "t"})


@pytest.mark.parametrize(
    ("before", "fails", "runs"),
    [("u1", False, True), ("u2", False, True), ("u3", False, False), ("u1", True, False)],
    ids=["an earlier", "its own", "a later", "failed"],
)
@pytest.mark.parametrize("method", [START, STEER])
def test_one_whose_turn_was_taken_back_runs_again(
    method: str, before: str, fails: bool, runs: bool
) -> None:
    story = Story.begun()
    phone, desk = story.peer("phone"), story.peer("desk")
    result: Json = {"turn": {"id": "u2"}} if method == START else {"turnId": "u2"}
    phone.asks(method, message())
    story.answers(story.only(method), result)
    revert(story, desk, before, fails=fails)
    phone.heard()
    phone.asks(method, message(), id="again")
    assert len(story.written(method)) == runs
    assert (phone.heard() == []) is runs


def test_only_that_threads_turns_are_taken_back() -> None:
    story = Story.begun()
    peer = story.peer()
    peer.asks(START, message(thread="other"))
    story.answers(story.only(START), {"turn": {"id": "u2"}})
    revert(story, peer, "u1")
    peer.asks(START, message(thread="other"))
    assert story.written() == []


def test_one_that_was_queued_runs_again_if_its_turn_was_taken_back() -> None:
    story = Story.begun()
    peer = story.peer(extensions={"appmux": {"version": 1}})
    story.follows(peer)
    story.begins_turn(id="u1")
    peer.asks(START, message() | {"ifBusy": "queue"})
    story.ends_turn(id="u1")
    story.answers(story.only(START), {"turn": {"id": "u2", "status": "inProgress"}})
    story.begins_turn(id="u2")
    story.ends_turn(id="u2")
    peer.asks(START, message())
    assert story.written() == []
    revert(story, peer, "u2")
    peer.asks(START, message())
    assert len(story.written(START)) == 1
