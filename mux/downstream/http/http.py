"""Reads one HTTP request from a stream and writes one response; decides nothing.

The HTTP library (h11) parses every head but one: the plain upgrade of a client that is no browser,
in one piece, all of it printable (`_usual`). h11 takes nine times as long for it, which would make
an attach a quarter dearer. Nothing else is ever read by the expression: what goes to the web's
application was parsed by h11, which goes on with the body and the next request.

Used by ``routes`` and ``post_routes``, which decide the response.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from http import HTTPStatus

import attrs
import h11
import msgspec
import structlog
import trio

from mux.access.throttle import Counted, LoginThrottle
from mux.downstream.sockets.streams import Patient

HEAD_BYTES = 32 * 1024
"""Most bytes of one request's head: four times what common servers take, for long JWTs."""

HEAD_DEADLINE = 10.0
"""Seconds for the whole head: a phone on a bad link needs 3, a slow-loris attack takes for ever."""

KEEP_ALIVE_SECONDS = 15.0
"""Seconds that an answered connection waits for its next request, head and all: a page asks for its
files within one, and a phone that comes back after a minute connects anew anyway."""

ANSWER_DEADLINE = 10.0
"""Seconds for a peer to take a response of a few hundred bytes."""

LINGER_DEADLINE = 1.0
"""Seconds to go on reading after a response. Closing with unread input makes the kernel reset the
connection, and the peer may lose the response with it."""

LINGER_BYTES = 256 * 1024
"""Most input to drop while lingering; a peer that sends more has no use for the response."""

BODY_BYTES = 4 * 1024
"""Most bytes of a request's body: a ticket, a name and a nonce are a tenth of it."""

BROWSER_HEADERS = frozenset(
    {b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-fetch-user"}
)
"""Headers that only browsers send, and that a page's script can neither set nor leave out."""

_USUAL = re.compile(
    rb"GET (/[!-~]*) HTTP/1\.1\r\n((?:[A-Za-z0-9-]+: [!-~](?:[ -~]*[!-~])?\r\n)+)\r\n"
)
_NOT_USUAL = frozenset({b"content-length", b"transfer-encoding", b"expect", *BROWSER_HEADERS})
"""Headers whose values the library must check, or by which a request goes another way."""

_REQUEST_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/1\.[01]\r?\n")

log = structlog.get_logger()


@attrs.frozen
class RequestHead:
    """A request's line and headers."""

    method: bytes
    target: bytes
    version: bytes
    headers: dict[bytes, list[bytes]] = attrs.field(repr=False)
    """Values in their order, by the header's name in lower case."""
    rest: bytes = attrs.field(repr=False)
    """Bytes after the head that have come already: first frames of a client that doesn't wait."""
    parser: h11.Connection | None = attrs.field(default=None, eq=False, repr=False)
    """The connection's parser, which has read this head; None for the usual upgrade."""

    @property
    def from_browser(self) -> bool:
        """True if the request has a header that only browsers send.

        Of a WebSocket that is `Origin`, which no browser leaves out: node's own client sends
        `Sec-Fetch-Mode` as well, and is a program.
        """
        if b"upgrade" in self.headers:
            return b"origin" in self.headers
        return not BROWSER_HEADERS.isdisjoint(self.headers)

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of one header, in their order."""
        return self.headers.get(name, [])


class HttpResponse(msgspec.Struct, frozen=True):
    """A response to one request."""

    status: HTTPStatus
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "text/plain; charset=utf-8"
    whose: str = ""
    """Whose token or ticket failed, where that is known (see ``access.throttle``)."""


# -- reading ---------------------------------------------------------------------------------------


async def read_head(stream: trio.abc.ReceiveStream) -> RequestHead | HttpResponse | None:
    """Read a request's head, or return the response that refuses it; None if the peer left."""
    # When a client is accepted, its head has mostly come: then no deadline has to be set up.
    received = stream.receive_now(HEAD_BYTES) if isinstance(stream, Patient) else b""
    return _usual(received) or await _read_rest(stream, received)


async def _read_rest(
    stream: trio.abc.ReceiveStream, seen: bytes
) -> RequestHead | HttpResponse | None:
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
    head = _parse_head(parser, seen, seen) if seen else None
    with trio.move_on_after(HEAD_DEADLINE):
        while head is None and len(seen) < HEAD_BYTES:
            try:
                received = bytes(await stream.receive_some(HEAD_BYTES - len(seen)))
            except trio.BrokenResourceError:
                return None
            if not received:
                return None
            usual = None if seen else _usual(received)
            seen += received
            head = usual or _parse_head(parser, received, seen)
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


def _parse_head(
    parser: h11.Connection, received: bytes, seen: bytes
) -> RequestHead | HttpResponse | None:
    """Feed the parser; None while the head is incomplete."""
    # h11 would wait for a blank line, which a peer that speaks bare JSON or HTTP/2 never sends.
    if b"\n" in seen and not _REQUEST_LINE.match(seen):
        return HttpResponse(HTTPStatus.BAD_REQUEST)
    try:
        parser.receive_data(received)
        event = parser.next_event()
    except h11.RemoteProtocolError as malformed:
        return HttpResponse(HTTPStatus(malformed.error_status_hint))
    return head_of(event, parser) if isinstance(event, h11.Request) else None


def head_of(event: h11.Request, parser: h11.Connection) -> RequestHead:
    """Return the head that the library has just parsed."""
    headers: dict[bytes, list[bytes]] = {}
    for name, value in event.headers:
        headers.setdefault(name, []).append(value)
    rest = parser.trailing_data[0]
    return RequestHead(event.method, event.target, event.http_version, headers, rest, parser)


async def read_next_head(
    stream: trio.abc.ReceiveStream, parser: h11.Connection
) -> RequestHead | HttpResponse | None:
    """Read the next request's head on a connection that stays open; None if none came in time."""
    try:
        with trio.move_on_after(KEEP_ALIVE_SECONDS):
            while True:
                event = parser.next_event()
                if isinstance(event, h11.Request):
                    return head_of(event, parser)
                if event is not h11.NEED_DATA:
                    return None
                parser.receive_data(bytes(await stream.receive_some(HEAD_BYTES)))
    except h11.RemoteProtocolError as malformed:
        return HttpResponse(HTTPStatus(malformed.error_status_hint))
    except trio.BrokenResourceError:
        return None
    return None


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
) -> Counted | None:
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
