"""Requests about notices and pushes: each device has its own, and `admin` everybody's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mux.core.commands import AnswerOutside
from mux.core.policy.principal import Principal, device_key
from mux.core.protocol.scope import Scope
from mux.dispatch.outbox import ClientPort, Outbox
from mux.errors import AppmuxError
from tests.notices.desk import Desk

OFF = [{"mode": "off"}]


def attached(desk: Desk, name: str, *scopes: Scope) -> tuple[int, str]:
    """A paired device with an endpoint; the number of its connection, and its key."""
    device = desk.pair(name, frozenset(scopes))
    principal = Principal(name, "device", None, device.scopes, device.id)
    port = ClientPort(Outbox(), lambda _code, _reason: None)
    return desk.dispatcher.attach(port, principal, "wss", "127.0.0.1:5"), device_key(device.id)


def ask(desk: Desk, client: int, method: str, **params: object) -> Any:
    return desk.asked.answer(AnswerOutside(client, b"1", method, json.dumps(params).encode()))


async def tries(desk: Desk, client: int, **params: object) -> Any:
    asked = AnswerOutside(client, b"1", "mux/notices/test", json.dumps(params).encode())
    return await desk.asked.test(asked)


def rules_of(desk: Desk, key: str) -> list[Any]:
    return list(desk.asked.delivery.preferences.of(key))


async def test_a_device_sets_what_it_is_told_itself(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    phone, key = attached(desk, "phone", "observe")
    assert ask(desk, phone, "mux/notices/settings/write", rules=OFF).device == "phone"
    assert len(rules_of(desk, key)) == 1
    assert ask(desk, phone, "mux/notices/settings/read", device="Phone").device == "phone"
    ask(desk, phone, "mux/notices/snooze", seconds=60)
    assert len(rules_of(desk, key)) == 2


@pytest.mark.parametrize("name", ["desk", "nobody"])
async def test_of_another_device_nothing_is_told_or_changed(tmp_path: Path, name: str) -> None:
    desk = Desk(tmp_path)
    phone, _ = attached(desk, "phone", "observe", "approve", "drive")
    _, other = attached(desk, "desk", "observe")
    before = rules_of(desk, other)
    for method, params in (
        ("mux/notices/settings/read", {}),
        ("mux/notices/settings/write", {"rules": OFF}),
        ("mux/notices/snooze", {"seconds": 60}),
    ):
        with pytest.raises(AppmuxError, match="needs the scope `admin`"):
            ask(desk, phone, method, device=name, **params)
    with pytest.raises(AppmuxError, match="needs the scope `admin`"):
        await tries(desk, phone, device=name)
    assert rules_of(desk, other) == before


async def test_who_administers_sets_it_for_each(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    admin, _ = attached(desk, "laptop", "observe", "admin")
    _, other = attached(desk, "phone", "observe")
    assert ask(desk, admin, "mux/notices/settings/write", device="phone", rules=OFF).rules
    assert len(rules_of(desk, other)) == 1
    with pytest.raises(AppmuxError, match="no device is named 'nobody'"):
        ask(desk, admin, "mux/notices/snooze", device="nobody", seconds=60)


async def test_where_pushes_go_is_each_devices_own(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    phone, key = attached(desk, "phone", "observe", "drive")
    admin, _ = attached(desk, "laptop", "observe", "admin")
    _, other = attached(desk, "desk", "observe")
    endpoints = desk.asked.delivery.pushes.endpoints
    (theirs,) = endpoints.of(other)
    listed = ask(desk, phone, "mux/push/list").endpoints
    assert [each.device for each in listed] == ["phone"]
    with pytest.raises(AppmuxError, match="need the scope `admin`"):
        ask(desk, phone, "mux/push/list", all=True)
    assert not ask(desk, phone, "mux/push/unregister", id=theirs.id).removed
    assert endpoints.of(other) == [theirs]
    assert "push/unregistered" not in [kind for kind, _ in desk.records]
    assert len(ask(desk, admin, "mux/push/list", all=True).endpoints) == 3
    assert ask(desk, admin, "mux/push/unregister", id=theirs.id).removed
    assert not endpoints.of(other)
    (mine,) = endpoints.of(key)
    assert ask(desk, phone, "mux/push/unregister", id=mine.id).removed
    ended = [fields for kind, fields in desk.records if kind == "push/unregistered"]
    assert [(each["device"], each["by"]) for each in ended] == [
        ("desk", "laptop"),
        ("phone", "phone"),
    ]


async def test_only_a_device_that_got_a_notice_reads_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    phone, _ = attached(desk, "phone", "observe", "approve")
    desk.asks()
    (sent,) = [push for push in desk.queued() if not push.withdraw]
    stranger, _ = attached(desk, "stranger", "observe", "approve", "admin")
    assert ask(desk, phone, "mux/notices/read", id=sent.id).requestId
    with pytest.raises(AppmuxError, match="your device got no such notice"):
        ask(desk, stranger, "mux/notices/read", id=sent.id)


async def test_what_a_device_names_is_judged(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    phone, _ = attached(desk, "phone", "observe")
    with pytest.raises(AppmuxError, match="must be an object"):
        ask(desk, phone, "mux/push/register", service="ntfy", address=[1])
    address = {"server": "https://127.0.0.1", "topic": "t"}
    with pytest.raises(AppmuxError, match="an address of this host"):
        ask(desk, phone, "mux/push/register", service="ntfy", address=address)
    with pytest.raises(AppmuxError, match="mux/notices/list"):
        ask(desk, phone, "mux/notices/list", limit="many")
    for limit in (0, 1001):
        with pytest.raises(AppmuxError, match="`limit` must be from 1 to"):
            ask(desk, phone, "mux/notices/list", limit=limit)
    with pytest.raises(AppmuxError, match="nobody here answers `mux/notices/other`"):
        ask(desk, phone, "mux/notices/other")
