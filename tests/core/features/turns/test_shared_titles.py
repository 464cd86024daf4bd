"""Title threads: known to their own client alone, and one title made for all that want it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mux.core.features.turns.shared_titles import LONGEST_WAIT, MOST_WAITING
from mux.core.state.turns.title_turns import REUSED_FOR
from tests.core.stories import DELTA, Json, Peer, Story

STATUS = "thread/status/changed"
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}}
USER_ITEM = "01a20e29-1696-7bc2-8f07-835543b706ce"
TURN = "01a20e29-1694-71a3-8715-96e0c8d65856"


def titled(id: str) -> Json:
    """What the app-server says of a title thread."""
    return {"id": id, "ephemeral": True, "threadSource": "thread_title", "turns": []}


def begin(story: Story, peer: Peer, thread: str) -> None:
    """The peer makes a title thread; all that it and others hear of that is taken."""
    peer.asks("thread/start", {"ephemeral": True, "threadSource": "thread_title"})
    story.answers(story.written("thread/start")[-1], {"thread": titled(thread)})
    story.notifies("thread/started", {"thread": titled(thread)})


def ask(peer: Peer, thread: str, text: str = "Title it: fix", **more: Any) -> Any:
    """The peer wants the title."""
    asked = {"threadId": thread, "input": [{"type": "text", "text": text}]}
    return peer.asks("turn/start", asked | {"outputSchema": SCHEMA, "effort": None} | more)


def run(
    story: Story,
    thread: str,
    turn: str = TURN,
    status: str = "completed",
    asked: Json | None = None,
) -> None:
    """The app-server runs the turn that it was asked for (last)."""
    begun = {"id": turn, "rootTurnId": turn, "items": [], "status": "inProgress"}
    user = {"type": "userMessage", "id": USER_ITEM, "content": []}
    title = {"type": "agentMessage", "id": "msg_5", "text": '{"title": "Fix it"}'}
    at = {"threadId": thread, "turnId": turn}
    story.answers(asked or story.written("turn/start")[-1], {"turn": begun})
    story.notifies(STATUS, {"threadId": thread, "status": {"type": "active", "activeFlags": []}})
    story.notifies("turn/started", {"threadId": thread, "turn": begun})
    story.notifies("item/started", at | {"item": user})
    story.notifies("item/completed", at | {"item": user})
    story.notifies("item/started", at | {"item": title | {"text": ""}})
    story.notifies(DELTA, at | {"itemId": "msg_5", "delta": '{"title": "Fix it"}'})
    story.notifies("item/completed", at | {"item": title})
    story.notifies(STATUS, {"threadId": thread, "status": {"type": "idle"}})
    ended = begun | {"status": status, "items": [title]}
    story.notifies("turn/completed", {"threadId": thread, "turn": ended})


OUTCOME = [
    STATUS,
    "turn/started",
    "item/started",
    "item/completed",
    "item/started",
    DELTA,
    "item/completed",
    STATUS,
    "turn/completed",
]


def two_tuis() -> tuple[Story, Peer, Peer]:
    """Two that follow the thread ``t``, each with a title thread of its own: ``ta`` and ``tb``."""
    story = Story.begun()
    a, b = story.peer("codex-tui"), story.peer("codex-tui")
    for peer, thread in ((a, "ta"), (b, "tb")):
        story.follows(peer)
        begin(story, peer, thread)
    for each in (a, b):
        each.heard()
    story.written()
    return story, a, b


# --- Known to its own client alone ----------------------------------------------------------------


@pytest.mark.parametrize("announced_first", [True, False])
def test_others_hear_nothing_of_a_title_thread(announced_first: bool) -> None:
    story = Story.begun()
    tui, phone = story.peer("codex-tui"), story.peer("phone")
    knows = story.peer("knows", extensions={"appmux": {"version": 1}})
    story.waits(1)
    knows.heard()
    id = tui.asks("thread/start", {"ephemeral": True, "threadSource": "thread_title"})
    asked = story.only("thread/start")
    if announced_first:
        story.notifies("thread/started", {"thread": titled("ta")})
        story.answers(asked, {"thread": titled("ta")})
        assert tui.heard_methods() == ["thread/started", str(id)]
    else:
        story.answers(asked, {"thread": titled("ta")})
        story.notifies("thread/started", {"thread": titled("ta")})
        assert tui.heard_methods() == [str(id), "thread/started"]
    ask(tui, "ta")
    run(story, "ta")
    assert tui.heard_methods()[1:] == OUTCOME
    tui.asks("thread/unsubscribe", {"threadId": "ta"})
    story.answers(story.only("thread/unsubscribe"), {"status": "unsubscribed"})
    story.notifies(STATUS, {"threadId": "ta", "status": {"type": "notLoaded"}})
    story.notifies("thread/closed", {"threadId": "ta"})
    story.waits(1)
    assert phone.heard() == []
    told = knows.heard()
    assert [each for each in told if "ta" in json.dumps(each)] == []
    assert all(
        each["lastDrove"] is None for each in told[-1:] for each in each["params"]["clients"]
    )


def test_an_ordinary_or_ephemeral_thread_is_told_to_all() -> None:
    story = Story.begun()
    phone = story.peer("phone")
    for thread in (
        {"id": "x", "ephemeral": True, "threadSource": "user"},
        {"id": "y", "ephemeral": False, "threadSource": "thread_title"},
        {"id": "z", "ephemeral": "thread_title"},
    ):
        story.notifies("thread/started", {"thread": thread})
        assert phone.only("thread/started")["params"]["thread"] == thread


def test_it_is_listed_for_its_own_client_alone() -> None:
    story, a, b = two_tuis()
    for peer, listed in ((a, ["t", "ta"]), (b, ["t", "tb"])):
        peer.asks("thread/loaded/list")
        loaded = {"data": ["t", "ta", "tb"], "nextCursor": None}
        story.answers(story.only("thread/loaded/list"), loaded)
        assert peer.only()["result"] == {"data": listed, "nextCursor": None}


# --- One title for all ----------------------------------------------------------------------------


def mine(message: Json, a: str, b: str) -> Json:
    """A message of ``ta``'s outcome as it is told of ``tb``, its made-up ids taken as known."""
    text = json.dumps(message)
    renamed = text.replace('"ta"', '"tb"').replace(TURN, a).replace(USER_ITEM, b)
    changed: Json = json.loads(renamed)
    return changed


