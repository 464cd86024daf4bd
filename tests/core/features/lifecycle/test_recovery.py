"""Stories of the app-server's end: what is said of it, and how the next life takes over."""

from __future__ import annotations

import pytest

from mux.core.protocol.envelope.jsonrpc import APP_SERVER_GONE
from tests.core.lives import next_life, ready_again, shared, starts
from tests.core.stories import APPROVAL, DELTA, RESOLVED, Json, Story

STATUS = "thread/status/changed"


def test_what_is_in_flight_fails_and_says_whether_asking_again_is_safe() -> None:
    story = Story.begun()
    peer = story.peer()
    asked = {peer.asks(m): m for m in ("thread/list", "turn/start", "config/value/write")}
    story.exits()
    told = {each["id"]: each["error"] for each in peer.heard()}
    assert {asked[id]: error["data"] for id, error in told.items()} == {
        "thread/list": {"generation": 1, "retryable": True},
        "turn/start": {"generation": 1, "retryable": False},
        "config/value/write": {"generation": 1, "retryable": False},
    }
    assert {error["code"] for error in told.values()} == {APP_SERVER_GONE}


def test_a_running_turn_ends_for_every_follower_and_for_nobody_else() -> None:
    story = Story.begun()
    a, b = shared(story, "a", "b")
    onlooker = story.peer()
    story.begins_turn()
    story.delta()
    for peer in (a, b, onlooker):
        peer.heard()
    story.exits()
    for peer in (a, b):
        status, ended = peer.heard()
        assert status["params"] == {"threadId": "t", "status": {"type": "idle"}}
        assert ended["method"] == "turn/completed"
        assert ended["params"]["turn"]["id"] == "t-turn"
        assert ended["params"]["turn"]["status"] == "interrupted"
    assert onlooker.heard_methods() == [STATUS]


def test_a_thread_that_is_idle_is_nothing_to_talk_about() -> None:
    story = Story.begun()
    [peer] = shared(story, "a")
    story.exits()
    ready_again(story)
    assert peer.heard() == []


def test_a_pending_approval_is_resolved_for_those_that_were_offered_it() -> None:
    story = Story.begun()
    a, b = shared(story, "a", "b")
    onlooker = story.peer()
    story.asks(0, threadId="t")
    offers = [peer.only(APPROVAL)["id"] for peer in (a, b)]
    story.exits()
    for peer in (a, b):
        told = {"threadId": "t", "requestId": offers[0]}
        assert peer.only(RESOLVED)["params"] == told
    assert onlooker.heard() == []


def test_an_answer_to_a_dead_ones_request_reaches_nobody() -> None:
    story = Story.begun()
    a, b = shared(story, "a", "b")
    story.asks(0, threadId="t")
    [first] = {peer.only(APPROVAL)["id"] for peer in (a, b)}
    story.exits()
    ready_again(story)
    story.asks(0, threadId="t")  # its ids start anew
    a.answers(first, {"decision": "accept"})
    b.answers(0, {"decision": "accept"})
    assert story.written() == []
    [second] = {each["id"] for each in a.heard(APPROVAL)}
    assert second not in (first, 0)
    b.answers(second, {"decision": "decline"})
    assert story.only() == {"id": 0, "result": {"decision": "decline"}}


@pytest.mark.parametrize("params", [{}, {"ephemeral": True}], ids=["fresh", "ephemeral"])
def test_a_thread_that_the_next_life_can_not_know_is_closed_for_everybody(params: Json) -> None:
    story = Story.begun()
    a, onlooker = story.peer(), story.peer()
    a.asks("thread/start", params)
    thread = {"id": "t", "turns": [], "ephemeral": params.get("ephemeral", False)}
    story.answers(story.only("thread/start"), {"thread": thread})
    if params:
        story.begins_turn()
        story.ends_turn()
    a.heard()
    onlooker.heard()
    story.exits()
    for peer in (a, onlooker):
        status, closed = peer.heard()
        assert status["params"] == {"threadId": "t", "status": {"type": "notLoaded"}}
        assert (closed["method"], closed["params"]) == ("thread/closed", {"threadId": "t"})
    assert next_life(story) == []
    a.asks("turn/start", {"threadId": "t"})
    assert len(story.written("turn/start")) == 1  # the error that it gets is the native one


# ── a crash: the next life ────────────────────────────────────────────────────────────────────────


def test_followed_threads_are_loaded_before_anything_else_and_followers_stay() -> None:
    story = Story.begun()
    a, b = shared(story, "a", "b")
    story.exits()
    asked = a.asks("turn/start", {"threadId": "t"})
    [resumed] = next_life(story)
    assert resumed["method"] == "thread/resume"
    assert resumed["params"] == {"threadId": "t", "excludeTurns": True}
    assert story.written() == []
    story.answers(resumed, {"thread": {"id": "t"}})
    story.answers(story.only("turn/start"), {"turn": {"id": "t-turn", "status": "inProgress"}})
    assert a.only()["id"] == asked
    story.begins_turn()
    story.delta()
    for peer in (a, b):
        assert peer.heard_methods() == ["turn/started", DELTA]


