"""A request of one connection, between h11 and an ASGI application. Nothing else is known here.

The head was read by h11 (``downstream.http.http``); the same parser reads the body and frames the
response. Bodies stream both ways: the next piece is received when the application asks for it, and
sent before it goes on. So a slow peer holds back its own request alone, for a bounded time.

Long bodies may go past the parser, between the socket and a file, where the socket has no TLS (see
``transfer``): a response by ASGI's own extension `SEND_FILE`, a request by `POUR`, which is ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import attrs
import h11
import structlog
import trio

from mux.downstream.http.head import HEAD_BYTES
from mux.downstream.http.request import Request
from mux.downstream.sockets.streams import Patient
from mux.web import transfer
from mux.web.limits import (
    BODY_SECONDS,
    BODY_STEP,
    DRAINED_BYTES,
    LINGER_PAUSE,
    LINGER_SECONDS,
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

SEND_FILE: Final = "http.response.zerocopysend"
"""ASGI's extension for a part of a file; ``file`` of its message is a descriptor here."""

POUR: Final = "appmux.pour"
"""Our extension: ``await pour(write)`` has a thread receive what there is of the request's body and
give it to ``write``. It returns whether there is more. `receive` must not be called beside it."""

Pour = Callable[[transfer.Write], Awaitable[bool]]

ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
"""From 2.4 on `send` raises ``OSError`` once the peer has left, and nobody listens for it."""

FAILED: Final = b"something went wrong here; the broker's log says what\n"

T = TypeVar("T")

log = structlog.get_logger()


class LeftError(OSError):
    """The peer has left, or was too slow; the application's response ends here."""


