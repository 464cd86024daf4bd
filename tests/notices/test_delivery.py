"""What becomes of the core's notices: pushes, the ledger, and a second life on it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from mux.core.policy.notice import Notice
from mux.notices.ledger import FILE, MOST_STEPS, Ledger
from mux.push.outcome import Delivered
from tests.notices.desk import CWD, Desk


def sent(desk: Desk) -> None:
    """All that waits is delivered."""
    queue = desk.asked.delivery.pushes.queue
    for row in queue.waiting():
        queue.begin(row)
        queue.settle(row, Delivered("200"), desk.now)


def aside(where: Path) -> list[Path]:
    """The ledgers that were moved aside."""
    return list(where.glob(f"{FILE}.broken-*"))


def resolves(desk: Desk, id: int) -> None:
    desk.says({"method": "serverRequest/resolved", "params": {"threadId": "t", "requestId": id}})


async def test_of_two_on_a_thread_the_other_takes_the_place_of_the_one_that_is_over(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path)
    desk.pair("phone")
    desk.asks(5)
    desk.asks(6, f"{CWD}/other.txt")
    (push,) = desk.queued()  # the first is replaced: one collapse key
    assert (push.count, push.body, push.urgent) == (2, "change other.txt", True)
    sent(desk)
    resolves(desk, 6)
    (left,) = desk.queued()
    assert (left.count, left.body, left.urgent) == (1, "change new.txt", False)
    assert left.collapse == push.collapse
    assert left.ticket not in (None, push.ticket)
    sent(desk)
    resolves(desk, 5)
    (gone,) = desk.queued()
    assert gone.withdraw
    assert gone.collapse == push.collapse


async def test_ids_and_keys_are_each_devices_own(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for name in ("phone", "tablet"):
        desk.pair(name)
    for device in desk.book:
        assert desk.asked.delivery.name(f"device:{device.id}") == device.name
    desk.says({"method": "turn/started", "params": {"threadId": "t", "turn": {"id": "u"}}})
    desk.asks()
    (push,) = desk.queued()
    ledger = desk.asked.delivery.ledger
    (owner,) = [device for id, device in ledger.pushes(f"asked/{int(desk.now) + 1}")]
    others = [f"device:{each.id}" for each in desk.book if f"device:{each.id}" != owner]
    assert ledger.notice_of_push(push.id, [owner]) is not None
    assert ledger.notice_of_push(push.id, others) is None


async def test_what_was_not_sent_when_it_was_killed_is_told_once_as_it_is_then(
    tmp_path: Path,
) -> None:
    first = Desk(tmp_path)
    first.pair("phone")
    first.asks()
    assert len(first.queued()) == 1  # which isn't on disk: its keeper doesn't run
    second = Desk(tmp_path, now=first.now + 60)
    (push,) = second.queued()
    assert push.kind == "interrupted"
    assert push.ticket is None
    assert "restarted while an approval waited" in (push.body or "")
    await second.asked.delivery.pushes.keeper.flush()
    third = Desk(tmp_path, now=first.now + 120)
    assert [each.id for each in third.queued()] == [push.id]


async def test_what_was_delivered_before_is_taken_back_and_not_told_again(tmp_path: Path) -> None:
    first = Desk(tmp_path)
    first.pair("phone")
    first.asks()
    sent(first)
    await first.asked.delivery.pushes.keeper.flush()
    second = Desk(tmp_path, now=first.now + 60)
    (push,) = second.queued()
    assert push.withdraw


async def test_a_revoked_device_is_told_nothing_more(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    device = desk.pair("phone")
    desk.asks(5)
    desk.book.revoke(device)
    desk.asked.delivery.revoked(device.id)
    assert desk.queued() == []
    desk.asks(6)
    assert desk.queued() == []


async def test_a_ledger_that_is_broken_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database, and long enough to be taken for one " * 50)
    desk = Desk(tmp_path)
    desk.pair("phone")
    desk.asks()
    assert len(desk.queued()) == 1
    assert desk.asked.delivery.ledger.trouble is None
    assert aside(tmp_path)


async def test_a_disk_that_takes_nothing_stops_no_notice(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.pair("phone")
    lock = sqlite3.connect(tmp_path / FILE)
    lock.execute("BEGIN EXCLUSIVE")
    desk.asks()
    lock.rollback()
    lock.close()
    assert len(desk.queued()) == 1
    assert "can't be written" in (desk.asked.delivery.status()["trouble"] or "")
    desk.asks(6)
    assert desk.asked.delivery.status()["trouble"] is None


def test_steps_of_one_thing_are_bounded(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, lambda: 1.0)
    ledger.raised(Notice("thing", "turn-completed", None, None, "", "", None, ""))
    for n in range(2 * MOST_STEPS):
        ledger.step("thing", "suppressed", str(n))
    assert len(ledger.steps("thing")) == MOST_STEPS
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    ledger.close()
