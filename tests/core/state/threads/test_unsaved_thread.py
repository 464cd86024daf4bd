"""Threads that only the broker knows: answered from their birth."""

from __future__ import annotations

import json

import pytest

from mux.core.state.threads.unsaved_thread import HISTORY_BYTES, UnsavedThread, read_unsaved_thread
from mux.core.state.turns.running_turn import RunningTurn
from tests.core.state.turns.test_running_turn import begins, completes, ends, starts
from tests.core.stories import Json, dumps

IDLE = b'{"type":"idle"}'


def birth(*turns: Json, ephemeral: bool = False, forked: bytes | None = None) -> UnsavedThread:
    thread = {"id": "t", "ephemeral": ephemeral, "turns": turns, "status": {"type": "idle"}}
    answer = {"id": 1, "result": {"thread": thread, "model": "m", "new": [1]}}
    found = read_unsaved_thread(dumps(answer), forked)
    assert found is not None
    return found


def lives(birth: UnsavedThread, running: RunningTurn, turn: str, *items: str) -> None:
    """A whole turn."""
    begins(running, turn)
    birth.apply("turn/started", b"{}", running)
    for item in items:
        completes(running, item, turn=turn)
    line = dumps({"params": {"turn": {"id": turn, "status": "completed", "items": []}}})
    birth.apply("turn/completed", line, running)
    ends(running, turn)


def turns(
    birth: UnsavedThread, running: RunningTurn, *, asked: bool = True
) -> list[tuple[str, list[str]]]:
    told = json.loads(birth.resumed(IDLE, running, turns=asked))["thread"]["turns"]
    return [(turn["id"], [item["id"] for item in turn["items"]]) for turn in told]


def test_a_fresh_one_is_told_with_all_that_its_start_said() -> None:
    told = json.loads(birth().resumed(IDLE, RunningTurn(), turns=True))
    assert told["model"] == "m"
    assert told["new"] == [1]
    assert told["thread"] == {
        "id": "t",
        "ephemeral": False,
        "turns": [],
        "status": {"type": "idle"},
        "preview": "",
    }


def test_it_is_fresh_until_its_first_turn_begins_and_young_until_that_ends() -> None:
    born, running = birth(), RunningTurn()
    assert (born.only_here, born.is_complete) == (True, True)
    begins(running)
    born.apply("turn/started", b"{}", running)
    assert (born.only_here, born.is_complete) == (False, True)
    assert turns(born, running) == [("u", [])]
    born.apply("turn/completed", b"{}", running)
    assert born.is_complete is False


@pytest.mark.parametrize("past", [(), ({"id": "before", "items": []},)], ids=["untold", "told"])
def test_a_fork_is_not_fresh_unless_it_is_ephemeral(past: tuple[Json, ...]) -> None:
    assert not birth(*past, forked=b"{}").only_here
    assert birth(*past, forked=b"{}", ephemeral=True).only_here


def test_an_ephemeral_one_is_told_with_its_past() -> None:
    born, running = birth(ephemeral=True), RunningTurn()
    lives(born, running, "u1", "a", "b")
    begins(running, "u2")
    born.apply("turn/started", b"{}", running)
    completes(running, "c", turn="u2")
    assert turns(born, running) == [("u1", ["a", "b"]), ("u2", ["c"])]
    assert turns(born, running, asked=False) == []
    assert born.only_here


def test_a_command_that_outlives_its_turn_is_in_it_once_it_is_complete() -> None:
    born, running = birth(ephemeral=True), RunningTurn()
    begins(running, "u1")
    completes(running, "a", turn="u1")
    starts(running, "c", "commandExecution", turn="u1")
    born.apply("turn/completed", dumps({"params": {"turn": {"id": "u1", "items": []}}}), running)
    ends(running, "u1")
    done = dumps({"params": {"turnId": "u1", "item": {"id": "c", "type": "commandExecution"}}})
    born.apply("item/completed", done, running)
    assert turns(born, running) == [("u1", ["a", "c"])]


def test_the_oldest_of_a_long_past_is_forgotten() -> None:
    born, running = birth(ephemeral=True), RunningTurn()
    for turn in ("u1", "u2"):
        lives(born, running, turn, "x" * (HISTORY_BYTES * 2 // 3))
    assert [id for id, _ in turns(born, running)] == ["u2"]


@pytest.mark.parametrize("odd", [{"error": {}}, {"result": None}, {"result": {"thread": None}}])
def test_an_answer_without_a_thread_is_no_birth(odd: Json) -> None:
    assert read_unsaved_thread(dumps(odd)) is None
