"""Stories of the time without an app-server: what waits, what fails, what is tried again."""

from __future__ import annotations

from typing import Any

import pytest

from mux.core.commands import KillUpstream
from mux.core.events import TimePassed
from mux.core.limits import Limits
from mux.core.protocol.envelope.jsonrpc import APP_SERVER_GONE
from tests.core.lives import answered_probe, die, next_life, ready_again, shared, starts
from tests.core.stories import DELTA, Story

STATUS = "thread/status/changed"


def test_a_request_waits_for_the_next_life() -> None:
    story = Story.begun()
    peer = story.peer()
    story.exits()
    id = peer.asks("thread/list")
    assert story.written() == []
    [asked] = next_life(story)
    story.answers(asked, {"data": []})
    assert peer.only() == {"id": id, "result": {"data": []}}


@pytest.mark.parametrize("started", [False, True])
def test_it_waits_only_so_long(started: bool) -> None:
    story = Story.begun(coming_up=5.0)
    peer = story.peer()
    story.exits()
    if started:
        story.starts(2)
        story.written()
    story.waits(3.0)
    first = peer.asks("thread/list")
    story.waits(3.0)
    assert peer.heard() == []
    second = peer.asks("fs/watch", {"watchId": "w", "path": "/srv"})
    story.waits(3.0)
    assert peer.only()["error"] == {
        "code": APP_SERVER_GONE,
        "message": "the app-server did not come up within 5 s",
        "data": {"generation": 2 if started else 1, "retryable": True},
    }
    story.waits(3.0)
    assert peer.only()["id"] == second
    assert first != second
    if not started:
        assert next_life(story) == []  # neither is asked nor begun after all


def test_an_initialize_is_answered_from_the_last_life() -> None:
    story = Story.begun()
    story.exits()
    for started in (False, True):
        if started:
            story.starts(2)
        newcomer = story.attach()
        newcomer.initializes("newcomer")
        assert newcomer.heard()[0]["result"]["userAgent"].endswith("(newcomer; 1.2)")


def test_an_initialize_during_the_first_start_is_answered_after_it() -> None:
    story = Story()
    newcomer = story.attach()
    newcomer.initializes("newcomer")
    story.starts()
    assert newcomer.heard() == []
    story.initialized()
    assert "result" in newcomer.heard()[0]


def test_an_app_server_that_can_not_start_at_all_ends_the_broker() -> None:
    story = Story()
    story.starts()
    story.exits("exit status 1")
    assert story.given_up == ["exit status 1"]
    assert story.lives == []


# ── five deaths ───────────────────────────────────────────────────────────────────────────────────


def test_each_start_is_waited_for_longer_and_after_five_deaths_for_longer_still() -> None:
    story = Story.begun()
    die(story, 5)
    assert starts(story) == [0.125, 0.25, 0.5, 1.0, 5.0]


def test_deaths_that_lie_apart_are_each_the_first() -> None:
    story = Story.begun()
    for generation in range(2, 10):
        story.exits()
        story.waits(61.0)
        ready_again(story, generation)
    assert starts(story) == [0.125] * 8


def test_down_new_requests_get_a_clear_error_and_initialize_is_answered() -> None:
    story = Story.begun()
    [a] = shared(story, "a")
    die(story, 4)
    queued = a.asks("thread/list")
    story.starts(5)
    story.exits("exit status 3")
    told = a.only()
    assert told["id"] == queued
    again = "it is started again in 5 s"
    assert told["error"]["message"] == f"the app-server is down: exit status 3; {again}"
    b = story.peer("b")
    for peer in (a, b):
        peer.asks("turn/start", {"threadId": "t"})
        error = peer.only()["error"]
        assert error["code"] == APP_SERVER_GONE
        assert again in error["message"]
        assert "appmux restart" in error["message"]
    story.waits(3.2)
    a.asks("thread/list")
    assert "started again in 2 s" in a.only()["error"]["message"]


def test_down_it_is_started_again_ever_more_rarely_and_for_ever() -> None:
    """Also where there is no process to start: the binary is gone while it is upgraded."""
    story = Story.begun()
    [a] = shared(story, "a")
    die(story, 5)
    assert starts(story)[-1] == 5.0
    waits: list[float] = []
    queued = 0
    for life in range(200):
        story.waits(waits[-1] if waits else 5.0)
        if life % 2:
            story.starts(6 + life)
            story.written()
            queued = a.asks("thread/list")
            assert a.heard() == []  # it waits for it, as for any that comes up
        story.exits("the binary can't be started: No such file or directory")
        if life % 2:
            told = a.only()
            assert told["id"] == queued
            assert "started again in" in told["error"]["message"]
        waits += starts(story)
    assert waits == [10.0, 20.0, 40.0, *[60.0] * 197]
    asked = a.asks("thread/list")
    assert "started again in 60 s" in a.only()["error"]["message"]
    ready_again(story, 300)
    asked = a.asks("thread/list")
    story.answers(story.only("thread/list"), {"data": []})
    assert a.only()["id"] == asked


def test_one_that_has_come_up_again_may_have_a_burst_of_its_own() -> None:
    story = Story.begun(probe_interval=1000.0)
    shared(story, "a")
    die(story, 5)
    for _ in range(3):
        story.exits()
    assert starts(story)[-3:] == [10.0, 20.0, 40.0]
    story.waits(61.0)
    ready_again(story, 6)
    story.exits()
    assert starts(story) == [0.125]
    for life in range(7, 11):
        ready_again(story, life)
        story.exits()
    assert starts(story)[-1] == 60.0  # it wasn't there for long enough to begin anew
    ready_again(story, 11)
    story.waits(61.0)
    die(story, 5)
    assert starts(story)[-1] == 5.0


