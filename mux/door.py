"""The HTTP door: what is answered on a connection before it becomes a WebSocket.

Reads one request's head, answers health checks and refusals itself, and lets an upgrade through
together with its ``Principal``. Statuses, bodies and the order of the checks are the app-server's
own, measured on its ``ws://`` listener; three departures: the connection closes after every answer,
a head that doesn't come is answered 408, and unix sockets answer health checks too.

Hands to: ``downstream``, an ``Admission`` that it answers 101.
Hears from: ``listener`` (by way of ``server``), one accepted stream at a time; ``auth``, who it is;
``pairing``, what becomes of a device that wants to be let in.

A route to come is one more ``case`` in ``_route``.
"""

from __future__ import annotations

import ipaddress
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
from mux.failures import Failures
from mux.pairing import Pairing, Reply, malformed, too_many

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

PAIR_BYTES = 4 * 1024
"""Of the body of ``POST /v1/pair``: a ticket, a name and a nonce are a tenth of it."""

WEBSOCKET_VERSION = b"13"

SAID_BY_PROXIES = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
     b"x-real-ip", b"cf-connecting-ip", b"true-client-ip", b"tailscale-user-login"}
)  # fmt: skip
"""Headers by which a reverse proxy says whose request it passes on."""

_REQUEST_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/1\.[01]\r?\n")
_ABSOLUTE_FORM = re.compile(rb"\Ahttps?://[^/?]*", re.IGNORECASE)

log = structlog.get_logger()


@attrs.frozen
class Admission:
    """A WebSocket upgrade that may proceed.

    ``key`` is the ``Sec-WebSocket-Key`` to answer it by; extensions and subprotocols aren't
    answered, so there are none. ``rest`` is what came after the request's head: first frames.
    ``path`` is the request target, query included; ``headers`` are as received, names in lower
    case, without ``authorization``.
    ``local``: whether the client is known to be on this host.
    """

    principal: Principal
    address: str
    local: bool
    path: str
    headers: tuple[tuple[bytes, bytes], ...] = attrs.field(repr=False)
    key: bytes
    rest: bytes = attrs.field(repr=False)


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
    content_type: str = "text/plain; charset=utf-8"


@attrs.frozen
class Exposition:
    """The metrics as a scraper wants them."""

    text: str
    content_type: str


class _ToPair:
    """A device that brings its ticket, in the request's body."""


async def knock(
    stream: trio.abc.HalfCloseableStream,
    listener_kind: Literal["ws", "unix"],
    authenticator: Authenticator,
    address: str,
    *,
    ready: Callable[[], bool],
    metrics: Callable[[str], Exposition] | None = None,
    pairing: Pairing | None = None,
    failures: Failures | None = None,
) -> Admission | None:
    """Read one request; return its ``Admission``, or answer it, close the stream, return None.

    ``address`` names the far end in logs. ``ready`` says whether ``/readyz`` is to answer 200;
    ``metrics`` writes them for a scraper's ``Accept``. ``failures`` counts who is refused, and
    slows them. A peer that breaks off is a None. Raises nothing of its own.
    """
    failures = Failures() if failures is None else failures
    head = await _read_head(stream)
    if isinstance(head, _Head):
        outcome = _route(head, listener_kind, authenticator, address, ready, metrics=metrics)
        if isinstance(outcome, Admission):
            return outcome
        if isinstance(outcome, _ToPair):
            await _pair(stream, head, pairing, failures, address)
        else:
            await _hold_back(outcome.status, failures, address)
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
    *,
    metrics: Callable[[str], Exposition] | None,
) -> Admission | _ToPair | _Answer:
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
        case b"/metrics" if metrics is not None:
            return _refuse_metrics(request, listener_kind, authenticator, address) or _expose(
                request, metrics
            )
        case b"/v1/pair" if request.method == b"POST":
            return _ToPair()
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