async def serve(
    app: App, request: Request, threads: trio.CapacityLimiter | None = None
) -> h11.Connection | None:
    """Have the application answer a request.

    Return the parser for the connection's next request; None if there may be none. ``threads``:
    those that long bodies are moved by.
    """
    parser = request.head.parser
    assert parser is not None, "h11 has read whatever gets here"
    exchange = _Exchange(request, parser, threads)
    try:
        try:
            await app(exchange.scope(), exchange.receive, exchange.send)
        except LeftError:
            raise
        except Exception:
            log.exception("a page's request crashed", client=request.peer.address)
            await exchange.fail()
        return await exchange.finish()
    except (LeftError, h11.ProtocolError):
        log.debug("left before its answer", client=request.peer.address)
        return None


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

    request: Request
    parser: h11.Connection
    threads: trio.CapacityLimiter | None
    _since: int = 0
    """Bytes of the body received since its deadline was set."""
    _deadline: float = attrs.field(factory=lambda: trio.current_time() + BODY_SECONDS)
    _left: int | None = None
    """Bytes of the body that are still to be poured; None if it isn't."""
    _next: h11.Connection | None = None
    """The parser of the request after a body that was poured."""

    @property
    def stream(self) -> trio.abc.HalfCloseableStream:
        return self.request.stream

    def scope(self) -> Scope:
        """Return the request's ASGI scope."""
        extensions: dict[str, object] = {}
        if isinstance(self.stream, Patient):
            extensions[SEND_FILE] = {}
            head = self.request.head
            # Of both, the encoding counts, as for the parser.
            if head.values(b"content-length") and not head.values(b"transfer-encoding"):
                extensions[POUR] = self.pour
        return {**scope_of(self.request), "extensions": extensions}

    # -- the body ----------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Return the next piece of the request's body, or that the peer has left."""
        if self.parser.their_state is not h11.SEND_BODY:
            if self.parser.their_state is h11.DONE and not self._ended:
                return self._end_of_body()
            return {"type": "http.disconnect"}
        await self._send_continue()
        event = await self._next_event()
        if isinstance(event, h11.Data):
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        return self._end_of_body()

    _ended: bool = False

    def _end_of_body(self) -> Message:
        self._ended = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send_continue(self) -> None:
        """Send 100 Continue to a peer that waits for it before its body."""
        if self.parser.they_are_waiting_for_100_continue:
            carry_on = h11.InformationalResponse(status_code=100, headers=[])
            await self._write(self.parser.send(carry_on) or b"")

    async def pour(self, write: transfer.Write) -> bool:
        """Have a thread receive what there is of the body, and write it (see `POUR`).

        Raises ``LeftError``, and what ``write`` raises, which must be no ``OSError``.
        """
        if self._left is None:
            await self._send_continue()
            return await self._pour_first(write)
        if self._left:
            await self._wait_for_body()
            try:
                came = await self._in_thread(transfer.receive, self._descriptor, self._left, write)
            except (OSError, EOFError) as broken:
                raise LeftError("broken") from broken
            self._left -= came
            self._count(came)
        return self._left > 0

    async def _wait_for_body(self) -> None:
        with trio.move_on_at(self._deadline):
            await trio.lowlevel.wait_readable(self._descriptor)
            return
        raise LeftError("its body didn't come in time")

    async def _pour_first(self, write: transfer.Write) -> bool:
        """Write what of the body came with its head."""
        length = int(self.request.head.values(b"content-length")[0])  # h11 has checked it
        came = self.parser.trailing_data[0]
        self._next = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        if after := came[length:]:
            self._next.receive_data(after)
        first = came[:length]
        self._left = length - len(first)
        if first:
            await self._in_thread(write, memoryview(first))
        return self._left > 0

    @property
    def _descriptor(self) -> int:
        assert isinstance(self.stream, Patient)
        return self.stream.fileno()

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(function, *arguments, limiter=self.threads)

    async def _next_event(self) -> h11.Event:
        """Return the next piece of the body, or its end. Raises ``LeftError``."""
        with trio.move_on_at(self._deadline):
            while True:
                try:
                    event = self.parser.next_event()
                except h11.RemoteProtocolError as malformed:
                    raise LeftError("a malformed body") from malformed
                if isinstance(event, h11.Data | h11.EndOfMessage):
                    self._count(len(event.data) if isinstance(event, h11.Data) else 0)
                    return event
                if event is not h11.NEED_DATA:
                    raise LeftError("no more of its body")
                try:
                    received = await self.stream.receive_some(WRITE_BYTES)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as broken:
                    raise LeftError("broken") from broken
                self.parser.receive_data(bytes(received))
        raise LeftError("its body didn't come in time")

    def _count(self, came: int) -> None:
        self._since += came
        if self._since >= BODY_STEP:
            self._since, self._deadline = 0, trio.current_time() + BODY_SECONDS

    # -- the response ------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Send the next piece of the response, and wait until the socket has taken it."""
        if message["type"] == "http.response.start":
            headers = [(bytes(name), bytes(value)) for name, value in message["headers"]]
            if self._leaves_too_much():
                headers.append((b"connection", b"close"))
            response = h11.Response(status_code=message["status"], headers=headers)
            await self._write(self.parser.send(response) or b"")
            return
        if message["type"] == SEND_FILE:
            await self._send_file(message["file"], message["offset"], message["count"])
        elif self.request.head.method != b"HEAD" and (body := message.get("body", b"")):
            await self._write(self.parser.send(h11.Data(data=body)) or b"")
        if not message.get("more_body", False):
            await self._write(self.parser.send(h11.EndOfMessage()) or b"")

    async def _send_file(self, file: int, at: int, count: int) -> None:
        """Have a thread send a part of a file. Raises ``LeftError``."""
        end, since = at + count, at
        # The parser counts what it doesn't see. A body without a length would need a frame around.
        passed = self.parser.send_with_data_passthrough(h11.Data(data=_Passed(count)))  # type: ignore[arg-type]
        assert passed is not None
        assert len(passed) == 1, "the response has a length"
        deadline = trio.current_time() + WRITE_SECONDS
        while at < end:
            with trio.move_on_at(deadline) as slow:
                await trio.lowlevel.wait_writable(self._descriptor)
            if slow.cancelled_caught:
                raise LeftError("it takes too little")
            try:
                at = await self._in_thread(transfer.send, self._descriptor, file, at, end)
            except (OSError, EOFError) as broken:
                raise LeftError("broken") from broken
            if at - since >= WRITE_BYTES:
                since, deadline = at, trio.current_time() + WRITE_SECONDS

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

    def _leaves_too_much(self) -> bool:
        """Return whether so much of the body is unread that the connection is closed after this."""
        if self._left is not None:
            return self._left > 0
        lengths = self.request.head.values(b"content-length")
        unread = self.parser.their_state is h11.SEND_BODY and bool(lengths)
        return unread and int(lengths[0]) > DRAINED_BYTES

    async def finish(self) -> h11.Connection | None:
        """Read off what is left of the body. Return the next request's parser, as `serve` does."""
        if self.parser.our_state not in {h11.DONE, h11.MUST_CLOSE}:
            raise LeftError("the response isn't whole")
        if self.parser.our_state is h11.DONE and self._left is not None:
            return self._next
        left = DRAINED_BYTES if self.parser.our_state is h11.DONE else 0
        while self.parser.their_state is h11.SEND_BODY and left > 0:
            event = await self._next_event()
            left -= len(event.data) if isinstance(event, h11.Data) else 0
        if self.parser.our_state is h11.DONE and self.parser.their_state is h11.DONE:
            self.parser.start_next_cycle()
            return self.parser
        await self._linger()
        return None

    async def _linger(self) -> None:
        """Take a little more of a body that nobody wants, until the peer has read why.

        Closed with unread input, the kernel resets the connection, and the response may be lost.
        """
        with trio.move_on_after(LINGER_SECONDS):
            try:
                await self.stream.send_eof()
                while await self.stream.receive_some(WRITE_BYTES):  # noqa: ASYNC110 (a pace)
                    await trio.sleep(LINGER_PAUSE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return


@attrs.frozen
class _Passed:
    """Stands for bytes that go past the parser."""

    size: int

    def __len__(self) -> int:
        return self.size
