"""Stories of leaving a thread: counted per client, and given back upstream by the last one.

What ``follows`` joins stands for a thread that the app-server could load again: for those the
broker's only duty is the count. Of fresh and ephemeral ones tells ``test_broker_only_here``.
"""

from __future__ import annotations

import pytest

from tests.core.stories import DELTA, RESOLVED, Story


def given_back(story: Story) -> list[str]:
    return [each["params"]["threadId"] for each in story.written("thread/unsubscribe")]


# ── leaving ───────────────────────────────────────────────────────────────────────────────────────


def test_unsubscribe_is_counted_per_client() -> None:
    story = Story.begun()
    a, b, c = (story.peer(name) for name in "abc")
    for peer in (a, b):
        story.follows(peer)
    story.written()
    for peer, status in ((a, "unsubscribed"), (a, "notSubscribed"), (c, "notSubscribed")):
        id = peer.asks("thread/unsubscribe", {"threadId": "t"})
        assert peer.only() == {"id": id, "result": {"status": status}}
        assert given_back(story) == []
    story.delta()
    assert (a.heard(), b.heard_methods(), c.heard()) == ([], [DELTA], [])
    b.asks("thread/unsubscribe", {"threadId": "t"})
    assert b.only()["result"] == {"status": "unsubscribed"}
    assert given_back(story) == ["t"]


def test_unsubscribing_from_what_nobody_follows_is_the_app_servers_to_answer() -> None:
    story = Story.begun()
    a = story.peer()
    id = a.asks("thread/unsubscribe", {"threadId": "t"})
    story.answers(story.only("thread/unsubscribe"), {"status": "notLoaded"})
    assert a.only() == {"id": id, "result": {"status": "notLoaded"}}
    id = a.asks("thread/unsubscribe", {})
    story.fails(story.only("thread/unsubscribe"), message="missing field `threadId`")
    assert a.only()["id"] == id


def test_the_last_follower_that_leaves_gives_the_thread_back() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        story.follows(peer)
    a.leaves()
    assert given_back(story) == []
    b.leaves()
    assert given_back(story) == ["t"]


def test_a_running_turn_keeps_the_subscription_until_its_end() -> None:
    story = Story.begun()
    a = story.peer()
    story.follows(a)
    story.begins_turn()
    a.leaves()
    assert given_back(story) == []
    story.delta()
    story.ends_turn()
    assert given_back(story) == ["t"]


def test_a_turn_that_was_asked_for_keeps_the_subscription() -> None:
    story = Story.begun()
    a = story.peer()
    story.follows(a)
    a.asks("turn/start", {"threadId": "t"})
    asked = story.only("turn/start")
    a.leaves()
    assert given_back(story) == []
    story.answers(asked, {"turn": {"id": "t-turn", "status": "inProgress", "items": []}})
    assert given_back(story) == []
    story.begins_turn()
    story.ends_turn()
    assert given_back(story) == ["t"]


def test_an_answer_that_comes_after_the_end_of_its_turn_begins_nothing() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    a.asks("turn/start", {"threadId": "t"})
    turn = {"id": "t-turn", "status": "inProgress", "items": []}
    story.answers(story.only("turn/start"), {"turn": turn})
    story.begins_turn()
    b.asks("turn/start", {"threadId": "t"})  # joins the turn that runs
    asked = story.only("turn/start")
    story.ends_turn()
    story.answers(asked, {"turn": turn})
    a.leaves()
    assert given_back(story) == ["t"]


def test_a_turn_that_failed_to_start_keeps_it_no_longer() -> None:
    story = Story.begun()
    a = story.peer()
    story.follows(a)
    a.asks("turn/start", {"threadId": "t"})
    asked = story.only("turn/start")
    a.leaves()
    story.fails(asked)
    assert given_back(story) == ["t"]


def test_a_turn_asked_for_by_a_stranger_counts_only_while_it_is_heard() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    a.asks("thread/unsubscribe", {"threadId": "t"})
    assert given_back(story) == ["t"]
    b.asks("turn/start", {"threadId": "t"})
    turn = {"id": "t-turn", "status": "inProgress", "items": []}
    story.answers(story.only("turn/start"), {"turn": turn})
    # It is over, and nobody here was subscribed to hear that.
    story.follows(a)
    a.leaves()
    assert given_back(story) == ["t"]


