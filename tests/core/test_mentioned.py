"""Threads that are only mentioned: what is kept of them is bounded, and nobody notices that."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.commands import Publish
from mux.core.events import UpstreamSent
from mux.core.state import notice_records
from mux.core.state.requests import tool_owners
from mux.core.state.threads.threads import FORGOTTEN_SHARE
from tests.core.stories import Json, Peer, Story

MOST = 64
CROWD = MOST + MOST // FORGOTTEN_SHARE
NEEDED = {
    "followed", "fresh", "kept for its return", "an orphan's", "a title's", "child", "parent",
    "being joined", "begins",
}  # fmt: skip


def mentions(story: Story, thread: str, name: str = "A name") -> None:
    """What the app-server tells everybody of a thread that nobody here follows."""
    story.notifies("thread/name/updated", {"threadId": thread, "threadName": name})


def mentions_many(story: Story, count: int = 10 * MOST) -> None:
    for n in range(count):
        mentions(story, f"other {n}")


def test_a_hundred_thousand_that_are_mentioned_are_not_all_remembered() -> None:
    story = Story.begun()
    peer = story.peer()
    story.follows(peer, "t")
    told, known = 0, story.broker.state.threads
    for n in range(100_000):
        line = b'{"method":"thread/name/updated","params":{"threadId":"other %d","threadName":"x"}}'
        (command,) = story.broker.handle(UpstreamSent(line % n), story.now)
        assert isinstance(command, Publish)
        told += command.recipients == (peer.id,)
        assert len(known.known) <= 4096 * 17 / 16 + 2
    assert told == 100_000
    assert "t" in known.known
    assert len(known.unclaimed) == len(known.known) - 1


def test_they_are_forgotten_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time all are looked at: so it has to be rare."""
    story = Story.begun(mentioned_threads=MOST)
    looks, forget = [0], type(story.broker.state.threads).forget

    def counted(*given: Any) -> None:
        looks[0] += 1
        forget(*given)

    monkeypatch.setattr(type(story.broker.state.threads), "forget", counted)
    mentions_many(story, 1000)
    assert looks[0] <= (1000 - MOST) * FORGOTTEN_SHARE // MOST + 1


def test_what_is_needed_stays_and_is_not_looked_at_each_time() -> None:
    story = Story.begun(mentioned_threads=MOST)
    for n in range(3 * MOST):
        status = {"type": "active", "activeFlags": []}
        story.notifies("thread/status/changed", {"threadId": f"busy {n}", "status": status})
    known = story.broker.state.threads
    assert len(known.known) == 3 * MOST
    mentions_many(story)
    assert sum(id.startswith("busy") for id in known.known) == 3 * MOST
    for n in range(3 * MOST):
        story.notifies(
            "thread/status/changed", {"threadId": f"busy {n}", "status": {"type": "idle"}}
        )
    mentions_many(story, 3 * MOST)
    assert len(known.known) <= CROWD + 3 * MOST


