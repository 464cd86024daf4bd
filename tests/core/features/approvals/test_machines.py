"""Stories of programs that answer approvals by themselves, while a person looks."""

from __future__ import annotations

import pytest

from mux.core.features.approvals.voting import AT_ONCE, CHANGED
from mux.core.policy.approval_policy import Policies
from mux.core.policy.principal import Principal
from mux.core.reports.status_report import report
from tests.core.noticed import peopled
from tests.core.paced import AWARE
from tests.core.stories import APPROVAL, QUESTION, Json, Peer, Story

PHONE = Principal("phone", "device", scopes=frozenset({"observe", "approve", "drive"}))
WATCHER = Principal("wall", "device", scopes=frozenset({"observe"}))
ACCEPT: Json = {"decision": "accept"}


def shared(policies: Policies | None = None) -> tuple[Story, Peer, Peer]:
    """An SDK's program that works on the thread `t`, and a page with it in the foreground."""
    story = Story.under(policies or Policies())
    sdk = story.peer("sdk")
    story.creates(sdk, "t")
    page = story.peer("page", PHONE, **AWARE)
    story.follows(page)
    page.notifies("mux/focus", {"threadId": "t"})
    sdk.heard()
    page.heard()
    return story, sdk, page


def asks(story: Story, peer: Peer, id: int = 0, method: str = APPROVAL) -> int:
    """An approval; its id for clients."""
    story.asks(id, method, threadId="t", turnId="u", itemId="c", command="rm -rf build")
    (offer,) = peer.heard(method)
    return int(offer["id"])


def waits(story: Story) -> bool:
    """Whether a machine's vote waits anywhere."""
    return story.broker.voting.waits


def decided(story: Story) -> list[Json]:
    """What the app-server was answered since the last look."""
    return [each["result"] for each in story.written() if "result" in each]


def test_a_machines_yes_waits_while_a_person_looks_and_the_person_decides() -> None:
    story, sdk, page = shared()
    id = asks(story, sdk)
    story.waits(0.011)
    sdk.answers(id, ACCEPT)
    assert decided(story) == []
    (changed,) = page.heard(CHANGED)
    (vote,) = changed["params"]["votes"]
    assert (vote["name"], vote["machine"], vote["counts"]) == ("sdk", True, False)
    assert "the person who looks" in changed["params"]["waitsFor"]
    story.waits(20)
    page.answers(id, {"decision": "decline"})
    assert decided(story) == [{"decision": "decline"}]


def test_the_persons_yes_decides_as_well() -> None:
    story, sdk, page = shared()
    id = asks(story, sdk)
    sdk.answers(id, ACCEPT)
    story.waits(1)
    page.answers(id, {"decision": "acceptForSession"})
    assert decided(story) == [{"decision": "acceptForSession"}]


@pytest.mark.parametrize("goes", ["away", "leaves", "sleeps"])
def test_when_nobody_looks_any_more_it_counts(goes: str) -> None:
    story, sdk, page = shared()
    id = asks(story, sdk)
    sdk.answers(id, ACCEPT)
    assert decided(story) == []
    if goes == "away":
        page.notifies("mux/focus", {"threadId": None})
    elif goes == "leaves":
        page.leaves()
    else:
        story.waits(60)
        assert decided(story) == []
        story.waits(61)
    assert decided(story) == [ACCEPT]


def test_one_that_looks_on_is_waited_for_longer() -> None:
    story, sdk, page = shared()
    id = asks(story, sdk)
    sdk.answers(id, ACCEPT)
    for _ in range(5):
        story.waits(100)
        page.notifies("mux/focus", {"threadId": "t"})
    assert decided(story) == []
    story.waits(121)
    assert decided(story) == [ACCEPT]


def test_with_nobody_looking_it_counts_at_once_as_natively() -> None:
    story, sdk, page = shared()
    page.notifies("mux/focus", {"threadId": "other"})
    id = asks(story, sdk)
    sdk.answers(id, ACCEPT)
    assert decided(story) == [ACCEPT]


def test_a_no_counts_at_once() -> None:
    story, sdk, _ = shared()
    id = asks(story, sdk)
    sdk.answers(id, {"decision": "decline"})
    assert decided(story) == [{"decision": "decline"}]


