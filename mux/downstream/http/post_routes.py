"""The routes of plain HTTP ``POST``: pairing a device, answering from a lock screen.

Used by ``routes``. Uses ``notices`` by way of a `Decide`, which ``server`` passes in.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TypeAlias

import structlog
import trio

from mux.access.pairing import Pairing
from mux.access.replies import Reply, malformed, too_many
from mux.access.throttle import LoginThrottle
from mux.downstream.http.head import HttpResponse, RequestHead
from mux.downstream.http.http import answer, hold_back, read_body

Decide: TypeAlias = Callable[[str, str, bytes, str], Reply]
"""Judges a lock screen's answer by push id, ``Authorization`` header, body and peer's address."""

log = structlog.get_logger()

# -- pairing ---------------------------------------------------------------------------------------


async def pair(
    stream: trio.abc.HalfCloseableStream,
    head: RequestHead,
    pairing: Pairing | None,
    failures: LoginThrottle,
    address: str,
) -> None:
    """Exchange a ticket for a device's token. Pairing is undone if the reply isn't delivered."""
    if pairing is None:
        await answer(stream, HttpResponse(HTTPStatus.NOT_FOUND), head.method, address)
        return
    reply = await _exchange(stream, head, pairing, address)
    if reply is None:
        return
    delivered = False
    try:
        delivered = await _answer(stream, head, reply, failures, address)
    finally:
        pairing.conclude(reply, delivered=delivered)


async def _exchange(
    stream: trio.abc.HalfCloseableStream, head: RequestHead, pairing: Pairing, address: str
) -> Reply | None:
    """Return the reply to a ticket; None if the device left before its body came."""
    reply = None
    async with trio.open_nursery() as nursery:
        body = await read_body(stream, head)
        if not isinstance(body, bytes):
            return malformed(body) if body is not None else None
        nursery.start_soon(_until_it_leaves, stream, nursery.cancel_scope)
        reply = await pairing.exchange(body, address)
        nursery.cancel_scope.cancel()
    return reply


async def _until_it_leaves(stream: trio.abc.ReceiveStream, waiting: trio.CancelScope) -> None:
    """Cancel the wait once the device has hung up. A byte beyond its body counts as hanging up."""
    try:
        await stream.receive_some(1)
    except trio.BrokenResourceError:
        log.debug("left while it was paired")
    waiting.cancel()


# -- answering from a lock screen ------------------------------------------------------------------


async def decide(
    stream: trio.abc.HalfCloseableStream,
    head: RequestHead,
    push: str,
    *,
    judge: Decide | None,
    failures: LoginThrottle,
    address: str,
) -> None:
    """Have ``judge`` answer an approval by the ticket of a push, and send its reply."""
    if judge is None:
        await answer(stream, HttpResponse(HTTPStatus.NOT_FOUND), head.method, address)
        return
    body = await read_body(stream, head)
    if body is None:
        return
    if isinstance(body, bytes):
        authorization = next(iter(head.values(b"authorization")), b"")
        reply = judge(push, authorization.decode("latin-1"), body, address)
    else:
        reply = malformed(body)
    await _answer(stream, head, reply, failures, address)


# -- answering -------------------------------------------------------------------------------------


async def _answer(
    stream: trio.abc.HalfCloseableStream,
    head: RequestHead,
    reply: Reply,
    failures: LoginThrottle,
    address: str,
) -> bool:
    """Send the reply, a failure's after a pause. Return whether the device has taken it.

    The request was judged before failures are counted: a valid one is never refused, however many
    others failed from the same address.
    """
    counted = await hold_back(reply.status, failures, address, reply.whose)
    if counted is not None and counted.too_many:
        reply = too_many()
    loud = counted is None or counted.loud
    return await answer(stream, _as_json(reply), head.method, address, loud=loud)


def _as_json(reply: Reply) -> HttpResponse:
    headers = (("cache-control", "no-store"),)
    return HttpResponse(reply.status, reply.body.decode(), headers, "application/json")
