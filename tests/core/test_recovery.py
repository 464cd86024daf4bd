"""Stories of the app-server's lives: an end, what is said of it, and the next one's beginning."""

from __future__ import annotations

from typing import Any

import pytest

from mux.core.commands import KillUpstream, StartUpstream, StopUpstream
from mux.core.jsonrpc import APP_SERVER_GONE
from mux.core.limits import Limits
from tests.core.stories import APPROVAL, DELTA, RESOLVED, Json, Peer, Story

STATUS = "thread/status/changed"


def next_life(story: Story, generation: int = 2) -> list[Json]:
    """The next process starts and is initialized; what it is then asked, beside the handshake."""
    story.starts(generation)
    story.initialized()
    return [each for each in story.written() if each["method"] != "initialized"]


def ready_again(story: Story, generation: int = 2) -> None:
    """The next process starts, and does all that it is asked to begin with."""
    for asked in next_life(story, generation):
        story.answers(asked, {"thread": {"id": asked["params"].get("threadId", "")}})


def shared(story: Story, *names: str) -> list[Peer]:
    """Clients that follow the thread ``t``, on which a turn has been."""
    first, *others = peers = [story.peer(name) for name in names]
    story.creates(first)
    story.begins_turn()
    story.ends_turn()
    for peer in others:
        story.follows(peer)
    for peer in peers:
        peer.heard()
    return peers


def starts(story: Story) -> list[float]:
    """How long the broker waited before each start that it asked for since the last look."""
    lives, story.lives = story.lives, []
    assert all(isinstance(each, StartUpstream) for each in lives)
    return [each.after for each in lives if isinstance(each, StartUpstream)]


def stops(story: Story) -> bool:
    """Whether the broker has let the app-server end in order since the last look."""
    lives, story.lives = story.lives, []
    assert all(isinstance(each, StopUpstream) for each in lives)
    return bool(lives)


# ── a crash: what those attached are told ─────────────────────────────────────────────────────────


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


def test_a_thread_is_loaded_with_what_it_was_started_with_whoever_joined_it_since() -> None:
    story = Story.begun()
    a, b = story.peer(), story.peer()
    given = {"cwd": "/srv", "model": "m", "approvalPolicy": "never", "sandbox": "read-only"}
    story.creates(a, **given, ephemeral=False, serviceName="x")
    story.begins_turn()
    story.ends_turn()
    # Natively such wishes for a thread that is loaded are ignored.
    story.follows(b, model="another", excludeTurns=True)
    for generation in (2, 3):
        story.exits()
        [resumed] = next_life(story, generation)
        assert resumed["params"] == given | {"threadId": "t", "excludeTurns": True}
        story.answers(resumed, {"thread": {"id": "t"}})


SETTINGS: Json = {
    "cwd": "/elsewhere",
    "model": "another",
    "modelProvider": "p",
    "approvalPolicy": "on-request",
    "sandboxPolicy": {"type": "readOnly", "networkAccess": False},
    "activePermissionProfile": None,
    "effort": "high",
    "serviceTier": None,
    "collaborationMode": {"mode": "default", "settings": {"developer_instructions": None}},
}


def test_what_was_changed_since_is_set_again_before_anything_else() -> None:
    story = Story.begun()
    [a] = shared(story, "a")
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": SETTINGS})
    a.heard()
    for generation in (2, 3):
        story.exits()
        asked = a.asks("turn/start", {"threadId": "t"})
        [resumed] = next_life(story, generation)
        story.answers(resumed, {"thread": {"id": "t"}})
        update = story.only()
        assert update["method"] == "thread/settings/update"
        unsaid = ("modelProvider", "activePermissionProfile", "serviceTier", "collaborationMode")
        wanted = {key: value for key, value in SETTINGS.items() if key not in unsaid}
        assert update["params"] == wanted | {"threadId": "t"}
        story.answers(update)
        story.answers(story.only("turn/start"))
        assert a.only()["id"] == asked


def test_a_profile_stands_for_its_sandbox() -> None:
    story = Story.begun()
    [a] = shared(story, "a")
    settings = SETTINGS | {"activePermissionProfile": {"id": ":workspace", "extends": None}}
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": settings})
    story.exits()
    [resumed] = next_life(story)
    story.answers(resumed, {"thread": {"id": "t"}})
    params = story.only("thread/settings/update")["params"]
    assert params["permissions"] == ":workspace"
    assert "sandboxPolicy" not in params