@pytest.mark.parametrize("answered", [True, False])
def test_a_pending_server_request_keeps_the_subscription(answered: bool) -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    story.asks(0, threadId="t")
    if answered:
        a.answers(a.only()["id"], {"decision": "accept"})
    a.leaves()
    assert given_back(story) == []
    story.resolves(0)
    assert given_back(story) == ["t"]
    assert b.heard() == []


def test_a_resume_under_way_keeps_the_subscription() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    b.asks("thread/resume", {"threadId": "t"}, id="r")
    asked = story.only("thread/resume")
    a.leaves()
    assert given_back(story) == []
    story.answers(asked, {"thread": {"id": "t"}})
    story.delta()
    assert b.heard_methods() == ["r", DELTA]
    b.leaves()
    assert given_back(story) == ["t"]


def test_a_resume_that_failed_keeps_it_no_longer() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    b.asks("thread/resume", {"threadId": "t"})
    asked = story.only("thread/resume")
    a.leaves()
    story.fails(asked)
    assert given_back(story) == ["t"]


def test_a_joining_that_was_never_answered_keeps_it_no_longer() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    b.asks("review/start", {"threadId": "t"})
    a.leaves()
    story.written()
    story.waits(story.limits.request_deadline)
    assert b.heard()[0]["error"]["code"] == -32011
    assert given_back(story) == ["t"]


def test_a_resume_that_was_never_sent_keeps_it_no_longer() -> None:
    story = Story.begun(in_flight_per_client=1)
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    b.asks("x/y")
    b.asks("thread/resume", {"threadId": "t"})
    assert story.written("thread/resume")[1:] == []
    a.leaves()
    assert given_back(story) == []
    b.leaves()
    assert given_back(story) == ["t"]


def test_the_answer_to_a_resume_whose_asker_left_gives_the_thread_back() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("thread/resume", {"threadId": "t"})
    asked = story.only()
    a.leaves()
    assert given_back(story) == []
    story.answers(asked, {"thread": {"id": "t"}})
    assert given_back(story) == ["t"]


def test_a_closed_thread_is_followed_by_nobody_and_not_given_back() -> None:
    story = Story.begun()
    a = story.peer()
    story.follows(a)
    story.written()
    story.notifies("thread/status/changed", {"threadId": "t", "status": {"type": "notLoaded"}})
    story.notifies("thread/closed", {"threadId": "t"})
    assert a.heard_methods() == ["thread/status/changed", "thread/closed"]
    a.leaves()
    assert story.written() == []


def test_a_closed_thread_may_be_joined_anew() -> None:
    story = Story.begun()
    a = story.peer()
    story.follows(a)
    story.notifies("thread/closed", {"threadId": "t"})
    a.heard()
    story.follows(a)
    story.delta()
    assert a.heard_methods() == [DELTA]
    a.leaves()
    assert given_back(story) == ["t"]


def test_a_resume_that_crosses_the_closing_follows_and_is_given_back() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("thread/resume", {"threadId": "t"})
    asked = story.only()
    story.notifies("thread/closed", {"threadId": "t"})
    story.answers(asked, {"thread": {"id": "t"}})
    a.heard()
    story.delta()
    assert a.heard_methods() == [DELTA]
    a.leaves()
    assert given_back(story) == ["t"]


def test_giving_back_what_was_overloaded_does_not_take_it_from_a_newcomer() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    a.leaves()
    story.fails(story.only("thread/unsubscribe"), -32001, "Server overloaded; retry later.")
    story.follows(b)
    story.written()
    story.waits(60)
    assert given_back(story) == []


@pytest.mark.parametrize("what", ["a turn", "an approval"])
def test_giving_back_is_thought_over_when_it_was_put_off(what: str) -> None:
    story = Story.begun()
    a = story.peer()
    story.follows(a)
    a.leaves()
    story.fails(story.only("thread/unsubscribe"), -32001, "Server overloaded; retry later.")
    if what == "a turn":
        story.begins_turn()
    else:
        story.asks(0, threadId="t")
    story.waits(20)
    assert given_back(story) == []
    if what == "a turn":
        story.ends_turn()
    else:
        story.resolves(0)
    assert given_back(story) == ["t"]


