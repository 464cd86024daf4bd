"""`mux.notices.answer_tickets`: how long a ticket is remembered, and how many are."""

from __future__ import annotations

import hashlib

import pytest

from mux.notices import answer_tickets as module
from mux.notices.answer_tickets import PREFIX, REMEMBERED_SECONDS, AnswerTickets, digest_of


def test_a_ticket_is_what_was_said_of_it() -> None:
    tickets = AnswerTickets()
    text = tickets.issue("device:a", 7, "p-1", seconds=99.0, now=1.0, wall=5.0)
    assert text.startswith(PREFIX)
    assert len(text) == len(PREFIX) + 43  # 32 bytes
    found = tickets.find(text)
    assert found is not None
    assert (found.device, found.request, found.push, found.until) == ("device:a", 7, "p-1", 100.0)
    assert (found.wall_until, found.used) == (104.0, False)
    assert found.digest == hashlib.sha256(text.encode()).hexdigest() == digest_of(text)
    assert tickets.find(text) is found
    assert tickets.find(text[:-1]) is None
    assert tickets.find("") is None
    assert tickets.find("\ud800") is None  # no text that bytes could stand for


@pytest.mark.parametrize(
    ("now", "wall", "over"),
    [(99.0, 103.0, False), (100.0, 103.0, True), (99.0, 104.0, True), (101.0, 105.0, True)],
)
def test_a_ticket_is_over_when_either_clock_says_so(now: float, wall: float, over: bool) -> None:
    """One stands still while the machine sleeps, the other may be set back."""
    tickets = AnswerTickets()
    found = tickets.find(tickets.issue("a", 7, "p", seconds=99.0, now=1.0, wall=5.0))
    assert found is not None
    assert found.over(now, wall) is over


def test_one_that_is_over_is_remembered_for_an_hour_and_no_longer() -> None:
    tickets = AnswerTickets()
    text = tickets.issue("a", 1, "p", seconds=100.0, now=0.0, wall=0.0)
    end = 100.0 + REMEMBERED_SECONDS
    tickets.issue("a", 2, "p", seconds=9.0, now=end - 0.5, wall=0.0)
    assert tickets.find(text) is not None
    tickets.issue("a", 3, "p", seconds=9.0, now=end, wall=0.0)
    assert tickets.find(text) is None


def test_the_oldest_goes_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    tickets = AnswerTickets()
    texts = [tickets.issue("a", number, "p", seconds=1e9, now=0.0, wall=0.0) for number in range(4)]
    assert [tickets.find(text) is not None for text in texts] == [False, True, True, True]


def test_a_digest_that_stands_at_another_s_place_opens_nothing() -> None:
    tickets = AnswerTickets()
    one, other = (
        tickets.issue("a", number, "p", seconds=1e9, now=0.0, wall=0.0) for number in (1, 2)
    )
    tickets._tickets[digest_of(one)] = tickets._tickets[digest_of(other)]
    assert tickets.find(one) is None
