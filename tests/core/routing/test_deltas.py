"""Deltas that are read at once: published as a run, and as if each had come alone."""

from __future__ import annotations

import json
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mux.core.protocol.journal_entry import LARGE_DELTA
from mux.core.routing.deltas import RUN_LINES
from tests.core.paced import AWARE
from tests.core.stories import DELTA, Json, Peer, Story, dumps

SUMMARY: Final = "item/reasoning/summaryTextDelta"
OF_THE_ITEM: Final = {"threadId": "t", "turnId": "u", "itemId": "i"}


def line(delta: object = "word ", method: str = DELTA, **params: object) -> bytes:
    """A delta as codex writes it; ``params`` stand behind the text."""
    whole = OF_THE_ITEM | {"delta": delta} | params
    return dumps({"method": method, "params": whole, "emittedAtMs": 1_795_398_334})


def running(**limits: float) -> tuple[Story, list[Peer]]:
    """A story with an item that runs, and followers of every kind."""
    story = Story.begun(**limits)
    kinds: list[Json] = [
        {},
        AWARE,
        {"extensions": {"appmux": {"version": 1, "coalesce": 80}}},
        {"optOutNotificationMethods": [SUMMARY]},
    ]
    peers = [story.peer(f"of kind {at}", **kind) for at, kind in enumerate(kinds)]
    for peer in peers:
        story.follows(peer)
    story.begins_turn(id="u")
    for item in ("i", "j"):
        started = {"type": "agentMessage", "id": item}
        story.notifies("item/started", {"threadId": "t", "turnId": "u", "item": started})
    story.waits(2.0)
    for peer in peers:
        peer.heard()
    return story, peers


def everything(story: Story, peers: list[Peer]) -> list[list[bytes]]:
    """What each was sent, what a late joiner is, and what the journal has."""
    story.waits(1.0)
    late = story.peer("late")
    story.follows(late)
    journal = story.broker.state.journal
    entries = journal.after(journal.remembered_after, 1 << 30) or []
    return [peer.raw for peer in [*peers, late]] + [
        [b"%d %b %b" % (each.seq, each.method.encode(), each.message) for each in entries]
    ]


def test_a_run_is_handled_in_one_step() -> None:
    story, (plain, aware, *_) = running()
    lines = [line(str(at)) for at in range(10)]
    assert story.says_at_once(*lines) == [1, 9]
    assert plain.raw == lines
    assert [each["params"]["delta"] for each in aware.inbox] == [str(at) for at in range(10)]
    numbers = [each["seq"] for each in aware.inbox]
    assert numbers == list(range(numbers[0], numbers[0] + 10))


def test_the_next_read_goes_on_with_the_stretch_unless_something_came_between() -> None:
    story, (plain, *_) = running()
    story.says_at_once(line())
    assert story.says_at_once(line(), line()) == [2]
    plain.asks("thread/list", {})
    assert story.says_at_once(line(), line()) == [1, 1]


def test_a_run_is_bounded() -> None:
    story, _ = running()
    lines = [line()] * (RUN_LINES * 2 + 2)
    assert story.says_at_once(*lines) == [1, RUN_LINES, RUN_LINES, 1]


@pytest.mark.parametrize(
    "other",
    [
        line(itemId="j"),
        line(method=SUMMARY, summaryIndex=0),
        line(summaryIndex=1),
        line(None),
        line({"text": "x"}),
        line("x" * LARGE_DELTA),
        dumps({"method": "thread/status/changed", "params": {"threadId": "t", "status": {}}}),
        line()[:-1] + b',"more":1}',
        line().replace(b'"turnId":"u",', b""),
    ],
)
def test_what_does_not_go_on_with_a_stretch_ends_the_run(other: bytes) -> None:
    story, (plain, *_) = running()
    assert story.says_at_once(line(), line(), other, line())[:2] == [1, 1]
    assert plain.raw == [line(), line(), other, line()]


texts = st.text() | st.sampled_from(["", '"', "\\", '\\"},"emittedAtMs":1}', '","itemId":"j'])
usual = st.builds(line, texts)
of_an_index = st.builds(
    lambda text, index: line(text, SUMMARY, summaryIndex=index), texts, st.integers(0, 1)
)
index_first = st.builds(
    lambda text: dumps(
        {"method": SUMMARY, "params": OF_THE_ITEM | {"summaryIndex": 0, "delta": text}}
    ),
    texts,
)
another_item = st.builds(lambda text: line(text, itemId="j"), texts)
spaced = st.builds(lambda each: json.dumps(json.loads(each)).encode(), usual)
odd = st.sampled_from(
    [
        line(None),
        line(7),
        line("x" * LARGE_DELTA),
        line(threadId="s"),
        line()[:-1],
        b"[]",
        line().replace(b'"delta":', b'"delta":"first","delta":'),
        line()[:-2] + b',"itemId":"j"},"emittedAtMs":1}',
        dumps({"method": "thread/status/changed", "params": {"threadId": "t", "status": {}}}),
        dumps({"method": "item/completed", "params": {"threadId": "t", "turnId": "u", "item": {
            "type": "agentMessage", "id": "i", "text": "whole"}}}),
    ]
)  # fmt: skip
reads = st.lists(st.lists(usual | of_an_index | index_first | another_item | spaced | odd))


@given(reads)
@settings(deadline=None)
def test_a_run_does_what_its_lines_do_one_by_one(reads: list[list[bytes]]) -> None:
    story, peers = running()
    for lines in reads:
        story.says_at_once(*lines)
    alone, others = running()
    for lines in reads:
        for each in lines:
            alone.says(each)
    assert everything(story, peers) == everything(alone, others)
