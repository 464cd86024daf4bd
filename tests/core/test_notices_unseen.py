"""Notices that nobody has seen: they are weighed when something has changed, and cost nobody else.

Work is counted in calls of functions, which are the same in each run.
"""

from __future__ import annotations

import sys
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.features.notices.notices import MOST_OPEN
from mux.core.policy.principal import Principal
from mux.core.state.clients.client import ClientState, Focus
from tests.core import work
from tests.core.features.notices.test_notices import LONG, looks
from tests.core.noticed import asks, noticed, told
from tests.core.stories import Peer, Story

WATCHER = Principal("wall", "device", scopes=frozenset({"observe"}), device="d3")


def calls(story: Story, peer: Peer, method: str = "thread/list") -> int:
    """How many functions are called for a request of the client's and its answer."""

    def ask() -> None:
        peer.asks(method)
        story.answers(story.only(method))

    count = work.calls(ask)
    peer.heard()
    return count


def unseen(story: Story, turns: int) -> None:
    """So many turns end that nobody has looked at, each of a thread of its own."""
    desk = next(iter(story.peers.values()))
    for turn in range(turns):
        story.creates(desk, f"t{turn}")
        story.begins_turn(f"t{turn}", f"u{turn}")
    story.now += LONG
    for turn in range(turns):
        story.ends_turn(f"t{turn}", f"u{turn}")
    story.written()
    for peer in story.peers.values():
        peer.heard()


def crowd(story: Story, clients: int) -> list[Peer]:
    return [story.peer(f"peer {n}") for n in range(clients)]


def test_a_request_costs_the_same_with_256_unseen_notices_and_500_clients_as_with_none() -> None:
    story, desk = noticed()
    alone = calls(story, desk)
    unseen(story, MOST_OPEN)
    crowd(story, 500)
    assert len(told(story)) == MOST_OPEN
    assert calls(story, desk) == pytest.approx(alone, rel=0.1)


def test_so_does_one_of_a_client_that_says_its_focus() -> None:
    story, desk = noticed()
    looks(desk, "elsewhere")
    alone = calls(story, desk)
    unseen(story, MOST_OPEN)
    story.waits(1)
    assert calls(story, desk) == pytest.approx(alone, rel=0.1)


def test_what_does_change_something_asks_each_client_once_not_for_each_notice() -> None:
    story, _ = noticed()
    few, many = 10, 200
    unseen(story, few)
    peers = crowd(story, 50)
    told(story)

    def focused(peer: Peer) -> int:
        count = 0

        def counted(frame: FrameType, event: str, _: object) -> None:
            nonlocal count
            count += event == "call" and frame.f_code.co_name in ("add", "_until", "_record_look")

        sys.setprofile(counted)
        looks(peer, "elsewhere")
        sys.setprofile(None)
        return count

    before = focused(peers[0])
    unseen(story, many)
    assert focused(peers[0]) <= before + 5


# ── nothing is missed for it ──────────────────────────────────────────────────────────────────────


def test_a_focus_that_had_lapsed_counts_again_from_the_next_word() -> None:
    story, _ = noticed()
    other = story.peer("other")
    looks(other, "t0")
    story.waits(200)
    unseen(story, 1)
    assert told(story) == ["+d1 turn-completed"]
    other.asks("thread/list")
    assert told(story) == ["-d1 turn-completed"]


def test_a_focus_from_before_the_handshake_counts_after_it() -> None:
    story, _ = noticed()
    unseen(story, 1)
    told(story)
    early = story.attach()
    looks(early, "t0")
    assert told(story) == []
    early.initializes()
    assert told(story) == ["-d1 turn-completed"]


def test_whoever_joins_and_looks_holds_an_approval_back_at_once() -> None:
    story, desk = noticed()
    looks(desk, "t")
    asks(story)
    late = story.peer("late")
    looks(late, "t")
    story.follows(late)
    desk.leaves()
    assert told(story) == []
    late.leaves()
    assert told(story) == ["+d1 approval"]


@pytest.mark.parametrize("how", ["abstains", "unsubscribes"])
def test_who_looks_and_will_not_answer_holds_nothing_back(how: str) -> None:
    story, desk = noticed()
    other = story.peer("other")
    story.follows(other)
    looks(desk, "t")
    id = asks(story)
    assert told(story) == []
    if how == "abstains":
        desk.refuses(id)
    else:
        desk.asks("thread/unsubscribe", {"threadId": "t"})
    assert told(story) == ["+d1 approval"]


def test_that_it_is_a_sub_agents_that_somebody_looks_at_may_come_later() -> None:
    story, desk = noticed()
    other = story.peer("other")
    story.creates(other, "child")
    looks(desk, "t")
    story.begins_turn("child", "u")
    story.waits(LONG)
    story.ends_turn("child", "u")
    assert told(story) == ["+d1 turn-completed"]
    item = {"type": "collabAgentToolCall", "id": "call", "receiverThreadIds": ["child"]}
    story.notifies("item/completed", {"threadId": "t", "turnId": "u", "item": item})
    assert told(story) == ["-d1 turn-completed"]


THREADS = st.sampled_from(["t", "child", "u", None])
SEATS = st.lists(
    st.tuples(
        st.sampled_from(["focus", "away", "acts"]),
        THREADS,
        st.integers(0, 200),
        st.booleans(),
        st.booleans(),
    ),
    max_size=6,
)


@given(SEATS, THREADS)
def test_a_glance_tells_what_asking_each_client_does(
    seats: list[tuple[str, str | None, int, bool, bool]], thread: str | None
) -> None:
    story = Story.begun()
    looking = story.broker._notices.attention
    story.broker.state.threads.spawned("t", "child")
    story.broker.state.now = 1000.0
    for how, at, ago, ready, may in seats:
        peer = story.peer() if ready else story.attach()
        client = story.broker.state.clients[peer.id]
        story.broker.state.now = 1000.0
        if not may:
            client.principal = WATCHER
        client.last_heard = 1000.0 - ago
        if how == "acts" and at is not None:
            client.acted = {"u": 900.0, at: 1000.0 - ago} if ago < 100 else {at: 1000.0 - ago}
        elif how != "acts":
            client.focus = Focus(at, how == "focus")
        assert (client.state is ClientState.READY) is ready
    asked, glanced = looking.has_person(thread), looking.glance().has_person(thread)
    assert (asked and asked[1]) == (glanced and glanced[1])