def test_those_that_matter_stay() -> None:
    story = Story.begun(mentioned_threads=MOST)
    peer = story.peer()
    story.follows(peer, "followed")
    story.creates(peer, "fresh")
    leaver = story.peer("leaver")
    story.creates(leaver, "kept for its return", ephemeral=True)
    leaver.leaves()
    story.begins_turn("an orphan's")
    story.asks(1, threadId="waits for a word", turnId="u", itemId="i", command="ls")
    started = {"id": "a title's", "ephemeral": True, "threadSource": "thread_title"}
    story.notifies("thread/started", {"thread": started})
    story.notifies("thread/started", {"thread": {"id": "child", "parentThreadId": "parent"}})
    mentions(story, "parent", "The parent's name")
    peer.asks("thread/resume", {"threadId": "being joined"})
    peer.asks("turn/start", {"threadId": "begins", "input": []})
    mentions(story, "being joined")
    mentions(story, "begins")
    mentions(story, "of no use")
    mentions_many(story, MOST // 2)
    story.notifies("thread/status/changed", {"threadId": "child", "status": {"type": "active"}})
    mentions_many(story)
    known = story.broker.state.threads.known
    assert known.keys() >= NEEDED
    assert "of no use" not in known
    assert known["parent"].name == "The parent's name"


def test_one_that_was_forgotten_is_joined_like_any_other() -> None:
    story = Story.begun(mentioned_threads=MOST)
    peer = story.peer()
    mentions(story, "t", "Its name")
    mentions_many(story)
    assert "t" not in story.broker.state.threads.known
    story.follows(peer, "t")
    story.begins_turn("t")
    story.delta("t")
    assert peer.heard_methods()[-2:] == ["turn/started", "item/agentMessage/delta"]


STATUS = st.sampled_from(["active", "idle", "notLoaded"])
THREADS = st.sampled_from([f"t{n}" for n in range(8)])
STEPS = st.lists(
    st.tuples(st.sampled_from(["name", "started", "follow", "unfollow", "asks"]), THREADS)
    | st.tuples(st.sampled_from(["begins", "ends", "delta", "closed", "exits", "list"]), THREADS)
    | st.tuples(STATUS, THREADS),
    max_size=50,
)


@given(STEPS)
def test_nobody_notices_what_is_forgotten(steps: list[tuple[str, str]]) -> None:
    """The same story, once with room for all and once for none: both ends hear the same."""
    told = []
    for most in (10_000, 0):
        story = Story.begun(mentioned_threads=most)
        peer, other = story.peer("a"), story.peer("b", extensions={"appmux": {"version": 1}})
        for n, (step, thread) in enumerate(steps):
            _play(story, peer, step, thread, n)
            story.waits(0.5)
        told.append((peer.inbox, other.inbox, story.lines, story.notices))
    assert told[0] == told[1]


def _play(story: Story, peer: Peer, step: str, thread: str, n: int) -> None:  # noqa: PLR0912
    follows = thread in story.broker.state.clients[peer.id].follows
    named: Json = {"threadId": thread}
    match step:
        case "name":
            mentions(story, thread, f"name {n}")
        case "started":
            story.notifies("thread/started", {"thread": {"id": thread, "name": f"name {n}"}})
        case "follow":
            peer.asks("thread/resume", named)
            for asked in story.written("thread/resume"):
                story.answers(asked, {"thread": {"id": thread, "status": {"type": "idle"}}})
        case "unfollow":
            peer.asks("thread/unsubscribe", named)
        case "asks":
            peer.asks("turn/start", named | {"input": [], "ifBusy": "reject"})
        case "begins" if follows:
            story.begins_turn(thread)
        case "ends" if follows:
            story.ends_turn(thread)
        case "delta" if follows:
            story.delta(thread)
        case "closed":
            story.notifies("thread/closed", named)
        case "exits":
            story.exits()
            story.waits(5)
            story.starts(n + 2)
            story.initialized()
        case "list":
            peer.asks("thread/loaded/list")
        case "active" | "idle" | "notLoaded":
            status = {"threadId": thread, "status": {"type": step}}
            story.notifies("thread/status/changed", status)


def test_what_else_is_kept_by_thread_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice_records, "REMEMBERED", 100)
    monkeypatch.setattr(tool_owners, "REMEMBERED", 100)
    story = Story.begun()
    peer = story.peer()
    for n in range(150):
        peer.asks("turn/interrupt", {"threadId": f"t{n}", "turnId": "u"})
        story.answers(story.written()[-1])
        goal = {"objective": "x", "status": "active", "createdAt": 1, "updatedAt": 1}
        story.notifies("thread/goal/updated", {"threadId": f"t{n}", "goal": goal})
        story.waits(0.02)
    records = story.broker.state.notices
    assert len(records.interrupted_by) == notice_records.REMEMBERED
    assert len(records.goals) == notice_records.REMEMBERED
    owners = story.broker.state.tool_owners
    for n in range(150):
        asked = b'{"dynamicTools":[{"name":"tool"}]}'
        owners.register(f"t{n}", asked, story.broker.state.clients[peer.id].owner())
    assert len(owners._owners) == tool_owners.REMEMBERED