def test_what_takes_a_person_time_is_a_persons() -> None:
    story, sdk, _ = shared()
    id = asks(story, sdk)
    story.waits(AT_ONCE + 0.01)
    sdk.answers(id, ACCEPT)
    assert decided(story) == [ACCEPT]


def test_a_program_that_is_named_is_a_machine_however_long_it_takes() -> None:
    story, sdk, _ = shared(Policies(machines=("sdk",)))
    id = asks(story, sdk)
    story.waits(10)
    sdk.answers(id, ACCEPT)
    assert decided(story) == []


def test_a_setting_gives_the_old_way() -> None:
    story, sdk, _ = shared(Policies(machines=("sdk",), machines_wait=False))
    id = asks(story, sdk)
    sdk.answers(id, ACCEPT)
    assert decided(story) == [ACCEPT]


def test_one_that_may_only_watch_is_not_waited_for_nor_the_machine_itself() -> None:
    story, sdk, page = shared()
    page.leaves()
    wall = story.peer("wall", WATCHER)
    story.follows(wall)
    wall.notifies("mux/focus", {"threadId": "t"})
    sdk.notifies("mux/focus", {"threadId": "t"})
    id = asks(story, sdk)
    sdk.answers(id, ACCEPT)
    assert decided(story) == [ACCEPT]


def test_a_tui_that_was_used_within_the_minute_is_waited_for() -> None:
    story, sdk, page = shared()
    page.leaves()
    peopled(story, "codex-tui")
    tui = story.peer("codex-tui")
    story.follows(tui)
    tui.asks("turn/steer", {"threadId": "t"})
    id = asks(story, sdk)
    sdk.answers(id, ACCEPT)
    assert decided(story) == []
    story.waits(61)
    assert decided(story) == [ACCEPT]


def test_the_machine_is_asked_once_more_and_may_say_it_for_ever() -> None:
    story, sdk, page = shared()
    id = asks(story, sdk)
    for _ in range(5):
        sdk.answers(id, ACCEPT)
    (again,) = sdk.heard(APPROVAL)
    assert "your yes is kept" in again["params"]["reason"]
    assert len(page.heard(CHANGED)) == 1
    assert [each.kind for each in story.records].count("approval/voted") == 1


def test_status_and_audit_say_so() -> None:
    story, sdk, _ = shared()
    id = asks(story, sdk)
    sdk.answers(id, ACCEPT)
    (request,) = report(story.broker, story.now)["serverRequests"]
    assert [vote["machine"] for vote in request["votes"]] == [True]
    (voted,) = [each for each in story.records if each.kind == "approval/voted"]
    assert voted.fields["machine"] is True
    assert "the person who looks" in str(voted.fields["waitsFor"])


def test_a_question_that_a_program_answers_waits_too() -> None:
    story, sdk, page = shared()
    id = asks(story, sdk, method=QUESTION)
    sdk.answers(id, {"answers": {}})
    assert decided(story) == []
    story.waits(5)
    page.answers(id, {"answers": {"q": {"answers": ["blue"]}}})
    assert decided(story) == [{"answers": {"q": {"answers": ["blue"]}}}]


def test_under_a_quorum_a_machines_vote_waits_and_then_is_one() -> None:
    story, sdk, page = shared(Policies(policy="quorum", quorum=2))
    other = story.peer("other", Principal("other", "device"))
    story.follows(other)
    id = asks(story, sdk)
    sdk.answers(id, ACCEPT)
    story.waits(1)
    other.answers(id, ACCEPT)
    assert decided(story) == []
    page.answers(id, ACCEPT)
    assert decided(story) == [ACCEPT]


def test_a_request_that_is_over_leaves_nothing_behind() -> None:
    story, sdk, _ = shared()
    id = asks(story, sdk)
    sdk.answers(id, ACCEPT)
    story.resolves(0)
    story.waits(1)
    assert not waits(story)
    sdk.heard()
    sdk.answers(asks(story, sdk, 1), ACCEPT)
    assert waits(story)
    story.exits()
    story.waits(1)
    assert not waits(story)
