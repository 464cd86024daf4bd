"""Coming back with a cursor: each entry once, in order, then live."""

from __future__ import annotations

from typing import Any

import pytest

from mux.core.state.clients.client import DECIDED
from tests.core.paced import AWARE, EPOCH, PacedStory
from tests.core.stories import (
    APPROVAL,
    DELTA,
    INITIALIZED,
    REFRESH,
    RESOLVED,
    TOOL_CALL,
    Json,
    Peer,
)
from tests.core.test_broker_followers import spawns

LIMITS = {"journal_memory_bytes": 900, "catch_up_bytes": 400}
STATUS = "thread/status/changed"


def followed(*threads: str, **limits: float) -> tuple[PacedStory, Peer]:
    """A story with a client that knows the broker and follows these threads."""
    story = PacedStory.with_disk(**(LIMITS | limits))
    peer = story.peer("phone", **AWARE)
    for thread in threads:
        joins(story, peer, thread)
    peer.heard()
    return story, peer


def joins(story: PacedStory, peer: Peer, thread: str) -> None:
    peer.asks("thread/resume", {"threadId": thread})
    story.loads()


def numbers(messages: list[Json]) -> list[int]:
    return [each["seq"] for each in messages if "seq" in each]


def texts(messages: list[Json]) -> str:
    return "".join(each["params"]["delta"] for each in messages if each.get("method") == DELTA)


def answer(peer: Peer) -> Json:
    """The result of its `mux/replay`, which comes before all that it is told."""
    assert peer.inbox[0]["id"] == "replay"
    return peer.inbox[0]["result"]  # type: ignore[no-any-return]


# ── who knows the broker ──────────────────────────────────────────────────────────────────────


def test_a_relay_is_numbered_and_otherwise_a_client_that_does_not_know_the_broker() -> None:
    story, _ = followed("t")
    relay = story.attach()
    relay.initializes("ide", extensions={"appmux": {"version": 1, "relay": True}})
    assert relay.only()["result"]["appmux"]["seq"] == 0
    joins(story, relay, "t")
    relay.heard()
    story.delta("t")
    assert numbers(relay.heard()) == [1]
    client = story.broker.state.clients[relay.id]
    assert (client.wants_seq, client.knows_extension) == (True, False)
    back = asked(relay, after={"epoch": EPOCH, "seq": 0}, threadIds=["t"])
    assert back["result"]["threads"] == ["t"]
    story.waits(1.0)  # longer than presence is put off
    assert not [each for each in relay.heard() if each.get("method", "").startswith("mux/")]


def test_who_declares_it_is_welcomed_with_its_place() -> None:
    story, _ = followed("t")
    story.delta("t")
    story.delta("t")
    newcomer = story.attach()
    newcomer.initializes("phone", **AWARE)
    assert newcomer.only()["result"]["appmux"] == {
        "version": 1,
        "epoch": EPOCH,
        "seq": 2,
        "began": 0,
        "clientId": newcomer.id,
        "generation": 1,
    }


def test_only_who_declares_it_gets_numbers() -> None:
    story, aware = followed("t")
    plain = story.peer("desk")
    joins(story, plain, "t")
    plain.heard()
    story.delta("t")
    story.delta("t")
    assert numbers(aware.heard()) == [1, 2]
    assert numbers(plain.heard()) == []


def test_the_end_of_a_joining_says_up_to_where_it_brought_the_client() -> None:
    story, first = followed("t", "s")
    story.delta("s")
    story.notifies("item/started", {"threadId": "t", "turnId": "u", "item": {"id": "i"}})
    story.delta("t", "all of it")
    phone = story.peer("phone", **AWARE)
    joins(story, phone, "t")
    told = phone.heard()
    assert [each.get("cursor") for each in told] == [None, None, 3]
    assert texts(told) == "all of it"
    story.delta("t", ", and more")
    assert numbers(phone.heard()) == [4]
    assert numbers(first.heard()) == [1, 2, 3, 4]


def test_threads_that_it_does_not_follow_do_not_move_its_cursor() -> None:
    story, _ = followed("t")
    newcomer = story.peer("phone", **AWARE)
    story.notifies(STATUS, {"threadId": "t", "status": {"type": "active", "activeFlags": []}})
    notice = newcomer.only(STATUS)
    assert "seq" not in notice
    newcomer.asks("mux/replay", {"after": {"epoch": EPOCH, "seq": 0}, "threadId": "t"})
    story.settles()
    assert numbers(newcomer.heard()) == [1]


# ── the way back ──────────────────────────────────────────────────────────────────────────────


