"""Answers from a lock screen: what a ticket is good for, and what each wrong one is told."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mux.access.authentication import open_auth
from mux.access.throttle import TOO_MANY, LoginThrottle
from mux.config.model import Auth
from mux.downstream.http.routes import admit
from mux.notices.answer_tickets import MOST, AnswerTickets
from mux.push.message import Push
from tests import knocks
from tests.notices.desk import Desk


def post(
    desk: Desk, push: Push, answer: str = "approve", *, ticket: str | None = None, token: str = ""
) -> tuple[int, Any]:
    body = {"answer": answer, "ticket": push.ticket if ticket is None else ticket}
    reply = desk.lockscreen.decide(push.id, token, json.dumps(body).encode(), "10.0.0.7:5")
    told = json.loads(reply.body)
    return int(reply.status), told.get("error", told)


def asked(desk: Desk, **options: Any) -> Push:
    """A phone, and the push of an approval that it got."""
    desk.pair("phone", **options)
    desk.asks()
    (push,) = desk.queued()
    return push


async def test_one_answer_by_a_ticket_counts_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    push = asked(desk)
    assert push.actions == ("approve", "decline")
    assert post(desk, push) == (200, {"decided": True, "waitsFor": None})
    assert desk.answered()[-1] == {"id": 5, "result": {"decision": "accept"}}
    assert post(desk, push) == (409, "used-ticket")
    assert len(desk.answered()) == 1
    assert desk.queued() == []  # taken back before it was sent


async def test_a_ticket_may_come_in_the_header(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    push = asked(desk)
    assert post(desk, push, "decline", ticket="", token=f"Bearer {push.ticket}")[0] == 200
    assert desk.answered()[-1]["result"] == {"decision": "decline"}


async def test_what_is_wrong_is_told_and_changes_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    push = asked(desk)
    desk.pair("tablet")
    for body in (
        b"",
        b"{}",
        b"[1]",
        b'{"answer": "always"}',
        b'{"answer": "approve", "ticket": 5}',
    ):
        reply = desk.lockscreen.decide(push.id, "", body, "x")
        assert reply.status is HTTPStatus.BAD_REQUEST
    assert post(desk, push, ticket="") == (401, "unknown-ticket")
    assert post(desk, push, ticket="amt_made-up") == (401, "unknown-ticket")
    assert post(desk, push, ticket="\u263a") == (401, "unknown-ticket")
    assert post(desk, push, token="Bearer tablet") == (401, "wrong-device")
    assert post(desk, push, token="Bearer stranger") == (401, "wrong-device")
    other = Push(id="other", kind="test", collapse="c", expires_at=0.0, ticket=push.ticket)
    assert post(desk, other) == (401, "wrong-notice")
    assert desk.answered() == []
    assert post(desk, push, token="Bearer phone")[0] == 200


async def test_wrong_tickets_of_one_address_keep_nobody_from_answering(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Behind a proxy on loopback all have one address."""
    desk = Desk(tmp_path)
    push = asked(desk)
    failures = LoginThrottle()

    async def send(ticket: str | None, id: str = push.id) -> tuple[int, str | None]:
        body = json.dumps({"answer": "approve", "ticket": ticket})
        client, server = trio.testing.memory_stream_pair()
        nursery.start_soon(at_the_door, server)
        length = f"content-length: {len(body)}"
        reply = await knocks.ask(
            client, knocks.request(f"POST /v1/approvals/{id}", length, body=body)
        )
        return reply.status, json.loads(reply.body).get("error")

    async def at_the_door(stream: trio.abc.HalfCloseableStream) -> None:
        assert not await admit(
            stream,
            knocks.peer(
                "ws",
                open_auth(Auth(mode="device-token")),
                "127.0.0.1:5",
                decide=desk.lockscreen.decide,
                throttle=failures,
            ),
        )

    async with trio.open_nursery() as nursery:
        wrong = [await send("amt_made-up") for _ in range(TOO_MANY + 5)]
        assert set(wrong) == {(401, "unknown-ticket")}
        there = [await send(push.ticket, "another") for _ in range(TOO_MANY + 5)]
        assert there == [(401, "wrong-notice")] * TOO_MANY + [(429, "too-many")] * 5
        before = trio.current_time()
        assert await send(push.ticket) == (200, None)
        assert trio.current_time() == before
    assert desk.answered()[-1] == {"id": 5, "result": {"decision": "accept"}}


