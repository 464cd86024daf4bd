"""The HTTP door: what is answered on a connection before it becomes a WebSocket.

Reads one request's head, answers health checks and refusals itself, and lets an upgrade through
together with its ``Principal``. Statuses, bodies and the order of the checks are the app-server's
own, measured on its ``ws://`` listener; three departures: the connection closes after every answer,
a head that doesn't come is answered 408, and unix sockets answer health checks too.

Hands to: ``downstream``, an ``Admission`` whose ``head`` is what the WebSocket handshake is fed.
Hears from: ``listener`` (by way of ``server``), one accepted stream at a time; ``auth``, who it is.

A route to come (``/v1/…``, ``/metrics``) is one more ``case`` in ``_route``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Literal

import attrs
import h11
import structlog
import trio

from mux.auth import Authenticator, AuthError, local_user
from mux.core.principal import Principal

HEAD_BYTES = 32 * 1024
"""Of one request's head: four times what common servers take, for long JWTs."""

HEAD_DEADLINE = 10.0
"""Seconds for the whole head: a phone on a bad link needs 3, a slow-loris wants for ever."""

ANSWER_DEADLINE = 10.0
"""Seconds for a peer to take an answer of a few hundred bytes."""

LINGER_DEADLINE = 1.0
"""Seconds to go on reading after an answer: closing with unread input makes the kernel reset the
connection, and the peer may lose the answer with it."""

LINGER_BYTES = 256 * 1024
"""Input thrown away while lingering; a peer that sends more has no use for the answer."""

WEBSOCKET_VERSION = b"13"

_REQUEST_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/1\.[01]\r?\n")
_ABSOLUTE_FORM = re.compile(rb"\Ahttps?://[^/?]*", re.IGNORECASE)

log = structlog.get_logger()


@attrs.frozen
class Admission:
    """A WebSocket upgrade that may proceed.

    ``head`` is what to feed to the server side of a WebSocket handshake: the upgrade as the door
    understood it, written anew (no secrets, extensions or subprotocols; nothing that the library
    could read differently), then the bytes that came after it. ``path`` is the request target,
    query included; ``headers`` are as received, names in lower case, without ``authorization``.
    """

    principal: Principal
    address: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...] = attrs.field(repr=False)
    head: bytes = attrs.field(repr=False)


@attrs.frozen
class _Head:
    request: h11.Request
    rest: bytes
    """What came after the head already: the first frames of a client that doesn't wait."""


@attrs.frozen
class _Answer:
    status: HTTPStatus
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


async def knock(
    stream: trio.abc.HalfCloseableStream,
    listener_kind: Literal["ws", "unix"],
    authenticator: Authenticator,
    address: str,
    *,
    ready: Callable[[], bool],
) -> Admission | None:
    """Read one request; return its ``Admission``, or answer it, close the stream, return None.

    ``address`` names the far end in logs. ``ready`` says whether ``/readyz`` is to answer 200.
    A peer that breaks off is a None. Raises nothing of its own.
    """
    head = await _read_head(stream)
    if isinstance(head, _Head):
        outcome = _route(head, listener_kind, authenticator, address, ready)
        if isinstance(outcome, Admission):
            return outcome
        await _answer(stream, outcome, head.request.method, address)
    elif head is not None:
        await _answer(stream, head, b"GET", address)
    await stream.aclose()
    return None


# -- reading ---------------------------------------------------------------------------------------


async def _read_head(stream: trio.abc.ReceiveStream) -> _Head | _Answer | None:
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
    seen = b""
    with trio.move_on_after(HEAD_DEADLINE):
        while len(seen) < HEAD_BYTES:
            try:
                received = bytes(await stream.receive_some(HEAD_BYTES - len(seen)))
            except trio.BrokenResourceError:
                return None
            if not received:
                return None
            seen += received
            head = _parse_head(parser, received, seen)
            if head is not None:
                return head
        return _Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    return _Answer(HTTPStatus.REQUEST_TIMEOUT)


def _parse_head(parser: h11.Connection, received: bytes, seen: bytes) -> _Head | _Answer | None:
    """Feed the parser; None while the head is incomplete."""
    # h11 would wait for a blank line, which one who speaks bare JSON or HTTP/2 never sends.
    if b"\n" in seen and not _REQUEST_LINE.match(seen):
        return _Answer(HTTPStatus.BAD_REQUEST)
    try:
        parser.receive_data(received)
        event = parser.next_event()
    except h11.RemoteProtocolError as malformed:
        return _Answer(HTTPStatus(malformed.error_status_hint))
    if isinstance(event, h11.Request):
        return _Head(event, parser.trailing_data[0])
    return None


# -- deciding --------------------------------------------------------------------------------------