def test_it_gets_what_it_missed_and_is_live_again() -> None:
    story, phone = followed("t")
    story.delta("t", "a")
    phone.leaves()
    watcher = story.peer("desk")
    joins(story, watcher, "t")
    for text in "bcd":
        story.delta("t", text)
    back = story.returns("phone", 1, "t")
    story.settles()
    assert answer(back) == {
        "complete": True,
        "epoch": EPOCH,
        "seq": 4,
        "earliest": 0,
        "began": 0,
        "threads": ["t"],
        "missing": [],
    }
    assert texts(back.inbox) == "bcd"
    assert numbers(back.heard()) == [2, 3, 4]
    assert not story.is_behind(back)
    story.delta("t", "e")
    assert numbers(back.heard()) == [5]


def test_merged_it_gets_one_delta_with_the_last_number() -> None:
    story, phone = followed("t")
    for text in "abcd":
        story.delta("t", text)
    phone.leaves()
    back = story.returns("phone", 1, "t", merged=True)
    story.loads()
    story.settles()
    assert texts(back.inbox) == "bcd"
    assert numbers(back.heard()) == [4]


def test_what_it_has_unfollowed_since_stays_so() -> None:
    story, first = followed("s", "t")
    first.leaves()
    story.loads()
    back = story.peer("phone", **AWARE)
    for thread in ("s", "t"):
        joins(story, back, thread)
    back.asks("thread/unsubscribe", {"threadId": "t"})
    story.loads()
    back.heard()
    back.leaves()
    again = story.peer("phone", **AWARE)
    again.asks("mux/replay", {"after": after(0)}, id="replay")
    story.loads()
    assert answer(again)["threads"] == ["s"]


def test_who_has_unfollowed_all_is_given_back_nothing() -> None:
    story, first = followed("s")
    first.leaves()
    story.loads()
    back = story.peer("phone", **AWARE)
    joins(story, back, "s")
    back.asks("thread/unsubscribe", {"threadId": "s"})
    story.loads()
    back.leaves()
    again = story.peer("phone", **AWARE)
    assert asked(again, after=after(0))["result"]["threads"] == []


def running_joined() -> tuple[PacedStory, Peer]:
    """A phone that follows "s" has just joined "t", on which an item runs; the head is 3."""
    story, phone = followed("s")
    desk = story.peer("desk")
    for thread in ("s", "t", "u"):
        joins(story, desk, thread)
    story.delta("s")
    story.notifies("item/started", {"threadId": "t", "turnId": "u", "item": {"id": "i"}})
    story.delta("t", "all of it")
    joins(story, phone, "t")
    return story, phone


@pytest.mark.parametrize("cursor", [1, 3])
def test_one_whose_joining_may_be_lost_joins_again_and_misses_nothing(cursor: int) -> None:
    story, phone = running_joined()
    phone.leaves()
    back = story.peer("phone", **AWARE)
    result = asked(back, after=after(cursor))["result"]
    assert (result["threads"], result["missing"]) == (["s"], ["t"])
    story.drains(back)
    story.delta("t", ", and more")
    assert back.heard() == []
    joins(story, back, "t")
    assert texts(back.heard()) == "all of it, and more"


def test_one_whose_joining_has_come_goes_on() -> None:
    story, phone = running_joined()
    story.delta("t", ", and more")
    story.delta("s")
    phone.leaves()
    back = story.peer("phone", **AWARE)
    result = asked(back, after=after(4))["result"]
    assert (result["threads"], result["missing"]) == (["s", "t"], [])
    story.notifies("item/completed", {"threadId": "t", "turnId": "u", "item": {"id": "i"}})
    story.ends_turn("t", "u")
    story.delta("s")
    back.leaves()
    again = story.peer("phone", **AWARE)
    assert asked(again, after=after(4))["result"]["threads"] == ["s", "t"]
    again.leaves()  # nothing runs: whoever joined at this number has missed nothing
    last = story.peer("phone", **AWARE)
    joins(story, last, "u")
    last.leaves()
    head = story.broker.state.journal.head
    assert "u" in asked(story.peer("phone", **AWARE), after=after(head))["result"]["threads"]


def test_without_a_thread_it_follows_again_what_it_followed() -> None:
    story, phone = followed("t", "s")
    story.peer("someone else")
    phone.leaves()
    assert story.written("thread/unsubscribe")
    back = story.returns("phone", 0)
    assert sorted(story.loads()) == ["s", "t"]
    story.settles()
    assert answer(back)["threads"] == ["s", "t"]
    story.delta("s")
    story.delta("t")
    assert len(back.heard(DELTA)) == 2


