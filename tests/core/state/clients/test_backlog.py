"""Clients that are behind: what they end with is what they would have been sent live.

The property has two clients of a kind that do the same at the same moments; one of each lags
whenever the story says so. When all is settled both have been told the same, in the same order,
except that consecutive deltas of a stream may have come as one, and notices about threads that they
don't follow only as the latest.
"""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.paced import AWARE, PacedStory
from tests.core.stories import APPROVAL, DELTA, RESOLVED, Json, Peer

FOLLOWED = ("a", "b")
ELSEWHERE = "c"
STATUS = "thread/status/changed"
LIMITS = {"journal_memory_bytes": 900, "catch_up_bytes": 400}
"""Small, so that memory, disk and several parts are all in play."""


@attrs.define(eq=False)
class Twins:
    """Two clients that do the same; ``late`` is the one that lags."""

    prompt: Peer
    late: Peer

    @property
    def both(self) -> tuple[Peer, Peer]:
        return self.prompt, self.late


@attrs.define(eq=False)
class World:
    """A story with two pairs of twins, and what the app-server is at."""

    story: PacedStory
    twins: tuple[Twins, Twins]
    running: dict[str, int] = attrs.field(factory=dict)
    asked: dict[int, str] = attrs.field(factory=dict)
    count: int = 0
    followed: set[str] = attrs.field(factory=lambda: set(FOLLOWED))

    @classmethod
    def begun(cls) -> World:
        story = PacedStory.with_disk(**LIMITS)
        pairs = []
        for name, capabilities in (("plain", {}), ("aware", AWARE)):
            pairs.append(Twins(story.peer(name, **capabilities), story.peer(name, **capabilities)))
        world = cls(story, (pairs[0], pairs[1]))
        for thread in FOLLOWED:
            for peer in world.everybody:
                world.joins(peer, thread)
        story.follows(story.peer("other"), ELSEWHERE)
        for peer in world.everybody:
            peer.heard()
        return world

    @property
    def everybody(self) -> list[Peer]:
        return [peer for pair in self.twins for peer in pair.both]

    def next(self) -> int:
        self.count += 1
        return self.count

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    def streams(self, thread: str) -> None:
        item = self.running.get(thread) or self.starts(thread)
        text = f"<{self.next()}>"
        self.says(DELTA, thread, itemId=str(item), delta=text)

    def starts(self, thread: str) -> int:
        item = self.running[thread] = self.next()
        self.says("item/started", thread, item={"id": str(item), "type": "agentMessage"})
        return item

    def completes(self, thread: str) -> None:
        item = self.running.pop(thread, None) or self.next()
        self.says("item/completed", thread, item={"id": str(item), "type": "agentMessage"})

    def says(self, method: str, thread: str, **params: object) -> None:
        self.story.notifies(method, {"threadId": thread, "turnId": "u", **params})

    def changes_status(self, thread: str) -> None:
        if thread not in self.followed and thread != ELSEWHERE:
            return  # of such a one only the latest notice comes, as of ELSEWHERE
        status = {"type": "active", "activeFlags": [str(self.next())]}
        self.story.notifies(STATUS, {"threadId": thread, "status": status})

    def raises(self, thread: str) -> None:
        id = self.next()
        self.asked[id] = thread
        self.story.asks(id, APPROVAL, threadId=thread, turnId="u", itemId=str(id))

    def resolves(self) -> None:
        if self.asked:
            id, thread = self.asked.popitem()
            self.story.resolves(id, thread)

    def ask(self, method: str, thread: str) -> None:
        """All twins ask the same; the app-server, where it is asked, answers at once."""
        self.followed |= {thread} if method == "thread/resume" else set()
        self.followed -= {thread} if method == "thread/unsubscribe" else set()
        for peer in self.everybody:
            if method == "thread/resume":
                self.joins(peer, thread)
                continue
            peer.asks(method, {"threadId": thread})
            for request in self.story.written(method):
                self.story.answers(request, {"n": self.count})

    def joins(self, peer: Peer, thread: str) -> None:
        peer.asks("thread/resume", {"threadId": thread, "excludeTurns": True})
        asked = self.story.written("thread/resume")[-1]
        self.story.answers(asked, {"thread": {"id": thread, "turns": []}})

    def lags(self) -> None:
        for pair in self.twins:
            if not self.story.is_behind(pair.late):
                self.story.lags(pair.late)

    def drains(self) -> None:
        for pair in self.twins:
            self.story.drains(pair.late)


# ── what was told ─────────────────────────────────────────────────────────────────────────────


def transcript(inbox: list[Json], thread: str) -> list[object]:
    """What is of this thread or an answer, in order, consecutive deltas joined."""
    told: list[object] = []
    for message in inbox:
        params = message.get("params", {})
        if "method" in message and params.get("threadId") != thread:
            continue
        if message.get("method") == DELTA:
            if told and isinstance(told[-1], list) and told[-1][0] == params["itemId"]:
                told[-1][1] += params["delta"]
            else:
                told.append([params["itemId"], params["delta"]])
        else:
            numbers = ("seq", "cursor")
            told.append({name: message[name] for name in message if name not in numbers})
    return told


def latest(inbox: list[Json], thread: str) -> object:
    mine = [each for each in inbox if each.get("params", {}).get("threadId") == thread]
    return mine[-1]["params"] if mine else None


