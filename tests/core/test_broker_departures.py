"""Stories of departures: a client's, with requests open; and the app-server's."""

from __future__ import annotations

import pytest

from tests.core.stories import APPROVAL, RESOLVED, Story


def test_a_client_that_leaves_with_requests_open_leaves_no_trace() -> None:
    story = Story.begun(in_flight_per_client=2)
    a, b = story.peer("a"), story.peer("b")
    story.follows(b)
    for _ in range(5):
        a.asks("thread/list", id="same")
    b.asks("thread/list", id="same")
    upstream = story.written("thread/list")
    assert len(upstream) == 3
    a.leaves()
    for asked in upstream:
        story.answers(asked)
    assert story.written() == []
    assert [each["id"] for each in b.heard()] == ["same"]
    state = story.broker.state
    assert (state.scheduler.upstream, state.scheduler.in_flight, state.scheduler.queued) == (
        {},
        0,
        0,
    )
    assert list(state.clients) == [b.id]


def test_its_slots_are_free_only_when_the_app_server_has_answered() -> None:
    story = Story.begun(in_flight=2)
    a, b = story.peer("a"), story.peer("b")
    for _ in range(2):
        a.asks("thread/list")
    b.asks("model/list")
    upstream = story.written()
    a.leaves()
    assert story.written() == []
    story.answers(upstream[0])
    assert story.only()["method"] == "model/list"


def test_a_client_that_comes_and_goes_is_told_nothing_of_anothers() -> None:
    story = Story.begun()
    a = story.peer("a")
    a.asks("thread/read", {"threadId": "t"}, id=1)
    asked = story.only()
    a.leaves()
    b = story.peer("a")
    b.asks("thread/read", {"threadId": "t"}, id=1)
    story.answers(asked, {"for": "a"})
    assert b.heard() == []
    story.answers(story.only(), {"for": "b"})
    assert b.only()["result"] == {"for": "b"}


def test_one_that_never_became_ready_leaves_in_silence() -> None:
    story = Story.begun()
    a = story.attach()
    a.says("{")
    a.leaves()
    assert story.written() == []
    assert not story.broker.state.clients


def test_the_thread_that_a_departed_client_created_is_given_back() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("thread/start")
    asked = story.only()
    a.leaves()
    story.notifies("warning", {"threadId": "t"})
    story.answers(asked, {"thread": {"id": "t"}})
    assert story.only()["method"] == "thread/unsubscribe"


# ── the app-server leaves ─────────────────────────────────────────────────────────────────────────


def test_the_app_server_leaving_answers_every_asker_with_an_error_that_says_so() -> None:
    story = Story.begun(in_flight_per_client=10)
    a, b = story.peer("a"), story.peer("b")
    a.asks("thread/read", {"threadId": "t"}, id="reads")
    b.asks("turn/start", {"threadId": "t"}, id="changes")
    b.asks("command/exec", {"command": ["sleep"]}, id="waits")
    story.exits("killed by signal 9")
    answers = {each["id"]: each["error"] for peer in (a, b) for each in peer.heard()}
    assert set(answers) == {"reads", "changes", "waits"}
    for id, error in answers.items():
        assert error["code"] == -32010
        assert "app-server" in error["message"]
        assert error["data"] == {"generation": 1, "retryable": id == "reads"}


def test_an_answer_of_a_dead_app_server_reaches_nobody() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("thread/read", id="r")
    asked = story.only()
    story.exits()
    assert a.only()["id"] == "r"
    story.starts(2)
    story.initialized()
    story.answers(asked)
    assert a.heard() == []


def test_what_was_queued_goes_to_the_next_life_and_is_answered_once() -> None:
    story = Story.begun(in_flight_per_client=1)
    a = story.peer()
    for id in "xyz":
        a.asks("thread/list", id=id)
    story.written()
    story.exits()
    assert a.only()["id"] == "x"
    story.starts(2)
    story.initialized()
    waiting = story.written("thread/list")
    while waiting:
        story.answers(waiting.pop())
        waiting += story.written("thread/list")
    assert [each["id"] for each in a.heard()] == ["y", "z"]


def test_what_is_queued_for_an_app_server_that_never_comes_up_is_answered() -> None:
    story = Story.begun()
    a = story.peer()
    story.exits()
    id = a.asks("thread/list")
    assert a.heard() == []
    story.waits(story.limits.coming_up)
    answer = a.only()
    assert (answer["id"], answer["error"]["code"]) == (id, -32010)


def test_one_that_stays_down_answers_at_once() -> None:
    story = Story.begun()
    a = story.peer()
    for life in range(2, 20):
        story.exits()
        if story.broker.state.appserver.state.value == "down":
            break
        story.starts(life)
        story.initialized()
    id = a.asks("thread/list")
    answer = a.only()
    assert (answer["id"], answer["error"]["code"]) == (id, -32010)
    assert "restart" in answer["error"]["message"]


def test_approvals_of_a_dead_app_server_are_resolved_for_those_who_were_asked() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    story.asks(0, threadId="t")
    id = a.only(APPROVAL)["id"]
    story.exits()
    assert [each["params"]["requestId"] for each in a.heard(RESOLVED)] == [id]
    assert b.heard(RESOLVED) == []


def test_one_that_ends_before_it_ever_came_up_is_given_up_on() -> None:
    story = Story()
    story.starts()
    story.exits("exited with status 1: no config")
    assert story.given_up == ["exited with status 1: no config"]


@pytest.mark.parametrize("overloaded", [False, True])
def test_a_thread_whose_last_follower_leaves_while_it_is_loaded_again_is_given_back(
    overloaded: bool,
) -> None:
    story = Story.begun()
    a = story.peer()
    story.follows(a)
    story.exits()
    story.starts(2)
    story.initialized()
    asked = story.only("thread/resume")
    if overloaded:
        story.fails(asked, -32001, "Server overloaded; retry later.")
    a.leaves()
    if overloaded:
        story.waits(1)
    assert "thread/unsubscribe" not in [each["method"] for each in story.written()]
    story.answers(asked, {"thread": {"id": "t"}})
    assert story.only("thread/unsubscribe")["params"] == {"threadId": "t"}
