"""A request of one connection, between h11 and an ASGI application. Nothing else is known here.

The head was read by h11 (``downstream.http``); the same parser reads the body and frames the
response. Bodies stream both ways: the next piece is received when the application asks for it, and
sent before it goes on. So a slow peer holds back its own request alone, for a bounded time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import unquote

import attrs
import h11
import structlog
import trio

from mux.downstream.request import Request
from mux.web.limits import (
    BODY_SECONDS,
    BODY_STEP,
    DRAINED_BYTES,
    WRITE_BYTES,
    WRITE_SECONDS,
)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
App = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

REQUEST: Final = "appmux.request"
"""The key of an ASGI scope under which the application finds the ``Request``."""

ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
"""From 2.4 on `send` raises ``OSError`` once the peer has left, and nobody listens for it."""

FAILED: Final = b"something went wrong here; the broker's log says what\n"

log = structlog.get_logger()


class LeftError(OSError):
    """The peer has left, or was too slow; the application's response ends here."""


async def serve(app: App, request: Request) -> bool:
    """Have the application answer a request. Return whether another may follow."""
    parser = request.head.parser
    assert parser is not None, "h11 has read whatever gets here"
    exchange = _Exchange(request.stream, parser, head_only=request.head.method == b"HEAD")
    try:
        try:
            await app(scope_of(request), exchange.receive, exchange.send)
        except LeftError:
            raise
        except Exception:
            log.exception("a page's request crashed", client=request.peer.address)
            await exchange.fail()
        return await exchange.finish()
    except (LeftError, h11.ProtocolError):
        log.debug("left before its answer", client=request.peer.address)
        return False


def scope_of(request: Request) -> Scope:
    """Return the ASGI scope of a request."""
    head, peer = request.head, request.peer
    host, _, port = peer.address.rpartition(":")
    query = head.target.partition(b"?")[2]
    return {
        "type": "http",
        "asgi": ASGI,
        "http_version": head.version.decode("ascii"),
        "method": head.method.decode("ascii"),
        "scheme": "https" if peer.secure else "http",
        "path": unquote(request.path.decode("latin-1")),
        "raw_path": request.path,
        "query_string": query,
        "root_path": "",
        "headers": [(name, value) for name, values in head.headers.items() for value in values],
        "client": (host.strip("[]"), int(port)) if port.isdecimal() else None,
        "server": None,
        REQUEST: request,
    }


@attrs.define(eq=False, repr=False)
class _Exchange:
    """A request's body and its response."""

    stream: trio.abc.HalfCloseableStream
    parser: h11.Connection
    head_only: bool
    """True if the response has no body, whatever the application sends."""
    _since: int = 0
    """Bytes of the body received since its deadline was set."""
    _deadline: float = attrs.field(factory=lambda: trio.current_time() + BODY_SECONDS)

    # -- the body ----------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Return the next piece of the request's body, or that the peer has left."""
        if self.parser.their_state is not h11.SEND_BODY:
            if self.parser.their_state is h11.DONE and not self._ended:
                return self._end_of_body()
            return {"type": "http.disconnect"}
        if self.parser.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await self._write(self.parser.send(go_on) or b"")
        event = await self._next_event()
        if isinstance(event, h11.Data):
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        return self._end_of_body()

    _ended: bool = False

    def _end_of_body(self) -> Message:
        self._ended = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _next_event(self) -> h11.Event:
        """Return the next piece of the body, or its end. Raises ``LeftError``."""
        with trio.move_on_at(self._deadline):
            while True:
                try:
                    event = self.parser.next_event()
                except h11.RemoteProtocolError as malformed:
                    raise LeftError("a malformed body") from malformed
                if isinstance(event, h11.Data | h11.EndOfMessage):
                    self._count(event)
                    return event
                if event is not h11.NEED_DATA:
                    raise LeftError("no more of its body")
                try:
                    received = await self.stream.receive_some(WRITE_BYTES)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as broken:
                    raise LeftError("broken") from broken
                self.parser.receive_data(bytes(received))
        raise LeftError("its body didn't come in time")

    def _count(self, event: h11.Event) -> None:
        if isinstance(event, h11.Data):
            self._since += len(event.data)
            if self._since >= BODY_STEP:
                self._since, self._deadline = 0, trio.current_time() + BODY_SECONDS

    # -- the response ------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Send the next piece of the response, and wait until the socket has taken it."""
        if message["type"] == "http.response.start":
            headers = [(bytes(name), bytes(value)) for name, value in message["headers"]]
            response = h11.Response(status_code=message["status"], headers=headers)
            await self._write(self.parser.send(response) or b"")
        elif message["type"] == "http.response.body":
            body = b"" if self.head_only else message.get("body", b"")
            if body:
                await self._write(self.parser.send(h11.Data(data=body)) or b"")
            if not message.get("more_body", False):
                await self._write(self.parser.send(h11.EndOfMessage()) or b"")

    async def _write(self, data: bytes) -> None:
        for at in range(0, len(data), WRITE_BYTES):
            with trio.move_on_after(WRITE_SECONDS) as slow:
                try:
                    await self.stream.send_all(data[at : at + WRITE_BYTES])
                except (trio.BrokenResourceError, trio.ClosedResourceError) as broken:
                    raise LeftError("broken") from broken
            if slow.cancelled_caught:
                raise LeftError("it takes too little")

    async def fail(self) -> None:
        """Answer 500, if nothing was answered yet; else break the response off."""
        if self.parser.our_state is not h11.SEND_RESPONSE:
            raise LeftError("the response can't be finished")
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(FAILED))]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": FAILED})

    async def finish(self) -> bool:
        """Read off what is left of the body. Return whether another request may follow."""
        if self.parser.our_state is not h11.DONE:
            raise LeftError("the response isn't whole")
        left = DRAINED_BYTES
        while self.parser.their_state is h11.SEND_BODY and left > 0:
            event = await self._next_event()
            left -= len(event.data) if isinstance(event, h11.Data) else 0
        if self.parser.their_state is not h11.DONE:
            return False
        self.parser.start_next_cycle()
        return True
