"""Pushes to pages: the host's name, the page that a tap opens, the badge, and that they arrived."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mux.cli.devices.notices import lines
from mux.cli.doctor.broker import _notices
from mux.core.commands import AnswerOutside
from mux.core.extension.notices import Notices, Received
from mux.core.policy.notice import WAITING
from mux.core.policy.principal import Principal, device_key
from mux.dispatch.outbox import ClientPort, Outbox
from mux.errors import AppmuxError
from mux.notices import delivery
from mux.push.endpoints import Endpoint
from mux.push.outcome import Delivered
from mux.push.services.webpush import document
from tests.notices.desk import Desk
from tests.push.browser import Browser
from tests.push.told import push

ORIGIN = "https://box.tail1234.ts.net:14543"


def page(desk: Desk, name: str, origin: str = ORIGIN) -> tuple[int, str]:
    """A page of a paired device, attached; its client's number, and the device's key."""
    device = desk.book.add(name, "paired", frozenset({"observe", "approve"}), name * 8)
    principal = Principal(device.name, "device", None, device.scopes, device.id)
    port = ClientPort(Outbox(), lambda _code, _reason: None, origin=origin)
    client = desk.dispatcher.attach(port, principal, "wss", "127.0.0.1:5")
    return client, device_key(device.id)


def ask(desk: Desk, client: int, method: str, **params: object) -> Any:
    return desk.asked.answer(AnswerOutside(client, b"1", method, json.dumps(params).encode()))


def registers(desk: Desk, client: int, place: str = "https://push.example", **more: object) -> Any:
    browser = Browser(place)
    address = dict(browser.registration.address)
    return ask(desk, client, "mux/push/register", service="webpush", address=address, **more)


def endpoint(desk: Desk, key: str) -> Endpoint:
    (only,) = desk.asked.delivery.pushes.endpoints.of(key)
    return only


async def test_a_page_registers_for_its_own_origin(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    client, _ = page(desk, "phone")
    assert registers(desk, client).navigate == f"{ORIGIN}/"
    assert registers(desk, client, navigate=f"{ORIGIN}/?from=push").navigate.endswith("from=push")
    for wrong in (
        "https://elsewhere.example/",
        f"{ORIGIN}.elsewhere.example/",
        f"{ORIGIN}@elsewhere.example/",
        "javascript:alert(1)",
        f"{ORIGIN}/#x",
        f"{ORIGIN}/ x",
        f"{ORIGIN}/\\elsewhere",
        ORIGIN,
        "/",
    ):
        with pytest.raises(AppmuxError, match="the page's own origin"):
            registers(desk, client, navigate=wrong)
    app, _ = page(desk, "app", origin="")
    with pytest.raises(AppmuxError, match="has no origin"):
        registers(desk, app, "https://other.example", navigate=f"{ORIGIN}/")
    assert registers(desk, app, "https://other.example").navigate is None


async def test_it_is_kept_over_a_restart(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    client, key = page(desk, "phone")
    registers(desk, client)
    assert Desk(tmp_path).asked.delivery.pushes.endpoints.of(key)[0].navigate == f"{ORIGIN}/"


async def test_the_document_is_declarative_and_says_the_host_from_title_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.asked.delivery.host = "box"
    client, key = page(desk, "phone")
    registers(desk, client, level="title")
    desk.asks(5)
    (queued,) = desk.queued()
    told = document(endpoint(desk, key), queued)
    shown = told["notification"]
    assert told["web_push"] == 8030
    assert shown["title"] == "An approval waits · box"
    assert shown["navigate"] == f"{ORIGIN}/?notice={queued.id}"
    assert (shown["tag"], shown["app_badge"]) == (queued.collapse, "1")
    assert (shown["silent"], shown["mutable"]) == (False, True)
    assert shown["data"] == queued.document()
    assert (shown["data"]["host"], shown["data"]["badge"]) == ("box", 1)


def test_at_opaque_no_host_is_told_and_yet_there_is_a_title() -> None:
    there = Endpoint("e", "device:d", "webpush", {}, "opaque", 0.0, f"{ORIGIN}/")
    told = document(there, push(host="box", badge=0).at("opaque"))
    assert told["notification"]["title"] == "An approval waits"
    assert told["notification"]["app_badge"] == "0"
    assert "box" not in json.dumps(told).replace(ORIGIN, "")


def test_a_withdrawal_and_an_app_get_the_plain_document() -> None:
    there = Endpoint("e", "device:d", "webpush", {}, "full", 0.0, f"{ORIGIN}/")
    withdrawn = push().withdrawal(0, 1.0, 3)
    assert document(there, withdrawn) == withdrawn.document()
    assert withdrawn.document()["badge"] == 3
    app = Endpoint("e", "device:d", "webpush", {}, "full", 0.0)
    assert document(app, push()) == push().document()


@pytest.mark.parametrize(
    ("place", "silent"),
    [
        ("https://web.push.apple.com/QOm3/abc", False),
        ("https://web.push.apple.com.example/x", True),
        ("https://fcm.googleapis.com/fcm/send/x", True),
    ],
)
async def test_to_apple_nothing_is_sent_that_shows_nothing(
    tmp_path: Path, place: str, silent: bool
) -> None:
    desk = Desk(tmp_path)
    client, _ = page(desk, "phone")
    registers(desk, client, place)
    desk.asks(5)
    queue = desk.asked.delivery.pushes.queue
    (row,) = queue.ready(desk.now)
    queue.begin(row)
    queue.settle(row, Delivered("201"), desk.now)
    resolved = {"threadId": "t", "requestId": 5}
    desk.says({"method": "serverRequest/resolved", "params": resolved})
    assert [each.withdraw for each in desk.queued()] == ([True] if silent else [])


async def test_what_waits_unsent_for_apple_is_taken_back_all_the_same(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    client, _ = page(desk, "phone")
    registers(desk, client, "https://web.push.apple.com/QOm3/abc")
    desk.asks(5)
    assert len(desk.queued()) == 1
    desk.says({"method": "serverRequest/resolved", "params": {"threadId": "t", "requestId": 5}})
    assert desk.queued() == []


async def test_the_badge_counts_what_waits_at_the_device(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    client, key = page(desk, "phone")
    registers(desk, client)
    desk.asks(5)
    desk.asks(6)
    assert [each.badge for each in desk.queued()] == [2]
    assert desk.asked.delivery.ledger.standing_count(key, WAITING) == 2


async def test_what_was_told_says_what_for_also_after_a_restart(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    client, _ = page(desk, "phone")
    registers(desk, client)
    desk.asks(5)
    desk.says({"method": "serverRequest/resolved", "params": {"threadId": "t", "requestId": 5}})
    again = Desk(tmp_path)
    reader, _ = page(again, "reader")
    for where, asker in ((desk, client), (again, reader)):
        (told,) = ask(where, asker, "mux/notices/list").notices
        assert told.line == "change new.txt"
        assert (told.sentTo, told.over is None) == (["phone"], False)


async def test_a_push_that_arrived_is_shown_as_such(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    client, _ = page(desk, "phone")
    other, _ = page(desk, "other")
    registers(desk, client)
    desk.asks(5)
    queue = desk.asked.delivery.pushes.queue
    (row,) = queue.ready(desk.now)
    queue.begin(row)
    queue.settle(row, Delivered("201"), desk.now)
    assert ask(desk, other, "mux/push/received", ids=[row.push.id]) == Received(0)
    listed: Notices = ask(desk, client, "mux/notices/list", why=True)
    assert listed.notices[0].deliveries[0].arrived is None
    ids = [row.push.id, row.push.id, "unknown"]
    assert ask(desk, client, "mux/push/received", ids=ids) == Received(1)
    listed = ask(desk, client, "mux/notices/list", why=True)
    (made,) = listed.notices[0].deliveries
    assert made.arrived == desk.now
    import msgspec  # noqa: PLC0415 (here alone)

    told = lines(msgspec.to_builtins(listed.notices[0]))
    assert any("push to phone by webpush: arrived 2" in line for line in told)
    with pytest.raises(AppmuxError):
        ask(desk, client, "mux/push/received", ids=["x"] * 65)


async def test_a_device_that_hears_nothing_is_named(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    client, _ = page(desk, "phone")
    registers(desk, client)
    desk.now += 60  # the registration goes by the real clock
    ids = []
    for number in range(delivery.UNHEARD_PUSHES):
        desk.asks(number)
        queue = desk.asked.delivery.pushes.queue
        (row,) = queue.ready(desk.now)
        queue.begin(row)
        queue.settle(row, Delivered("201"), desk.now)
        ids.append(row.push.id)
        desk.now += 60
    assert desk.asked.delivery.status()["unheard"] == []  # they may still be on their way
    desk.now += delivery.ARRIVAL_SECONDS
    status = desk.asked.delivery.status()
    assert status["unheard"] == ["phone"]
    found = list(_notices(status))
    assert any("push to phone" in each.about for each in found)
    ask(desk, client, "mux/push/received", ids=ids[-1:])
    assert desk.asked.delivery.status()["unheard"] == []
