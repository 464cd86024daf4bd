"""A broker is killed in the middle of everything; what the next one does, and what it knows."""

from __future__ import annotations

from typing import Any

import pytest

from mux.core.commands import Command, Forward, KillUpstream, Publish, SaveState, StartUpstream
from mux.core.events import ClientSent, UpstreamSent
from mux.core.limits import Limits
from mux.core.policy.approval_policy import Policies
from mux.core.policy.principal import Principal
from tests.core.stories import (
    APPROVAL,
    DELTA,
    LOCAL,
    TOOL_CALL,
    Json,
    Peer,
    Story,
    dumps,
    offered,
)

AWARE: Json = {"extensions": {"appmux": {"version": 1}}}
ADA = Principal("ada", "jwt")


def begun(policies: Policies | None = None, **limits: float) -> Story:
    story = Story(Limits(**limits), policies or Policies(), durable=True)  # type: ignore[arg-type]
    story.starts()
    story.initialized()
    story.written()
    return story


def words(text: str) -> list[Json]:
    return [{"type": "text", "text": text}]


def starts_turn(peer: Peer, text: str = "go", **more: Any) -> Any:
    return peer.asks("turn/start", {"threadId": "t", "input": words(text), **more})


def answers_turn(story: Story, turn: str = "t-turn") -> None:
    asked = story.only("turn/start")
    story.answers(asked, {"turn": {"id": turn, "status": "inProgress", "items": []}})


def says(story: Story, text: str) -> None:
    story.notifies(DELTA, {"threadId": "t", "turnId": "t-turn", "itemId": "i", "delta": text})


def test_the_handshake_isnt_done_again_and_clients_are_welcomed_at_once() -> None:
    story = begun()
    story.hands_over()
    assert [each["method"] for each in story.written()] == ["thread/loaded/list"]
    peer = story.attach()
    peer.initializes("one")
    [hello] = peer.heard()[:1]
    assert hello["result"]["userAgent"].startswith("appmux/0.163.0")


def test_what_asked_before_it_is_ready_waits() -> None:
    story = begun()
    story.hands_over()
    loaded = story.only("thread/loaded/list")
    peer = story.peer()
    peer.asks("thread/list")
    assert story.written() == []
    story.answers(loaded, {"data": []})
    assert [each["method"] for each in story.written()] == ["thread/list"]


def test_no_wire_id_and_no_client_number_comes_twice() -> None:
    story = begun()
    peer = story.peer()
    peer.asks("thread/list")
    used = [each["id"] for each in story.written()]
    story.handed_over()
    peer = story.peer()
    peer.asks("thread/list")
    assert min(each["id"] for each in story.written()) > max(used)
    assert peer.id > 1


def test_an_answer_to_a_request_of_the_dead_broker_is_nobodys() -> None:
    story = begun()
    story.peer().asks("thread/list")
    [asked] = story.written()
    story.handed_over()
    peer = story.peer()
    story.answers(asked, {"data": []})
    assert peer.heard() == []


def test_a_joiner_gets_all_that_has_streamed() -> None:
    story = begun()
    peer = story.peer()
    story.follows(peer)
    starts_turn(peer)
    answers_turn(story)
    story.begins_turn()
    item = {"id": "i", "type": "agentMessage", "text": ""}
    story.notifies("item/started", {"threadId": "t", "turnId": "t-turn", "item": item})
    says(story, "one ")
    story.handed_over("t")
    says(story, "two ")
    again = story.peer()
    story.follows(again)
    shown = [each for each in again.heard() if each.get("method") in ("item/started", DELTA)]
    assert [each["method"] for each in shown] == ["item/started", DELTA]
    assert shown[1]["params"]["delta"] == "one two "
    story.ends_turn()
    assert again.heard("turn/completed")


def test_an_approval_keeps_its_id_and_is_answered_once() -> None:
    story = begun()
    peer = story.peer()
    story.follows(peer)
    starts_turn(peer)
    answers_turn(story)
    story.begins_turn()
    story.asks(0, threadId="t", turnId="t-turn", command="ls")
    before = offered(peer)
    story.handed_over("t")
    story.asks(0, threadId="t", turnId="t-turn", command="ls")  # as its resume makes it do
    again = story.peer()
    story.follows(again)
    story.written()
    assert offered(again) == before
    again.answers(before["id"], {"decision": "accept"})
    [answer] = story.written()
    assert answer == {"id": 0, "result": {"decision": "accept"}}
    story.resolves(0)
    assert story.saved.keys().isdisjoint({f"request/{before['id']}"})