def _route(
    head: _Head,
    listener_kind: Literal["ws", "unix"],
    authenticator: Authenticator,
    address: str,
    ready: Callable[[], bool],
) -> Admission | _Answer:
    request = head.request
    # Only browsers send Origin, and a page must not reach a port of the machine that it is shown
    # on. They can't open unix sockets.
    if listener_kind == "ws" and _values(request, b"origin"):
        return _Answer(HTTPStatus.FORBIDDEN)
    match _path(request):
        case b"/healthz":
            return _health(request, well=True)
        case b"/readyz":
            return _health(request, well=ready())
        case _:
            return _malformed_upgrade(request) or _admit(
                head, listener_kind, authenticator, address
            )


def _path(request: h11.Request) -> bytes:
    # The absolute form is what proxies send, and legal for everybody.
    target = _ABSOLUTE_FORM.sub(b"", request.target)
    return target.partition(b"?")[0]


def _health(request: h11.Request, *, well: bool) -> _Answer:
    if request.method not in (b"GET", b"HEAD"):
        return _Answer(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", "GET,HEAD"),))
    return _Answer(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)


def _malformed_upgrade(request: h11.Request) -> _Answer | None:
    if request.method != b"GET":
        return _Answer(
            HTTPStatus.METHOD_NOT_ALLOWED, "Request method must be `GET`", (("allow", "GET"),)
        )
    connection = b",".join(_values(request, b"connection")).lower().split(b",")
    if b"upgrade" not in [token.strip() for token in connection]:
        return _Answer(HTTPStatus.BAD_REQUEST, "Connection header did not include 'upgrade'")
    if [each.lower() for each in _values(request, b"upgrade")] != [b"websocket"]:
        return _Answer(HTTPStatus.BAD_REQUEST, "`Upgrade` header did not include 'websocket'")
    if not _values(request, b"sec-websocket-key"):
        return _Answer(HTTPStatus.BAD_REQUEST, "`Sec-WebSocket-Key` header missing")
    if WEBSOCKET_VERSION not in _values(request, b"sec-websocket-version"):
        return _Answer(
            HTTPStatus.BAD_REQUEST,
            "`Sec-WebSocket-Version` header did not include '13'",
            (("sec-websocket-version", "13"),),
        )
    if request.http_version != b"1.1":
        return _Answer(
            HTTPStatus.UPGRADE_REQUIRED,
            "WebSocket request couldn't be upgraded since no upgrade state was present",
            (("upgrade", "websocket"),),
        )
    return None


def _admit(
    head: _Head, listener_kind: Literal["ws", "unix"], authenticator: Authenticator, address: str
) -> Admission | _Answer:
    request = head.request
    authorization = next(iter(_values(request, b"authorization")), None)
    try:
        principal = (
            local_user()
            if listener_kind == "unix"
            else authenticator.authenticate(authorization, time.time())
        )
    except AuthError as refusal:
        return _Answer(HTTPStatus.UNAUTHORIZED, str(refusal), (("www-authenticate", "Bearer"),))
    return Admission(
        principal=principal,
        address=address,
        path=request.target.decode("ascii"),
        headers=tuple((n, v) for n, v in request.headers if n != b"authorization"),
        head=_written_anew(request) + head.rest,
    )


def _written_anew(request: h11.Request) -> bytes:
    return b"\r\n".join(
        (
            b"GET " + request.target + b" HTTP/1.1",
            # Any Host is taken, as natively; some are more than the WebSocket library can decode.
            b"host: localhost",
            b"connection: upgrade",
            b"upgrade: websocket",
            b"sec-websocket-version: " + WEBSOCKET_VERSION,
            b"sec-websocket-key: " + _values(request, b"sec-websocket-key")[0],
            b"",
            b"",
        )
    )


def _values(request: h11.Request, name: bytes) -> list[bytes]:
    return [value for each, value in request.headers if each == name]


# -- answering -------------------------------------------------------------------------------------


async def _answer(
    stream: trio.abc.HalfCloseableStream, answer: _Answer, method: bytes, address: str
) -> None:
    level = log.debug if answer.status == HTTPStatus.OK else log.info
    level("answered over HTTP", client=address, status=int(answer.status), reason=answer.body)
    with trio.move_on_after(ANSWER_DEADLINE):
        try:
            await stream.send_all(_encode(answer, method))
            await stream.send_eof()
            await _linger(stream)
        except trio.BrokenResourceError:
            log.debug("left before the answer", client=address)


def _encode(answer: _Answer, method: bytes) -> bytes:
    body = answer.body.encode()
    lines = [f"HTTP/1.1 {int(answer.status)} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if body:
        lines.append("content-type: text/plain; charset=utf-8")
    lines += [
        f"content-length: {len(body)}",
        "connection: close",
        f"date: {formatdate(usegmt=True)}",
    ]
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    return head if method == b"HEAD" else head + body


async def _linger(stream: trio.abc.ReceiveStream) -> None:
    dropped = 0
    with trio.move_on_after(LINGER_DEADLINE):
        while dropped < LINGER_BYTES:
            received = await stream.receive_some(LINGER_BYTES - dropped)
            if not received:
                return
            dropped += len(received)
