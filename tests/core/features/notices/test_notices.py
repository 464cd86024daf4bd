"""Stories of notices: what deserves one, who gets it, when it isn't told, when it is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from mux.core.commands import NoticeAnswerJudged, Withdraw
from mux.core.events import AnsweredByNotice, NoticesRestored
from mux.core.policy.approval_policy import Policies
from mux.core.policy.notice import Kind, RestoredNotice, Rule, Timing
from mux.core.policy.principal import Principal
from mux.core.reports.status_report import report
from tests.core.noticed import (
    OBSERVE,
    PHONE,
    WATCHER,
    asks,
    noticed,
    peopled,
    reachable,
    recipient,
    told,
    why,
)
from tests.core.stories import QUESTION, REFRESH, TOOL_CALL, Json, Peer, Story

LONG = 31.0
"""Seconds: longer than a turn whose end nobody is told of."""


def runs(story: Story, seconds: float = LONG, *, turn: str = "u1", thread: str = "t") -> None:
    story.begins_turn(thread, turn)
    story.waits(seconds)


def ends(story: Story, status: str = "completed", turn: str = "u1", **fields: Any) -> None:
    params = {"threadId": "t", "turn": {"id": turn, "status": status, "items": [], **fields}}
    story.notifies("turn/completed", params)


# ── an approval ───────────────────────────────────────────────────────────────────────────────


def test_the_device_used_last_is_told_at_once_and_the_others_when_nobody_came() -> None:
    story, _ = noticed()
    asks(story)
    assert told(story) == ["+d1 approval"]
    story.waits(119)
    assert told(story) == []
    story.waits(2)
    assert told(story) == ["+d2 approval"]
    story.waits(10_000)
    assert told(story) == []


def test_another_persons_device_is_told_last() -> None:
    story, _ = noticed(recipient("d1"), recipient("bob", 90.0, further=True))
    asks(story)
    story.waits(599)
    assert told(story) == ["+d1 approval"]
    story.waits(2)
    assert told(story) == ["+bob approval"]


def test_what_the_hosts_settings_name_is_always_told_beside_the_device() -> None:
    story, _ = noticed(recipient("d1"), recipient("d2", -1.0), recipient("host", always=True))
    asks(story)
    assert told(story) == ["+host approval", "+d1 approval"]


def test_the_one_that_may_approve_comes_first() -> None:
    story, _ = noticed(recipient("d1", 50.0, scopes=OBSERVE), recipient("d2", 20.0))
    asks(story)
    assert told(story) == ["+d2 approval"]


def test_a_device_is_used_by_being_driven_with() -> None:
    story, _ = noticed(recipient("d2", 50.0), recipient("d1", 20.0))
    phone = story.peer("app", PHONE)
    story.follows(phone)
    phone.asks("turn/start", {"threadId": "t"})
    story.waits(61)
    asks(story)
    assert told(story) == ["+d1 approval"]


def test_answered_anywhere_it_is_taken_back_from_all_that_got_it() -> None:
    story, desk = noticed()
    id = asks(story)
    story.waits(121)
    told(story)
    desk.answers(id, {"decision": "accept"})
    assert told(story) == ["-d1 approval", "-d2 approval"]
    story.resolves(5)
    assert told(story) == []


@pytest.mark.parametrize(
    "over",
    [
        lambda story: story.resolves(5),
        lambda story: story.exits(),
        lambda story: story.notifies("thread/archived", {"threadId": "t"}),
        lambda story: story.notifies("thread/closed", {"threadId": "t"}),
    ],
)
def test_gone_without_an_answer_it_is_taken_back_too(over: Any) -> None:
    story, _ = noticed()
    asks(story)
    told(story)
    over(story)
    assert told(story) == ["-d1 approval"]
    story.waits(200)
    assert told(story) == []


def test_sent_again_by_the_app_server_it_is_told_once() -> None:
    story, _ = noticed()
    asks(story)
    story.asks(5, threadId="t", itemId="i1")
    assert told(story) == ["+d1 approval"]


def test_of_the_next_life_it_is_another() -> None:
    story, desk = noticed()
    asks(story, 0)
    story.exits()
    story.waits(1)
    story.starts(2)
    story.initialized()
    story.answers(story.only("thread/resume"), {"thread": {"id": "t"}})
    told(story)
    asks(story, 0)
    assert told(story) == ["+d1 approval"]
    desk.leaves()


def test_a_question_is_one_too_and_what_machines_answer_is_none() -> None:
    story, _ = noticed()
    story.asks(1, TOOL_CALL, threadId="t", tool="look")
    story.asks(2, REFRESH)
    assert told(story) == []
    story.asks(3, QUESTION, threadId="t", itemId="i", questions=[])
    assert told(story) == ["+d1 question"]


def test_it_carries_what_it_is_about() -> None:
    story, _ = noticed()
    story.notifies("thread/name/updated", {"threadId": "t", "threadName": "Fix  the\nbuild"})
    story.notifies("item/started", {"threadId": "t", "turnId": "u1", "item": {"id": "i1"}})
    story.notices.clear()
    story.asks(5, threadId="t", itemId="i1", turnId="u1", command="make", reason="to build")
    notice = story.notices[-1].notice
    assert (notice.title, notice.line, notice.turn) == ("Fix the build", "to build", "u1")
    assert notice.request == story.broker.state.pending_requests.next_id
    assert b'"command":"make"' in notice.params
    assert notice.item == b'{"id":"i1"}'


def test_a_sub_agents_goes_by_the_name_of_what_spawned_it() -> None:
    story, _ = noticed()
    story.notifies("thread/name/updated", {"threadId": "t", "threadName": "Main"})
    story.notifies("thread/started", {"thread": {"id": "child", "parentThreadId": "t"}})
    asks(story, thread="child")
    assert story.notices[-1].notice.title == "Main"


# ── who looks ─────────────────────────────────────────────────────────────────────────────────


def looks(peer: Peer, thread: str | None = "t", *, active: bool = True) -> None:
    peer.asks("mux/focus", {"threadId": thread, "active": active})
    assert peer.heard()[-1]["result"] == {"holdsSeconds": 120.0}


@pytest.mark.parametrize(
    "goes",
    [
        lambda desk: looks(desk, None),
        lambda desk: looks(desk, "other"),
        lambda desk: looks(desk, active=False),
        lambda desk: desk.leaves(),
        lambda desk: desk.notifies("mux/focus", {"threadId": None}),
        lambda desk: desk.story.waits(121),
        lambda desk: desk.refuses(desk.story.broker.state.pending_requests.next_id),
        lambda desk: desk.asks("thread/unsubscribe", {"threadId": "t"}),
    ],
)
def test_while_one_looks_nobody_is_told_and_when_it_goes_it_is(goes: Any) -> None:
    story, desk = noticed()
    other = story.peer("other")
    story.follows(other)  # so that one that abstains doesn't end it
    looks(desk)
    asks(story)
    assert ("suppressed", f"desk (local, client {desk.id}) looks at it") in why(story)
    goes(desk)
    assert told(story) == ["+d1 approval"]


def test_one_that_says_it_again_looks_on() -> None:
    story, desk = noticed()
    looks(desk)
    asks(story)
    for _ in range(5):
        story.waits(100)
        looks(desk)
    assert told(story) == []


def test_one_that_came_back_to_it_holds_the_others_back() -> None:
    story, desk = noticed()
    asks(story)
    story.waits(100)
    looks(desk)
    story.waits(100)
    assert told(story) == ["+d1 approval"]
    looks(desk, None)
    story.waits(119)
    assert told(story) == []
    story.waits(2)
    assert told(story) == ["+d2 approval"]


def test_one_that_may_not_approve_looks_in_vain() -> None:
    story, _ = noticed()
    wall = story.peer("wall", WATCHER)
    story.follows(wall)
    looks(wall)
    asks(story)
    assert told(story) == ["+d1 approval"]


def test_one_that_was_not_offered_it_looks_in_vain() -> None:
    story, _ = noticed()
    looks(story.peer("elsewhere"))
    asks(story)
    assert told(story) == ["+d1 approval"]


@pytest.mark.parametrize("method", ["turn/start", "turn/steer", "turn/interrupt"])
def test_of_a_client_that_says_nothing_its_last_minute_counts(method: str) -> None:
    story, desk = noticed()
    desk.asks(method, {"threadId": "t"})
    story.waits(30)
    asks(story)
    assert told(story) == []
    story.waits(29)
    assert told(story) == []
    story.waits(2)
    assert told(story) == ["+d1 approval"]


def test_a_script_that_began_a_turn_holds_no_notice_back() -> None:
    story, _ = noticed()
    script = story.peer("codex_sdk")
    story.follows(script)
    script.asks("turn/start", {"threadId": "t"})
    asks(story)
    assert told(story) == ["+d1 approval"]


def test_a_program_that_says_that_a_person_sits_there_counts_by_what_it_does() -> None:
    story, _ = noticed()
    declared = {"appmux": {"version": 1, "person": True}}
    editor = story.peer("an-editor", extensions=declared)
    story.follows(editor)
    editor.asks("turn/start", {"threadId": "t"})
    asks(story)
    assert told(story) == []
    story.waits(61)
    assert told(story) == ["+d1 approval"]


def test_codexs_own_programs_are_peoples() -> None:
    story, desk = noticed()
    peopled(story, *Timing().people)
    tui = story.peer("codex-tui")
    story.follows(tui)
    tui.asks("turn/start", {"threadId": "t"})
    asks(story)
    assert told(story) == []
    shown = report(story.broker, story.now)
    assert {each["name"]: each["person"] for each in shown["clients"]} == {
        "desk": False,
        "codex-tui": True,
    }
    (thread,) = shown["threads"]
    assert thread["watchedBy"] == tui.id
    story.waits(61)
    (thread,) = report(story.broker, story.now)["threads"]
    assert thread["watchedBy"] is None
    assert desk.id != tui.id


def test_an_answer_counts_as_well() -> None:
    story, desk = noticed()
    id = asks(story, 1)
    desk.answers(id, {"decision": "accept"})
    told(story)
    asks(story, 2)
    assert told(story) == []
    story.waits(61)
    assert told(story) == ["+d1 approval"]


def test_attached_but_idle_counts_for_nothing() -> None:
    story, desk = noticed()
    desk.asks("thread/list")
    desk.asks("turn/start", {"threadId": "other"})
    asks(story)
    assert told(story) == ["+d1 approval"]


def test_one_that_says_its_focus_is_judged_by_that_alone() -> None:
    story, desk = noticed()
    looks(desk, None)
    desk.asks("turn/start", {"threadId": "t"})
    asks(story)
    assert told(story) == ["+d1 approval"]


def test_who_looks_at_a_thread_looks_at_its_sub_agents() -> None:
    story, desk = noticed()
    item = {"id": "i", "type": "collab", "receiverThreadIds": ["child"]}
    story.notifies("item/completed", {"threadId": "t", "turnId": "u", "item": item})
    looks(desk)
    asks(story, thread="child")
    assert told(story) == []


def test_a_focus_that_cannot_be_read_is_an_error_and_changes_nothing() -> None:
    story, desk = noticed()
    looks(desk)
    desk.asks("mux/focus", {"active": True})
    assert "threadId" in desk.heard()[-1]["error"]["message"]
    desk.notifies("mux/focus", {"threadId": 5})
    asks(story)
    assert told(story) == []
    assert story.written("mux/focus") == []


# ── what a device wants ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rules", "goes"),
    [
        ([Rule(on=False)], False),
        ([Rule(on=False), Rule(on=True, kind="approval")], True),
        ([Rule(on=False, kind="approval"), Rule(on=True)], False),
        ([Rule(on=True), Rule(on=False, why="snoozed")], False),
        ([Rule(on=False, thread="other"), Rule(on=False, kind="question")], True),
        ([Rule(on=True, thread="t"), Rule(on=False, kind="approval")], True),
        ([Rule(on=False, thread="t", kind="approval"), Rule(on=True, thread="t")], False),
    ],
)
def test_the_most_specific_rule_counts(rules: list[Rule], goes: bool) -> None:
    story, _ = noticed(recipient("d1", 0.0, *rules))
    asks(story)
    assert told(story) == (["+d1 approval"] if goes else [])


def test_when_quiet_hours_are_over_what_still_waits_is_told() -> None:
    story, _ = noticed(recipient("d1", 50.0, Rule(on=False, why="quiet hours")))
    asks(story)
    assert why(story)[-1] == ("suppressed", "quiet hours")
    reachable(story, recipient("d1", 50.0))
    assert told(story) == ["+d1 approval"]


def test_where_the_last_one_wants_nothing_the_next_is_told() -> None:
    story, _ = noticed(recipient("d1", 50.0, Rule(on=False)), recipient("d2", 20.0))
    asks(story)
    assert told(story) == ["+d2 approval"]


def test_with_nobody_to_tell_that_is_explained_and_made_good() -> None:
    story = Story.begun()
    desk = story.peer("desk")
    story.follows(desk)
    asks(story)
    assert why(story)[-1] == ("suppressed", "no device is registered for push")
    reachable(story)
    assert told(story) == ["+d1 approval"]


# ── turns ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted"])
def test_the_end_of_a_long_turn_is_told_to_the_device_used_last(status: str) -> None:
    story, _ = noticed()
    runs(story)
    ends(story, status)
    assert told(story) == [f"+d1 turn-{status}"]
    story.waits(10_000)
    assert told(story) == (["+d2 turn-failed"] if status == "failed" else [])


def test_the_end_of_a_short_one_is_told_to_nobody() -> None:
    story, _ = noticed()
    runs(story, 29.0)
    ends(story)
    assert told(story) == []
    assert why(story) == []


def test_the_last_line_is_told() -> None:
    story, _ = noticed()
    runs(story)
    item: Json = {"id": "m", "type": "agentMessage", "text": "First.\nAll tests pass.\n"}
    story.notifies("item/completed", {"threadId": "t", "turnId": "u1", "item": item})
    ends(story)
    assert story.notices[-1].notice.line == "All tests pass."
    runs(story, turn="u2")
    ends(story, "failed", "u2", error={"message": "no\nroute"})
    assert story.notices[-1].notice.line == "no route"


def test_who_interrupted_a_turn_is_not_told_of_it() -> None:
    story, desk = noticed()
    looks(desk, None)
    runs(story)
    desk.asks("turn/interrupt", {"threadId": "t", "turnId": "u1"})
    ends(story, "interrupted")
    name = f"desk (local, client {desk.id})"
    assert why(story) == [("raised", ""), ("suppressed", f"{name} interrupted it")]


def test_an_end_that_somebody_saw_is_never_told() -> None:
    story, desk = noticed()
    runs(story)
    looks(desk)
    ends(story)
    desk.leaves()
    story.waits(1000)
    assert told(story) == []


def test_an_end_that_one_who_may_only_watch_saw_is_told() -> None:
    story, _ = noticed()
    wall = story.peer("wall", WATCHER)
    story.follows(wall)
    looks(wall)
    runs(story)
    ends(story)
    assert told(story) == ["+d1 turn-completed"]


@pytest.mark.parametrize(
    "seen",
    [
        lambda _, desk: looks(desk),
        lambda _, desk: desk.asks("turn/start", {"threadId": "t"}),
        lambda story, _: story.begins_turn("t", "u2"),
        lambda story, _: story.notifies("thread/archived", {"threadId": "t"}),
        lambda story, _: story.notifies("thread/deleted", {"threadId": "t"}),
    ],
)
def test_seen_elsewhere_it_is_taken_back(seen: Any) -> None:
    story, desk = noticed()
    runs(story)
    ends(story)
    told(story)
    seen(story, desk)
    assert told(story) == ["-d1 turn-completed"]


def test_the_turns_of_sub_agents_and_titles_are_nobodys() -> None:
    story, desk = noticed()
    story.notifies("thread/started", {"thread": {"id": "child", "parentThreadId": "t"}})
    story.notifies("thread/started", {"thread": {"id": "title", "ephemeral": True}})
    story.creates(desk, "title", ephemeral=True)
    for thread in ("child", "title", "stranger"):
        story.begins_turn(thread)
    story.waits(LONG)
    for thread in ("child", "title", "stranger"):
        story.ends_turn(thread)
    assert why(story) == []


def test_a_turn_that_died_with_its_app_server_was_interrupted() -> None:
    story, _ = noticed()
    runs(story)
    story.exits()
    assert told(story) == ["+d1 turn-interrupted"]


# ── goals, limits, the app-server ─────────────────────────────────────────────────────────────


def goal(story: Story, status: str, turn: str | None = "u1", updated: int = 1) -> None:
    told = {"status": status, "objective": "green", "createdAt": 1, "updatedAt": updated}
    story.notifies("thread/goal/updated", {"threadId": "t", "turnId": turn, "goal": told})


@pytest.mark.parametrize(
    ("status", "kind"), [("complete", "goal-reached"), ("blocked", "goal-blocked")]
)
def test_a_goal_is_told_when_it_is_over(status: str, kind: Kind) -> None:
    story, _ = noticed()
    goal(story, "active")
    goal(story, status, updated=2)
    goal(story, status, updated=3)
    assert told(story) == [f"+d1 {kind}"]
    goal(story, "active")
    goal(story, status, updated=9)
    assert told(story) == [f"+d1 {kind}"]


def test_a_goal_that_is_only_shown_again_is_no_news() -> None:
    story, _ = noticed()
    goal(story, "complete", turn=None)
    assert told(story) == []


def limits(story: Story, used: int, resets: int = 500) -> None:
    primary = {"usedPercent": used, "resetsAt": resets}
    params = {"rateLimits": {"limitId": "codex", "primary": primary, "secondary": None}}
    story.notifies("account/rateLimits/updated", params)


def test_a_usage_limit_is_told_once_however_it_is_said() -> None:
    story, _ = noticed()
    story.begins_turn("t", "u1")
    limits(story, 99)
    limits(story, 100)
    limits(story, 100)
    error = {"message": "over", "codexErrorInfo": "usageLimitExceeded"}
    ends(story, "failed", error=error)
    goal(story, "usageLimited")
    assert told(story) == ["+d1 usage-limit"]
    limits(story, 3, 900)
    assert told(story) == ["-d1 usage-limit"]
    limits(story, 100, 900)
    assert told(story) == ["+d1 usage-limit"]


def test_a_turn_that_fails_by_the_limit_tells_of_the_limit() -> None:
    story, _ = noticed()
    story.begins_turn("t", "u1")
    ends(story, "failed", error={"message": "over", "codexErrorInfo": "usageLimitExceeded"})
    assert told(story) == ["+d1 usage-limit"]


def dies_for_good(story: Story) -> None:
    for generation in range(2, 6):
        story.exits()
        story.starts(generation)
        story.initialized()
    story.exits()


def test_an_app_server_that_stays_down_is_told_and_that_it_is_back() -> None:
    story = Story.begun()
    reachable(story)
    desk = story.peer("desk")
    dies_for_good(story)
    assert told(story) == ["+d1 app-server-down"]
    desk.asks("mux/restart")
    story.starts(6)
    story.initialized()
    assert told(story) == ["-d1 app-server-down", "+d1 app-server-back"]
    assert story.intact


# ── over a restart of the broker ──────────────────────────────────────────────────────────────


def test_what_was_told_in_an_earlier_life_is_not_told_again() -> None:
    story, _ = noticed()
    story.tell(NoticesRestored(("turn/u1",), ()))
    runs(story)
    ends(story)
    assert told(story) == []


def test_an_approval_of_an_earlier_life_is_taken_back_or_told_as_what_it_is_now() -> None:
    story = Story()
    standing = RestoredNotice(
        "asked/1", "approval", "t", ("device:d1", "device:d2"), ("device:d2",)
    )
    story.tell(NoticesRestored(("asked/1",), (standing,)))
    assert told(story) == ["-d1 approval", "-d2 approval", "+d2 approval-lost"]
    story.tell(NoticesRestored(("asked/1", "asked/1/lost"), (standing,)))
    assert told(story) == ["-d1 approval", "-d2 approval"]


def test_what_stands_from_an_earlier_life_is_taken_back_when_it_is_seen() -> None:
    story, desk = noticed()
    story.tell(
        NoticesRestored((), (RestoredNotice("turn/u0", "turn-completed", "t", ("device:d2",)),))
    )
    story.waits(1000)
    assert told(story) == []
    looks(desk)
    assert told(story) == ["-d2 turn-completed"]


# ── answers from a lock screen ────────────────────────────────────────────────────────────────


def answers(
    story: Story, id: int, principal: Principal = PHONE, *, yes: bool = True
) -> NoticeAnswerJudged:
    story.tell(AnsweredByNotice(id, principal, "10.0.0.7:5", yes))
    (judged,) = story.judged
    story.judged.clear()
    return judged


@pytest.mark.parametrize(("yes", "decision"), [(True, "accept"), (False, "decline")])
def test_a_device_answers_without_being_attached(yes: bool, decision: str) -> None:
    story, _ = noticed()
    id = asks(story)
    story.written()
    assert answers(story, id, yes=yes) == NoticeAnswerJudged("decided", "")
    assert story.only() == {"id": 5, "result": {"decision": decision}}
    withdrawn = [each.reason for each in story.notices if isinstance(each, Withdraw)]
    assert withdrawn == ["answered by a notice (phone)"]
    (record,) = [each for each in story.records if each.kind == "approval/answered"]
    by = {"client": 0, "name": "from a notice", "principal": "phone", "kind": "device"}
    assert record.fields["by"] == by | {"from": "10.0.0.7:5"}


def test_the_first_valid_answer_wins_whichever_way_it_came() -> None:
    story, desk = noticed()
    id = asks(story)
    desk.answers(id, {"decision": "decline"})
    story.written()
    judged = answers(story, id)
    assert (judged.outcome, story.written()) == ("over", [])
    assert judged.reason.startswith("answered already, by desk")
    story.resolves(5)
    assert answers(story, id).outcome == "over"


def test_a_client_that_is_late_hears_that_a_notice_was_first() -> None:
    story, desk = noticed()
    id = asks(story)
    answers(story, id)
    desk.asks("mux/approvals/answer", {"id": id, "result": {"decision": "accept"}})
    assert "a device, from a notice" in desk.heard()[-1]["error"]["message"]


def test_a_device_without_the_scope_changes_nothing() -> None:
    story, _ = noticed()
    id = asks(story)
    story.written()
    assert answers(story, id, WATCHER) == NoticeAnswerJudged(
        "refused", "this device may not approve"
    )
    assert story.written() == []


def test_a_question_is_not_answered_by_a_word() -> None:
    story, _ = noticed()
    story.asks(3, QUESTION, threadId="t", itemId="i", questions=[])
    story.written()
    judged = answers(story, story.broker.state.pending_requests.next_id)
    assert judged.outcome == "refused"
    assert story.written() == []


def test_under_a_policy_a_yes_is_one_vote() -> None:
    story = Story.begun()
    story.broker.state.policies = Policies(policy="quorum", quorum=2)
    desk = story.peer("desk")
    story.follows(desk)
    id = asks(story)
    story.written()
    judged = answers(story, id)
    assert judged.outcome == "counted"
    assert "a yes of 2 principals, 1 so far" in judged.reason
    assert story.written() == []
    assert answers(story, id).outcome == "counted"  # again by the same one
    desk.answers(id, {"decision": "accept"})
    assert story.only()["result"] == {"decision": "accept"}
