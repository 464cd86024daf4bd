"""Reads the heads of HTTP requests that aren't the usual upgrade, by the HTTP library (h11).

It is loaded with the first of them, or a second after the start: it takes as long as a twentieth of
all that a start loads.

Used by ``http`` and ``routes``.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import h11
import trio

from mux.downstream.http.head import HEAD_BYTES, HttpResponse, RequestHead

KEEP_ALIVE_SECONDS = 15.0
"""Seconds that an answered connection waits for its next request, head and all: a page asks for its
files within one, and a phone that comes back after a minute connects anew anyway."""

_REQUEST_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/1\.[01]\r?\n")


class HeadParser:
    """Parses a connection's first head, as it comes."""

    def __init__(self) -> None:
        self._library = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._seen = b""

    def feed(self, received: bytes) -> RequestHead | HttpResponse | None:
        """Parse what has come; return the head, what refuses it, or None while it is incomplete."""
        self._seen += received
        # h11 would wait for a blank line, which a peer that speaks bare JSON or HTTP/2 never sends.
        if b"\n" in self._seen and not _REQUEST_LINE.match(self._seen):
            return HttpResponse(HTTPStatus.BAD_REQUEST)
        try:
            self._library.receive_data(received)
            event = self._library.next_event()
        except h11.RemoteProtocolError as malformed:
            return HttpResponse(HTTPStatus(malformed.error_status_hint))
        return _head_of(event, self._library) if isinstance(event, h11.Request) else None


def _head_of(event: h11.Request, parser: h11.Connection) -> RequestHead:
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
                    return _head_of(event, parser)
                if event is not h11.NEED_DATA:
                    return None
                parser.receive_data(bytes(await stream.receive_some(HEAD_BYTES)))
    except h11.RemoteProtocolError as malformed:
        return HttpResponse(HTTPStatus(malformed.error_status_hint))
    except trio.BrokenResourceError:
        return None
    return None
