"""Deltas that come as one to clients that want it so, and to paired devices; nothing else waits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mux.core.policy.principal import Principal
from mux.core.protocol.journal_entry import LARGE_DELTA
from mux.core.state.clients.coalescing import RUN_BYTES
from tests.core.features.subscriptions.test_replay import STATUS, followed, joins, numbers, texts
from tests.core.paced import AWARE, PacedStory
from tests.core.stories import APPROVAL, DELTA, LOCAL, Json, Peer, Story

DEVICE = Principal("Ada's phone", "device", device="8c1f")
WINDOW = 0.05


def coalescing(milliseconds: object = 50) -> Json:
    return {"extensions": {"appmux": {"version": 1, "coalesce": milliseconds}}}


def followers(*, first: Json | None = None, device: bool = False) -> tuple[Story, Peer, Peer]:
    """A story with a client that coalesces as it is told, and one that doesn't."""
    story = Story.begun()
    late = story.peer("late", DEVICE if device else LOCAL, **(first or {}))
    plain = story.peer("plain")
    for peer in (late, plain):
        story.follows(peer)
    calm(story, late, plain)
    return story, late, plain


def calm(story: Story, *peers: Peer) -> None:
    """Let them hear who is here, which comes a moment later."""
    story.waits(2.0)
    for peer in peers:
        peer.heard()


def test_consecutive_deltas_come_as_one_after_the_window() -> None:
    story, late, plain = followers(first=coalescing(80))
    for text in ("a", "b", "c"):
        story.delta(text=text)
        story.waits(0.02)
    assert texts(plain.heard()) == "abc"
    assert late.heard() == []
    story.waits(0.03)
    merged = late.only(DELTA)
    assert merged["params"] == {"threadId": "t", "turnId": "u", "itemId": "i", "delta": "abc"}
    assert merged["seq"] == story.broker.state.journal.head
    story.waits(1.0)
    assert late.heard() == []


def test_whatever_else_comes_sends_what_waits_before_itself() -> None:
    story, late, plain = followers(first=coalescing())
    story.delta(text="a")
    story.delta(text="b")
    story.notifies(STATUS, {"threadId": "t", "status": {"type": "idle"}})
    assert [each["method"] for each in late.inbox] == [DELTA, STATUS]
    assert numbers(late.heard()) == [2, 3]
    assert len(plain.heard()) == 3


@pytest.mark.parametrize("other", ["answer", "approval", "to all", "another thread's delta"])
def test_nothing_overtakes_a_delta(other: str) -> None:
    story, late, _ = followers(first=coalescing())
    story.follows(late, "s")
    calm(story, late)
    story.delta(text="a")
    match other:
        case "answer":
            late.asks("no/such/method/of/mux", id="last")
            story.fails(story.only("no/such/method/of/mux"))
        case "approval":
            story.asks(7, APPROVAL, threadId="t", itemId="i")
        case "to all":
            story.notifies("skills/changed")
        case _:
            story.delta("s", "b")
            assert texts(late.inbox) == "a"
            story.waits(WINDOW)
    heard = late.heard()
    assert heard[0]["params"]["delta"] == "a"
    assert len(heard) > 1


def test_a_device_coalesces_unless_it_says_otherwise() -> None:
    for declared, waits in (
        ({}, True), (AWARE, True), (coalescing(0), False), (coalescing(-3), False)
    ):  # fmt: skip
        story, phone, _ = followers(first=declared, device=True)
        story.delta(text="a")
        assert (phone.heard() == []) == waits
        story.waits(WINDOW)
        assert len(phone.heard(DELTA)) == waits


def test_by_default_a_program_gets_each_delta_at_once() -> None:
    story, program, plain = followers(first=AWARE)
    story.delta(text="a")
    assert len(program.heard()) == len(plain.heard()) == 1


def test_a_window_is_a_second_at_most() -> None:
    story, late, _ = followers(first=coalescing(60_000))
    story.delta(text="a")
    story.waits(0.95)
    assert late.heard() == []
    story.waits(0.05)
    assert texts(late.heard()) == "a"


def test_there_is_time_left_to_write_within_the_window() -> None:
    story, late, _ = followers(first=coalescing())
    story.delta(text="a")
    story.waits(WINDOW - 0.003)
    assert late.heard() == []
    story.waits(0.001)  # and 2 ms are left
    assert texts(late.heard()) == "a"


def test_each_window_has_its_own_time() -> None:
    story, slow, _ = followers(first=coalescing(500))
    quick = story.peer("quick", **coalescing(100))
    story.follows(quick)
    calm(story, quick, slow)
    for text in "abcdef":
        story.delta(text=text)
        story.waits(0.09)
    assert [each["params"]["delta"] for each in quick.heard(DELTA)] == ["ab", "cd", "ef"]
    assert [each["params"]["delta"] for each in slow.heard(DELTA)] == ["abcdef"]