def test_another_mode_of_work_is_set_again_too() -> None:
    story = Story.begun()
    [a] = shared(story, "a")
    mode = {"mode": "plan", "settings": {"model": "m", "developer_instructions": None}}
    settings = SETTINGS | {"collaborationMode": mode}
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": settings})
    story.exits()
    [resumed] = next_life(story)
    story.answers(resumed, {"thread": {"id": "t"}})
    assert story.only("thread/settings/update")["params"]["collaborationMode"] == mode


def test_what_was_cleared_since_is_not_asked_for_again() -> None:
    story = Story.begun()
    a = story.peer()
    story.creates(a, model="m", serviceTier="fast")
    story.begins_turn()
    story.ends_turn()
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": SETTINGS})
    story.exits()
    [resumed] = next_life(story)
    assert resumed["params"] == {"threadId": "t", "excludeTurns": True, "model": "m"}


def test_settings_that_are_refused_cost_nobody_the_thread() -> None:
    story = Story.begun()
    [a] = shared(story, "a")
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": SETTINGS})
    a.heard()
    story.exits()
    [resumed] = next_life(story)
    story.answers(resumed, {"thread": {"id": "t"}})
    story.fails(story.only("thread/settings/update"), message="unknown model")
    a.asks("turn/start", {"threadId": "t"})
    assert len(story.written("turn/start")) == 1
    story.delta()
    assert a.heard_methods() == [DELTA]


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


# ── requests that come during an outage ───────────────────────────────────────────────────────────


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


def die(story: Story, times: int) -> None:
    """So many lives, each ended as soon as it is ready."""
    generation = story.broker.state.appserver.generation
    for life in range(times):
        if life:
            ready_again(story, generation + life)
        story.exits(f"end {life + 1}")


def test_each_start_is_waited_for_longer_and_after_five_deaths_there_is_none() -> None:
    story = Story.begun()
    die(story, 5)
    assert starts(story) == [0.125, 0.25, 0.5, 1.0]


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
    assert told["error"]["message"] == "the app-server is down: exit status 3"
    b = story.peer("b")
    for peer in (a, b):
        peer.asks("turn/start", {"threadId": "t"})
        error = peer.only()["error"]
        assert error["code"] == APP_SERVER_GONE
        assert "appmux restart" in error["message"]


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
    assert len(starts(story)) == 4
    story.written()
    peer.asks("mux/restart")
    ready_again(story, 6)
    assert "result" in peer.only()
    peer.asks("turn/start", {"threadId": "u"})
    assert len(story.written("turn/start")) == 1  # nothing is held any more


# ── a planned end ─────────────────────────────────────────────────────────────────────────────────


def test_with_nothing_to_wait_for_it_is_at_once_and_loses_nothing() -> None:
    story = Story.begun()
    [peer] = shared(story, "a")
    asked = peer.asks("mux/restart")
    assert stops(story)
    story.exits("exit status 0")
    assert starts(story) == [0.0]
    ready_again(story)
    assert peer.only() == {"id": asked, "result": {"generation": 2, "version": "0.163.0"}}


def test_it_waits_for_the_turn_and_for_the_approval_which_pass() -> None:
    story = Story.begun()
    a, b = shared(story, "a", "b")
    story.begins_turn()
    story.asks(0, threadId="t")
    offer = b.heard(APPROVAL)[0]["id"]
    a.heard()
    a.asks("mux/restart")
    assert reasons(story) == ["1 running turn(s)", "1 server request(s)"]
    b.answers(offer, {"decision": "accept"})
    assert story.only()["id"] == 0
    story.resolves(0)
    interrupt = b.asks("turn/interrupt", {"threadId": "t"})
    assert not stops(story)
    story.ends_turn()
    assert reasons(story) == ["requests in flight"]
    story.answers(story.only("turn/interrupt"))
    assert b.heard()[-1]["id"] == interrupt
    assert stops(story)
    assert reasons(story) == []


def reasons(story: Story) -> list[str]:
    return story.broker.recovery.waits_for()