def test_down_a_restart_brings_it_up_and_the_followers_go_on() -> None:
    story = Story.begun()
    a, b = shared(story, "a", "b")
    die(story, 5)
    starts(story)
    asked = b.asks("mux/restart")
    assert starts(story) == [0.0]
    ready_again(story, 6)
    assert b.only() == {"id": asked, "result": {"generation": 6, "version": "0.163.0"}}
    story.begins_turn()
    assert a.heard_methods() == b.heard_methods() == ["turn/started"]
    story.exits()  # the deaths before are forgotten
    assert starts(story) == [0.125]


def test_who_asked_for_a_restart_is_told_that_it_stays_down() -> None:
    story = Story.begun()
    peer = story.peer()
    story.exits()
    restart = peer.asks("mux/restart")
    held = peer.asks("turn/start", {"threadId": "u"})
    for generation in range(2, 6):
        story.starts(generation)
        story.exits()
    told = {each["id"]: each["error"]["code"] for each in peer.heard()}
    assert told == {restart: APP_SERVER_GONE, held: APP_SERVER_GONE}
    assert starts(story)[-1] == 5.0
    story.written()
    peer.asks("mux/restart")
    ready_again(story, 6)
    assert "result" in peer.only()
    peer.asks("turn/start", {"threadId": "u"})
    assert len(story.written("turn/start")) == 1  # nothing is held any more


# ── a hang ────────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_app_server_is_asked_for_a_sign_and_killed_if_it_gives_none() -> None:
    story = Story.begun(probe_interval=30.0, probe_deadline=20.0)
    story.waits(29.0)
    assert story.written() == []
    story.waits(1.0)
    answered_probe(story)
    story.waits(29.9)
    assert story.written() == []
    story.waits(0.1)
    assert len(story.written("thread/loaded/list")) == 1
    story.waits(19.9)
    assert story.lives == []
    story.waits(0.1)
    assert story.lives == [KillUpstream("no sign of life within 20 s")]


def test_it_is_excused_for_the_time_that_the_broker_itself_did_not_run() -> None:
    """Its answer may be there: whether the timer or the pipe is seen to first is chance."""
    story = Story.begun(probe_interval=30.0, probe_deadline=20.0)
    story.waits(30.0)
    for _ in range(2):
        story.now += 60.0  # and then the timer is the first to come
        story.tell(TimePassed())
        assert story.lives == []
    answered_probe(story)
    story.waits(29.9)
    assert story.lives == []
    story.waits(0.1)
    assert len(story.written("thread/loaded/list")) == 1
    story.waits(19.9)
    assert story.lives == []
    story.waits(0.1)
    assert story.lives == [KillUpstream("no sign of life within 20 s")]


def test_one_that_speaks_need_not_be_asked_and_any_word_is_a_sign() -> None:
    story = Story.begun(probe_interval=30.0, probe_deadline=20.0)
    for _ in range(10):
        story.waits(20.0)
        story.delta()
    assert story.written() == []
    story.waits(30.0)
    assert len(story.written("thread/loaded/list")) == 1
    story.waits(10.0)
    story.delta()
    story.waits(29.0)
    assert story.lives == []


def test_it_is_asked_though_no_slot_is_free() -> None:
    story = Story.begun(in_flight=1, in_flight_per_client=1, request_deadline=1000.0)
    peer = story.peer()
    peer.asks("thread/list")
    story.written()
    story.waits(50.0)
    assert len(story.written("thread/loaded/list")) == 1
    [killed] = story.lives
    assert isinstance(killed, KillUpstream)


@pytest.mark.parametrize("life", [1, 2])
def test_one_that_hangs_while_it_comes_up_is_killed(life: int) -> None:
    story = Story(Limits(request_deadline=60.0))
    if life == 2:
        story.starts()
        story.initialized()
        story.exits()
        assert starts(story) == [0.125]
    story.starts(life)
    story.waits(60.0)
    reason = "no answer to `initialize` within 60 s"
    assert story.lives == [KillUpstream(reason)]
    story.exits(reason)
    assert story.given_up == ([reason] if life == 1 else [])


def test_a_thread_that_takes_too_long_to_load_keeps_nobody_waiting() -> None:
    story = Story.begun(request_deadline=60.0, coming_up=90.0)
    a, b = shared(story, "a", "b")
    story.creates(b, "u")
    story.begins_turn("u")
    story.ends_turn("u")
    a.heard()
    story.exits()
    slow, quick = sorted(next_life(story), key=lambda each: str(each["params"]["threadId"]))
    story.answers(quick, {"thread": {"id": "u"}})
    asked = a.asks("thread/list")
    story.waits(60.0)
    assert [each.get("method") for each in a.heard()] == [STATUS, "thread/closed"]
    story.answers(story.only("thread/list"), {"data": []})
    assert a.only()["id"] == asked
    story.delta("u")
    assert b.heard(DELTA)
    story.answers(slow, {"thread": {"id": "t"}})  # too late: nobody follows it any more
    assert story.only("thread/unsubscribe")["params"] == {"threadId": "t"}


def test_whose_answer_can_not_be_used_is_killed() -> None:
    story = Story()
    story.starts()
    odd: Any = {"platformOs": "linux"}
    story.initialized(odd)
    [killed] = story.lives
    assert isinstance(killed, KillUpstream)
