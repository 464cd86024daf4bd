"""One HTTP request on a stream, and one answer: read and written, not judged.

Hands to: ``door`` and ``posts``, a request's head and body. Hears from: they, what to answer.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from http import HTTPStatus

import h11
import msgspec
import structlog
import trio

from mux.failures import Failures

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

BODY_BYTES = 4 * 1024
"""Of a request's body: a ticket, a name and a nonce are a tenth of it."""

_REQUEST_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/1\.[01]\r?\n")

log = structlog.get_logger()


class Head(msgspec.Struct, frozen=True):
    request: h11.Request
    rest: bytes
    """What came after the head already: the first frames of a client that doesn't wait."""


class Answer(msgspec.Struct, frozen=True):
    status: HTTPStatus
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "text/plain; charset=utf-8"


# -- reading ---------------------------------------------------------------------------------------


async def read_head(stream: trio.abc.ReceiveStream) -> Head | Answer | None:
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
        return Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    return Answer(HTTPStatus.REQUEST_TIMEOUT)


def _parse_head(parser: h11.Connection, received: bytes, seen: bytes) -> Head | Answer | None:
    """Feed the parser; None while the head is incomplete."""
    # h11 would wait for a blank line, which one who speaks bare JSON or HTTP/2 never sends.
    if b"\n" in seen and not _REQUEST_LINE.match(seen):
        return Answer(HTTPStatus.BAD_REQUEST)
    try:
        parser.receive_data(received)
        event = parser.next_event()
    except h11.RemoteProtocolError as malformed:
        return Answer(HTTPStatus(malformed.error_status_hint))
    if isinstance(event, h11.Request):
        return Head(event, parser.trailing_data[0])
    return None


async def read_body(stream: trio.abc.ReceiveStream, head: Head) -> bytes | str | None:
    """The request's body; a text: what is wrong with it; None: the far end left."""
    lengths = values(head.request, b"content-length")
    if not lengths or values(head.request, b"transfer-encoding"):
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


def values(request: h11.Request, name: bytes) -> list[bytes]:
    return [value for each, value in request.headers if each == name]


# -- answering -------------------------------------------------------------------------------------


async def answer(
    stream: trio.abc.HalfCloseableStream, answer: Answer, method: bytes, address: str
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


def _encode(answer: Answer, method: bytes) -> bytes:
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


async def hold_back(status: HTTPStatus, failures: Failures, address: str) -> None:
    """Let one that failed to say who it is wait for its answer, as long as it has earned."""
    if status == HTTPStatus.UNAUTHORIZED:
        count = await failures.pause(address)
        log.warning("failed to authenticate", client=address, failures=count)
