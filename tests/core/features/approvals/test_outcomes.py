"""Stories of what became of an approval: who is told, and by whom it was decided."""

from __future__ import annotations

from mux.core.policy.approval_policy import Policies
from mux.core.policy.principal import Principal
from mux.core.state.clients.client import DECIDED
from tests.core.paced import AWARE
from tests.core.stories import APPROVAL, QUESTION, RESOLVED, Json, Peer, Story

PHONE = Principal("phone", "device", scopes=frozenset({"observe", "approve"}))


def asked(story: Story, method: str = APPROVAL, **params: object) -> None:
    named = {"threadId": "t", "turnId": "u", "itemId": "c"}
    story.asks(0, method, **(named | params))


def watched(policies: Policies | None = None) -> tuple[Story, Peer, Peer]:
    """A desk that doesn't know the broker and a page that does, on one thread."""
    story = Story.under(policies or Policies())
    desk = story.peer("desk")
    story.creates(desk, "t")
    page = story.peer("page", PHONE, **AWARE)
    story.follows(page)
    desk.heard()
    page.heard()
    return story, desk, page


def decided(page: Peer) -> Json:
    """What it was told; the request's end comes right behind."""
    heard = [each for each in page.heard() if each.get("method") in (DECIDED, RESOLVED)]
    assert [each["method"] for each in heard] == [DECIDED, RESOLVED]
    assert heard[0]["seq"] < heard[1]["seq"]
    return dict(heard[0]["params"])


def test_followers_that_know_the_broker_are_told_who_decided() -> None:
    story, desk, page = watched()
    asked(story, command="make test")
    (offer,) = desk.heard(APPROVAL)
    story.waits(3)
    desk.answers(offer["id"], {"decision": "decline"})
    story.resolves(0)
    assert decided(page) == {
        "id": offer["id"],
        "threadId": "t",
        "turnId": "u",
        "itemId": "c",
        "method": APPROVAL,
        "about": "make test",
        "decision": "decline",
        "by": {"client": desk.id, "name": "desk", "principal": "local"},
        "how": "client",
        "waitedSeconds": 3.0,
    }
    assert DECIDED not in desk.heard_methods()


def test_what_was_answered_to_a_question_isnt_told() -> None:
    story, desk, page = watched()
    asked(story, QUESTION, questions=[{"id": "q", "question": "The key?", "isSecret": True}])
    (offer,) = desk.heard(QUESTION)
    desk.answers(offer["id"], {"answers": {"q": {"answers": ["hunter2"]}}})
    story.resolves(0)
    told = decided(page)
    assert (told["about"], told["decision"]) == ("The key?", "answered")
    assert "hunter2" not in str(told)


def test_what_ends_with_its_turn_is_withdrawn() -> None:
    story, _, page = watched()
    story.begins_turn(id="u")
    asked(story)
    story.ends_turn(id="u")
    told = decided(page)
    assert (told["decision"], told["how"], told["by"]) == ("withdrawn", "withdrawn", None)


def test_when_all_abstained_nobody_decided() -> None:
    story, desk, page = watched()
    asked(story)
    (offer,) = desk.heard(APPROVAL)
    desk.refuses(offer["id"])
    page.refuses(offer["id"])
    story.resolves(0)
    assert decided(page)["how"] == "abstained"


def test_votes_that_had_to_wait_decide_by_the_last_one() -> None:
    story, desk, page = watched(Policies(policy="owner", owner_delay=30.0))
    desk.asks("turn/start", {"threadId": "t", "input": []})
    turn = {"id": "u", "status": "inProgress", "items": []}
    story.answers(story.only("turn/start"), {"turn": turn})
    story.begins_turn(id="u")
    asked(story)
    (offer,) = page.heard(APPROVAL)
    page.answers(offer["id"], {"decision": "accept"})
    story.waits(31)
    story.resolves(0)
    told = decided(page)
    assert (told["how"], told["by"]["principal"]) == ("votes", "phone")


def test_a_request_that_isnt_for_everybody_isnt_told_of() -> None:
    story, desk, page = watched()
    asked(story, "item/new/requestSomething")
    (offer,) = desk.heard("item/new/requestSomething")
    page.heard()
    desk.answers(offer["id"], {"ok": True})
    story.resolves(0)
    assert page.heard_methods() == [RESOLVED]


def test_an_approval_is_listed_with_its_diffs() -> None:
    story, _, page = watched()
    story.notifies("thread/name/updated", {"threadId": "t", "threadName": "Fix it"})
    story.begins_turn(id="u")
    diff = "@@ -1 +1 @@\n-a\n+b\n"
    edits = [{"path": "/w/a", "kind": {"type": "update", "move_path": "/w/b"}, "diff": diff}]
    item = {"id": "c", "type": "fileChange", "changes": edits, "status": "inProgress"}
    story.notifies("item/started", {"threadId": "t", "turnId": "u", "item": item})
    asked(story, "item/fileChange/requestApproval")
    page.heard()
    page.asks("mux/approvals/list", {})
    (listed,) = page.only()["result"]["approvals"]
    assert listed["files"] == [
        {
            "path": "/w/a", "kind": "update", "movedTo": "/w/b", "added": 1, "removed": 1,
            "diff": diff, "cut": False,
        }
    ]  # fmt: skip
    assert listed["title"] == "Fix it"
    assert listed["choices"] == ["accept", "acceptForSession", "decline", "cancel"]
    page.asks("mux/approvals/list", {"id": listed["id"]})
    assert len(page.only()["result"]["approvals"]) == 1
    page.asks("mux/approvals/list", {"id": 1})
    assert page.only()["result"]["approvals"] == []