def _refuse_metrics(
    request: h11.Request,
    listener_kind: Literal["ws", "unix"],
    authenticator: Authenticator,
    address: str,
) -> _Answer | None:
    """The refusal, if any. A scraper on this machine needs no token: it learns counts, no texts."""
    if request.method not in (b"GET", b"HEAD"):
        return _Answer(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", "GET,HEAD"),))
    if listener_kind == "unix" or _is_loopback(address):
        return None
    try:
        principal = authenticator.authenticate(_authorization(request), time.time())
    except AuthError as refusal:
        return _unauthorized(refusal)
    if "admin" not in principal.scopes:
        return _Answer(HTTPStatus.FORBIDDEN, "`/metrics` needs the scope `admin`")
    return None


def _expose(request: h11.Request, metrics: Callable[[str], Exposition]) -> _Answer:
    accept = b",".join(_values(request, b"accept")).decode("latin-1")
    exposition = metrics(accept)
    return _Answer(HTTPStatus.OK, exposition.text, content_type=exposition.content_type)


def _is_loopback(address: str) -> bool:
    """Whether a far end's name (``127.0.0.1:5123``, ``[::1]:5123``) is of this machine."""
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _is_on_this_host(request: h11.Request, principal: Principal, address: str) -> bool:
    """Whether a client of a TCP listener is known to be here: only then may it pass for local.

    A connection from loopback may be a proxy's, which says for whom it speaks; and a paired device
    that comes so comes through a tunnel. Any other address, this host's own too, proves nothing.
    """
    host = b"".join(_values(request, b"host")).decode("latin-1").lower()
    named_here = host.partition(":")[0] == "localhost" or _is_loopback(
        host if host.rpartition("]")[2].startswith(":") or host.count(":") == 1 else f"{host}:"
    )
    forwarded = any(name in SAID_BY_PROXIES for name, _ in request.headers)
    return _is_loopback(address) and named_here and not forwarded and not principal.device


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
    try:
        principal = (
            local_user()
            if listener_kind == "unix"
            else authenticator.authenticate(_authorization(request), time.time())
        )
    except AuthError as refusal:
        return _unauthorized(refusal)
    return Admission(
        principal=principal,
        address=address,
        local=listener_kind == "unix" or _is_on_this_host(request, principal, address),
        path=request.target.decode("ascii"),
        headers=tuple((n, v) for n, v in request.headers if n != b"authorization"),
        key=_values(request, b"sec-websocket-key")[0],
        rest=head.rest,
    )


def _authorization(request: h11.Request) -> bytes | None:
    return next(iter(_values(request, b"authorization")), None)


def _unauthorized(refusal: AuthError) -> _Answer:
    return _Answer(HTTPStatus.UNAUTHORIZED, str(refusal), (("www-authenticate", "Bearer"),))


def _values(request: h11.Request, name: bytes) -> list[bytes]:
    return [value for each, value in request.headers if each == name]


# -- pairing ---------------------------------------------------------------------------------------


async def _pair(
    stream: trio.abc.HalfCloseableStream,
    head: _Head,
    pairing: Pairing | None,
    failures: Failures,
    address: str,
) -> None:
    """Exchange a ticket. What was decided is undone if the answer doesn't reach the device."""
    if pairing is None:
        await _answer(stream, _Answer(HTTPStatus.NOT_FOUND), head.request.method, address)
        return
    reply = too_many() if failures.too_many(address, trio.current_time()) else None
    if reply is None:
        reply = await _exchange(stream, head, pairing, address)
        if reply is None:
            return
    delivered = False
    try:
        await _hold_back(reply.status, failures, address)
        answer = _Answer(
            reply.status,
            reply.body.decode(),
            (("cache-control", "no-store"),),
            "application/json",
        )
        delivered = await _answer(stream, answer, head.request.method, address)
    finally:
        pairing.conclude(reply, delivered=delivered)


async def _exchange(
    stream: trio.abc.HalfCloseableStream, head: _Head, pairing: Pairing, address: str
) -> Reply | None:
    """The broker's word on a ticket; None if the device left before."""
    reply = None
    async with trio.open_nursery() as nursery:
        body = await _read_body(stream, head)
        if not isinstance(body, bytes):
            return body
        nursery.start_soon(_until_it_leaves, stream, nursery.cancel_scope)
        reply = await pairing.exchange(body, address)
        nursery.cancel_scope.cancel()
    return reply


async def _read_body(stream: trio.abc.ReceiveStream, head: _Head) -> bytes | Reply | None:
    lengths = _values(head.request, b"content-length")
    if not lengths or _values(head.request, b"transfer-encoding"):
        return malformed("the request needs a body, and its content-length")
    length = int(lengths[0])  # h11 has checked it
    if length > PAIR_BYTES:
        return malformed(f"the body is longer than {PAIR_BYTES} bytes")
    body = head.rest
    with trio.move_on_after(HEAD_DEADLINE):
        while len(body) < length:
            try:
                received = await stream.receive_some(length - len(body))
            except trio.BrokenResourceError:
                return None
            if not received:
                return None
            body += received
        return body[:length]
    return malformed("the body didn't come in time")


async def _until_it_leaves(stream: trio.abc.ReceiveStream, waiting: trio.CancelScope) -> None:
    """Cancel the waiting once the device has hung up. A word more than its body counts as that."""
    try:
        await stream.receive_some(1)
    except trio.BrokenResourceError:
        log.debug("left while it was paired")
    waiting.cancel()


async def _hold_back(status: HTTPStatus, failures: Failures, address: str) -> None:
    if status == HTTPStatus.UNAUTHORIZED:
        count = await failures.pause(address)
        log.warning("failed to authenticate", client=address, failures=count)


# -- answering -------------------------------------------------------------------------------------


async def _answer(
    stream: trio.abc.HalfCloseableStream, answer: _Answer, method: bytes, address: str
) -> bool:
    """Send it and close our side; whether the peer has taken it."""
    well = answer.status == HTTPStatus.OK  # and then its body is nobody else's
    level, reason = (log.debug, "") if well else (log.info, answer.body)
    level("answered over HTTP", client=address, status=int(answer.status), reason=reason)
    with trio.move_on_after(ANSWER_DEADLINE):
        try:
            await stream.send_all(_encode(answer, method))
            await stream.send_eof()
            await _linger(stream)
        except trio.BrokenResourceError:
            log.debug("left before the answer", client=address)
        else:
            return True
    return False


def _encode(answer: _Answer, method: bytes) -> bytes:
    body = answer.body.encode()
    lines = [f"HTTP/1.1 {int(answer.status)} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if body:
        lines.append(f"content-type: {answer.content_type}")
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