def test_the_second_gets_the_outcome_of_the_first_under_ids_of_its_own() -> None:
    story, a, b = two_tuis()
    asked_a, asked_b = ask(a, "ta"), ask(b, "tb")
    assert len(story.lines) == 1
    run(story, "ta")
    of_a, of_b = a.heard(), b.heard()
    assert (of_a[0]["id"], of_b[0]["id"]) == (asked_a, asked_b)
    assert [each["method"] for each in of_a[1:]] == OUTCOME
    turn = of_b[0]["result"]["turn"]["id"]
    user = of_b[3]["params"]["item"]["id"]
    assert len({turn, user, TURN, USER_ITEM}) == 4
    assert [len(each) for each in (turn, user)] == [36, 36]
    assert of_b[1:] == [mine(each, turn, user) for each in of_a[1:]]
    assert of_b[0]["result"] == mine(of_a[0]["result"], turn, user)
    assert story.written() == []
    # As from the app-server, it can be left and let go.
    b.asks("thread/unsubscribe", {"threadId": "tb"})
    assert b.only()["result"] == {"status": "unsubscribed"}
    assert story.only("thread/unsubscribe")["params"] == {"threadId": "tb"}


def test_what_is_said_in_other_shapes_is_told_all_the_same() -> None:
    story, a, b = two_tuis()
    ask(a, "ta")
    first = story.only("turn/start")
    ask(b, "tb")
    story.answers(first, None)
    story.notifies("item/new", {"threadId": "ta", "turn": "x", "item": ["ta", {"id": "ta"}]})
    story.notifies("turn/completed", {"threadId": "ta", "turn": {"status": "completed"}})
    answer, item, _ = b.heard()
    assert answer["result"] == {}
    assert item["params"] == {"threadId": "tb", "turn": "x", "item": ["ta", {"id": "tb"}]}


