"""Stories of threads that the app-server couldn't load again: fresh ones, and ephemeral ones."""

from __future__ import annotations

import pytest

from mux.core.state.state import NEVER
from tests.core.lives import next_life
from tests.core.stories import DELTA, Json, Peer, Story


def given_back(story: Story) -> list[str]:
    return [each["params"]["threadId"] for each in story.written("thread/unsubscribe")]


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
    read = story.only("thread/read")
    assert read["params"] == {"threadId": "t"}
    assert b.heard() == []
    story.answers(read, {"thread": {"id": "t", "ephemeral": True, "turns": []}})
    answer = b.only()
    assert answer["id"] == "r"
    assert answer["result"]["model"] == "m"
    assert answer["result"]["thread"]["id"] == "t"
    story.delta()
    assert b.heard_methods() == [DELTA]


SETTINGS: Json = {
    "cwd": "/elsewhere",
    "approvalPolicy": "never",
    "sandboxPolicy": {"type": "dangerFullAccess"},
    "model": "m2",
    "effort": "low",
    "summary": "auto",
}


def joins(story: Story, peer: Peer, thread: Json | None, *pages: Json, **params: object) -> Json:
    """``thread/resume`` of a thread that only the broker can tell of; the result.

    ``thread``: what is read of it, None for an error; ``pages``: of its source's turns.
    """
    peer.asks("thread/resume", {"threadId": "t"} | params, id="r")
    story.fails(story.written("thread/resume")[-1], message="no rollout found for thread id t")
    read = story.only("thread/read")
    if thread is None:
        story.fails(read)
    else:
        story.answers(read, {"thread": {"id": "t"} | thread})
    for page in pages:
        listed = story.only("thread/turns/list")
        assert listed["params"]["threadId"] == "source"
        if "data" in page:
            story.answers(listed, page)
        else:
            story.fails(listed)
    assert story.written() == []
    (answer,) = [each for each in peer.heard() if each.get("id") == "r"]
    return answer["result"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("ephemeral", [False, True], ids=["fresh", "ephemeral"])
def test_a_joiner_is_told_what_holds_now_not_what_the_thread_was_started_with(
    ephemeral: bool,
) -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    a.asks("thread/start", {})
    thread: Json = {"id": "t", "ephemeral": ephemeral, "cwd": "/srv", "model": "m", "turns": []}
    first: Json = {"approvalPolicy": "on-request", "sandbox": {"type": "readOnly"}, "cwd": "/srv"}
    first |= {"model": "m", "reasoningEffort": None, "runtimeWorkspaceRoots": ["/srv"]}
    story.answers(story.only("thread/start"), first | {"thread": thread})
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": SETTINGS})
    now = thread | {"cwd": "/elsewhere", "model": "m2", "name": "N"}
    now["environments"] = [{"environmentId": "local", "runtimeWorkspaceRoots": ["/a", "/b"]}]
    told = joins(story, b, now)
    shown = {"preview": "", "status": {"type": "unknown"}, "reasoningEffort": "low"}
    assert told["thread"] == now | shown
    assert (told["approvalPolicy"], told["sandbox"]) == ("never", SETTINGS["sandboxPolicy"])
    assert (told["cwd"], told["model"], told["reasoningEffort"]) == ("/elsewhere", "m2", "low")
    assert told["runtimeWorkspaceRoots"] == ["/a", "/b"]
    assert "summary" not in told


def test_if_it_can_not_be_read_its_settings_still_hold() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    ephemeral(story, a)
    story.notifies("thread/settings/updated", {"threadId": "t", "threadSettings": SETTINGS})
    told = joins(story, b, None)
    assert (told["cwd"], told["thread"]["cwd"]) == ("/elsewhere", "/elsewhere")
    assert told["approvalPolicy"] == "never"


def test_its_preview_is_its_users_first_words() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    ephemeral(story, a)
    for words in ("first", "second"):
        story.begins_turn()
        content = [{"type": "text", "text": f"{words} "}, {"type": "image"}, {"text": "words"}]
        item = {"type": "userMessage", "id": words, "content": content}
        story.notifies("item/completed", {"threadId": "t", "turnId": "t-turn", "item": item})
        story.ends_turn()
    assert joins(story, b, {"preview": ""})["thread"]["preview"] == "first words"


def test_one_that_is_closed_while_it_is_read_is_not_joined() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    ephemeral(story, a)
    b.asks("thread/resume", {"threadId": "t"}, id="r")
    story.fails(story.only("thread/resume"), message="no rollout found for thread id t")
    read = story.only("thread/read")
    story.notifies("thread/closed", {"threadId": "t"})
    story.fails(read)
    assert [each["error"]["message"] for each in b.heard() if "error" in each] == [
        "no rollout found for thread id t"
    ]


def test_who_waits_for_the_reading_is_answered_though_the_app_server_ends() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    ephemeral(story, a)
    b.asks("thread/resume", {"threadId": "t"}, id="r")
    story.fails(story.only("thread/resume"), message="no rollout found for thread id t")
    story.exits()
    (answer,) = [each for each in b.heard() if each.get("id") == "r"]
    assert answer["error"]["code"] == -32010
    assert next_life(story) == []


def test_one_that_unsubscribes_while_it_is_read_follows_nothing() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    ephemeral(story, a)
    b.asks("thread/resume", {"threadId": "t"}, id="r")
    story.fails(story.only("thread/resume"), message="no rollout found for thread id t")
    b.asks("thread/unsubscribe", {"threadId": "t"}, id="u")
    story.answers(story.only("thread/read"), {"thread": {"id": "t"}})
    assert b.heard_methods() == ["u", "r"]
    story.delta()
    assert b.heard() == []


# ── ephemeral forks ───────────────────────────────────────────────────────────────────────────────


def turn(id: str, status: str = "completed") -> Json:
    return {"id": id, "status": status, "items": [{"id": f"{id}-item"}]}


def forked(story: Story, peer: Peer, **params: object) -> None:
    """An ephemeral fork, ``t``, as natively told: without the turns that it has."""
    peer.asks("thread/fork", {"threadId": "source", "ephemeral": True} | params)
    thread: Json = {"id": "t", "forkedFromId": "source", "ephemeral": True, "turns": []}
    story.answers(story.only("thread/fork"), {"thread": thread})
    peer.heard()


def turns_of(result: Json) -> list[tuple[str, str]]:
    return [(each["id"], each["status"]) for each in result["thread"]["turns"]]


# In the order of their ids, which are UUIDs that begin with the moment: older ones, the fork `t`,
# and one that its source has had since. The latest stand first, as they are listed.
SOURCE = [turn("u4"), turn("s3", "inProgress"), turn("s2"), turn("s1")]


@pytest.mark.parametrize(
    ("params", "inherited"),
    [
        ({}, [("s1", "completed"), ("s2", "completed"), ("s3", "interrupted")]),
        ({"lastTurnId": "s2"}, [("s1", "completed"), ("s2", "completed")]),
        ({"beforeTurnId": "s2"}, [("s1", "completed")]),
        ({"beforeTurnId": "s1"}, []),
    ],
    ids=["whole", "through", "before", "before all"],
)
def test_the_joiner_of_an_ephemeral_fork_gets_what_it_has_from_its_source(
    params: Json, inherited: list[tuple[str, str]]
) -> None:
    story = Story.begun()
    a, b, c = (story.peer(name) for name in "abc")
    forked(story, a, **params)
    story.begins_turn(id="v1")
    story.ends_turn(id="v1")
    pages: list[Json] = [
        {"data": SOURCE[:2], "nextCursor": "2"},
        {"data": SOURCE[2:], "nextCursor": None},
    ]
    told = joins(story, b, {}, *pages)
    assert turns_of(told) == [*inherited, ("v1", "completed")]
    items = {each["id"]: each["items"] for each in told["thread"]["turns"]}
    assert [items[id] for id, _ in inherited] == [[{"id": f"{id}-item"}] for id, _ in inherited]
    assert turns_of(joins(story, c, {})) == turns_of(told)  # it isn't asked for twice


def test_one_that_wants_no_turns_has_nobody_asked_for_them() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    forked(story, a)
    assert turns_of(joins(story, b, {}, excludeTurns=True)) == []


def test_what_the_source_does_not_tell_is_missing_and_asked_for_again() -> None:
    story = Story.begun()
    a, b, c = (story.peer(name) for name in "abc")
    forked(story, a)
    assert turns_of(joins(story, b, {}, {})) == []
    assert any("from its source" in each.event for each in story.logs)
    assert len(turns_of(joins(story, c, {}, {"data": SOURCE}))) == 3


# ── forks on disk ─────────────────────────────────────────────────────────────────────────────────


def test_a_fork_without_its_turns_is_on_disk_and_loaded_by_the_next_life() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("thread/fork", {"threadId": "source", "excludeTurns": True})
    thread: Json = {"id": "t", "forkedFromId": "source", "ephemeral": False, "turns": []}
    story.answers(story.only("thread/fork"), {"thread": thread})
    a.heard()
    story.exits()
    assert a.heard() == []
    (resumed,) = next_life(story)
    assert (resumed["method"], resumed["params"]["threadId"]) == ("thread/resume", "t")