def test_a_thread_that_can_not_be_loaded_again_is_closed() -> None:
    story = Story.begun()
    [a] = shared(story, "a")
    story.exits()
    [resumed] = next_life(story)
    story.fails(resumed, message="no rollout found for thread id t")
    assert [each["method"] for each in a.heard()] == [STATUS, "thread/closed"]
    a.asks("thread/list")
    assert len(story.written("thread/list")) == 1


def test_a_thread_that_nobody_follows_any_more_is_not_loaded() -> None:
    story = Story.begun()
    a, b = shared(story, "a", "b")
    story.exits()
    a.leaves()
    b.asks("thread/unsubscribe", {"threadId": "t"})
    assert b.only()["result"] == {"status": "unsubscribed"}
    assert next_life(story) == []


def test_who_unsubscribes_during_the_outage_takes_it_from_nobody_else() -> None:
    story = Story.begun()
    a, b = shared(story, "a", "b")
    story.exits()
    b.asks("thread/unsubscribe", {"threadId": "t"})
    assert b.only()["result"] == {"status": "unsubscribed"}
    ready_again(story)
    story.delta()
    assert a.heard_methods() == [DELTA]
    assert b.heard() == []
    assert story.written() == []


def test_watches_go_on_and_what_ran_is_over() -> None:
    story = Story.begun()
    peer = story.peer()
    watch = {"watchId": "w", "path": "/srv"}
    peer.asks("fs/watch", watch)
    search = peer.asks("fuzzyFileSearch/sessionStart", {"sessionId": "s", "roots": ["/srv"]})
    peer.asks("process/spawn", {"processHandle": "p", "command": ["cat"]})
    for asked in story.written():
        story.answers(asked)
    command = peer.asks("command/exec", {"processId": "c", "command": ["cat"]})
    assert search in [each["id"] for each in peer.heard()]
    story.exits()
    failed, exited = peer.heard()
    assert (failed["id"], failed["error"]["data"]["retryable"]) == (command, False)
    assert exited["method"] == "process/exited"
    assert exited["params"]["processHandle"] == "p"
    assert exited["params"]["exitCode"] == -1
    again = {each["method"]: each["params"] for each in next_life(story)}
    assert again == {
        "fs/watch": {"watchId": f"{peer.id}:w", "path": "/srv"},
        "fuzzyFileSearch/sessionStart": {"sessionId": f"{peer.id}:s", "roots": ["/srv"]},
    }
    story.notifies("fs/changed", {"watchId": f"{peer.id}:w", "changedPaths": ["/srv/x"]})
    assert peer.only("fs/changed")["params"]["watchId"] == "w"
    peer.leaves()
    ended = {each["method"] for each in story.written()}
    assert ended == {"fs/unwatch", "fuzzyFileSearch/sessionStop"}


def test_what_a_client_opted_out_of_is_not_said_by_the_broker_either() -> None:
    story = Story.begun()
    peer = story.peer(optOutNotificationMethods=["process/exited"])
    peer.asks("process/spawn", {"processHandle": "p", "command": ["cat"]})
    story.answers(story.only("process/spawn"))
    peer.heard()
    story.exits()
    assert peer.heard() == []


def test_a_watch_whose_beginning_failed_with_the_app_server_is_not_begun_for_its_client() -> None:
    story = Story.begun()
    peer = story.peer()
    peer.asks("fs/watch", {"watchId": "w", "path": "/srv"})
    story.exits()
    assert "error" in peer.only()
    assert next_life(story) == []
    peer.asks("fs/watch", {"watchId": "w", "path": "/srv"})  # it may ask again
    story.answers(story.only("fs/watch"))
    assert "result" in peer.only()


def test_what_was_only_queued_is_begun_once_when_its_turn_comes() -> None:
    story = Story.begun()
    peer = story.peer()
    story.exits()
    watch = peer.asks("fs/watch", {"watchId": "w", "path": "/srv"})
    spawned = peer.asks("process/spawn", {"processHandle": "p", "command": ["cat"]})
    assert starts(story) == [0.125]
    story.starts(2)
    story.exits()  # a second death, before they were sent
    story.written()
    assert peer.heard() == []
    ready_again(story, 3)  # they have gone up, once each, and are answered by now
    assert [each["id"] for each in peer.heard()] == [watch, spawned]
    story.exits()
    assert [each["method"] for each in peer.heard()] == ["process/exited"]
