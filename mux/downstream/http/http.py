"""Reads one HTTP request from a stream and writes one response; decides nothing.

The HTTP library (h11, by ``odd_heads``) parses every head but one: the plain upgrade of a client
that is no browser, in one piece, all of it printable (`_usual`). h11 takes nine times as long for
it, which would make an attach a quarter dearer. Nothing else is ever read by the expression: what
goes to the web's application was parsed by h11, which goes on with the body and the next request.

Used by ``routes`` and ``post_routes``, which decide the response.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import structlog
import trio

from mux.access.throttle import FailureCount, LoginThrottle
from mux.downstream.http.head import BROWSER_HEADERS, HEAD_BYTES, HttpResponse, RequestHead
from mux.downstream.sockets.streams import Patient

HEAD_DEADLINE = 10.0
"""Seconds for the whole head: a phone on a bad link needs 3, a slow-loris attack takes for ever."""

ANSWER_DEADLINE = 10.0
"""Seconds for a peer to take a response of a few hundred bytes."""

LINGER_DEADLINE = 1.0
"""Seconds to go on reading after a response. Closing with unread input makes the kernel reset the
connection, and the peer may lose the response with it."""

LINGER_BYTES = 256 * 1024
"""Most input to drop while lingering; a peer that sends more has no use for the response."""

BODY_BYTES = 4 * 1024
"""Most bytes of a request's body: a ticket, a name and a nonce are a tenth of it."""

_USUAL = re.compile(
    rb"GET (/[!-~]*) HTTP/1\.1\r\n((?:[A-Za-z0-9-]+: [!-~](?:[ -~]*[!-~])?\r\n)+)\r\n"
)
_NOT_USUAL = frozenset({b"content-length", b"transfer-encoding", b"expect", *BROWSER_HEADERS})
"""Headers whose values the library must check, or by which a request goes another way."""

log = structlog.get_logger()


# -- reading ---------------------------------------------------------------------------------------


async def read_head(stream: trio.abc.ReceiveStream) -> RequestHead | HttpResponse | None:
    """Read a request's head, or return the response that refuses it; None if the peer left."""
    # When a client is accepted, its head has mostly come: then no deadline has to be set up.
    received = stream.receive_now(HEAD_BYTES) if isinstance(stream, Patient) else b""
    return _usual(received) or await _read_rest(stream, received)


async def _read_rest(
    stream: trio.abc.ReceiveStream, seen: bytes
) -> RequestHead | HttpResponse | None:
    head, parser = None, None
    with trio.move_on_after(HEAD_DEADLINE):
        received = seen
        while True:
            if received:
                if parser is None:
                    from mux.downstream.http.odd_heads import HeadParser  # noqa: PLC0415 (a 20th of a start)

                    parser = HeadParser()
                head = parser.feed(received)
            if head is not None or len(seen) >= HEAD_BYTES:
                break
            try:
                received = bytes(await stream.receive_some(HEAD_BYTES - len(seen)))
            except trio.BrokenResourceError:
                return None
            if not received:
                return None
            if not seen and (usual := _usual(received)):
                return usual
            seen += received
        return head or HttpResponse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    return HttpResponse(HTTPStatus.REQUEST_TIMEOUT)


def _usual(received: bytes) -> RequestHead | None:
    """Parse a whole head of the usual upgrade, as the library would; else None."""
    usual = _USUAL.match(received)
    if usual is None:
        return None
    headers: dict[bytes, list[bytes]] = {}
    for line in usual[2].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        headers.setdefault(name.lower(), []).append(value)
    if len(headers.get(b"host", ())) != 1 or not _NOT_USUAL.isdisjoint(headers):
        return None
    if b"upgrade" not in headers:
        return None
    return RequestHead(b"GET", usual[1], b"1.1", headers, received[usual.end() :])


async def read_body(stream: trio.abc.ReceiveStream, head: RequestHead) -> bytes | str | None:
    """Return the request's body; a text that says what is wrong with it; or None: the peer left."""
    lengths = head.values(b"content-length")
    if not lengths or head.values(b"transfer-encoding"):
        return "the request needs a body, and its content-length"
    length = int(lengths[0])  # h11 has checked it
    if length > BODY_BYTES:
        return f"the body is longer than {BODY_BYTES} bytes"
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
    return "the body didn't come in time"


# -- answering -------------------------------------------------------------------------------------


async def answer(
    stream: trio.abc.HalfCloseableStream,
    answer: HttpResponse,
    method: bytes,
    address: str,
    *,
    loud: bool = True,
) -> bool:
    """Send the response and close our side. Return whether the peer has taken it.

    ``loud``: log a refusal at info, not debug.
    """
    well = answer.status == HTTPStatus.OK  # then the body may be secret (a token): not logged
    level, reason = (log.debug, "") if well else (log.info if loud else log.debug, answer.body)
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


def _encode(answer: HttpResponse, method: bytes) -> bytes:
    from email.utils import formatdate  # noqa: PLC0415 (a start has no other use for it)

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


async def hold_back(
    status: HTTPStatus, failures: LoginThrottle, address: str, whose: str = ""
) -> FailureCount | None:
    """If the response refuses an authentication, count the failure and pause as long as it earned.

    Return the counted failure; None if the response is no such refusal.
    """
    if status != HTTPStatus.UNAUTHORIZED and not whose:
        return None
    counted = failures.count(address, trio.current_time(), whose)
    if counted.loud:
        log.warning(
            "failed to authenticate",
            client=address,
            failures=counted.count,
            **({"whose": whose} if whose else {}),
        )
    await failures.wait(counted)
    return counted