def test_a_vote_counts_on() -> None:
    story = begun(Policies("quorum", quorum=2))
    peer = story.peer()
    story.follows(peer)
    story.asks(0, threadId="t", turnId="t-turn", command="ls")
    peer.answers(offered(peer)["id"], {"decision": "accept"})
    assert story.written() == []
    story.handed_over("t")
    ada = story.peer("phone", ADA)
    story.follows(ada)
    story.written()
    ada.answers(offered(ada)["id"], {"decision": "accept"})
    [answer] = story.written()
    assert answer["result"] == {"decision": "accept"}


def test_a_queue_goes_on_when_its_turn_is_over() -> None:
    story = begun()
    peer = story.peer("desk", **AWARE)
    story.follows(peer)
    starts_turn(peer)
    answers_turn(story)
    story.begins_turn()
    starts_turn(peer, "next", ifBusy="queue")
    story.handed_over("t")
    assert story.written("turn/start") == []
    story.notifies("thread/status/changed", {"threadId": "t", "status": {"type": "idle"}})
    story.ends_turn()
    [asked] = story.written("turn/start")
    assert asked["params"]["input"] == words("next")
    story.answers(asked, {"turn": {"id": "u2", "status": "inProgress", "items": []}})
    assert not [key for key in story.saved if key.startswith("queue/")]


def test_a_queued_turn_that_was_starting_is_started_once() -> None:
    """Its answer comes to the next broker."""
    story = begun()
    peer = story.peer("desk", **AWARE)
    story.follows(peer)
    story.begins_turn()
    starts_turn(peer, "next", ifBusy="queue")
    story.ends_turn()
    asked = story.only("turn/start")
    story.hands_over()
    loaded = story.only("thread/loaded/list")
    story.answers(asked, {"turn": {"id": "u2", "status": "inProgress", "items": []}})
    story.answers(loaded, {"data": ["t"]})
    [resume] = story.written("thread/resume")
    story.answers(resume, {"thread": {"id": "t", "status": {"type": "active"}}})
    assert story.written("turn/start") == []


@pytest.mark.parametrize("arrived", [True, False])
def test_a_message_whose_answer_is_lost_is_settled_by_its_threads_turns(arrived: bool) -> None:
    story = begun()
    peer = story.peer("phone")
    story.follows(peer)
    starts_turn(peer, "hi", clientUserMessageId="m1")
    assert story.only("turn/start")
    story.hands_over()
    story.answers(story.only("thread/loaded/list"), {"data": ["t"]})
    [resume] = story.written("thread/resume")
    story.answers(resume, {"thread": {"id": "t", "status": {"type": "idle"}}})
    again = story.peer("phone")
    id = starts_turn(again, "hi", clientUserMessageId="m1")
    [listing] = story.written()
    assert listing["method"] == "thread/turns/list"
    turn: Json = {"id": "u1", "status": "completed", "items": []}
    message = {"type": "userMessage", "id": "x", "clientId": "m1", "content": words("hi")}
    if arrived:
        turn["items"] = [message]
    story.answers(listing, {"data": [turn]})
    if arrived:
        [answer] = [each for each in again.heard() if each.get("id") == id]
        assert answer["result"]["turn"]["id"] == "u1"
        assert story.written("turn/start") == []
    else:
        [answer] = [each for each in again.heard() if each.get("id") == id]
        assert answer["error"]["code"] == -32010
        starts_turn(again, "hi", clientUserMessageId="m1")
        assert len(story.written("turn/start")) == 1


def test_what_a_lost_connection_had_running_is_ended() -> None:
    story = begun()
    peer = story.peer()
    peer.asks("fs/watch", {"watchId": "w", "path": "/x"})
    story.answers(story.only("fs/watch"), {"path": "/x"})
    story.hands_over()
    [unwatch] = story.written("fs/unwatch")
    assert unwatch["params"] == {"watchId": f"{peer.id}:w"}
    assert not [key for key in story.saved if key.startswith("claim/")]


def test_a_thread_that_was_unloaded_meanwhile_is_gone() -> None:
    story = begun()
    story.follows(story.peer())
    story.handed_over()
    assert "t" not in story.broker.state.threads.known


def test_nobody_comes_back_and_the_thread_is_given_back() -> None:
    story = begun()
    peer = story.peer()
    story.follows(peer)
    story.handed_over("t")
    story.written()
    story.waits(story.limits.kept_for_return - 1)
    assert story.written("thread/unsubscribe") == []
    story.waits(2)
    assert len(story.written("thread/unsubscribe")) == 1


