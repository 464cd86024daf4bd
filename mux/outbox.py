"""The bytes owed to one peer: appended by whoever decides, written by one task in batches.

``append`` never waits, so a decision never waits for a socket. The writer joins what is owed and
sends it in one call: under load a batch holds hundreds of frames, when idle it holds one and goes
at once.

Hands to: the socket or pipe it writes to. Hears from: ``dispatcher`` (frames) and, for a client's,
``downstream`` (the WebSocket library's own frames: pong, close).
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

SHORT, MEDIUM = 126, 1 << 16
"""Payload lengths from which a frame's header needs 2, and 8, bytes more (RFC 6455, 5.2)."""

BATCH_BYTES = 256 * 1024
"""Joined into one write. A larger batch saves no time and holds a second copy of more bytes."""


@attrs.define(eq=False)
class Outbox:
    """Bytes owed to one peer. ``on_full`` is called once, when ``limit`` bytes are exceeded."""

    limit: float
    on_full: Callable[[], None]
    owed: int = 0
    _frames: list[bytes] = attrs.field(factory=list)
    _idle: trio.Event | None = None
    _sealed: bool = False
    _full: bool = False

    def append(self, frame: bytes) -> None:
        """Owe one more frame. Does nothing once sealed."""
        if self._sealed:
            return
        self._frames.append(frame)
        self.owed += len(frame)
        if self._idle is not None:
            self._wake()
        if self.owed > self.limit and not self._full:
            self._full = True
            self.on_full()

    def seal(self, last: bytes = b"") -> None:
        """Owe ``last`` and nothing after it; the writer ends once all is written."""
        if not self._sealed:
            if last:
                self.append(last)
            self._sealed = True
            self._wake()

    def _wake(self) -> None:
        if self._idle is not None:
            self._idle.set()
            self._idle = None

    async def write_to(self, stream: trio.abc.SendStream) -> None:
        """Write what is owed until sealed. Raises what the stream raises."""
        while True:
            if not self._frames:
                if self._sealed:
                    return
                self._idle = trio.Event()
                await self._idle.wait()
                continue
            frames, self._frames = self._frames, []
            await self._write(stream, frames)

    async def _write(self, stream: trio.abc.SendStream, frames: list[bytes]) -> None:
        batch: list[bytes] = []
        size = 0
        for frame in frames:
            batch.append(frame)
            size += len(frame)
            if size >= BATCH_BYTES:
                await stream.send_all(b"".join(batch))
                self.owed -= size
                batch, size = [], 0
        if batch:
            await stream.send_all(b"".join(batch))
            self.owed -= size


def text_frame(message: bytes) -> bytes:
    """A WebSocket text frame as a server sends it: unmasked, so that one serves every client."""
    size = len(message)
    if size < SHORT:
        return b"\x81" + size.to_bytes(1, "big") + message
    if size < MEDIUM:
        return b"\x81\x7e" + size.to_bytes(2, "big") + message
    return b"\x81\x7f" + size.to_bytes(8, "big") + message
