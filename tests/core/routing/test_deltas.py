"""Deltas that are read at once: published as a run, and as if each had come alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mux.core.protocol.journal_entry import LARGE_DELTA
from mux.core.routing.deltas import RUN_LINES
from tests.core.paced import AWARE, PacedStory
from tests.core.stories import DELTA, Json, Peer, Story, dumps

SUMMARY: Final = "item/reasoning/summaryTextDelta"
OF_THE_ITEM: Final = {"threadId": "t", "turnId": "u", "itemId": "i"}


def line(delta: object = "word ", method: str = DELTA, **params: object) -> bytes:
    """A delta as codex writes it; ``params`` stand behind the text."""
    whole = OF_THE_ITEM | {"delta": delta} | params
    return dumps({"method": method, "params": whole, "emittedAtMs": 1_795_398_334})


def running(begun: Callable[[], Story] = Story.begun) -> tuple[Story, list[Peer]]:
    """A story with an item that runs, and followers of every kind."""
    story = begun()
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
    if isinstance(story, PacedStory):
        story.settles()
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


def written(text: bytes) -> bytes:
    """A delta whose text is written as given, whether that is JSON or not."""
    return line("here").replace(b"here", text)


@pytest.mark.parametrize(
    "broken",
    [
        *map(
            written,
            [rb"\q", rb"\u12", rb"\u00zz", rb"\u12zz", rb"\ud800", rb"\udc00x", rb"\ud800\n"],
        ),
        *map(written, [b"\x00", b"\t", b"\x1f", b"\\"]),
        line().replace(b'"emittedAtMs":1', b'"emittedAtMs":01'),
    ],
)
def test_a_line_that_is_no_json_is_dropped_from_a_run(broken: bytes) -> None:
    story, (plain, *_) = running()
    story.says_at_once(line("a"), line("b"), broken, line("c"))
    assert plain.raw == [line("a"), line("b"), line("c")]
    assert story.logs[-1].event == "app-server wrote a line that is no message"


@pytest.mark.parametrize("escape", [rb"\u00e9", rb"\u001b", rb"\ud83d\ude00", rb"\/", rb"\u2028"])
def test_a_text_with_any_escape_of_json_is_published(escape: bytes) -> None:
    story, (plain, *_) = running()
    lines = [line(), written(escape), line()]
    story.says_at_once(*lines)
    assert plain.raw == lines


def test_the_last_of_two_texts_in_a_line_is_the_one_kept_for_joiners() -> None:
    story, _ = running()
    twice = line("second").replace(b'"delta":', rb'"delta":"fi\"rst","delta":')
    story.says_at_once(twice, twice, twice)
    late = story.peer("late")
    story.follows(late)
    assert [each["params"]["delta"] for each in late.heard(DELTA)] == ["second" * 3]


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
        *map(written, [rb"\q", rb"\u12zz", rb"\ud800", b"\t", rb"\u00E9", rb"\ud83d\ude00"]),
        line().replace(b'"emittedAtMs":1', b'"emittedAtMs":01'),
        line().replace(b'"delta":', rb'"delta":"fi\"rst","delta":'),
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


def paced() -> PacedStory:
    """A story whose journal's memory ends within a run, and whose clients may lag."""
    return PacedStory.with_disk(journal_memory_bytes=700, catch_up_bytes=400)


def happens(story: Story, peers: list[Peer], what: tuple[str, int]) -> None:
    """Something else than a line, to one of the followers."""
    assert isinstance(story, PacedStory)
    kind, who = what
    peer = peers[who]
    match kind:
        case "lags":
            story.lags(peer)
        case "drains":
            story.drains(peer)
        case "the disk is read":
            story.reads_disk()
        case "time passes":
            story.waits(0.05)
        case "stops following":
            peer.asks("thread/unsubscribe", {"threadId": "t"}, id="unsubscribe")
        case "follows again":
            peer.asks("thread/resume", {"threadId": "t"}, id="resume")
    for asked in story.written("thread/resume"):
        story.answers(asked, {"thread": {"id": "t"}})


others = st.tuples(
    st.sampled_from(
        ["lags", "drains", "the disk is read", "time passes", "stops following", "follows again"]
    ),
    st.integers(0, 3),
)
much = st.lists(usual | of_an_index | another_item | odd, min_size=2)


@given(st.lists(much | others))
@settings(deadline=None)
def test_a_run_does_so_whatever_its_clients_do_between_the_reads(
    steps: list[list[bytes] | tuple[str, int]],
) -> None:
    story, peers = running(paced)
    alone, others = running(paced)
    for step in steps:
        if isinstance(step, tuple):
            happens(story, peers, step)
            happens(alone, others, step)
        else:
            story.says_at_once(*step)
            for each in step:
                alone.says(each)
    assert everything(story, peers) == everything(alone, others)