def test_one_that_asks_afterwards_gets_it_at_once_and_not_for_ever() -> None:
    story, a, b = two_tuis()
    ask(a, "ta")
    run(story, "ta")
    b.heard()
    ask(b, "tb")
    assert b.heard_methods()[1:] == OUTCOME
    late = story.peer("codex-tui")
    story.follows(late)
    begin(story, late, "tc")
    story.waits(REUSED_FOR + 1)
    story.written()
    ask(late, "tc")
    assert story.only("turn/start")["params"]["threadId"] == "tc"


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_if_the_first_does_not_succeed_the_next_one_runs(status: str) -> None:
    story, a, b = two_tuis()
    c = story.peer("codex-tui")
    story.follows(c)
    begin(story, c, "tc")
    ask(a, "ta")
    asked = ask(b, "tb")
    ask(c, "tc")
    run(story, "ta", status=status)
    assert a.heard()[-1]["params"]["turn"]["status"] == status
    b.heard("thread/status/changed")
    assert story.lines != []
    run(story, "tb", "tb-turn")
    of_b = b.heard()
    assert of_b[0]["id"] == asked
    assert of_b[-1]["params"]["turn"]["id"] == "tb-turn"
    assert c.heard()[-1]["params"]["turn"]["status"] == "completed"
    assert story.written("turn/start") == []


def test_if_the_first_is_refused_the_next_one_runs() -> None:
    story, a, b = two_tuis()
    ask(a, "ta")
    ask(b, "tb")
    story.fails(story.only("turn/start"))
    assert "error" in a.only()
    assert story.only("turn/start")["params"]["threadId"] == "tb"


def test_the_first_may_leave() -> None:
    story, a, b = two_tuis()
    ask(a, "ta")
    ask(b, "tb")
    a.leaves()
    run(story, "ta")
    assert b.heard_methods()[1:] == OUTCOME


def test_who_waits_may_leave_or_want_it_no_more() -> None:
    story, a, b = two_tuis()
    ask(a, "ta")
    first = story.only("turn/start")
    asked = ask(b, "tb")
    b.asks("thread/unsubscribe", {"threadId": "tb"})
    [refused, answer] = b.heard()
    assert refused["id"] == asked
    assert "unsubscribed" in refused["error"]["message"]
    assert answer["result"] == {"status": "unsubscribed"}
    begin(story, b, "tb2")
    ask(b, "tb2")
    b.leaves()
    run(story, "ta", asked=first)
    assert a.heard_methods()[1:] == OUTCOME
    assert story.written("turn/start") == []


def test_who_has_waited_long_enough_runs_after_all() -> None:
    story, a, b = two_tuis()
    ask(a, "ta")
    asked = ask(b, "tb")
    story.waits(LONGEST_WAIT / 2)
    assert story.written("turn/start")[-1]["params"]["threadId"] == "ta"
    story.waits(LONGEST_WAIT / 2 + 1)
    assert story.lines != []
    run(story, "tb", "tb-turn")
    assert b.heard()[0]["id"] == asked


def test_with_the_app_server_gone_each_gets_an_error() -> None:
    story, a, b = two_tuis()
    asked = [ask(a, "ta"), ask(b, "tb")]
    story.exits()
    for peer, id in zip((a, b), asked, strict=True):
        [answer] = [each for each in peer.heard() if each.get("id") == id]
        assert answer["error"]["code"] == -32010


@pytest.mark.parametrize(
    "other",
    [
        {"text": "Title it: another"},
        {"effort": "low"},
        {"clientUserMessageId": "mine"},
        {"outputSchema": {"type": "object"}},
    ],
)
def test_another_wish_is_another_turn(other: Json) -> None:
    story, a, b = two_tuis()
    ask(a, "ta")
    ask(b, "tb", **other)
    assert [each["params"]["threadId"] for each in story.written("turn/start")] == ["ta", "tb"]


def test_strangers_each_have_their_own() -> None:
    """Somebody who follows no thread of theirs learns nothing by asking for the same title."""
    story, a, _b = two_tuis()
    stranger = story.peer("codex-tui")
    begin(story, stranger, "tc")
    ask(a, "ta")
    ask(stranger, "tc")
    assert [each["params"]["threadId"] for each in story.written("turn/start")] == ["ta", "tc"]


def test_a_second_turn_of_a_title_thread_is_its_own() -> None:
    story, a, b = two_tuis()
    ask(a, "ta")
    run(story, "ta")
    ask(b, "tb")
    assert story.written() == []
    ask(b, "tb")
    assert story.only("turn/start")["params"]["threadId"] == "tb"


def test_more_than_anybody_has_run_by_themselves() -> None:
    story, a, _b = two_tuis()
    ask(a, "ta")
    story.written()
    for n in range(MOST_WAITING + 1):
        tui = story.peer("codex-tui")
        story.follows(tui)
        begin(story, tui, f"t{n}")
        ask(tui, f"t{n}")
    assert len(story.written("turn/start")) == 1
