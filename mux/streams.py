"""An accepted socket as a byte stream: one that takes its time, bare or under TLS.

Hands to: the socket. Hears from: ``listener``, which makes one of each accepted socket;
``door`` and ``downstream``, which read and write it.
"""

from __future__ import annotations

import os
import ssl

import attrs
import structlog
import trio

STALL_DEADLINE = 5 * 60.0
"""Seconds in which a socket takes nothing at all, after which its client is given up. A slow one is
never cut; one behind a closed lid or in a tunnel for longer resumes."""

RECEIVE_BYTES = 64 * 1024
"""Read at once, where the reader doesn't say."""

HANDSHAKE_DEADLINE = 10.0
"""Seconds for the TLS handshake, two round trips: a phone on a bad link needs 3."""

log = structlog.get_logger()


@attrs.define(eq=False)
class Patient(trio.abc.HalfCloseableStream):
    """A socket that is broken only once it took nothing for very long."""

    stream: trio.SocketStream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                with trio.move_on_after(STALL_DEADLINE) as stalled:
                    sent += await self._send(view[sent:])
                if stalled.cancelled_caught:
                    log.warning("client given up: its socket takes nothing", seconds=STALL_DEADLINE)
                    raise trio.BrokenResourceError("took nothing for too long")

    async def _send(self, data: memoryview) -> int:
        try:
            return await self.stream.socket.send(data)
        except OSError as failure:
            if self.stream.socket.fileno() < 0:
                raise trio.ClosedResourceError("this stream was closed") from None
            raise trio.BrokenResourceError(f"socket broken: {failure.strerror}") from failure

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What came. Nearly always it has to be waited for, so that comes first."""
        while True:
            await trio.lowlevel.wait_readable(self.stream.socket)
            try:
                return os.read(self.fileno(), max_bytes or RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as failure:
                raise trio.BrokenResourceError(f"socket broken: {failure.strerror}") from failure

    def fileno(self) -> int:
        """The socket's descriptor; -1 once it is closed."""
        return self.stream.socket.fileno()

    async def aclose(self) -> None:
        await self.stream.aclose()


@attrs.define(eq=False)
class Encrypted(trio.abc.HalfCloseableStream):
    """The server's end of TLS over a stream. ``shake_hands`` comes first.

    Its end is the connection's: what comes over it, HTTP with a length or a WebSocket, says itself
    where it ends. So nobody waits for ``close_notify``, which many clients never send.
    """

    bare: trio.abc.HalfCloseableStream
    context: ssl.SSLContext
    _tls: trio.SSLStream[trio.abc.HalfCloseableStream] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tls = trio.SSLStream(self.bare, self.context, server_side=True, https_compatible=True)

    async def shake_hands(self) -> None:
        """Raises ``BrokenResourceError`` if it fails, or takes too long."""
        with trio.move_on_after(HANDSHAKE_DEADLINE) as late:
            await self._tls.do_handshake()
        if late.cancelled_caught:
            raise trio.BrokenResourceError("no TLS handshake in time")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._tls.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._tls.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.bare.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._tls.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._tls.aclose()


Accepted = Patient | Encrypted
"""What a connection is read and written by."""
