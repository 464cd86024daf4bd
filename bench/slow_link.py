"""A TCP proxy: loopback becomes as slow as a phone's network, is counted, or is lost.

Each byte is as long on its way as the link says, however many follow it; bandwidth isn't bounded. A
connection's first bytes wait for one round trip more, as a handshake on such a network takes one.

Hands to: `page`, the page's tests. Hears from: a browser and the broker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

RECEIVE_BYTES: Final = 64 * 1024

UNDER_WAY: Final = 10_000
"""Pieces that may be on their way at once: more than any test of the bench has."""


@attrs.define
class SlowLink:
    """One that listens. ``down``: the bytes that came from the broker so far."""

    port: int
    round_trip: float
    """In seconds."""
    down: int = 0
    silent: bool = False
    """True while nothing gets through, and nobody is told so."""
    _connections: set[trio.CancelScope] = attrs.field(factory=set)

    @property
    def origin(self) -> str:
        """Where the broker's page is by this way."""
        return f"http://127.0.0.1:{self.port}"

    def lose(self) -> None:
        """Let nothing through any more, as a network that is gone without a word."""
        self.silent = True

    def find(self) -> None:
        """Let new connections through. What the old ones carried meanwhile is lost with them."""
        self.silent = False
        for each in self._connections:
            each.cancel()

    async def _both(self, broker: tuple[str, int], near: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            async with near:
                await trio.sleep(self.round_trip)
                async with (
                    await trio.open_tcp_stream(*broker) as far,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(self._one_way, near, far, False)
                    nursery.start_soon(self._one_way, far, near, True)
        self._connections.discard(scope)

    async def _one_way(
        self, source: trio.SocketStream, sink: trio.SocketStream, counted: bool
    ) -> None:
        put, get = trio.open_memory_channel[tuple[float, bytes]](UNDER_WAY)

        async def deliver() -> None:
            async for due, piece in get:
                await trio.sleep_until(due)
                await sink.send_all(piece)
            await sink.send_eof()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(deliver)
                async with put:
                    async for piece in source:
                        if self.silent:
                            continue
                        self.down += len(piece) if counted else 0
                        await put.send((trio.current_time() + self.round_trip / 2, bytes(piece)))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            # One end has gone: so does the other.
            await trio.aclose_forcefully(sink)
            await trio.aclose_forcefully(source)


@asynccontextmanager
async def slow_link(broker: tuple[str, int], round_trip: float) -> AsyncIterator[SlowLink]:
    """Listen on a port of its own, towards a broker."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    link = SlowLink(int(listener.socket.getsockname()[1]), round_trip)
    async with trio.open_nursery() as nursery:

        async def accept(stream: trio.SocketStream) -> None:
            await link._both(broker, stream)

        nursery.start_soon(trio.serve_listeners, accept, [listener])
        yield link
        nursery.cancel_scope.cancel()
