"""What runs on a thread, as a joiner is given it; one by one what the property tests play whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mux.core.protocol.envelope.jsonrpc import read_upstream
from mux.core.state.turns.delta_stream import DeltaStream
from mux.core.state.turns.running_turn import RunningTurn, up_to_date
from tests.core.stories import DELTA, Json, Story, dumps

TEXT = "item/agentMessage/delta"
SUMMARY = "item/reasoning/summaryTextDelta"
PATCHED = "item/fileChange/patchUpdated"


def hears(running: RunningTurn, method: str, **params: object) -> None:
    line = dumps({"method": method, "params": {"threadId": "t", "turnId": "u", **params}})
    message = read_upstream(line)
    assert message is not None
    assert message.params is not None
    running.apply(method, message.params, line)


def begins(running: RunningTurn, turn: str = "u") -> None:
    hears(running, "turn/started", turn={"id": turn, "status": "inProgress", "items": []})


def ends(running: RunningTurn, turn: str = "u") -> None:
    hears(running, "turn/completed", turn={"id": turn, "status": "completed", "items": []})


def starts(running: RunningTurn, id: str, type: str = "agentMessage", turn: str = "u") -> None:
    hears(running, "item/started", turnId=turn, item={"id": id, "type": type})


def completes(running: RunningTurn, id: str, type: str = "agentMessage", turn: str = "u") -> None:
    hears(running, "item/completed", turnId=turn, item={"id": id, "type": type, "text": "all"})


def streams(running: RunningTurn, id: str, delta: str, method: str = TEXT, **where: int) -> None:
    hears(running, method, itemId=id, delta=delta, **where)


def introduced(running: RunningTurn) -> list[tuple[str, Any]]:
    """The introduction: each method with the item, or what it streamed."""
    told = []
    for method, line in running.introduction():
        assert isinstance(line, bytes)
        params = json.loads(line)["params"]
        told.append((method, params.get("delta", params.get("itemId") or params.get("item"))))
    return told


@pytest.fixture
def running() -> RunningTurn:
    """A turn has begun."""
    running = RunningTurn()
    begins(running)
    return running


# ── the introduction ──────────────────────────────────────────────────────────────────────────


def test_streams_of_one_item_stay_apart_and_in_order(running: RunningTurn) -> None:
    starts(running, "r", "reasoning")
    for piece in "ab":
        streams(running, "r", piece, SUMMARY, summaryIndex=0)
    streams(running, "r", "c", SUMMARY, summaryIndex=1)
    streams(running, "r", 'd"\\', SUMMARY, summaryIndex=1)
    assert introduced(running)[1:] == [(SUMMARY, "ab"), (SUMMARY, 'cd"\\')]


def test_a_long_text_is_kept_as_one_piece(running: RunningTurn) -> None:
    starts(running, "m")
    words = [f"{n} " for n in range(2000)]
    for word in words:
        streams(running, "m", word)
    assert introduced(running)[1] == (TEXT, "".join(words))
    (stream,) = running.items["m"].parts
    assert isinstance(stream, DeltaStream)


def test_what_is_complete_is_not_introduced_and_what_replaces_says_all(
    running: RunningTurn,
) -> None:
    starts(running, "done")
    streams(running, "done", "text")
    completes(running, "done")
    starts(running, "f", "fileChange")
    hears(running, PATCHED, itemId="f", changes=[1])
    hears(running, PATCHED, itemId="f", changes=[1, 2])
    hears(running, "turn/diff/updated", diff="old")
    hears(running, "turn/diff/updated", diff="new")
    told = [line for _, line in running.introduction()]
    lines = [json.loads(line) for line in told if isinstance(line, bytes)]
    assert [each["method"] for each in lines] == ["item/started", PATCHED, "turn/diff/updated"]
    assert lines[1]["params"]["changes"] == [1, 2]
    assert lines[2]["params"]["diff"] == "new"


def test_deltas_of_items_never_started_or_complete_are_no_ones(running: RunningTurn) -> None:
    streams(running, "unknown", "x")
    completes(running, "m")
    streams(running, "m", "late")
    assert introduced(running) == []


def test_after_its_turn_only_a_command_goes_on(running: RunningTurn) -> None:
    starts(running, "c", "commandExecution")
    starts(running, "m")  # a message that a steering cut short: it is never completed
    ends(running)
    assert introduced(running) == [("item/started", {"id": "c", "type": "commandExecution"})]
    begins(running, "v")
    completes(running, "c", "commandExecution")
    assert introduced(running) == []
    assert json.loads(running.shown()["items"]) == [], "it isn't the new turn's"
    assert list(running.outlived()) == ["c"]


# ── snapshots ─────────────────────────────────────────────────────────────────────────────────


def snapshot(*turns: Json, status: str = "active") -> bytes:
    return dumps({"model": "m", "thread": {"id": "t", "status": {"type": status}, "turns": turns}})


def turn(id: str, status: str = "inProgress", items: Any = (), view: str = "full") -> Json:
    return {"id": id, "status": status, "items": list(items), "itemsView": view}


def shown(
    running: RunningTurn, result: bytes, *, status: str = "active", turns: bool = True
) -> Json:
    known = dumps({"type": status})
    result = up_to_date(result, running, known, turns=turns)
    return json.loads(result)["thread"]  # type: ignore[no-any-return]


def test_the_running_turn_has_its_completed_items_under_the_ids_that_everybody_knows(
    running: RunningTurn,
) -> None:
    completes(running, "m")
    native = turn("u", items=[{"id": "item-1", "type": "agentMessage"}])
    (only,) = shown(running, snapshot(native))["turns"]
    assert [item["id"] for item in only["items"]] == ["m"]
    assert only["status"] == "inProgress"


def test_a_turn_that_began_meanwhile_is_there_unless_turns_were_not_asked_for(
    running: RunningTurn,
) -> None:
    assert [each["id"] for each in shown(running, snapshot())["turns"]] == ["u"]
    assert shown(running, snapshot(), turns=False)["turns"] == []


def test_a_turn_only_answered_for_is_not_shown_before_it_is_announced() -> None:
    running = RunningTurn()
    running.begin("t", dumps({"id": "u", "status": "inProgress", "items": []}), None)
    assert shown(running, snapshot())["turns"] == []
    assert shown(running, snapshot(turn("u")))["turns"][0]["status"] == "inProgress"


def test_a_turn_that_a_dead_app_server_left_is_shown_as_interrupted(running: RunningTurn) -> None:
    left = turn("dead", items=[{"id": "x"}])
    turns = shown(running, snapshot(left, turn("done", "completed"), turn("u")))["turns"]
    assert [each["status"] for each in turns] == ["interrupted", "completed", "inProgress"]
    assert turns[0]["items"] == [{"id": "x"}]


def test_its_status_is_the_latest_that_we_know(running: RunningTurn) -> None:
    assert shown(running, snapshot(status="active"), status="idle")["status"] == {"type": "idle"}


def test_who_wants_no_items_gets_none(running: RunningTurn) -> None:
    completes(running, "m")
    (only,) = shown(running, snapshot(turn("u", view="notLoaded")))["turns"]
    assert only["items"] == []


def test_a_page_of_turns_is_brought_up_to_date_too(running: RunningTurn) -> None:
    completes(running, "m")
    page = {"data": [turn("u"), turn("older", "completed")], "nextCursor": None}
    result = dumps({"thread": {"id": "t", "turns": []}, "initialTurnsPage": page})
    told = json.loads(up_to_date(result, running, b'{"type":"active"}', turns=False))
    assert [len(each["items"]) for each in told["initialTurnsPage"]["data"]] == [1, 0]
    assert told["initialTurnsPage"].keys() == page.keys()  # it has no status


@pytest.mark.parametrize("odd", [b"null", b"[]", b'{"thread":null}', b'{"thread":{"turns":5}}'])
def test_a_result_of_another_shape_stays_as_it_is(running: RunningTurn, odd: bytes) -> None:
    assert json.loads(up_to_date(odd, running, None, turns=True)) == json.loads(odd)


# ── an end that nobody announces ──────────────────────────────────────────────────────────────


def test_a_turn_whose_app_server_died_ends_in_the_native_shape() -> None:
    running = RunningTurn()
    hears(
        running,
        "turn/started",
        turn={"id": "u", "status": "inProgress", "items": [], "startedAt": 100, "error": None},
    )
    told = json.loads(*running.interrupted(107.9))
    assert told["method"] == "turn/completed"
    assert told["params"]["threadId"] == "t"
    assert told["params"]["turn"] == {
        "id": "u",
        "status": "interrupted",
        "items": [],
        "startedAt": 100,
        "error": None,
        "completedAt": 107,
        "durationMs": 7000,
    }
    running.forget()
    assert introduced(running) == []


def test_a_delta_that_is_no_text_spoils_nothing_for_who_comes_late() -> None:
    story = Story.begun()
    a, late = story.peer("a"), story.peer("late")
    story.creates(a)
    story.begins_turn()
    started = {"threadId": "t", "turnId": "t-turn", "item": {"id": "i", "type": "agentMessage"}}
    story.notifies("item/started", started)
    for delta in ("x", ["y"], None, "z"):
        params = {"threadId": "t", "turnId": "t-turn", "itemId": "i", "delta": delta}
        story.notifies(DELTA, params)
    story.follows(late)
    assert [each["params"]["delta"] for each in late.heard(DELTA)] == ["xz"]