def test_a_large_delta_does_not_wait() -> None:
    story, late, _ = followers(first=coalescing())
    story.delta(text="a")
    story.delta(text="b" * LARGE_DELTA)
    assert [len(each["params"]["delta"]) for each in late.heard(DELTA)] == [1, LARGE_DELTA]
    for _ in range(RUN_BYTES // 1000):
        story.delta(text="c" * 1000)
    assert late.heard(DELTA)


def test_one_that_leaves_is_sent_nothing_more_and_the_others_still_wait() -> None:
    story, late, _ = followers(first=coalescing())
    other = story.peer("other", **coalescing())
    story.follows(other)
    calm(story, late, other)
    story.delta(text="a")
    late.leaves()
    story.delta(text="b")
    story.waits(WINDOW)
    assert texts(other.heard()) == "ab"


def test_one_that_falls_behind_misses_nothing() -> None:
    story, _ = followed("t")
    late = story.peer("late", **coalescing())
    joins(story, late, "t")
    calm(story, late)
    story.delta(text="a")
    story.lags(late)
    story.delta(text="b")
    story.settles()
    assert texts(late.heard()) == "ab"
    story.delta(text="c")
    assert late.heard() == []
    story.waits(WINDOW)
    assert texts(late.heard()) == "c"


def test_one_that_coalesces_is_not_behind() -> None:
    story, late, _ = followers(first=coalescing())
    story.delta(text="a")
    assert not story.broker.state.threads.behind
    assert story.broker.state.clients[late.id].backlog is None


# ── always ────────────────────────────────────────────────────────────────────────────────────────


@attrs.define(eq=False)
class Traveller:
    """One that coalesces. ``kept``: what it got on earlier connections."""

    peer: Peer
    window: float
    kept: list[Json] = attrs.field(factory=list)

    @property
    def got(self) -> list[Json]:
        return self.kept + self.peer.inbox


ITEMS = st.tuples(st.sampled_from("ts"), st.sampled_from("ij"))
ACTIONS = st.one_of(
    st.tuples(st.just("delta"), ITEMS),
    st.tuples(st.just("delta"), ITEMS),
    st.tuples(st.just("delta"), st.just(("t", "i"))),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 0.02, 0.06])),
    st.tuples(st.just("status"), st.sampled_from("ts")),
    st.tuples(st.just("ask"), st.sampled_from("ts")),
    st.tuples(st.just("joins"), st.sampled_from("ts")),
    st.tuples(st.just("lag"), st.integers(0, 1)),
    st.tuples(st.just("cut"), st.tuples(st.integers(0, 1), st.integers(0, 20))),
)


@settings(max_examples=100)
@given(st.lists(ACTIONS, max_size=40))
def test_who_coalesces_sees_what_the_others_see_in_order_and_in_time(
    actions: list[tuple[str, Any]],
) -> None:
    story, resident = followed("t", "s")
    travellers = [_comes(story, 30), _comes(story, 50)]
    begun = story.broker.state.journal.head
    written: list[tuple[float, int]] = []
    for count, (action, detail) in enumerate(actions):
        match action:
            case "delta":
                thread, item = detail
                params = {"threadId": thread, "turnId": "u", "itemId": item, "delta": f"<{count}>"}
                story.notifies(DELTA, params)
                written.append((story.now, story.broker.state.journal.head))
            case "wait":
                story.waits(detail)
            case "status":
                status = {"type": "active", "activeFlags": [str(count)]}
                story.notifies(STATUS, {"threadId": detail, "status": status})
            case "ask":
                story.asks(count, APPROVAL, threadId=detail, itemId=str(count))
            case "joins":
                joins(story, story.peer(f"joiner {count}", **coalescing()), detail)
            case "lag" if not story.is_behind(travellers[detail].peer):
                story.lags(travellers[detail].peer)
                story.settles()
            case "cut":
                which, lost = detail
                _is_cut(story, travellers[which], lost)
        for traveller in travellers:
            _nothing_is_late(story, resident, traveller, written, begun)
    story.waits(WINDOW + 0.001)
    for traveller in travellers:
        told = [each for each in traveller.got if each.get("seq", 0) > begun]
        assert all(earlier["seq"] < later["seq"] for earlier, later in pairwise(told))
        assert _as_one(told) == _as_one([each for each in resident.inbox if "seq" in each])


def _comes(story: PacedStory, window: int) -> Traveller:
    peer = story.peer(f"{window}", **coalescing(window))
    for thread in "ts":
        joins(story, peer, thread)
    story.settles()
    return Traveller(peer, window / 1000)


def _is_cut(story: PacedStory, traveller: Traveller, lost: int) -> None:
    """It loses the last messages that it was sent, and comes back at once."""
    inbox, window = traveller.peer.inbox, traveller.window
    traveller.kept += inbox[: len(inbox) - lost] if traveller.kept else inbox
    traveller.peer.leaves()
    cursor = max(max(each.get("seq", 0), each.get("cursor", 0)) for each in traveller.kept)
    after = {"epoch": story.broker.state.journal.epoch, "seq": cursor}
    traveller.peer = story.peer(f"{int(window * 1000)}", **coalescing(window * 1000))
    traveller.peer.asks("mux/replay", {"after": after, "threadIds": ["s", "t"]})
    story.loads()
    story.settles()


def _nothing_is_late(
    story: PacedStory,
    resident: Peer,
    traveller: Traveller,
    written: list[tuple[float, int]],
    begun: int,
) -> None:
    """Everything but deltas came when it came to the resident, a delta within the window."""
    heard = max((each.get("seq", 0) for each in traveller.got), default=0)
    others = [each["seq"] for each in resident.inbox if "seq" in each and each["method"] != DELTA]
    assert heard >= max((seq for seq in others if seq > begun), default=0)
    old = [seq for moment, seq in written if moment < story.now - traveller.window - 0.001]
    assert heard >= max(old, default=0)


def _as_one(messages: list[Json]) -> list[object]:
    """What a client makes of them: the texts of consecutive deltas of an item joined."""
    made: list[Any] = []
    for message in messages:
        params = message["params"]
        if message["method"] != DELTA:
            made.append((message["method"], message.get("id"), params))
            continue
        of = (params["threadId"], params["itemId"])
        if made and made[-1][0] == of:
            made[-1] = (of, made[-1][1] + params["delta"])
        else:
            made.append((of, params["delta"]))
    return made