@pytest.mark.parametrize("named", [("t",), ()], ids=["named", "not named"])
def test_with_a_thread_it_follows_the_sub_agents_that_it_has_had_since(
    named: tuple[str, ...],
) -> None:
    story, phone = followed("t", journal_memory_bytes=9000)
    story.delta("t", "a")
    desk = story.peer("desk")
    joins(story, desk, "t")
    phone.leaves()
    spawns(story, "t", "child")
    story.begins_turn("child")
    story.asks(0, threadId="child")
    back = story.returns("phone", 1, *named)
    assert story.loads() == []
    story.settles()
    assert answer(back)["threads"] == ["child", "t"]
    assert back.heard_methods()[1:] == ["item/completed", "turn/started", APPROVAL]
    story.resolves(0, "child")
    assert back.heard_methods() == [DECIDED, RESOLVED]


def test_its_connection_before_need_not_be_known_to_be_gone() -> None:
    story, before = followed("t")
    story.delta("t", "a")
    back = story.returns("phone", 0)
    story.settles()
    assert answer(back)["threads"] == ["t"]
    before.leaves()
    story.delta("t", "b")
    assert texts(back.heard()) == "ab"


def test_another_program_is_not_taken_for_it() -> None:
    story, phone = followed("t")
    phone.leaves()
    other = story.returns("tablet", 0)
    assert answer(other)["threads"] == []


def test_what_is_live_before_all_threads_are_loaded_is_not_told_twice() -> None:
    story, phone = followed("t", "s")
    desk = story.peer("desk")
    joins(story, desk, "t")  # so t stays loaded, and s doesn't
    phone.leaves()
    story.delta("t", "a")
    back = story.returns("phone", 0)
    story.delta("t", "b")
    assert back.inbox == [], "nothing before the answer"
    assert story.loads() == ["s"]
    story.settles()
    story.delta("t", "c")
    assert answer(back)["threads"] == ["s", "t"]
    assert texts(back.heard()) == "abc"


def test_a_thread_that_cannot_be_loaded_is_named_as_missing() -> None:
    story, phone = followed("t")
    phone.leaves()
    back = story.returns("phone", 0, "t")
    story.loads(fails=True)
    story.settles()
    assert (answer(back)["threads"], answer(back)["missing"]) == ([], ["t"])


def test_several_threads_may_be_named_and_others_of_the_like_stay_out() -> None:
    """Two programs of one name: neither is given what the other follows."""
    story, phone = followed("t", "s")
    twin = story.peer("phone", **AWARE)
    joins(story, twin, "twin's")
    for thread in ("t", "s", "twin's"):
        story.delta(thread)
    phone.leaves()
    back = story.peer("phone", **AWARE)
    params = {"after": {"epoch": EPOCH, "seq": 0}, "threadIds": ["t", "s"]}
    back.asks("mux/replay", params, id="replay")
    story.loads()
    story.settles()
    assert answer(back)["threads"] == ["s", "t"]
    assert {each["params"]["threadId"] for each in back.inbox[1:]} == {"s", "t"}


def test_one_that_is_closed_while_another_loads_is_missing() -> None:
    story, phone = followed("t", "s")
    desk = story.peer("desk")
    joins(story, desk, "t")
    phone.leaves()
    back = story.returns("phone", 0)
    story.notifies("thread/closed", {"threadId": "t"})
    back.heard()
    story.loads()
    assert (answer(back)["threads"], answer(back)["missing"]) == (["s"], ["t"])


def test_the_app_server_ending_meanwhile_it_waits_for_the_next_one() -> None:
    story, phone = followed("t")
    phone.leaves()
    story.delta("t")
    back = story.returns("phone", 0, "t")
    story.exits()
    assert back.heard() == []
    story.written()
    story.starts(2)
    story.initialized()
    assert story.loads() == ["t"]
    story.settles()
    assert answer(back)["threads"] == ["t"]
    assert numbers(back.heard()) == [1]


def test_the_app_server_ending_for_good_meanwhile_is_told() -> None:
    story, phone = followed("t", deaths_in_a_minute=1)
    phone.leaves()
    back = story.returns("phone", 0, "t")
    story.exits()
    (told,) = (each for each in back.heard() if each.get("id") == "replay")
    assert told["error"]["data"] == {"generation": 1, "retryable": True}