def test_a_resume_and_an_unsubscribe_at_once_leave_it_unfollowed() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(b)
    a.asks("thread/resume", {"threadId": "t"}, id="r")
    a.asks("thread/unsubscribe", {"threadId": "t"}, id="u")
    asked = story.written("thread/resume")[-1]
    story.answers(asked, {"thread": {"id": "t"}})
    story.delta()
    heard = {each.get("id"): each for each in a.heard()}
    assert heard["r"]["result"]
    assert heard["u"]["result"] == {"status": "unsubscribed"}
    assert None not in heard, "it heard of a thread that it follows no more"


def test_a_strangers_unsubscribe_does_not_take_it_from_one_that_is_joining() -> None:
    story = Story.begun()
    a, stranger = story.peer("a"), story.peer("stranger")
    a.asks("thread/resume", {"threadId": "t"}, id="r")
    asked = story.only()
    stranger.asks("thread/unsubscribe", {"threadId": "t"}, id="u")
    assert given_back(story) == []
    story.answers(asked, {"thread": {"id": "t"}})
    assert stranger.only() == {"id": "u", "result": {"status": "notSubscribed"}}
    story.delta()
    assert a.heard_methods() == ["r", DELTA]


@pytest.mark.parametrize("why", ["overload", "queue"])
def test_a_strangers_unsubscribe_that_is_sent_late_does_not_take_it_either(why: str) -> None:
    story = Story.begun(in_flight_per_client=1)
    a, stranger = story.peer("a"), story.peer("stranger")
    if why == "queue":
        stranger.asks("x/y", id="first")
    stranger.asks("thread/unsubscribe", {"threadId": "t"}, id="u")
    first = story.only()
    if why == "overload":
        story.fails(first, -32001, "Server overloaded; retry later.")
    story.follows(a)
    if why == "queue":
        story.answers(first)
    story.waits(60)
    assert given_back(story) == []
    assert stranger.heard()[-1] == {"id": "u", "result": {"status": "notSubscribed"}}
    story.delta()
    assert a.heard_methods() == [DELTA]


def test_a_strangers_unsubscribe_that_is_sent_behind_a_resume_does_not_take_it() -> None:
    story = Story.begun(in_flight_per_client=1)
    a, stranger = story.peer("a"), story.peer("stranger")
    stranger.asks("x/y")
    first = story.only()
    stranger.asks("thread/unsubscribe", {"threadId": "t"}, id="u")
    a.asks("thread/resume", {"threadId": "t"}, id="r")
    asked = story.only("thread/resume")
    story.answers(first)
    assert given_back(story) == []
    story.answers(asked, {"thread": {"id": "t"}})
    assert stranger.heard()[-1] == {"id": "u", "result": {"status": "notSubscribed"}}
    story.delta()
    assert a.heard_methods() == ["r", DELTA]


def test_the_only_one_that_joins_and_unsubscribes_at_once_gives_it_back() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("thread/resume", {"threadId": "t"}, id="r")
    a.asks("thread/unsubscribe", {"threadId": "t"}, id="u")
    for asked in story.written():
        story.answers(asked, {"thread": {"id": "t"}} if "resume" in asked["method"] else {})
    story.delta()
    assert sorted(a.heard_methods()) == ["r", "u"]
    a.leaves()
    assert given_back(story) in ([], ["t"])
    assert not any(each.subscribed for each in story.broker.state.threads.known.values())


def test_who_unfollowed_hears_no_more_and_may_come_back() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        story.follows(peer)
    story.asks(0, threadId="t")
    a.heard()
    a.asks("thread/unsubscribe", {"threadId": "t"})
    a.heard()
    story.delta()
    b.answers(b.heard()[0]["id"], {"decision": "accept"})
    story.resolves(0)
    assert a.heard() == []
    story.follows(a)
    story.delta()
    assert a.heard_methods() == [DELTA]
    assert b.heard_methods() == [RESOLVED, DELTA]
