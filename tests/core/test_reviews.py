"""Stories of a review, which is one turn under two ids.

Natively the answer that begins it names it ``r``, as its items and its end do; between them stands
a ``turn/started`` that names it ``s``, with ``r`` as its ``rootTurnId``. Snapshots say ``s``.
"""

from __future__ import annotations

from mux.core.policy.approval_policy import Policies
from tests.core.stories import APPROVAL, Json, Peer, Story

ITEM: Json = {"id": "entered", "type": "enteredReviewMode", "review": "it"}


def turn(id: str, status: str = "inProgress", root: str | None = "r") -> Json:
    return {"id": id, "rootTurnId": root, "status": status, "items": []}


def reviews(story: Story, peer: Peer, thread: str = "t") -> None:
    """A review begins, as it natively does."""
    peer.asks("review/start", {"threadId": thread}, id="review")
    answer = {"turn": turn("r", root=None), "reviewThreadId": thread}
    story.answers(story.only("review/start"), answer)
    for method in ("item/started", "item/completed"):
        story.notifies(method, {"threadId": thread, "turnId": "r", "item": ITEM})
    story.notifies("turn/started", {"threadId": thread, "turn": turn("s")})


def ends_review(story: Story, thread: str = "t") -> None:
    story.notifies("turn/completed", {"threadId": thread, "turn": turn("r", "completed")})


def in_review() -> tuple[Story, Peer]:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a)
    reviews(story, a)
    a.heard()
    return story, a


def joins(story: Story, peer: Peer, *turns: Json) -> list[Json]:
    """``thread/resume``, with these turns in the app-server's snapshot; those in the answer."""
    peer.asks("thread/resume", {"threadId": "t"}, id="join")
    thread = {"id": "t", "status": {"type": "active"}, "turns": turns}
    story.answers(story.only("thread/resume"), {"thread": thread})
    (answer,) = [each for each in peer.heard() if each.get("id") == "join"]
    return answer["result"]["thread"]["turns"]  # type: ignore[no-any-return]


def test_a_joiner_is_shown_what_the_review_has_done_so_far() -> None:
    story, _ = in_review()
    made_up = {"items": [{"id": "item-1", "type": "userMessage"}], "itemsView": "full"}
    (shown,) = joins(story, story.peer("b"), turn("s") | made_up)
    assert (shown["id"], shown["status"], shown["items"]) == ("s", "inProgress", [ITEM])


def test_one_whose_snapshot_comes_behind_its_end_is_shown_it_whole() -> None:
    story, _ = in_review()
    b = story.peer("b")
    b.asks("thread/resume", {"threadId": "t"}, id="join")
    asked = story.only("thread/resume")
    ends_review(story)
    listed = [turn("s") | {"items": [], "itemsView": "full"}]
    story.answers(asked, {"thread": {"id": "t", "status": {"type": "active"}, "turns": listed}})
    (answer,) = [each for each in b.heard() if each.get("id") == "join"]
    (shown,) = answer["result"]["thread"]["turns"]
    assert (shown["id"], shown["status"], shown["items"]) == ("r", "completed", [ITEM])


def test_an_ephemeral_threads_review_is_kept_under_the_id_that_it_ended_by() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    a.asks("thread/start", {"ephemeral": True})
    thread: Json = {"id": "t", "ephemeral": True, "turns": []}
    story.answers(story.only("thread/start"), {"thread": thread})
    reviews(story, a)
    ends_review(story)
    b.asks("thread/resume", {"threadId": "t"}, id="join")
    story.fails(story.only("thread/resume"))
    story.answers(story.only("thread/read"), {"thread": thread})
    (answer,) = [each for each in b.heard() if each.get("id") == "join"]
    (shown,) = answer["result"]["thread"]["turns"]
    assert (shown["id"], shown["items"]) == ("r", [ITEM])


def test_killed_in_it_the_app_server_ends_it_for_whoever_waits_for_either_id() -> None:
    story, a = in_review()
    story.exits()
    ended = [each["params"]["turn"] for each in a.heard("turn/completed")]
    assert [(each["id"], each["status"]) for each in ended] == [
        ("s", "interrupted"),
        ("r", "interrupted"),
    ]


def test_killed_before_it_was_announced_it_has_one_id() -> None:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a)
    a.asks("review/start", {"threadId": "t"})
    story.answers(story.only("review/start"), {"turn": turn("r", root=None), "reviewThreadId": "t"})
    story.exits()
    assert [each["params"]["turn"]["id"] for each in a.heard("turn/completed")] == ["r"]


def test_a_sub_agents_turn_is_not_also_its_parents() -> None:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a, "child")
    story.notifies("turn/started", {"threadId": "child", "turn": turn("s", root="r")})
    story.exits()
    assert [each["params"]["turn"]["id"] for each in a.heard("turn/completed")] == ["s"]


def test_the_turn_after_it_is_not_also_it() -> None:
    story, a = in_review()
    ends_review(story)
    story.begins_turn(id="u")
    a.heard()
    story.exits()
    assert [each["params"]["turn"]["id"] for each in a.heard("turn/completed")] == ["u"]


def test_who_began_it_owns_what_it_asks() -> None:
    story = Story.under(Policies("owner"))
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        story.follows(peer)
    reviews(story, a)
    story.asks(0, APPROVAL, threadId="t", turnId="r", itemId="i", command="x")
    (offer,) = [each for each in b.heard() if each.get("method") == APPROVAL]
    b.answers(offer["id"], {"decision": "accept"})
    assert story.written() == []
    a.answers(offer["id"], {"decision": "accept"})
    assert story.only()["result"] == {"decision": "accept"}


def test_nothing_runs_when_it_is_over() -> None:
    story, _ = in_review()
    ends_review(story)
    assert story.broker.recovery.waits_for() == []
    (shown,) = joins(story, story.peer("b"), turn("u", "completed") | {"itemsView": "full"})
    assert shown["id"] == "u"


def test_a_detached_one_runs_on_its_own_thread_not_on_the_one_it_was_asked_of() -> None:
    story = Story.begun()
    a = story.peer("a")
    story.follows(a, "parent")
    a.asks("review/start", {"threadId": "parent", "delivery": "detached"})
    answer = {"turn": turn("r", root=None), "reviewThreadId": "review"}
    story.answers(story.only("review/start"), answer)
    known = story.broker.state.threads.known
    assert (known["parent"].running.turn, known["review"].running.turn) == (None, "r")
