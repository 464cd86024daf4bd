"""The numbering, the recent past, and the merging of deltas."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mux.core.protocol.journal_entry import (
    LARGE_DELTA,
    Entry,
    Message,
    merge,
    with_cursor,
    with_delta,
    with_seq,
)
from mux.core.state.journal import Journal
from tests.core.stories import dumps

TEXT = "item/agentMessage/delta"
SUMMARY = "item/reasoning/summaryTextDelta"
ODD = '"\\\n\t\u2028é\x01{}[]'


def delta(
    seq: int, text: str, thread: str = "t", item: str = "i", method: str = TEXT, **more: object
) -> Entry:
    params = {"threadId": thread, "turnId": "u", "itemId": item, "delta": text, **more}
    return Entry(
        seq, thread, method, dumps({"method": method, "params": params, "emittedAtMs": seq})
    )


def event(seq: int, thread: str = "t", method: str = "item/completed") -> Entry:
    params = {"threadId": thread, "turnId": "u", "item": {"id": str(seq)}}
    return Entry(seq, thread, method, dumps({"method": method, "params": params}))


def journal(memory_bytes: int = 10_000, head: int = 0) -> Journal:
    return Journal("e", head, memory_bytes)


# ── numbers, and what is remembered ───────────────────────────────────────────────────────────


def test_numbers_go_up_by_one_from_where_the_last_life_left_off() -> None:
    kept = journal(head=41)
    assert [kept.add("t", TEXT, b"{}").seq for _ in range(3)] == [42, 43, 44]
    assert kept.head == 44


def test_without_a_disk_the_past_is_what_memory_holds() -> None:
    kept = journal(memory_bytes=100)
    for _ in range(30):
        kept.add("t", TEXT, b"0123456789")
    assert (kept.remembered_after, kept.earliest) == (20, 20)
    kept.kept("e", 7)
    assert kept.earliest == 7
    kept.kept("e", 25)
    assert kept.earliest == 20, "memory reaches further back than the disk"


def test_one_entry_is_remembered_whatever_its_size() -> None:
    kept = journal(memory_bytes=10)
    kept.add("t", TEXT, b"x" * 1000)
    assert [each.seq for each in kept.after(0, 1) or ()] == [1]


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 400), st.integers(1, 200))
def test_reading_on_in_parts_gives_each_entry_once(
    sizes: list[int], memory_bytes: int, part: int
) -> None:
    kept = journal(memory_bytes)
    added = [kept.add("t", TEXT, b"x" * size) for size in sizes]
    cursor = kept.remembered_after
    read: list[Entry] = []
    while entries := kept.after(cursor, part):
        assert sum(len(each.message) for each in entries[:-1]) < part
        read += entries
        cursor = entries[-1].seq
    assert cursor == kept.head
    assert read == added[len(added) - len(read) :]
    remembered = sum(len(each.message) for each in read)
    assert remembered <= max(memory_bytes, len(read[-1].message) if read else 0)
    if kept.remembered_after:
        assert kept.after(kept.remembered_after - 1, part) is None


# ── merging ───────────────────────────────────────────────────────────────────────────────────


def deltas(messages: Iterable[Entry | Message]) -> list[str]:
    return [json.loads(each.message)["params"].get("delta", "|") for each in messages]


def test_consecutive_deltas_of_one_stream_become_one_with_the_last_number() -> None:
    merged = list(merge([delta(1, "a"), delta(2, ODD), delta(3, "c")]))
    assert [(each.seq, each.method) for each in merged] == [(3, TEXT)]
    assert deltas(merged) == [f"a{ODD}c"]
    told = json.loads(merged[0].message)
    assert {key: told["params"][key] for key in ("threadId", "turnId", "itemId")} == {
        "threadId": "t",
        "turnId": "u",
        "itemId": "i",
    }


def test_one_delta_alone_stays_as_it_is() -> None:
    entry = delta(1, "a")
    assert next(merge([entry])).message is entry.message


def test_a_large_delta_passes_as_it_is_in_its_place() -> None:
    large = "x" * LARGE_DELTA
    entries = [delta(1, "a"), delta(2, "b"), delta(3, large), delta(4, "c"), delta(5, "d")]
    merged = list(merge(entries))
    assert deltas(merged) == ["ab", large, "cd"]
    assert merged[1] is entries[2]


def test_other_items_indexes_and_events_of_the_thread_part_a_stream() -> None:
    entries = [
        delta(1, "a"),
        delta(2, "b", item="j"),
        delta(3, "c", method=SUMMARY, summaryIndex=0),
        delta(4, "d", method=SUMMARY, summaryIndex=1),
        delta(5, "e", method=SUMMARY, summaryIndex=1),
        event(6),
        delta(7, "f"),
    ]
    assert deltas(list(merge(entries))) == ["a", "b", "c", "de", "|", "f"]


def test_what_other_threads_say_in_between_parts_a_stream_only_where_numbers_must_go_up() -> None:
    entries = [delta(1, "a"), delta(2, "x", "s"), delta(3, "b"), event(4, "s"), delta(5, "c")]
    assert sorted(deltas(list(merge(entries)))) == ["abc", "x", "|"]
    assert deltas(list(merge(entries, in_order=True))) == ["a", "x", "b", "|", "c"]


def test_a_delta_of_an_unknown_shape_passes_as_it_is() -> None:
    odd = Entry(2, "t", TEXT, b'{"method":"item/agentMessage/delta","params":{"delta":5}}')
    assert list(merge([delta(1, "a"), odd, delta(3, "b")]))[1].message == odd.message


@st.composite
def histories(draw: st.DrawFn) -> list[Entry]:
    entries = []
    for seq in range(1, draw(st.integers(0, 30)) + 1):
        thread, item = draw(st.sampled_from("st")), draw(st.sampled_from("ij"))
        if draw(st.integers(0, 3)):
            entries.append(delta(seq, draw(st.text(max_size=3)), thread, item))
        else:
            entries.append(event(seq, thread))
    return entries


def retold(messages: Iterable[Entry | Message]) -> dict[str, list[tuple[str, str]]]:
    """By thread: its events in order, and between them what its items streamed."""
    told: dict[str, list[tuple[str, str]]] = {}
    for each in messages:
        params = json.loads(each.message)["params"]
        mine = told.setdefault(params["threadId"], [])
        if each.method != TEXT:
            mine.append(("event", params["item"]["id"]))
        elif mine and mine[-1][0] == params["itemId"]:
            mine[-1] = (mine[-1][0], mine[-1][1] + params["delta"])
        else:
            mine.append((params["itemId"], params["delta"]))
    return told


@given(histories(), st.booleans())
def test_merging_loses_doubles_and_reorders_nothing_within_a_thread(
    entries: list[Entry], in_order: bool
) -> None:
    merged = list(merge(entries, in_order=in_order))
    assert retold(merged) == retold(entries)
    if in_order:
        assert all(before.seq < after.seq for before, after in pairwise(merged))
    if entries:
        assert max(each.seq for each in merged) == entries[-1].seq


# ── on the way out ────────────────────────────────────────────────────────────────────────────


def test_numbers_and_cursors_stand_in_front() -> None:
    line = b'{"method":"m","params":{}}'
    told = {"method": "m", "params": {}}
    assert json.loads(with_seq(line, 12)) == {"seq": 12, **told}
    assert json.loads(with_cursor(with_seq(line, 12), 15)) == {"cursor": 15, "seq": 12, **told}


def test_a_delta_keeps_all_but_its_text() -> None:
    line = dumps(
        {"method": TEXT, "params": {"delta": "a", "new": [1]}, "emittedAtMs": 5, "x": None}
    )
    changed = json.loads(with_delta(line, b'"b"'))
    assert changed == {
        "method": TEXT,
        "params": {"delta": "b", "new": [1]},
        "emittedAtMs": 5,
        "x": None,
    }