def test_who_comes_back_gets_what_it_followed_without_naming_it() -> None:
    story = begun()
    peer = story.peer("phone", **AWARE)
    story.follows(peer)
    story.notifies("thread/name/updated", {"threadId": "t", "threadName": "before"})
    story.handed_over("t")
    story.handed_over("t")
    again = story.broker.state.clients[story.peer("phone", **AWARE).id]
    assert story.broker.state.departed_clients.followed_before(again) == {"t": 0}


def test_a_tool_call_is_for_its_program_alone_and_it_has_a_moment() -> None:
    story = begun()
    peer = story.peer("tools")
    story.creates(peer, dynamicTools=[{"name": "look"}])
    story.asks(0, TOOL_CALL, threadId="t", turnId="u", callId="c", tool="look")
    story.handed_over("t")
    other = story.peer("phone")
    story.follows(other)
    assert [each for each in other.heard() if each.get("method") == TOOL_CALL] == []
    story.written()
    story.waits(story.limits.one_client_deadline + 1)
    [answer] = story.written()
    assert answer["result"]["success"] is False


def test_an_app_server_that_says_nothing_is_killed_and_another_one_started() -> None:
    story = begun()
    story.hands_over()
    story.waits(11)
    assert any(isinstance(each, KillUpstream) for each in story.lives)
    story.exits("killed")
    assert any(isinstance(each, StartUpstream) for each in story.lives)
    assert not story.given_up


def test_one_whose_handshake_wasnt_done_is_killed_and_another_one_started() -> None:
    story = Story(durable=True)
    story.starts()
    story.hands_over()
    assert any(isinstance(each, KillUpstream) for each in story.lives)
    story.exits("killed")
    assert any(isinstance(each, StartUpstream) for each in story.lives)
    assert not story.given_up


def test_saved_values_come_before_what_follows_from_them() -> None:
    story = begun()
    peer = story.peer("phone")
    story.follows(peer)
    asked = {"threadId": "t", "input": words("hi"), "clientUserMessageId": "m1"}
    text = dumps({"id": 77, "method": "turn/start", "params": asked})
    commands = story.broker.handle(ClientSent(peer.id, text), story.now)
    assert _saves_first(commands)
    line = dumps({"method": APPROVAL, "id": 0, "params": {"threadId": "t", "turnId": "u"}})
    commands = story.broker.handle(UpstreamSent(line), story.now)
    assert _saves_first(commands)


def _saves_first(commands: list[Command]) -> bool:
    saves = [at for at, each in enumerate(commands) if isinstance(each, SaveState)]
    goes_out = [at for at, each in enumerate(commands) if isinstance(each, Forward | Publish)]
    return bool(saves) and bool(goes_out) and max(saves) < min(goes_out)


def test_killed_twice_in_a_row_nothing_is_lost() -> None:
    story = begun()
    peer = story.peer()
    story.follows(peer)
    starts_turn(peer)
    answers_turn(story)
    story.begins_turn()
    story.asks(0, threadId="t", turnId="t-turn", command="ls")
    before = offered(peer)
    story.hands_over()
    story.handed_over("t")
    again = story.peer("other", LOCAL)
    story.follows(again)
    assert offered(again) == before


@pytest.mark.parametrize("dies", [False, True])
def test_a_turn_that_is_only_answered_runs_whatever_ran_before_it(dies: bool) -> None:
    """Its first line hasn't come; the entries of the turn before it are read back, too."""
    story = begun()
    peer = story.attach()
    peer.initializes("one", **AWARE)
    story.follows(peer)
    starts_turn(peer)
    answers_turn(story, "before")
    story.begins_turn(id="before")
    story.ends_turn(id="before")
    starts_turn(peer)
    answers_turn(story)
    starts_turn(peer, "later", ifBusy="queue")
    if dies:
        story.hands_over()
        story.exits()
        [queue] = story.broker.state.turn_queues.values()
        assert queue.held == "appServerEnded"
        ended = [each.message for each in story.entries if each.method == "turn/completed"]
        assert [b'"interrupted"' in each for each in ended] == [False, True]
    else:
        story.handed_over("t")
        assert story.written("turn/start") == [], "the queued turn waits"
        story.begins_turn()
        story.notifies("thread/status/changed", {"threadId": "t", "status": {"type": "idle"}})
        story.ends_turn()
        assert story.only("turn/start")["params"]["input"] == words("later")