async def test_a_ticket_is_short_lived(tmp_path: Path, mock_clock: MockClock) -> None:
    desk = Desk(tmp_path)
    push = asked(desk)
    until = trio.current_time() + 900
    assert desk.asked.delivery.tickets.find(push.ticket or "").until == until  # type: ignore[union-attr]
    mock_clock.jump(900)
    assert post(desk, push) == (409, "expired-ticket")
    assert desk.answered() == []


async def test_a_ticket_ends_while_the_machine_sleeps(tmp_path: Path) -> None:
    """trio's clock stands still then."""
    desk = Desk(tmp_path)
    push = asked(desk)
    desk.now += 899
    assert post(desk, push, "approve", ticket="amt_wrong") == (401, "unknown-ticket")
    desk.now += 2
    assert post(desk, push) == (409, "expired-ticket")
    assert desk.answered() == []


async def test_a_ticket_is_good_until_its_last_moment(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    desk = Desk(tmp_path)
    push = asked(desk)
    mock_clock.jump(899.9)
    assert post(desk, push) == (200, {"decided": True, "waitsFor": None})


async def test_what_is_resolved_already_is_said_so(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    push = asked(desk)
    desk.says({"method": "serverRequest/resolved", "params": {"threadId": "t", "requestId": 5}})
    assert post(desk, push) == (409, "already-resolved")


async def test_a_revoked_device_and_one_that_lost_the_scope(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    push = asked(desk)
    device = desk.book.limit(desk.book.by_name("phone"), frozenset({"observe"}))
    assert post(desk, push) == (409, "refused")
    desk.asks(6)
    desk.book.revoke(device)
    desk.asked.delivery.revoked(device.id)
    assert post(desk, push)[0] in (401, 409)
    assert desk.queued() == []
    assert desk.answered() == []


async def test_a_ticket_of_a_device_that_is_revoked(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    push = asked(desk)
    desk.book.revoke(desk.book.by_name("phone"))
    assert post(desk, push) == (401, "revoked")


@pytest.mark.parametrize(
    ("path", "never", "scopes", "goes"),
    [
        ("/etc/passwd", None, None, False),
        ("/etc/passwd", (), None, True),
        ("/home/ada/work/a", None, {"observe"}, False),
        ("/home/ada/work/a", None, None, True),
    ],
)
async def test_who_gets_a_ticket_for_what(
    path: str, never: Any, scopes: Any, goes: bool, tmp_path: Path
) -> None:  # fmt: skip
    desk = Desk(tmp_path) if never is None else Desk(tmp_path, never=never)
    desk.pair("phone", **({"scopes": frozenset(scopes)} if scopes else {}))
    desk.asks(path=path)
    (push,) = desk.queued()
    assert (push.ticket is not None) is goes
    assert bool(push.actions) is goes


def test_old_tickets_are_forgotten_and_texts_are_kept_nowhere() -> None:
    tickets = AnswerTickets()
    first = tickets.issue("device:a", 1, "p", seconds=100.0, now=0.0, wall=0.0)
    assert len(first) > 43  # 256 bits in base64
    assert first not in repr(tickets)
    for _ in range(MOST):
        tickets.issue("device:a", 1, "p", seconds=100.0, now=0.0, wall=0.0)
    assert tickets.find(first) is None
    last = tickets.issue("device:a", 1, "p", seconds=100.0, now=0.0, wall=0.0)
    tickets.issue("device:a", 1, "p", seconds=4000.0, now=5000.0, wall=5000.0)
    assert tickets.find(last) is None
