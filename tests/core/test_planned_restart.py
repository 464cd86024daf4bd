"""Stories of a planned restart: what it waits for, what it holds back, how it ends."""

from __future__ import annotations

from mux.core.state.state import NEVER
from tests.core.lives import answered_probe, next_life, ready_again, reasons, shared, starts, stops
from tests.core.stories import APPROVAL, Story

STATUS = "thread/status/changed"


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


def test_a_thread_that_loads_for_too_long_is_not_waited_for() -> None:
    story = Story.begun(probe_interval=NEVER)
    a, b = story.peer("a"), story.peer("b")
    asked = a.asks("thread/start")
    b.asks("mux/restart")
    story.waits(story.limits.request_deadline - 1)
    assert reasons(story) == ["requests in flight"]
    story.waits(2)
    assert stops(story)
    story.exits()
    answer = a.only()
    assert (answer["id"], answer["error"]["code"]) == (asked, -32010)
    ready_again(story)
    assert b.heard()[-1]["result"]["generation"] == 2
