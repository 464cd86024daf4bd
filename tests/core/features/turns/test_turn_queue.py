"""Stories of turns asked for while another runs: steered, rejected, queued."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.events import DeviceAccessEnded
from mux.core.features.turns.queue_requests import QUEUE
from mux.core.policy.principal import Principal
from mux.core.protocol.envelope import jsonrpc
from mux.core.state.state import NEVER
from tests.core.stories import Json, Peer, Story

AWARE: Json = {"extensions": {"appmux": {"version": 1}}}
ADA = Principal("phone", "device", device="d1")


def begun(**limits: float) -> tuple[Story, Peer, Peer]:
    """A story in which two clients that know the broker follow `t`."""
    story = Story.begun(probe_interval=NEVER, **limits)
    desk, phone = story.peer("desk", **AWARE), story.peer("phone", ADA, **AWARE)
    for peer in (desk, phone):
        story.follows(peer)
        peer.heard()
    story.written()
    return story, desk, phone


def turn(id: str) -> Json:
    return {"turn": {"id": id, "status": "inProgress", "items": []}}


def says(peer: Peer, text: str = "go", if_busy: object = None, **more: object) -> int:
    """Ask for a turn; the id under which it was asked."""
    params: Json = {"threadId": "t", "input": [{"type": "text", "text": text}], **more}
    if if_busy is not None:
        params["ifBusy"] = if_busy
    return int(peer.asks("turn/start", params))


def starts(story: Story, id: str = "one") -> Json:
    """The app-server begins the turn that it was asked for; what it was asked."""
    asked = story.only("turn/start")
    story.answers(asked, turn(id))
    story.begins_turn("t", id)
    return asked


def ends(story: Story, id: str = "one", status: str = "completed") -> None:
    ended = {"id": id, "status": status, "items": []}
    story.notifies("turn/completed", {"threadId": "t", "turn": ended})


def answer(peer: Peer, id: int) -> Json:
    """The answer that it has had; what else it has heard stays."""
    at = next(at for at, each in enumerate(peer.inbox) if each.get("id") == id)
    return peer.inbox.pop(at)


def changes(peer: Peer) -> list[str]:
    return [each["params"]["change"]["what"] for each in peer.heard(QUEUE)]


def texts(story: Story) -> list[str]:
    """What the app-server was asked to begin since the last look."""
    return [each["params"]["input"][0]["text"] for each in story.written("turn/start")]


# ── steer, and the native way ─────────────────────────────────────────────────────────────────────


def test_of_a_client_that_does_not_know_the_broker_it_is_an_unknown_field() -> None:
    story, desk, _ = begun()
    says(desk)
    starts(story)
    plain = story.peer("plain")
    id = says(plain, if_busy="reject")
    asked = story.only("turn/start")
    assert asked["params"]["ifBusy"] == "reject"
    story.answers(asked, turn("one"))
    assert answer(plain, id)["result"] == turn("one")


def test_a_steer_is_told() -> None:
    story, desk, phone = begun()
    id = says(desk, if_busy="steer")
    assert "ifBusy" not in starts(story)["params"]
    assert answer(desk, id)["result"] == turn("one") | {"appmux": {"steered": False}}
    id = says(phone, if_busy="steer")
    story.answers(story.only("turn/start"), turn("one"))
    assert answer(phone, id)["result"]["appmux"] == {"steered": True}
    id = says(phone, if_busy=None)
    story.answers(story.only("turn/start"), turn("one"))
    assert answer(phone, id)["result"] == turn("one")


def test_of_two_in_one_breath_the_first_one_answered_began_it() -> None:
    story, desk, phone = begun()
    ids = says(desk, if_busy="steer"), says(phone, if_busy="steer")
    for asked in story.written("turn/start"):
        story.answers(asked, turn("one"))
    told = [
        answer(peer, id)["result"]["appmux"] for peer, id in zip((desk, phone), ids, strict=True)
    ]
    assert told == [{"steered": False}, {"steered": True}]


@pytest.mark.parametrize("said", ["wait", 1, {}, ""])
def test_what_it_may_not_say_is_told(said: object) -> None:
    story, desk, _ = begun()
    id = says(desk, if_busy=said)
    assert "`ifBusy`: expected" in answer(desk, id)["error"]["message"]
    assert story.written() == []


# ── reject ────────────────────────────────────────────────────────────────────────────────────────


def test_a_running_turn_rejects_and_says_which() -> None:
    story, desk, phone = begun()
    id = says(desk, if_busy="reject")
    starts(story)
    assert answer(desk, id)["result"]["appmux"] == {"steered": False}
    error = answer(phone, says(phone, if_busy="reject"))["error"]
    assert error["code"] == jsonrpc.BUSY
    by = {"client": desk.id, "name": "desk", "principal": "local"}
    assert error["data"] == {"threadId": "t", "turnId": "one", "startedBy": by}
    assert story.written() == []
    ends(story)
    says(phone, if_busy="reject")
    assert texts(story) == ["go"]


@pytest.mark.parametrize("began", [True, False])
def test_in_the_same_breath_it_waits_for_the_others_answer(began: bool) -> None:
    story, desk, phone = begun()
    says(desk, "first")
    id = says(phone, "second", if_busy="reject")
    first = story.only("turn/start")
    if began:
        story.answers(first, turn("one"))
        assert answer(phone, id)["error"]["data"]["turnId"] == "one"
        assert story.written() == []
    else:
        story.fails(first)
        assert texts(story) == ["second"]


def test_one_that_waits_for_that_and_leaves_asks_nothing() -> None:
    story, desk, phone = begun()
    says(desk, "first")
    says(phone, "second", if_busy="reject")
    phone.leaves()
    story.fails(story.only("turn/start"))
    assert story.written() == []


# ── queue ─────────────────────────────────────────────────────────────────────────────────────────


def test_queued_turns_start_in_order_when_the_one_before_has_completed() -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    ids = says(phone, "a", "queue", model="m"), says(desk, "b", "queue")
    for place, (peer, id) in enumerate(zip((phone, desk), ids, strict=True), 1):
        told = answer(peer, id)["result"]
        assert told == {"appmux": {"queued": {"id": place, "threadId": "t", "place": place}}}
    assert changes(phone) == ["queued", "queued"]
    assert story.written() == []
    desk.heard()
    ends(story)
    asked = starts(story, "two")
    assert asked["params"] == {
        "threadId": "t", "input": [{"type": "text", "text": "a"}], "model": "m",
    }  # fmt: skip
    (told,) = [each["params"] for each in desk.heard(QUEUE)]
    assert (told["change"]["what"], told["change"]["id"]) == ("started", 1)
    assert told["change"]["turn"] == turn("two")["turn"]
    assert [(each["id"], each["place"], each["text"]) for each in told["turns"]] == [(2, 1, "b")]
    ends(story, "two")
    assert texts(story) == ["b"]


def test_on_an_idle_thread_it_starts_at_once() -> None:
    story, desk, _ = begun()
    id = says(desk, if_busy="queue")
    starts(story)
    assert answer(desk, id)["result"]["appmux"] == {"steered": False}
    assert story.broker.state.turn_queues == {}


def test_in_the_same_breath_it_is_queued() -> None:
    story, desk, phone = begun()
    says(desk, "first", if_busy="queue")
    id = says(phone, "second", if_busy="queue")
    assert answer(phone, id)["result"]["appmux"]["queued"]["place"] == 1
    starts(story, "one")
    assert story.written() == []
    ends(story, "one")
    assert texts(story) == ["second"]


def test_what_was_first_fails_so_the_second_starts() -> None:
    story, desk, phone = begun()
    says(desk, "first")
    says(phone, "second", if_busy="queue")
    story.fails(story.only("turn/start"))
    assert texts(story) == ["second"]


def test_between_two_queued_turns_nobody_slips_in() -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    says(phone, "a", "queue")
    ends(story)
    id = says(desk, "b", "queue")
    assert answer(desk, id)["result"]["appmux"]["queued"]["place"] == 1
    assert texts(story) == ["a"]


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_turn_that_does_not_complete_holds_the_queue(status: str) -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    says(phone, "a", "queue")
    phone.heard()
    ends(story, status=status)
    assert story.written() == []
    (told,) = [each["params"] for each in phone.heard(QUEUE)]
    assert (told["held"], told["change"]["what"]) == (status, "held")
    says(desk, "now", "queue")  # nothing runs, so what somebody wants now is begun now
    assert starts(story, "two")["params"]["input"][0]["text"] == "now"
    ends(story, "two")
    assert story.written() == []
    phone.heard()
    phone.asks("mux/queue/start", {"threadId": "t"})
    assert texts(story) == ["a"]
    answer_, released = phone.heard()
    assert answer_["result"] == {"threadId": "t", "turns": 1, "wasHeld": status}
    assert released["params"]["change"]["by"]["name"] == "phone"


def test_one_that_cannot_be_started_is_told_and_holds_the_rest() -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    says(phone, "a", "queue")
    says(phone, "b", "queue")
    ends(story)
    phone.heard()
    story.fails(story.only("turn/start"), message="no such model")
    failed, held = (each["params"] for each in phone.heard(QUEUE))
    assert (failed["change"]["what"], failed["change"]["why"]) == ("failed", "no such model")
    assert held["held"] == "failed"
    assert story.written() == []


def test_one_is_taken_back_by_anybody_who_may_drive() -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    says(phone, "a", "queue", clientUserMessageId="m-1")
    says(phone, "b", "queue")
    desk.heard()
    desk.asks("mux/queue/list")
    (queue,) = desk.only()["result"]["queues"]
    assert [each["clientUserMessageId"] for each in queue["turns"]] == ["m-1", None]
    desk.asks("mux/queue/remove", {"id": 1})
    removed, told = desk.heard()
    assert removed["result"] == {"id": 1, "threadId": "t"}
    assert told["params"]["change"]["by"]["name"] == "desk"
    desk.asks("mux/queue/remove", {"id": 1})
    assert "no such turn is queued" in desk.only()["error"]["message"]
    ends(story)
    assert texts(story) == ["b"]


def test_who_may_only_look_changes_nothing() -> None:
    story, desk, _ = begun()
    says(desk)
    starts(story)
    says(desk, "a", "queue")
    guest = story.peer("guest", Principal("g", "jwt", scopes=frozenset({"observe"})))
    for method, params in (
        ("turn/start", {"threadId": "t", "input": [], "ifBusy": "queue"}),
        ("mux/queue/remove", {"id": 1}),
        ("mux/queue/start", {"threadId": "t"}),
    ):
        guest.asks(method, params)
        assert guest.only()["error"]["data"]["needs"] == "drive"
    guest.asks("mux/queue/list", {"threadId": "t"})
    assert len(guest.only()["result"]["queues"]) == 1
    guest.asks("mux/queue/list", {"threadId": "u"})
    assert guest.only()["result"] == {"queues": []}


def test_a_queued_turn_outlives_its_client_and_keeps_its_thread() -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    says(phone, "a", "queue")
    for peer in (phone, desk):
        peer.leaves()
    ends(story)
    assert starts(story, "two")["params"]["input"][0]["text"] == "a"
    assert story.broker.state.threads.get("t").running.actor.program == "phone"  # type: ignore[union-attr]
    assert story.written("thread/unsubscribe") == []
    ends(story, "two")
    assert len(story.written("thread/unsubscribe")) == 1


def test_what_a_device_has_queued_goes_with_its_access() -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    says(phone, "a", "queue")
    says(desk, "b", "queue")
    phone.leaves()
    desk.heard()
    story.tell(DeviceAccessEnded("d1"))
    assert changes(desk) == ["removed"]
    ends(story)
    assert texts(story) == ["b"]


def test_sent_again_it_is_queued_once() -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    first = answer(phone, says(phone, "a", "queue", clientUserMessageId="m"))
    phone.leaves()
    phone = story.peer("phone", ADA, **AWARE)
    again = answer(phone, says(phone, "a", "queue", clientUserMessageId="m"))
    assert again["result"] == first["result"]
    ends(story)
    starts(story, "two")
    assert answer(phone, says(phone, "a", clientUserMessageId="m"))["result"] == first["result"]
    ends(story, "two")
    assert story.written() == []


def test_it_is_bounded() -> None:
    story, desk, _ = begun(queued_turns=2, queued_turn_bytes=400)
    says(desk)
    starts(story)
    says(desk, "a", "queue")
    error = answer(desk, says(desk, "b" * 400, "queue"))["error"]
    assert (error["code"], error["data"]["queued"]) == (jsonrpc.QUEUE_FULL, 1)
    says(desk, "b", "queue")
    error = answer(desk, says(desk, "c", "queue"))["error"]
    assert error["data"] == {"threadId": "t", "queued": 2, "most": 2}


@pytest.mark.parametrize("end", ["thread/archived", "thread/closed", "thread/deleted"])
def test_with_its_thread_a_queue_is_gone_and_told(end: str) -> None:
    story, desk, _ = begun()
    says(desk)
    starts(story)
    says(desk, "a", "queue")
    desk.heard()
    story.notifies(end, {"threadId": "t"})
    assert changes(desk) == ["lost"]
    ends(story)
    assert story.written("turn/start") == []


# ── the app-server's lives ────────────────────────────────────────────────────────────────────────


def comes_back(story: Story) -> None:
    story.starts(2)
    story.initialized()
    for asked in story.written("thread/resume"):
        story.answers(asked, {"thread": {"id": asked["params"]["threadId"]}})


@pytest.mark.parametrize("followed", [True, False])
def test_a_crash_in_a_turn_holds_what_is_queued_behind_it(followed: bool) -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    says(phone, "a", "queue")
    if not followed:
        desk.leaves()
        phone.leaves()
    story.exits()
    comes_back(story)
    assert story.written("turn/start") == []
    phone = story.peer("phone", ADA, **AWARE)
    phone.asks("mux/queue/list")
    (queue,) = phone.only()["result"]["queues"]
    assert (queue["held"], len(queue["turns"])) == ("appServerEnded", 1)
    phone.asks("mux/queue/start", {"threadId": "t"})
    assert texts(story) == ["a"]


def test_one_that_was_being_started_is_kept() -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    says(phone, "a", "queue")
    ends(story)
    assert texts(story) == ["a"]
    phone.heard()
    story.exits()
    comes_back(story)
    assert story.written("turn/start") == []
    assert changes(phone) == ["held"]
    phone.asks("mux/queue/start", {"threadId": "t"})
    assert texts(story) == ["a"]


def test_over_a_planned_restart_it_goes_on_by_itself() -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    says(phone, "a", "queue")
    desk.asks("mux/restart")
    ends(story)
    assert story.written("turn/start") == []
    story.exits()
    comes_back(story)
    assert texts(story) == ["a"]


def test_a_thread_that_the_next_life_does_not_know_takes_its_queue_along() -> None:
    story, desk, _ = begun()
    says(desk)
    starts(story)
    says(desk, "a", "queue")
    story.exits()
    story.starts(2)
    story.initialized()
    desk.heard()
    story.fails(story.only("thread/resume"))
    assert changes(desk) == ["lost"]
    assert story.broker.state.turn_queues == {}


def test_the_audit_tells_who_queued_what_became_a_turn() -> None:
    story, desk, phone = begun()
    says(desk)
    starts(story)
    story.records.clear()
    says(phone, "a", "queue")
    says(phone, "b", "queue")
    desk.asks("mux/queue/remove", {"id": 2})
    ends(story)
    starts(story, "two")
    told = [(each.kind, each.fields["by"]["name"]) for each in story.records]  # type: ignore[index]
    assert told == [
        ("turn/queued", "phone"), ("turn/queued", "phone"), ("turn/unqueued", "desk"),
        ("turn/asked", "phone"), ("turn/answered", "phone"),
    ]  # fmt: skip


# ── any order of things ───────────────────────────────────────────────────────────────────────────

ACTS = ["queue", "plain", "answer", "fail", "complete", "interrupt", "release", "crash", "leave"]


@given(st.lists(st.sampled_from(ACTS), max_size=25))
def test_none_starts_while_another_runs_and_none_is_lost(acts: list[str]) -> None:
    story, desk, phone = begun()
    running: str | None = None
    queued: list[str] = []
    begun_: list[str] = []
    asked: list[Json] = []
    generation = 1
    for serial, act in enumerate(acts):
        if act == "queue":
            says(phone if phone.id in story.peers else desk, f"q{serial}", "queue")
            queued.append(f"q{serial}")
        elif act == "plain":
            says(desk, f"p{serial}", "reject")
        elif act in ("answer", "fail") and asked:
            one = asked.pop(0)
            text = one["params"]["input"][0]["text"]
            if act == "fail":
                story.fails(one)
                if text in queued:
                    queued.remove(text)
            else:
                assert running is None, "a turn is begun while another runs"
                running = f"turn {serial}"
                story.answers(one, turn(running))
                story.begins_turn("t", running)
                begun_.append(text)
        elif act in ("complete", "interrupt") and running and not asked:
            ends(story, running, "completed" if act == "complete" else "interrupted")
            running = None
        elif act == "release":
            desk.asks("mux/queue/start", {"threadId": "t"})
        elif act == "crash":
            running, asked = None, []
            story.exits()
            generation += 1
            story.starts(generation)
            story.initialized()
            for each in story.written("thread/resume"):
                story.answers(each, {"thread": {"id": "t"}})
        elif act == "leave" and phone.id in story.peers:
            phone.leaves()
        asked += story.written("turn/start")
        assert len(asked) <= 1, "two are begun at once"
    waits = [
        each.params
        for queue in story.broker.state.turn_queues.values()
        for each in (*([queue.starting] if queue.starting else []), *queue.turns)
    ]
    _check_none_is_lost(queued, begun_, waits, asked, "crash" in acts)


def _check_none_is_lost(
    queued: list[str], begun_: list[str], waits: list[bytes], asked: list[Json], crashed: bool
) -> None:
    kept = [text for text in queued if any(f'"{text}"'.encode() in each for each in waits)]
    went = [text for text in begun_ if text in queued]
    assert len(set(went)) == len(went), "begun twice"
    under_way = [each["params"]["input"][0]["text"] for each in asked]
    if not crashed:  # what was asked for directly is lost with its app-server, and answered so
        for text in queued:
            assert text in kept or text in went or text in under_way, f"{text} is lost"
    assert kept == sorted(kept, key=lambda text: int(text[1:])), "out of order"