def test_asked_while_no_app_server_is_ready_it_waits_for_the_next_one() -> None:
    """Its threads aren't asked for before the handshake, where that would be refused."""
    story, phone = followed("t", "s")
    joins(story, story.peer("desk"), "t")
    story.delta("t")
    story.exits()
    phone.leaves()
    story.written()
    back = story.returns("phone", 0)
    twice = asked(back, after=after(0))
    assert twice["error"]["message"].endswith("ask again when it is live")
    story.returns("phone", 0).leaves()  # of this nothing is left to wait
    story.starts(2)
    (handshake,) = story.written()
    story.answers(handshake, INITIALIZED)
    assert story.loads() == ["t"], "what the last life had comes first"
    assert story.loads() == ["s"]
    story.settles()
    assert (answer(back)["threads"], answer(back)["missing"]) == (["s", "t"], [])
    assert numbers(back.heard(DELTA)) == [1]
    story.delta("t")
    assert back.heard(DELTA)


def test_without_threads_it_waits_for_no_app_server() -> None:
    story, phone = followed("t")
    phone.leaves()
    story.exits()
    back = story.peer("phone", **AWARE)
    assert asked(back, after=after(0), threadIds=[])["result"]["complete"]
    assert not asked(story.peer("phone", **AWARE), after=after(7, "another"))["result"]["complete"]


def test_it_waits_no_longer_than_any_request() -> None:
    story, phone = followed("t", coming_up=60.0)
    phone.leaves()
    story.exits()
    back = story.returns("phone", 0)
    story.waits(61.0)
    (told,) = (each for each in back.heard() if each.get("id") == "replay")
    assert "did not come up within 60 s" in told["error"]["message"]
    assert told["error"]["data"]["retryable"] is True


def test_while_the_app_server_is_down_it_is_refused() -> None:
    story, phone = followed("t", deaths_in_a_minute=1)
    phone.leaves()
    story.exits()
    assert (
        "the app-server is down"
        in asked(story.peer("phone", **AWARE), after=after(0))["error"]["message"]
    )


def test_what_it_was_told_to_miss_is_not_followed_again_until_it_joins() -> None:
    """It has let go of what it had: followed again, it would never be told what runs."""
    story, phone = followed("t", "s")
    phone.leaves()
    story.written()
    story.returns("phone", 0).leaves()
    back = story.returns("phone", 0)
    story.loads(fails=True)
    assert (answer(back)["threads"], answer(back)["missing"]) == ([], ["s", "t"])
    back.leaves()
    back = story.returns("phone", 0)
    assert story.loads() == []
    assert (answer(back)["threads"], answer(back)["missing"]) == ([], ["s", "t"])
    back.heard()
    story.settles()
    joins(story, back, "t")
    back.leaves()
    back = story.returns("phone", 0)
    story.loads()
    assert (answer(back)["threads"], answer(back)["missing"]) == (["t"], [])


def test_who_leaves_while_its_threads_load_leaves_nothing_behind() -> None:
    story, phone = followed("t")
    phone.leaves()
    story.written()
    story.returns("phone", 0, "t").leaves()
    story.loads()
    assert story.written("thread/unsubscribe"), "the subscription is given back"
    story.delta("t")


# ── server requests ───────────────────────────────────────────────────────────────────────────


def test_an_approval_pending_at_its_return_is_told_once_and_can_be_answered() -> None:
    story, phone = followed("t")
    phone.leaves()
    desk = story.peer("desk")
    joins(story, desk, "t")
    story.asks(0, APPROVAL, threadId="t", itemId="i")
    back = story.returns("phone", 0, "t")
    story.settles()
    (offered,) = back.heard(APPROVAL)
    assert offered["seq"] == 1
    back.answers(offered["id"], {"decision": "accept"})
    assert story.only()["result"] == {"decision": "accept"}
    story.resolves(0)
    assert numbers(back.heard(RESOLVED)) == [3]


def test_one_that_was_over_before_its_return_is_told_with_its_end() -> None:
    story, phone = followed("t")
    phone.leaves()
    desk = story.peer("desk")
    joins(story, desk, "t")
    story.asks(0, APPROVAL, threadId="t", itemId="i")
    story.resolves(0)
    back = story.returns("phone", 0, "t")
    story.settles()
    assert [each.get("method") for each in back.heard()] == [None, APPROVAL, DECIDED, RESOLVED]


def test_one_it_has_from_before_is_not_told_again_and_can_be_answered() -> None:
    story, phone = followed("t")
    desk = story.peer("desk")
    joins(story, desk, "t")
    story.asks(0, APPROVAL, threadId="t", itemId="i")
    id = phone.only(APPROVAL)["id"]
    phone.leaves()
    back = story.returns("phone", 1, "t")
    story.settles()
    assert back.heard(APPROVAL) == []
    back.answers(id, {"decision": "accept"})
    assert story.only()["result"] == {"decision": "accept"}