def check(pair: Twins) -> None:
    for thread in FOLLOWED:
        assert transcript(pair.late.inbox, thread) == transcript(pair.prompt.inbox, thread)
    assert latest(pair.late.inbox, ELSEWHERE) == latest(pair.prompt.inbox, ELSEWHERE)
    assert pair.late.closed == []


def check_numbers(pair: Twins) -> None:
    numbers = defaultdict(list)
    for peer in pair.both:
        told = [each for each in peer.inbox if "seq" in each]
        assert all(before["seq"] < after["seq"] for before, after in pairwise(told))
        numbers[peer.id] = [each["seq"] for each in told if each.get("method") != DELTA]
    assert numbers[pair.late.id] == numbers[pair.prompt.id]


ACTIONS = st.one_of(
    st.tuples(st.just("streams"), st.sampled_from(FOLLOWED)),
    st.tuples(st.just("streams"), st.sampled_from(FOLLOWED)),
    st.tuples(st.just("completes"), st.sampled_from(FOLLOWED)),
    st.tuples(st.just("changes_status"), st.sampled_from((*FOLLOWED, ELSEWHERE))),
    st.tuples(st.just("raises"), st.sampled_from(FOLLOWED)),
    st.tuples(st.just("resolves")),
    st.tuples(st.just("lags")),
    st.tuples(st.just("drains")),
    st.tuples(st.just("drains")),
    st.tuples(st.just("reads")),
    st.tuples(st.just("ask"), st.just("thread/read"), st.sampled_from(FOLLOWED)),
    st.tuples(
        st.just("ask"),
        st.sampled_from(("thread/unsubscribe", "thread/resume")),
        st.sampled_from(FOLLOWED),
    ),
)


@settings(max_examples=300)
@given(st.lists(ACTIONS, max_size=60))
def test_who_lags_ends_with_what_it_would_have_been_sent_live(
    actions: list[tuple[str, ...]],
) -> None:
    world = World.begun()
    for name, *arguments in actions:
        if name == "reads":
            world.story.reads_disk()
        else:
            getattr(world, name)(*arguments)
    world.story.settles()
    for pair in world.twins:
        check(pair)
    check_numbers(world.twins[1])


# ── one by one ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=[{}, AWARE], ids=["plain", "aware"])
def world(request: pytest.FixtureRequest) -> World:
    """Before each story the late ones of both pairs lag."""
    world = World.begun()
    world.lags()
    return world


def test_what_is_owed_stays_flat_while_it_lags() -> None:
    world = World.begun()
    world.lags()
    for _ in range(500):
        world.streams("a")
    late = world.twins[0].late
    backlog = world.story.broker.state.clients[late.id].backlog
    assert backlog is not None
    assert late.inbox == []
    assert backlog.pinned_bytes == 0
    remembered = world.story.broker.state.journal
    assert remembered.head - remembered.remembered_after < 20
    world.story.settles()
    check(world.twins[0])
    assert len(late.inbox) < len(world.twins[0].prompt.inbox) / 2, "deltas came merged"


def test_an_approval_raised_while_it_lags_is_offered_and_its_answer_counts() -> None:
    world = World.begun()
    world.lags()
    world.streams("a")
    world.raises("a")
    late = world.twins[0].late
    assert late.inbox == []
    world.story.settles()
    offered = late.heard(APPROVAL)[0]
    late.answers(offered["id"], {"decision": "accept"})
    assert world.story.only()["result"] == {"decision": "accept"}


def test_after_unsubscribing_while_it_lags_it_hears_nothing_more_of_the_thread() -> None:
    world = World.begun()
    world.lags()
    world.streams("a")
    world.ask("thread/unsubscribe", "a")
    seen = world.count
    world.streams("a")
    world.streams("b")
    world.story.settles()
    for pair in world.twins:
        check(pair)
        assert f"<{seen + 1}>" not in json.dumps(pair.late.inbox)


def test_resuming_what_it_follows_while_it_lags_skips_nothing() -> None:
    world = World.begun()
    world.lags()
    world.streams("a")
    world.completes("a")
    world.ask("thread/resume", "a")
    world.story.settles()
    for pair in world.twins:
        check(pair)
        assert "item/completed" in [each.get("method") for each in pair.late.inbox]


def test_what_waits_behind_other_threads_entries_comes_too() -> None:
    world = World.begun()
    world.lags()
    world.ask("thread/read", "a")
    for _ in range(20):
        world.changes_status(ELSEWHERE)
    world.story.settles()
    for pair in world.twins:
        check(pair)
        assert not world.story.is_behind(pair.late)


def test_one_whose_past_is_trimmed_meanwhile_is_cut_not_deceived() -> None:
    world = World.begun()
    world.lags()
    for _ in range(50):
        world.streams("a")
    late = world.twins[0].late
    world.story.drains(late)
    world.story.trimmed = world.story.broker.state.journal.head - 5
    world.story.reads_disk()
    assert late.closed == [1013]
    assert late.inbox == []


def test_an_entry_that_nobody_follows_is_no_ones(world: World) -> None:
    world.changes_status(ELSEWHERE)
    world.changes_status(ELSEWHERE)
    world.story.settles()
    for pair in world.twins:
        assert len(pair.late.heard(STATUS)) == 1
        assert len(pair.prompt.heard(STATUS)) == 2


def test_it_can_lag_again_at_once() -> None:
    world = World.begun()
    for _ in range(5):
        world.lags()
        world.streams("a")
        world.raises("b")
        world.drains()
        world.resolves()
    world.story.settles()
    for pair in world.twins:
        check(pair)
    assert world.twins[0].late.heard(RESOLVED)
