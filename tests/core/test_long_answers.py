"""Long answers come in pieces and pass in pieces: to whom, under which id, and what is read."""

from __future__ import annotations

from typing import Any

import pytest

from mux.core.events import ClientLags
from mux.core.protocol.envelope import jsonrpc, long_line
from tests.core.paced import PacedStory
from tests.core.stories import DELTA, LOCAL, Json, Peer, Story, dumps

THREAD = "t1"
LONG = "x" * 4_000
KNOWS: Any = {"extensions": {"appmux": {"version": 1}}}


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is read whole of the app-server's answers and requests."""
    monkeypatch.setattr(long_line, "END_BYTES", 1_000)
    read: list[int] = []
    really = jsonrpc.read_upstream

    def counting(line: bytes) -> Any:
        if len(line) > 400:  # less is what the broker asks itself
            read.append(len(line))
        return really(line)

    monkeypatch.setattr(jsonrpc, "read_upstream", counting)
    return read


def in_pieces(**limits: float) -> Story:
    story = Story.begun(**limits)
    story.pieces = 100
    return story


def snapshot(*turns: str, id: str = THREAD, **thread: Any) -> Json:
    """The result of a request that follows the thread, with its turns."""
    shown = [
        {
            "id": each,
            "rootTurnId": each,
            "items": [{"type": "agentMessage", "id": "m", "text": LONG}],
            "itemsView": "full",
            "status": "completed",
        }
        for each in turns
    ]
    named = {"id": id, "name": "Mine", "status": {"type": "idle"}, "cwd": "/w", **thread}
    return {"thread": named | {"turns": shown}, "model": "m", "cwd": "/w"}


def notifies(story: Story, method: str, **params: Any) -> None:
    story.says(dumps({"method": method, "params": params}))


def joins(story: Story, name: str, *turns: str, **capabilities: Any) -> tuple[Peer, Json]:
    """A client that resumes the thread, and what it was answered."""
    peer = story.peer(name, **capabilities)
    id = peer.asks("thread/resume", {"threadId": THREAD})
    story.answers(story.written("thread/resume")[-1], snapshot(*turns))
    (answer,) = [each for each in peer.heard() if each.get("id") == id]
    return peer, answer


def test_a_result_that_nobody_reads_passes_under_its_askers_id(whole: list[int]) -> None:
    story = in_pieces()
    peer = story.peer()
    for method in ("fs/readFile", "thread/read", "thread/turns/list"):
        peer.asks(method, {"path": "/f", "threadId": THREAD}, id="of my own")
        asked = story.only(method)
        result = {"dataBase64": LONG, "id": asked["id"], "threadId": THREAD}
        story.answers(asked, result)
        assert peer.only() == {"id": "of my own", "result": result}
    assert whole == []


def test_a_long_answer_is_a_sign_of_life() -> None:
    story = in_pieces()
    peer = story.peer()
    peer.asks("fs/readFile", {"path": "/f"})
    story.now += 7.0
    story.answers(story.only("fs/readFile"), {"dataBase64": LONG})
    assert story.broker.state.appserver.last_heard == story.now


def test_one_joins_an_idle_thread_by_its_snapshot(whole: list[int]) -> None:
    story = in_pieces()
    peer, answer = joins(story, "a", "u1", "u2")
    assert answer["result"] == snapshot("u1", "u2")
    notifies(story, "turn/started", threadId=THREAD, turn={"id": "u3", "items": []})
    assert peer.heard_methods() == ["turn/started"]
    assert whole == []


def test_of_a_thread_that_runs_a_joiner_gets_what_is_known_and_then_what_runs(
    whole: list[int],
) -> None:
    story = in_pieces()
    joins(story, "a", "u1")
    status = {"type": "active", "activeFlags": []}
    notifies(story, "thread/status/changed", threadId=THREAD, status=status)
    turn = {"id": "u2", "rootTurnId": "u2", "items": [], "status": "inProgress"}
    notifies(story, "turn/started", threadId=THREAD, turn=turn)
    done = {"type": "agentMessage", "id": "d", "text": "done"}
    notifies(story, "item/completed", threadId=THREAD, turnId="u2", item=done)
    runs = {"type": "agentMessage", "id": "r", "text": ""}
    notifies(story, "item/started", threadId=THREAD, turnId="u2", item=runs)
    notifies(story, DELTA, threadId=THREAD, turnId="u2", itemId="r", delta="so far")
    late = story.peer("late")
    late.asks("thread/resume", {"threadId": THREAD})
    story.answers(story.written("thread/resume")[-1], snapshot("u1", "u2"))
    answer, *rest = late.heard()
    thread = answer["result"]["thread"]
    assert thread["status"] == status
    assert [each["id"] for each in thread["turns"]] == ["u1", "u2"]
    assert thread["turns"][0] == snapshot("u1")["thread"]["turns"][0]
    assert thread["turns"][1]["items"] == [done]
    assert [each["method"] for each in rest] == ["item/started", DELTA]
    assert whole == []


