"""One client's WebSocket, from its admission to its end: handshake, reader, writer.

The WebSocket library parses what comes in, and answers pings and closes; it never sees the
messages going out. It is given a stream of ours (``_Wire``) whose ``send_all`` appends to the
client's outbox, beside the frames that the fan-out appends; one writer drains that into the socket.

Hands to: ``dispatcher``, each message. Hears from: ``door``, an ``Admission`` to serve.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import structlog
import trio
import trio_websocket

from mux.core import jsonrpc
from mux.core.events import ClientSent, ClientSentBinary
from mux.dispatcher import Dispatcher, Port
from mux.door import Admission
from mux.outbox import Outbox

RECEIVE_BYTES = 64 * 1024
"""Read from the socket at once: a message of 14 MiB in 224 reads instead of the 3,584 of 4 KiB."""

UNREAD_MESSAGES = 1
"""Parsed but not yet taken by the reader: more would only hide a flood from the socket."""

HANDSHAKE_DEADLINE = 10.0
"""Seconds from an admitted request to the answer 101; all of it is our own work."""

CLOSE_DEADLINE = 3.0
"""Seconds for a client to take what is owed and answer a close frame."""

CLOSE_ABNORMAL = 1006
"""Stands for a connection that ended without a close frame (RFC 6455, 7.4.1); never sent."""

CLOSE_FRAME = b"\x88"
"""The first byte of a close frame; its length is one byte (RFC 6455, 5.5: at most 125)."""

log = structlog.get_logger()


async def serve(
    stream: trio.abc.Stream,
    admission: Admission,
    transport: str,
    dispatcher: Dispatcher,
    *,
    message_bytes: int,
    outbox_bytes: int,
) -> None:
    """Serve one client until either side ends it. The stream is closed at the end."""
    connection = _Connection(stream, dispatcher, outbox_bytes)
    try:
        async with trio.open_nursery() as nursery:
            connection.scope = nursery.cancel_scope
            nursery.start_soon(connection.write)
            await connection.open(nursery, admission.head, message_bytes)
            await connection.attend(admission, transport)
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


@attrs.define(eq=False)
class _Connection:
    """The parts of one connection, and what ends it."""

    stream: trio.abc.Stream
    dispatcher: Dispatcher
    outbox_bytes: int
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    outbox: Outbox = attrs.field(init=False)
    wire: _Wire = attrs.field(init=False)
    websocket: trio_websocket.WebSocketConnection = attrs.field(init=False)
    _ending: tuple[int, str] | None = None
    _told_to_end: trio.Event = attrs.field(factory=trio.Event)
    _written: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.outbox = Outbox(self.outbox_bytes)
        self.wire = _Wire(self.stream, self.outbox, self._written)

    async def open(self, nursery: trio.Nursery, head: bytes, message_bytes: int) -> None:
        """The WebSocket handshake."""
        self.wire.head, self.wire.rest = _split_head(head)
        with trio.fail_after(HANDSHAKE_DEADLINE):
            request = await trio_websocket.wrap_server_stream(
                nursery,
                self.wire,
                message_queue_size=UNREAD_MESSAGES,
                max_message_size=message_bytes,
                receive_buffer_size=RECEIVE_BYTES,
            )
            self.websocket = await request.accept()
        self.wire.goodbye = self._goodbye
        self.wire.accepted.set()

    async def attend(self, admission: Admission, transport: str) -> None:
        """Attach, pass on messages until the end, detach."""
        port = Port(self.outbox, self.end)
        client = self.dispatcher.attach(port, admission.principal, transport, admission.address)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, client, nursery.cancel_scope)
                await self._told_to_end.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.dispatcher.detach(client)
        if self._ending is not None:
            code, reason = self._ending
            with trio.move_on_after(CLOSE_DEADLINE):
                await self.websocket.aclose(code, reason)
        else:
            await self.wire.aclose()  # a close frame is still owed

    def _goodbye(self) -> bytes:
        """The close frame that says what was wrong with the client's own frames.

        The library closes without one when they can't be parsed.
        """
        closed = self.websocket.closed
        if closed is None or closed.code == CLOSE_ABNORMAL:
            return b""
        payload = closed.code.to_bytes(2, "big") + (closed.reason or "").encode()
        return CLOSE_FRAME + bytes([len(payload)]) + payload

    async def _read(self, client: int, scope: trio.CancelScope) -> None:
        while True:
            try:
                message = await self.websocket.get_message()
            except trio_websocket.ConnectionClosed:
                scope.cancel()
                return
            if isinstance(message, bytes):
                self.dispatcher.hear(ClientSentBinary(client))
                continue
            text = message.encode()
            if self.dispatcher.debug:
                log.debug("from client", client=client, method=_method(text))
            self.dispatcher.hear(ClientSent(client, text))

    async def write(self) -> None:
        """Write what is owed; a socket that fails ends the connection."""
        try:
            await self.outbox.write_to(self.stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            self.scope.cancel()
        self._written.set()

    def end(self, code: int, reason: str) -> None:
        """End the connection with a close frame after what is owed. Doesn't wait."""
        if self._ending is None:
            self._ending = (code, reason)
            self._told_to_end.set()


def _method(text: bytes) -> str:
    try:
        return jsonrpc.read_client(text).method or "answer"
    except jsonrpc.BadMessageError:
        return "malformed"


@attrs.define(eq=False)
class _Wire(trio.abc.Stream):
    """The stream that the WebSocket library is given: it reads the socket and writes the outbox.

    First it gives the request's head, which the door has read. The rest waits until the answer 101
    is out: the library loses bytes that it reads before.
    """

    stream: trio.abc.Stream
    outbox: Outbox
    written: trio.Event
    head: bytes = b""
    rest: bytes = b""
    accepted: trio.Event = attrs.field(factory=trio.Event)
    goodbye: Callable[[], bytes] = bytes
    _said_goodbye: bool = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.head:
            await trio.lowlevel.checkpoint()
            head, self.head = self.head, b""
            return head
        await self.accepted.wait()
        if self.rest:
            rest, self.rest = self.rest, b""
            return rest
        return await self.stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._said_goodbye |= bytes(data[:1]) == CLOSE_FRAME
        self.outbox.append(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the socket once what is owed is written (bounded)."""
        self.outbox.seal(b"" if self._said_goodbye else self.goodbye())
        with trio.move_on_after(CLOSE_DEADLINE):
            await self.written.wait()
        await self.stream.aclose()


def _split_head(received: bytes) -> tuple[bytes, bytes]:
    head, end, rest = received.partition(b"\r\n\r\n")
    return head + end, rest