def test_new_work_is_held_until_after_it() -> None:
    story = Story.begun()
    a, b = shared(story, "a", "b")
    story.begins_turn()
    a.asks("mux/restart")
    held = [
        b.asks("turn/start", {"threadId": "u"}),
        b.asks("command/exec", {"command": ["true"]}),
        b.asks("process/spawn", {"processHandle": "p", "command": ["cat"]}),
    ]
    joins = b.asks("turn/start", {"threadId": "t"})  # of a turn that is waited for anyway
    listed = b.asks("thread/list")
    for asked in story.written():
        assert asked["method"] in ("turn/start", "thread/list")
        story.answers(asked)
    assert [each["id"] for each in b.heard() if "id" in each] == [joins, listed]
    story.ends_turn()
    assert stops(story), reasons(story)
    b.heard()
    story.exits("exit status 0")
    assert b.heard() == []
    [resumed] = next_life(story)
    story.answers(resumed, {"thread": {"id": "t"}})
    for asked in story.written():
        story.answers(asked)
    assert [each["id"] for each in b.heard()] == held


def test_what_was_held_leaves_no_thread_behind_for_ever() -> None:
    story = Story.begun()
    a, b = shared(story, "a", "b")
    story.begins_turn()
    a.asks("mux/restart")
    b.asks("turn/start", {"threadId": "u"})
    story.ends_turn()
    story.exits("exit status 0")
    ready_again(story)
    story.fails(story.only("turn/start"))
    story.follows(b, "u")
    b.leaves()
    assert story.only("thread/unsubscribe")["params"] == {"threadId": "u"}


def test_a_turn_that_was_held_begins_though_its_client_left_and_a_process_does_not() -> None:
    story = Story.begun()
    a, b = shared(story, "a", "b")
    story.begins_turn()
    a.asks("mux/restart")
    b.asks("command/exec", {"command": ["true"]})
    b.asks("turn/start", {"threadId": "u"})
    b.leaves()
    story.ends_turn()
    assert stops(story), reasons(story)
    story.exits("exit status 0")
    [resumed] = next_life(story)
    story.answers(resumed, {"thread": {"id": "t"}})
    assert [each["method"] for each in story.written()] == ["turn/start"]


def test_work_that_was_held_too_long_is_told_what_for() -> None:
    story = Story.begun(request_deadline=120.0)
    a, b = shared(story, "a", "b")
    story.begins_turn()
    a.asks("mux/restart")
    held = b.asks("turn/start", {"threadId": "u"})
    b.heard()
    story.waits(119.0)
    answered_probe(story)
    assert b.heard() == []
    story.waits(1.0)
    told = b.only()
    assert told["id"] == held
    assert "waits for 1 running turn(s)" in told["error"]["message"]


def test_now_waits_for_nothing_and_ends_what_runs() -> None:
    story = Story.begun()
    [peer] = shared(story, "a")
    story.begins_turn()
    peer.asks("mux/restart")
    assert not stops(story)
    peer.heard()
    peer.asks("mux/restart", {"now": True})
    assert stops(story)
    story.exits("exit status 0")
    assert peer.heard_methods() == [STATUS, "turn/completed"]
    ready_again(story)
    assert [each["result"]["generation"] for each in peer.heard()] == [2, 2]
    assert starts(story) == [0.0]
    story.begins_turn()  # the next restart, if any, waits again
    peer.asks("mux/restart")
    assert not stops(story)


def test_one_who_asked_and_left_still_gets_its_restart() -> None:
    story = Story.begun()
    [peer] = shared(story, "a")
    story.begins_turn()
    operator = story.attach()
    operator.asks("mux/restart")  # needs no handshake
    operator.leaves()
    story.ends_turn()
    assert stops(story)
    story.exits("exit status 0")
    ready_again(story)
    peer.heard()
    peer.asks("turn/start", {"threadId": "t"})
    assert len(story.written("turn/start")) == 1


def test_a_crash_while_it_waits_does_as_well() -> None:
    story = Story.begun()
    [peer] = shared(story, "a")
    story.begins_turn()
    asked = peer.asks("mux/restart")
    story.exits("killed by SIGKILL")
    ready_again(story)
    assert peer.heard()[-1] == {"id": asked, "result": {"generation": 2, "version": "0.163.0"}}
    assert starts(story) == [0.125]


def test_a_request_that_is_long_overdue_is_not_waited_for() -> None:
    story = Story.begun()
    peer = story.peer()
    peer.asks("thread/list")
    for _ in range(13):
        story.waits(10.0)
        story.delta()
    assert "error" in peer.only()
    peer.asks("mux/restart")
    assert stops(story), reasons(story)


# ── a hang ────────────────────────────────────────────────────────────────────────────────────────


def answered_probe(story: Story) -> None:
    for probe in story.written("thread/loaded/list"):
        story.answers(probe, {"data": []})


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
