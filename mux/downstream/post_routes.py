"""What is done by a plain HTTP ``POST``: pairing a device, answering from a lock screen.

Hands to: ``pairing`` and ``notices``, the bodies. Hears from: ``routes``, whose requests they are.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TypeAlias

import structlog
import trio

from mux.access.pairing import Pairing, Reply, malformed, too_many
from mux.access.throttle import LoginThrottle
from mux.downstream.http import HttpResponse, RequestHead, answer, hold_back, read_body

Decide: TypeAlias = Callable[[str, str, bytes, str], Reply]
"""Judges an answer: by the push's id, the ``Authorization`` header, the body and the address."""

log = structlog.get_logger()

# -- pairing ---------------------------------------------------------------------------------------


async def pair(
    stream: trio.abc.HalfCloseableStream,
    head: RequestHead,
    pairing: Pairing | None,
    failures: LoginThrottle,
    address: str,
) -> None:
    """Exchange a ticket. What was decided is undone if the answer doesn't reach the device."""
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
    """The broker's word on a ticket; None if the device left before."""
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
    """Cancel the waiting once the device has hung up. A word more than its body counts as that."""
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
    """Answer an approval by the ticket of a push."""
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
    """Send the reply, a failure's later; whether the device has taken it.

    It was judged before: what is right is never refused, whoever failed from the same address.
    """
    counted = await hold_back(reply.status, failures, address, reply.whose)
    if counted is not None and counted.too_many:
        reply = too_many()
    loud = counted is None or counted.loud
    return await answer(stream, _as_json(reply), head.method, address, loud=loud)


def _as_json(reply: Reply) -> HttpResponse:
    headers = (("cache-control", "no-store"),)
    return HttpResponse(reply.status, reply.body.decode(), headers, "application/json")