def test_a_tool_call_of_another_client_is_not_replayed() -> None:
    story = PacedStory.with_disk(**LIMITS)
    owner = story.peer("owner")
    story.creates(owner, "t", dynamicTools=[{"type": "function", "name": "f"}])
    story.asks(0, TOOL_CALL, threadId="t", tool="f", namespace=None)
    story.asks(1, REFRESH)
    assert owner.heard(TOOL_CALL)
    phone = story.returns("phone", 0, "t")
    story.settles()
    assert [each.get("method") for each in phone.heard()] == [None]


# ── where the past ends ───────────────────────────────────────────────────────────────────────


def asked(peer: Peer, **params: Any) -> Json:
    peer.asks("mux/replay", params, id="replay")
    return peer.heard()[0]


def after(seq: int, epoch: str = EPOCH) -> Json:
    return {"epoch": epoch, "seq": seq}


@pytest.mark.parametrize("cursor", [after(4), after(7, "another"), after(13), after(-1)])
def test_a_cursor_that_the_journal_does_not_reach_gets_an_answer_and_nothing_else(
    cursor: Json,
) -> None:
    story, phone = followed("t")
    for _ in range(12):
        story.delta("t")
    phone.leaves()
    story.written()
    story.trimmed = 5
    back = story.peer("phone", **AWARE)
    desk = story.peer("desk", **AWARE)
    joins(story, desk, "t")
    lagging = story.returns("tablet", 0, "t")
    story.settles()  # which finds that the past is trimmed
    assert lagging.closed == [1013]
    told = asked(back, after=cursor, threadId="t")["result"]
    assert told == {
        "complete": False,
        "epoch": EPOCH,
        "seq": 12,
        "earliest": 5,
        "began": 0,
    }
    story.delta("t")
    assert back.heard() == []


@pytest.mark.parametrize("seq", [5, 12])
def test_the_earliest_cursor_and_the_latest_are_good(seq: int) -> None:
    story, phone = followed("t", journal_memory_bytes=10_000)
    for _ in range(12):
        story.delta("t")
    phone.leaves()
    back = story.returns("phone", seq, "t")
    story.loads()
    story.settles()
    assert answer(back)["complete"]
    assert numbers(back.heard()) == list(range(seq + 1, 13))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"after": 5},
        {"after": {"seq": 1}},
        {"after": {"epoch": EPOCH, "seq": "1"}},
        {"after": {"epoch": EPOCH, "seq": 1.5}},
        {"after": after(0), "threadId": 7},
        {"after": after(0), "merged": "yes"},
    ],
)
def test_malformed_params_are_an_error(params: Json) -> None:
    story, phone = followed("t")
    error = asked(phone, **params)["error"]
    assert error["code"] == -32600
    story.delta("t")
    assert numbers(phone.heard()) == [1], "nothing has changed"


def test_who_does_not_know_the_broker_gets_an_error() -> None:
    story, _ = followed("t")
    error = asked(story.peer("tui"), after=after(0))["error"]
    assert "capabilities.extensions.appmux" in error["message"]


def test_one_replay_at_a_time() -> None:
    story, phone = followed("t", "s")
    phone.leaves()
    story.written()
    back = story.returns("phone", 0)
    assert "ask again" in asked(back, after=after(0))["error"]["message"], "while it loads"
    story.loads()
    back.heard()
    story.delta("t")
    story.lags(back)
    back.asks("mux/replay", {"after": after(0)}, id="replay")
    story.settles()
    (told,) = (each for each in back.heard() if each.get("id") == "replay")
    assert "ask again" in told["error"]["message"], "while it is behind"


# ── a broker that was killed ──────────────────────────────────────────────────────────────────


def test_after_a_restart_of_the_broker_the_past_is_on_disk_and_numbers_go_on() -> None:
    before, _ = followed("t", "s")
    for text in "abc":
        before.delta("t", text)
        before.delta("s")
    story = PacedStory.restarted(before)
    back = story.returns("phone", 1, "t")
    story.loads()
    back.asks("model/list", id="list")
    story.answers(story.written("model/list")[0], {"models": []})
    story.settles()
    began = answer(back)["began"]
    told = back.heard()
    assert texts(told) == "bc"
    assert max(numbers(told)) <= began, "what ran then is over"
    assert [each["id"] for each in told if "id" in each] == ["replay", "list"]
    assert not story.is_behind(back)
    story.delta("t", "d")
    assert numbers(back.heard()) == [began + 1]
