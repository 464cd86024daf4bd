"""Stories of threads: who follows, and who hears what."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.stories import APPROVAL, DELTA, RESOLVED, Peer, Story

NOTICES = [
    "thread/status/changed",
    "thread/name/updated",
    "thread/archived",
    "thread/unarchived",
    "thread/attachment/updated",
    "thread/goal/cleared",
    "thread/goal/updated",
    "thread/project/updated",
    "thread/reverted",
    "thread/section/changed",
    "thread/deleted",
    "thread/closed",
]


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


def test_a_deprecation_notice_goes_to_the_one_that_asked_in_an_old_way() -> None:
    story = Story.begun()
    a, b, c = story.peer("a"), story.peer("b"), story.peer("c")
    c.asks("thread/resume", {"threadId": "t", "excludeTurns": True})
    a.asks("thread/resume", {"threadId": "t"})
    b.asks("thread/read", {"threadId": "t", "includeTurns": True})
    for expected, field in ((b, "includeTurns"), (a, "excludeTurns")):
        story.notifies("deprecationNotice", {"summary": f"use `{field}`"})
        assert expected.only()["method"] == "deprecationNotice"
    a.asks("other/way", {})
    c.asks("x/y", {})
    story.notifies("deprecationNotice", {"summary": "x/y is an old way; use other/way"})
    assert c.only()["method"] == "deprecationNotice"
    assert a.heard() == b.heard() == []


def test_a_deprecation_notice_may_come_behind_the_answer() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    a.asks("review/start", {"threadId": "t"})
    story.fails(story.only())
    b.asks("x/y")
    a.heard()
    story.notifies("deprecationNotice", {"summary": "review/start is an old way"})
    assert a.heard_methods() == ["deprecationNotice"]
    assert b.heard() == []


def test_a_deprecation_notice_of_no_known_cause_goes_to_those_that_ask_something() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    a.asks("thread/read", {"threadId": "t"}, id="q")
    story.notifies("deprecationNotice", {"summary": "x"})
    story.answers(story.only(), {})
    story.notifies("deprecationNotice", {"summary": "y"})
    assert a.heard_methods() == ["deprecationNotice", "q"]
    assert b.heard() == []


def test_what_is_read_is_told_to_everybody() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a, "t")
    for peer in (a, b):
        peer.heard()
    story.notifies("thread/readState/changed", {"threadId": "t", "readState": {"revision": "1"}})
    assert a.heard_methods() == b.heard_methods() == ["thread/readState/changed"]


def _uses(story: Story, thread: str, tokens: int) -> None:
    story.notifies("thread/tokenUsage/updated", {"threadId": thread, "tokenUsage": tokens})


def test_rate_limits_go_to_those_that_follow_the_thread_that_works() -> None:
    story = Story.begun()
    a, b, c = story.peer("a"), story.peer("b"), story.peer("c")
    story.follows(a, "one")
    story.follows(b, "two")
    story.begins_turn("one")
    story.begins_turn("two")
    for peer in (a, b):
        peer.heard()
    _uses(story, "one", 1)
    story.notifies("account/rateLimits/updated", {"x": 1})
    assert len(a.heard()) == 2
    assert b.heard() == []
    # Others have spoken between: it may be of either.
    _uses(story, "one", 2)
    story.delta("two")
    story.notifies("account/rateLimits/updated", {"x": 2})
    assert a.heard_methods()[-1] == b.heard_methods()[-1] == "account/rateLimits/updated"
    assert c.heard() == []


def test_what_is_said_again_of_the_tokens_used_is_for_the_one_that_resumed() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    _uses(story, "t", 1)
    assert len(a.heard()) == 1
    story.follows(b)
    _uses(story, "t", 1)
    assert b.only()["params"]["tokenUsage"] == 1
    assert a.heard() == []
    _uses(story, "t", 2)
    assert len(a.heard()) == len(b.heard()) == 1


def test_what_is_new_of_the_tokens_used_is_for_everybody_whoever_resumes() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    _uses(story, "t", 1)
    story.follows(b)
    a.heard()
    _uses(story, "t", 2)
    _uses(story, "t", 2)
    assert len(a.heard()) == 1
    assert len(b.heard()) == 2


def test_without_its_turns_nothing_is_said_again() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    _uses(story, "t", 1)
    story.follows(b, excludeTurns=True)
    a.heard()
    _uses(story, "t", 1)
    assert len(a.heard()) == len(b.heard()) == 1


def test_an_archived_thread_is_followed_by_nobody() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    story.notifies("thread/archived", {"threadId": "t"})
    assert a.heard_methods() == b.heard_methods() == ["thread/archived"]
    story.follows(b)
    story.delta("t")
    assert a.heard() == []
    assert b.heard_methods() == [DELTA]


def test_to_one_that_follows_already_nothing_is_introduced() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    story.follows(a)
    story.begins_turn("t")
    item = {"id": "i", "type": "agentMessage"}
    story.notifies("item/started", {"threadId": "t", "turnId": "t-turn", "item": item})
    story.delta("t")
    a.heard()
    story.follows(a)
    assert a.heard() == []
    story.follows(b)
    assert b.heard_methods() == ["item/started", DELTA]


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
    assert story.only("thread/unsubscribe")["params"] == {"threadId": "parent"}
    story.ends_turn("child")
    assert story.only("thread/unsubscribe")["params"] == {"threadId": "child"}


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
    assert a.heard() == []
    assert b.heard_methods() == [DELTA]


def _late(story: Story, **capabilities: Any) -> Peer:
    """A client that joins the parent when its sub-agent was made; with all that it was sent."""
    peer = story.peer("late", **capabilities)
    peer.asks("thread/resume", {"threadId": "parent"}, id="joined")
    story.answers(story.written("thread/resume")[0], {"thread": {"id": "parent"}})
    return peer


def test_who_joins_a_parent_late_is_offered_what_its_sub_agents_ask() -> None:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a, "parent")
    spawns(story, "parent", "child")
    story.begins_turn("child")
    item = {"type": "agentMessage", "id": "i", "text": ""}
    story.notifies("item/started", {"threadId": "child", "turnId": "u", "item": item})
    story.delta("child", "early")
    story.asks(0, threadId="child")
    story.written()
    a.heard()
    late = _late(story)
    told = ["joined", "turn/started", "item/started", DELTA, APPROVAL]
    assert late.heard_methods() == told
    assert a.heard() == []
    story.delta("child", "late")
    story.resolves(0, "child")
    assert late.heard_methods() == a.heard_methods() == [DELTA, RESOLVED]
    assert story.written() == []  # nobody resumed the child


def test_it_joins_those_of_sub_agents_too_and_each_once() -> None:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a, "parent")
    spawns(story, "parent", "child", "sister")
    spawns(story, "child", "grandchild")
    spawns(story, "grandchild", "child")  # whatever the app-server says: no end is no reason
    late = _late(story)
    late.heard()
    for thread in ("child", "sister", "grandchild"):
        story.delta(thread)
        assert late.heard_methods() == [DELTA]


def test_what_it_opted_out_of_is_not_introduced() -> None:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a, "parent")
    spawns(story, "parent", "child")
    story.begins_turn("child")
    story.asks(0, threadId="child")
    late = _late(story, optOutNotificationMethods=["turn/started"])
    assert late.heard_methods() == ["joined", APPROVAL]


def test_who_follows_the_parent_and_left_a_sub_agent_is_not_taken_back_by_a_resume() -> None:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a, "parent")
    spawns(story, "parent", "child")
    story.begins_turn("child")
    a.asks("thread/unsubscribe", {"threadId": "child"})
    story.follows(a, "parent")
    a.heard()
    story.delta("child")
    assert a.heard() == []


def test_a_sub_agent_that_is_over_is_nobodys() -> None:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a, "parent")
    spawns(story, "parent", "child")
    story.notifies("thread/closed", {"threadId": "child"})
    story.written()
    late = _late(story)
    assert late.heard_methods() == ["joined"]
    assert story.written() == []


def test_one_that_was_let_go_of_is_loaded_again_for_a_joiner_of_its_parent() -> None:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a, "parent")
    spawns(story, "parent", "child")
    a.leaves()
    for asked in story.written("thread/unsubscribe"):
        story.answers(asked, {"status": "unsubscribed"})
    late, other = _late(story), story.peer("other")
    (loads,) = story.written("thread/resume")
    assert loads["params"] == {"threadId": "child", "excludeTurns": True}
    story.follows(other, "parent")  # who comes meanwhile doesn't have it loaded twice
    assert story.written() == []
    story.answers(loads, {"thread": {"id": "child"}})
    story.asks(0, threadId="child")
    assert late.heard_methods() == ["joined", APPROVAL]
    assert other.heard_methods() == [APPROVAL]


@pytest.mark.parametrize("why", ["an error", "closed", "left"])
def test_if_it_can_not_be_loaded_the_parent_is_joined_all_the_same(why: str) -> None:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a, "parent")
    spawns(story, "parent", "child")
    a.leaves()
    story.written()
    late = _late(story)
    (loads,) = story.written("thread/resume")
    if why == "closed":
        story.notifies("thread/closed", {"threadId": "child"})
    if why == "left":
        late.leaves()
        story.answers(loads, {"thread": {"id": "child"}})
        given_back = [each["params"]["threadId"] for each in story.written("thread/unsubscribe")]
        assert sorted(given_back) == ["child", "parent"]
        return
    story.fails(loads)
    assert late.heard_methods()[0] == "joined"
    story.delta("parent")
    assert late.heard_methods() == [DELTA]


# ── deltas in a row ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(name="row")
def _row() -> tuple[Story, Peer]:
    """A follower that has just had the second delta in a row of a running item."""
    story = Story.begun()
    peer = story.peer("first")
    story.follows(peer)
    story.begins_turn(id="u")
    story.notifies("item/started", {**ITEM, "item": {"type": "agentMessage", "id": "i"}})
    story.delta(text="a")
    story.delta(text="b")
    peer.heard()
    return story, peer


ITEM = {"threadId": "t", "turnId": "u"}


def test_one_that_joins_between_two_deltas_has_each_once(row: tuple[Story, Peer]) -> None:
    story, first = row
    joined = story.peer("second")
    story.follows(joined)
    story.delta(text="c")
    assert [each["params"]["delta"] for each in first.heard()] == ["c"]
    texts = [each["params"]["delta"] for each in joined.heard() if each["method"] == DELTA]
    assert texts == ["ab", "c"]


def test_one_that_leaves_between_two_deltas_has_no_more(row: tuple[Story, Peer]) -> None:
    story, first = row
    leaves = story.peer("leaves")
    story.follows(leaves)
    story.delta(text="c")
    leaves.heard()
    leaves.leaves()
    story.delta(text="d")
    assert [each["params"]["delta"] for each in first.heard()] == ["c", "d"]


def test_what_comes_between_two_deltas_stays_between_them(row: tuple[Story, Peer]) -> None:
    story, first = row
    patched = {"itemId": "i", "changes": []}
    story.notifies("item/fileChange/patchUpdated", ITEM | patched)
    story.delta(text="c")
    story.notifies("item/agentMessage/delta", ITEM | {"itemId": "other", "delta": "?"})
    story.notifies(
        "item/reasoning/textDelta", ITEM | {"itemId": "i", "delta": "r", "contentIndex": 0}
    )
    story.notifies(
        "item/reasoning/textDelta", ITEM | {"itemId": "i", "delta": "s", "contentIndex": 1}
    )
    story.delta(text="d")
    story.notifies("item/completed", {**ITEM, "item": {"type": "agentMessage", "id": "i"}})
    story.delta(text="e")
    heard = [each["params"].get("delta") for each in first.heard()]
    assert heard == [None, "c", "?", "r", "s", "d", None, "e"]
    joined = story.peer("second")
    story.follows(joined)
    assert DELTA not in joined.heard_methods()
