"""Stories of threads: who follows, who hears what, and when the subscription is given back.

``resumed`` threads stand for ones that the app-server could load again: with those the broker's
only duty is the count. What is special of fresh and ephemeral ones has its own stories.
"""

from __future__ import annotations

import pytest

from mux.core.state import NEVER
from tests.core.stories import APPROVAL, DELTA, RESOLVED, Json, Peer, Story

NOTICES = [
    "thread/status/changed",
    "thread/name/updated",
    "thread/archived",
    "thread/unarchived",
    "thread/goal/cleared",
    "thread/deleted",
    "thread/closed",
]


def given_back(story: Story) -> list[str]:
    return [each["params"]["threadId"] for each in story.written("thread/unsubscribe")]


def spawns(story: Story, parent: str, *children: str) -> None:
    item = {
        "type": "collabAgentToolCall", "id": "call", "tool": "spawnAgent",
        "senderThreadId": parent, "receiverThreadIds": list(children),
    }  # fmt: skip
    story.notifies("item/completed", {"item": item, "threadId": parent, "turnId": "u"})


# ── joining ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["thread/start", "thread/fork", "thread/resume"])
def test_start_fork_and_resume_follow(method: str) -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    id = a.asks(method, {"threadId": "t"})
    story.answers(story.only(method), {"thread": {"id": "t"}})
    story.delta()
    answer, delta = a.heard()
    assert answer == {"id": id, "result": {"thread": {"id": "t"}}}
    assert delta["method"] == DELTA
    assert b.heard() == []


def test_a_fork_follows_the_new_thread_not_the_old() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("thread/fork", {"threadId": "old"})
    story.answers(story.only("thread/fork"), {"thread": {"id": "new"}})
    a.heard()
    story.delta("old")
    assert a.heard() == []
    story.delta("new")
    assert a.heard_methods() == [DELTA]


def test_a_detached_review_is_followed_by_its_asker_alone() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        story.follows(peer, "parent")
    a.asks("review/start", {"threadId": "parent", "delivery": "detached"}, id="r")
    asked = story.only("review/start")
    story.notifies("thread/started", {"thread": {"id": "review"}})
    turn = {"id": "u", "status": "inProgress", "items": []}
    story.answers(asked, {"turn": turn, "reviewThreadId": "review"})
    story.delta("review")
    assert a.heard_methods() == ["thread/started", "r", DELTA]
    assert b.heard_methods() == ["thread/started"]


def test_an_inline_review_stays_on_its_thread() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        story.follows(peer)
    a.asks("review/start", {"threadId": "t"}, id="r")
    turn = {"id": "u", "status": "inProgress", "items": []}
    story.answers(story.only("review/start"), {"turn": turn, "reviewThreadId": "t"})
    story.delta()
    assert a.heard_methods() == ["r", DELTA]
    assert b.heard_methods() == [DELTA]


def test_a_failed_resume_follows_nothing() -> None:
    story = Story.begun()
    a = story.peer()
    id = a.asks("thread/resume", {"threadId": "t"})
    story.fails(story.only(), message="no rollout found for thread id t")
    story.delta()
    (answer,) = a.heard()
    assert (answer["id"], answer["error"]["code"]) == (id, -32600)


def test_turn_start_does_not_follow() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    b.asks("turn/start", {"threadId": "t"}, id="turn")
    turn = {"id": "t-turn", "status": "inProgress", "items": []}
    story.answers(story.only("turn/start"), {"turn": turn})
    story.begins_turn()
    story.delta()
    assert b.heard_methods() == ["turn"]
    assert a.heard_methods() == ["turn/started", DELTA]


@pytest.mark.parametrize("method", NOTICES)
def test_thread_notices_go_to_everybody(method: str) -> None:
    story = Story.begun()
    a, b, unready = story.peer("a"), story.peer("b"), story.attach()
    story.follows(a)
    story.notifies(method, {"threadId": "t", "status": {"type": "idle"}})
    assert a.heard_methods() == [method]
    assert b.heard_methods() == [method]
    assert unready.heard() == []


@pytest.mark.parametrize("method", ["item/started", "turn/diff/updated", "warning", "made/up"])
def test_all_else_of_a_thread_goes_to_its_followers_once_each(method: str) -> None:
    story = Story.begun()
    a, b, c = (story.peer(name) for name in "abc")
    for peer in (a, b, a):
        story.follows(peer)
    story.notifies(method, {"threadId": "t", "item": {"id": "i", "type": "x"}})
    assert a.heard_methods() == b.heard_methods() == [method]
    assert c.heard() == []


def test_what_has_no_thread_goes_to_everybody() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.notifies("account/updated", {"x": 1})
    story.notifies("made/up", [1])
    assert a.heard_methods() == b.heard_methods() == ["account/updated", "made/up"]


def test_deprecation_notices_go_to_those_that_ask_something() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    a.asks("thread/read", {"threadId": "t"}, id="q")
    story.notifies("deprecationNotice", {"summary": "x"})
    story.answers(story.only(), {})
    story.notifies("deprecationNotice", {"summary": "y"})
    assert a.heard_methods() == ["deprecationNotice", "q"]
    assert b.heard() == []


# ── what comes before the answer that creates the thread ──────────────────────────────────────────


