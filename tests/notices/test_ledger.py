"""The soak's checks find what they look for: what is lost, doubled, out of place, not the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.soak.ledger import Ledger, Stay
from tests.view import View

Json = dict[str, Any]
THREAD = "t"
SNAPSHOT: Json = {"thread": {"turns": []}}


def message(method: str, **params: Any) -> Json:
    return {"method": method, "params": {"threadId": THREAD, "turnId": "u", **params}}


def item(id: str, text: str = "") -> Json:
    return {"id": id, "type": "agentMessage", "text": text}


def delta(id: str, text: str) -> Json:
    return message("item/agentMessage/delta", itemId=id, delta=text)


TOLD = [
    message("turn/started", turn={"id": "u", "status": "inProgress"}),
    message("item/started", item=item("a")),
    delta("a", "one "),
    delta("a", "two"),
    message("item/completed", item=item("a", "one two")),
    {"id": 7, **message("item/commandExecution/requestApproval", itemId="x")},
    message("item/started", item=item("b")),
    delta("b", "more"),
    message("serverRequest/resolved", requestId=7),
    message("item/completed", item=item("b", "more")),
    message("turn/completed", turn={"id": "u", "status": "completed"}),
]


def faults(*messages: Json) -> list[str]:
    """What is found with a client that was told this."""
    ledger = Ledger([Stay("one", THREAD, SNAPSHOT, whole=False, messages=list(messages))])
    return ledger.faults(TOLD, (THREAD,))


@pytest.mark.parametrize("first", range(len(TOLD) + 1))
def test_a_stretch_is_good_wherever_nothing_runs(first: int) -> None:
    nothing_runs = first in (0, 1, 5, 6, 10, 11)
    assert (faults(*TOLD[first:]) == []) == nothing_runs


def test_one_that_came_in_the_middle_is_introduced_to_what_runs_and_waits() -> None:
    introduction = [TOLD[6], delta("b", "more"), TOLD[5]]
    assert faults(*introduction, *TOLD[8:]) == []
    assert faults(*TOLD[8:]), "without it, it lacks something"
    assert faults(TOLD[6], *TOLD[8:]), "with no text so far, it lacks that"


def test_merged_deltas_are_as_good() -> None:
    assert faults(*TOLD[:2], delta("a", "one two"), *TOLD[4:]) == []


@pytest.mark.parametrize("lost", range(1, 10))
def test_one_that_is_lost_in_the_middle_is_found(lost: int) -> None:
    found = faults(*TOLD[:lost], *TOLD[lost + 1 :])
    assert found or TOLD[lost]["method"] == "serverRequest/resolved"


@pytest.mark.parametrize("doubled", range(len(TOLD)))
def test_one_that_is_doubled_is_found(doubled: int) -> None:
    assert faults(*TOLD[: doubled + 1], *TOLD[doubled:])


@pytest.mark.parametrize("swapped", [0, 1, 2, 3, 4, 5, 6, 9])
def test_two_that_are_swapped_are_found(swapped: int) -> None:
    other = [*TOLD[:swapped], TOLD[swapped + 1], TOLD[swapped], *TOLD[swapped + 2 :]]
    assert faults(*other)


def test_a_resident_that_was_told_half_is_found() -> None:
    ledger = Ledger()
    (found,) = ledger.faults([*TOLD[:3], *TOLD[4:]], (THREAD,))
    assert "streamed" in found


def test_at_the_end_views_must_be_the_same() -> None:
    resident = View(THREAD).hear_all(TOLD)
    ledger = Ledger()
    whole = Stay("one", THREAD, SNAPSHOT, whole=True, messages=TOLD)
    assert ledger.faults_at_end(whole, resident, resident) == []
    missing = Stay("one", THREAD, SNAPSHOT, whole=True, messages=TOLD[5:])
    assert ledger.faults_at_end(missing, resident, resident)
    missing.whole = False
    assert ledger.faults_at_end(missing, resident, resident) == []
    unfinished = Stay("one", THREAD, SNAPSHOT, whole=False, messages=TOLD[:-1])
    assert ledger.faults_at_end(unfinished, resident, resident)
    still_asked = Stay("one", THREAD, SNAPSHOT, whole=True, messages=[*TOLD[:8], *TOLD[9:]])
    assert ledger.faults_at_end(still_asked, resident, resident)


def test_what_was_stored_and_never_said_is_no_difference() -> None:
    """The app-server was killed between the two."""
    ended = message("turn/completed", turn={"id": "u", "status": "interrupted"})
    resident = View(THREAD).hear_all([TOLD[0], ended])
    stored: Json = {"thread": {"turns": [
        {"id": "u", "status": "completed", "items": []},
        {"id": "v", "status": "interrupted", "items": []},
    ]}}  # fmt: skip
    later = Stay("one", THREAD, stored, whole=True)
    assert Ledger().faults_at_end(later, resident, View(THREAD, stored)) == []
    assert Ledger().faults_at_end(later, resident, View(THREAD, SNAPSHOT))
    completed = View(THREAD).hear_all([TOLD[0], TOLD[-1]])
    assert Ledger().faults_at_end(Stay("one", THREAD, SNAPSHOT, whole=True), completed, completed)


def test_a_commands_output_may_come_after_its_end_and_not_before_its_beginning() -> None:
    ran = {"id": "c", "type": "commandExecution"}
    begun, done = message("item/started", item=ran), message("item/completed", item=ran)
    output = message("item/commandExecution/outputDelta", itemId="c", delta="out")
    assert View(THREAD).hear_all([begun, done, output]).faults == []
    assert View(THREAD).hear_all([output, begun, done]).faults
    assert View(THREAD).hear_all([output, done]).faults