def test_a_fork_passes_and_its_turns_are_not_kept(whole: list[int]) -> None:
    story = in_pieces()
    peer = story.peer()
    peer.asks("thread/fork", {"threadId": "source"}, id=9)
    forked = snapshot("u1", "u2", forkedFromId="source", ephemeral=False)
    story.answers(story.only("thread/fork"), forked)
    assert peer.only() == {"id": 9, "result": forked}
    known = story.broker.state.threads.known[THREAD]
    assert (list(known.followers), known.name) == ([peer.id], "Mine")
    assert known.unsaved is None
    assert whole == []


def test_a_short_forks_turns_are_not_kept_either() -> None:
    story = Story.begun()
    story.peer().asks("thread/fork", {"threadId": "source"})
    story.answers(story.only("thread/fork"), snapshot("u1", forkedFromId="source", ephemeral=False))
    assert story.broker.state.threads.known[THREAD].unsaved is None


def test_one_that_knows_the_broker_has_its_cursor_in_front() -> None:
    story = in_pieces()
    joins(story, "a", "u1")
    notifies(story, "turn/started", threadId=THREAD, turn={"id": "u2", "items": []})
    _, answer = joins(story, "b", "u1", **KNOWS)
    assert answer["cursor"] == story.broker.state.journal.head > 0


def test_one_that_is_behind_gets_it_in_its_place() -> None:
    story = PacedStory.with_disk()
    peer, _ = joins(story, "a", "u1")
    story.tell(ClientLags(peer.id))
    notifies(story, "turn/started", threadId=THREAD, turn={"id": "u2", "items": []})
    story.pieces = 100
    peer.asks("fs/readFile", {"path": "/f"}, id=5)
    story.answers(story.written("fs/readFile")[-1], {"dataBase64": LONG})
    story.settles()
    heard = peer.heard()
    assert [each.get("method") or each["id"] for each in heard] == ["turn/started", 5]


def test_if_its_asker_has_left_nobody_gets_it_and_the_thread_is_given_back(
    whole: list[int],
) -> None:
    story = in_pieces()
    peer = story.peer()
    peer.asks("thread/resume", {"threadId": THREAD})
    asked = story.only("thread/resume")
    peer.leaves()
    story.answers(asked, snapshot("u1"))
    assert story.only("thread/unsubscribe")["params"]["threadId"] == THREAD
    assert whole == []


def test_what_must_be_read_is_read_whole(whole: list[int]) -> None:
    """An answer of which its client may see a part only, and one that fails."""
    story = in_pieces()
    viewer = story.peer("viewer", LOCAL)
    viewer.asks("thread/loaded/list", id=1)
    story.answers(story.only("thread/loaded/list"), {"data": ["x" * 400]})
    assert viewer.only() == {"id": 1, "result": {"data": ["x" * 400]}}
    viewer.asks("thread/resume", {"threadId": THREAD}, id=2)
    story.fails(story.only("thread/resume"), message="y" * 2_000)
    assert viewer.only()["error"]["message"] == "y" * 2_000
    assert len(whole) == 2


def test_another_line_than_an_answer_is_read_whole(whole: list[int]) -> None:
    story = in_pieces()
    peer, _ = joins(story, "a", "u1")
    item = {"type": "commandExecution", "id": "c", "aggregatedOutput": LONG}
    line = b'{"id":7,"method":"item/tool/call","params":{"threadId":"t1","callId":"%b"}}'
    story.says(line % (b"c" * 400))
    assert [each.get("method") for each in peer.heard()] == ["item/tool/call"]
    notifies(story, "item/completed", threadId=THREAD, turnId="u2", item=item)
    assert peer.only()["params"]["item"] == item
    assert len(whole) == 2
