"""A listening socket, and accepted sockets as byte streams that tolerate slow peers; also TLS.

trio has both. These cost half as much a client, since they know what trio's can't: a connection or
input has nearly always to be waited for, and the socket's options are set already.

Used by ``listener``, which makes the streams; ``http`` and ``connection`` read and write them.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl

import attrs
import structlog
import trio

STALL_DEADLINE = 5 * 60.0
"""Seconds in which a socket takes nothing at all, after which its client is given up. A slow client
is never disconnected; a client behind a closed lid or in a tunnel for longer resumes afterwards."""

RECEIVE_BYTES = 64 * 1024
"""Most bytes of one read, where the reader doesn't say."""

HANDSHAKE_DEADLINE = 10.0
"""Seconds for the TLS handshake, two round trips: a phone on a bad link needs 3."""

_LOST = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN", "ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN",
        "ENETUNREACH", "ENONET", "ENOPROTOOPT", "EOPNOTSUPP", "EPERM", "EPROTO", "ETIMEDOUT",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""Errors of ``accept`` for a connection that has gone again, or that a firewall took (accept(2)).
"""

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class Listening(trio.abc.Listener["Patient"]):
    """A listening socket; each accepted connection becomes a `Patient`."""

    socket: socket.socket

    def __attrs_post_init__(self) -> None:
        self.socket.setblocking(False)

    async def accept(self) -> Patient:
        """Wait for the next connection. Raises ``OSError`` for want of a descriptor or memory."""
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            try:
                accepted = self.socket.accept()[0]
            except OSError as failure:
                if failure.errno not in _LOST:
                    raise
            else:
                return Patient(trio.socket.from_stdlib_socket(accepted))

    async def aclose(self) -> None:
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False, repr=False)
class Patient(trio.abc.HalfCloseableStream):
    """A socket as a stream that breaks only after it took nothing for ``STALL_DEADLINE``."""

    socket: trio.socket.SocketType

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
            return await self.socket.send(data)
        except OSError as failure:
            if self.fileno() < 0:
                raise trio.ClosedResourceError("this stream was closed") from None
            raise trio.BrokenResourceError(f"socket broken: {failure.strerror}") from failure

    async def wait_send_all_might_not_block(self) -> None:
        await self.socket.wait_writable()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as failure:
            raise trio.BrokenResourceError(f"socket broken: {failure.strerror}") from failure

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive the next bytes. Waits before the first try: mostly nothing has come yet."""
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            try:
                return os.read(self.fileno(), max_bytes or RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as failure:
                raise trio.BrokenResourceError(f"socket broken: {failure.strerror}") from failure

    def receive_now(self, max_bytes: int) -> bytes:
        """Receive bytes that have come already; none if there are none, or no more will come."""
        try:
            return os.read(self.fileno(), max_bytes)
        except OSError:  # nothing yet; or broken, which the next `receive_some` finds out
            return b""

    def fileno(self) -> int:
        """The socket's descriptor; -1 once it is closed."""
        return self.socket.fileno()

    async def aclose(self) -> None:
        self.socket.close()
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False, repr=False)
class Encrypted(trio.abc.HalfCloseableStream):
    """The server's end of TLS over a stream. Call ``shake_hands`` first.

    TLS ends when the connection does: HTTP with a length and WebSocket tell themselves where they
    end. So nobody waits for ``close_notify``, which many clients never send.
    """

    bare: trio.abc.HalfCloseableStream
    context: ssl.SSLContext
    _tls: trio.SSLStream[trio.abc.HalfCloseableStream] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tls = trio.SSLStream(self.bare, self.context, server_side=True, https_compatible=True)

    async def shake_hands(self) -> None:
        """Perform the TLS handshake. Raises ``BrokenResourceError`` if it fails or is late."""
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
"""The stream of an accepted connection."""