def test_early_notifications_reach_the_creator_before_its_answer() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b", optOutNotificationMethods=["warning"])
    a.asks("thread/start", {}, id="s")
    asked = story.only("thread/start")
    story.notifies("warning", {"threadId": "t", "message": "x"})
    story.notifies("thread/started", {"thread": {"id": "t"}})
    story.notifies("thread/tokenUsage/updated", {"threadId": "t"})
    assert a.heard_methods() == ["thread/started"]
    story.answers(asked, {"thread": {"id": "t"}})
    assert a.heard_methods() == ["warning", "thread/tokenUsage/updated", "s"]
    assert b.heard_methods() == ["thread/started"]
    story.follows(b)
    assert b.heard() == []


def test_early_notifications_respect_opt_outs() -> None:
    story = Story.begun()
    a = story.peer(optOutNotificationMethods=["warning"])
    a.asks("thread/start", {}, id="s")
    story.notifies("warning", {"threadId": "t"})
    story.notifies("thread/settings/updated", {"threadId": "t"})
    story.answers(story.only("thread/start"), {"thread": {"id": "t"}})
    assert a.heard_methods() == ["thread/settings/updated", "s"]


def test_early_notifications_of_two_threads_reach_each_its_creator() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    a.asks("thread/start", {}, id=1)
    b.asks("thread/start", {}, id=1)
    for_a, for_b = story.written("thread/start")
    story.notifies("warning", {"threadId": "tb", "to": "b"})
    story.notifies("warning", {"threadId": "ta", "to": "a"})
    story.answers(for_b, {"thread": {"id": "tb"}})
    story.answers(for_a, {"thread": {"id": "ta"}})
    for peer, to in ((a, "a"), (b, "b")):
        early, answer = peer.heard()
        assert early["params"]["to"] == to
        assert answer["id"] == 1


def test_early_notifications_are_bounded_and_the_oldest_threads_go_first() -> None:
    story = Story.begun(held_early=10)
    a = story.peer()
    a.asks("thread/start", {}, id="s")
    for at in range(30):
        story.notifies("warning", {"threadId": f"foreign-{at}"})
    for at in range(5):
        story.notifies("warning", {"threadId": "t", "at": at})
    story.answers(story.only("thread/start"), {"thread": {"id": "t"}})
    assert [each.get("params", {}).get("at") for each in a.heard()] == [0, 1, 2, 3, 4, None]


# ── sub-agents ────────────────────────────────────────────────────────────────────────────────────


def test_a_sub_agents_thread_is_joined_by_its_parents_followers() -> None:
    story = Story.begun()
    a, b, c = (story.peer(name) for name in "abc")
    for peer in (a, b):
        story.follows(peer, "parent")
    story.begins_turn("parent")
    story.notifies("thread/status/changed", {"threadId": "child", "status": {"type": "active"}})
    story.notifies("warning", {"threadId": "child"})
    for peer in (a, b, c):
        peer.heard()
    spawns(story, "parent", "child")
    story.begins_turn("child")
    story.delta("child")
    story.asks(0, threadId="child")
    expected = ["item/completed", "warning", "turn/started", DELTA, APPROVAL]
    assert a.heard_methods() == b.heard_methods() == expected
    assert c.heard() == []


def test_a_sub_agent_of_no_known_parent_is_everybodys() -> None:
    story = Story.begun()
    a, b, unready = story.peer("a"), story.peer("b"), story.attach()
    story.follows(a, "parent")
    story.notifies("warning", {"threadId": "child"})
    story.begins_turn("child")
    story.asks(0, threadId="child")
    story.delta("child")
    assert a.heard() == b.heard() == []
    story.waits(story.limits.parent_wait)
    expected = ["warning", "turn/started", DELTA, APPROVAL]
    assert a.heard_methods() == b.heard_methods() == expected
    newcomer = story.peer("late")
    story.delta("child")
    assert unready.heard() == []
    assert newcomer.heard() == []


def test_a_sub_agent_that_runs_before_its_parent_names_it_is_still_its_parents_followers() -> None:
    story = Story.begun()
    a, stranger = story.peer("a"), story.peer("stranger")
    story.follows(a, "parent")
    story.notifies("warning", {"threadId": "child"})
    story.begins_turn("child")
    story.asks(0, threadId="child")
    spawns(story, "parent", "child")
    story.waits(story.limits.parent_wait)
    assert a.heard_methods() == ["item/completed", "warning", "turn/started", APPROVAL]
    assert stranger.heard() == []


def test_who_opted_out_of_turns_still_joins_a_sub_agent_of_no_known_parent() -> None:
    story = Story.begun()
    a = story.peer(optOutNotificationMethods=["turn/started"])
    story.begins_turn("child")
    story.asks(0, threadId="child")
    story.waits(story.limits.parent_wait)
    assert a.heard_methods() == [APPROVAL]


def test_a_sub_agent_goes_on_after_its_parents_turn_and_is_let_go_at_its_own_end() -> None:
    story = Story.begun()
    a = story.peer()
    story.follows(a, "parent")
    story.begins_turn("parent")
    spawns(story, "parent", "child")
    story.begins_turn("child")
    story.ends_turn("parent")
    a.leaves()
    assert given_back(story) == ["parent"]
    story.ends_turn("child")
    assert given_back(story) == ["child"]


def test_a_second_mention_of_a_sub_agent_takes_nobody_in_again() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a, "parent")
    spawns(story, "parent", "child")
    story.follows(b, "parent")
    a.asks("thread/unsubscribe", {"threadId": "child"})
    spawns(story, "parent", "child")
    a.heard()
    b.heard()
    story.delta("child")
    assert a.heard() == b.heard() == []


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


def test_a_resume_that_was_never_answered_keeps_it_no_longer() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    b.asks("thread/resume", {"threadId": "t"})
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


# ── threads that the app-server couldn't load again ───────────────────────────────────────────────


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
