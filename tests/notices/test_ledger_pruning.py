"""The ledger: what it forgets, how little of it at a time, and that its file shrinks."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mux.core.policy.notice import Notice
from mux.notices import ledger as ledgers
from mux.notices.ledger import FILE, FORGOTTEN_AT_ONCE, MOST_STEPS, Ledger

DAY = 86_400.0


class Clock:
    """What time it is."""

    now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


def notice(n: int) -> Notice:
    return Notice(
        f"thing {n}", "turn-completed", "thread", f"turn {n}", "A title", "x" * 100, None, ""
    )


def raise_some(ledger: Ledger, numbers: range, clock: Clock, steps: int = 3) -> None:
    for n in numbers:
        clock.now += 1
        ledger.raised(notice(n))
        for step in range(steps):
            ledger.step(f"thing {n}", "suppressed", f"for the {step}. time: " + "y" * 100)
        ledger.pushed(f"push {n}", f"thing {n}", "device")


def counts(ledger: Ledger) -> list[int]:
    return [
        ledger.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("thing", "step", "push")
    ]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(ledgers, "MOST_THINGS", 200)
    return Ledger.open(tmp_path, clock)


def test_the_oldest_are_forgotten_with_all_that_is_known_of_them(
    ledger: Ledger, clock: Clock
) -> None:
    raise_some(ledger, range(250), clock)
    assert ledger.known() == tuple(f"thing {n}" for n in range(50, 250))
    assert counts(ledger) == [200, 600, 200]
    ledger.close()


def test_what_is_too_old_is_forgotten_a_few_at_a_time(ledger: Ledger, clock: Clock) -> None:
    raise_some(ledger, range(100), clock)
    clock.now += ledgers.KEPT_SECONDS
    for n in range(100, 130):
        before = counts(ledger)[0]
        raise_some(ledger, range(n, n + 1), clock)
        assert before + 1 - counts(ledger)[0] <= FORGOTTEN_AT_ONCE
    assert ledger.known() == tuple(f"thing {n}" for n in range(100, 130))
    ledger.close()


def test_raising_one_touches_few_rows_however_many_there_are(ledger: Ledger, clock: Clock) -> None:
    """Counted in steps of SQLite's machine: a look through all steps would take 100,000 of them."""
    raise_some(ledger, range(200), clock, steps=MOST_STEPS)
    most = 0
    for n in range(200, 220):
        looked = [0]

        def count(looked: list[int] = looked) -> int:
            looked[0] += 100
            return 0

        ledger.connection.set_progress_handler(count, 100)
        ledger.raised(notice(n))
        ledger.connection.set_progress_handler(None, 0)
        most = max(most, looked[0])
        raise_some(ledger, range(n, n + 1), clock, steps=MOST_STEPS)
    assert most < 10_000
    ledger.close()


def test_the_same_one_raised_again_and_again_makes_nothing_forgotten(
    ledger: Ledger, clock: Clock
) -> None:
    raise_some(ledger, range(200), clock)
    for _ in range(500):
        ledger.raised(notice(199))
    assert counts(ledger) == [200, 600, 200]
    ledger.close()


def test_of_what_is_forgotten_nothing_more_is_written_down(ledger: Ledger, clock: Clock) -> None:
    raise_some(ledger, range(201), clock)
    ledger.step("thing 0", "withdrawn", "late")
    assert ledger.steps("thing 0") == []
    ledger.close()


def test_the_file_shrinks_when_it_holds_less(
    ledger: Ledger, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_some(ledger, range(200), clock, steps=MOST_STEPS)
    ledger.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    large = (tmp_path / FILE).stat().st_size
    clock.now += ledgers.KEPT_SECONDS + DAY
    raise_some(ledger, range(200, 300), clock)
    ledger.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    ledger.close()
    assert (tmp_path / FILE).stat().st_size < large
    again = Ledger.open(tmp_path, clock)
    again.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    again.close()
    assert (tmp_path / FILE).stat().st_size <= ledgers.FREE_PAGES * 4096 + large / 10


def test_one_of_an_earlier_version_goes_on(tmp_path: Path, clock: Clock) -> None:
    connection = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    ledgers._first(connection)
    connection.execute(f"PRAGMA application_id = {ledgers.FORM.application}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    ledger = Ledger.open(tmp_path, clock)
    raise_some(ledger, range(3), clock)
    assert ledger.trouble is None
    assert len(ledger.known()) == 3
    ledger.close()
