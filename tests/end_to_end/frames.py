"""A WebSocket client that sends any frames, also those that a library would refuse to send.

Hands to: the tests of bad input. Hears from: the broker.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from tests import knocks
from tests.end_to_end.peer import PATIENCE, Json

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
FINAL: Final = 0x80
MASKED: Final = 0x80
MASK_BYTES: Final = 4
LENGTH_IN_2: Final = 126
LENGTH_IN_8: Final = 127


class ClosedError(Exception):
    """The other end closed: with this code and reason, or with code None without a close frame."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


def frame(opcode: int, payload: bytes, *, final: bool = True, length: int | None = None) -> bytes:
    """One frame of a client. `length` is what its head says, where that shall be a lie."""
    size = len(payload) if length is None else length
    head = bytes([opcode | (FINAL if final else 0)])
    if size < LENGTH_IN_2:
        head += bytes([MASKED | size])
    elif size < 1 << 16:
        head += bytes([MASKED | LENGTH_IN_2]) + size.to_bytes(2, "big")
    else:
        head += bytes([MASKED | LENGTH_IN_8]) + size.to_bytes(8, "big")
    return head + bytes(MASK_BYTES) + payload  # a mask of zeros leaves the payload as it is


@attrs.define
class Framer:
    """A WebSocket connection, frame by frame, after its handshake."""

    stream: trio.SocketStream
    _buffer: bytearray = attrs.field(factory=bytearray)

    async def upgrade(self, path: str, early: bytes) -> None:
        """Make it a WebSocket; `early` are frames that don't wait for the answer."""
        await self.send(knocks.request(f"GET {path}", *knocks.UPGRADE) + early)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self._take(1)
        assert head.startswith(b"HTTP/1.1 101 ")

    async def send(self, sent: bytes) -> None:
        """Send bytes, which may be any part of a frame or several."""
        await self.stream.send_all(sent)

    async def send_text(self, text: str | bytes) -> None:
        """Send one text message in one frame."""
        payload = text.encode() if isinstance(text, str) else text
        await self.send(frame(TEXT, payload))

    async def receive(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. Raises ClosedError for a close frame, or none."""
        opcode, size = await self._take(2)
        if size == LENGTH_IN_2:
            size = int.from_bytes(await self._take(2), "big")
        elif size == LENGTH_IN_8:
            size = int.from_bytes(await self._take(8), "big")
        payload = await self._take(size)
        if opcode == FINAL | CLOSE:
            raise ClosedError(int.from_bytes(payload[:2], "big"), payload[2:].decode())
        return opcode & ~FINAL, payload

    async def answer(self) -> Any:
        """The next message that is no notification, parsed."""
        while True:
            opcode, payload = await self.receive()
            if opcode == TEXT and "method" not in (message := json.loads(payload)):
                return message

    async def closed(self) -> ClosedError:
        """How the other end closes; what it says before is dropped."""
        try:
            with trio.fail_after(PATIENCE):
                while True:
                    await self.receive()
        except ClosedError as closed:
            return closed

    async def initialize(self, name: str) -> Json:
        """Shake hands; the answer."""
        asked = {"clientInfo": {"name": name, "version": "0.1"}}
        await self.send_text(json.dumps({"id": 0, "method": "initialize", "params": asked}))
        return await self.answer()  # type: ignore[no-any-return]

    async def _take(self, size: int) -> bytes:
        with trio.fail_after(PATIENCE):
            while len(self._buffer) < size:
                try:
                    piece = await self.stream.receive_some(max(size, 65536))
                except trio.BrokenResourceError:
                    piece = b""
                if not piece:
                    raise ClosedError(None, f"after {bytes(self._buffer[:40])!r}")
                self._buffer += piece
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


@asynccontextmanager
async def framer(url: str, path: str = "/", early: bytes = b"") -> AsyncIterator[Framer]:
    """A connection to a WebSocket listener, upgraded."""
    host, _, port = url.removeprefix("ws://").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        opened = Framer(stream)
        await opened.upgrade(path, early)
        yield opened


def padded(size: int) -> bytes:
    """A request of about this many bytes that the app-server answers with an empty list."""
    head, tail = b'{"id":"big","method":"thread/loaded/list","params":{"x":"', b'"}}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


def random_mask_text(text: bytes) -> bytes:
    """One text frame under a real mask, as browsers send it."""
    mask = os.urandom(MASK_BYTES)
    masked = bytes(byte ^ mask[place % MASK_BYTES] for place, byte in enumerate(text))
    plain = frame(TEXT, text)
    return plain[: len(plain) - len(text) - MASK_BYTES] + mask + masked
