"""A connection whose messages are compressed, as a stream of plain WebSocket frames.

What is sent to it are the broker's own frames; those of text go out compressed. What is received
from it are the client's frames; compressed messages come out plain and whole. So neither
the outbox nor the parser of frames knows of compression.

Made by ``connection``, for a client whose offer was taken (``offers``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import msgspec
import trio

from mux.core.part import Part
from mux.dispatch.outbox import BATCH_BYTES, frame_header
from mux.downstream.websocket.compression import (
    UNPACKED_BYTES,
    DamagedError,
    Packer,
    TooLongError,
    Unpacking,
)
from mux.downstream.websocket.websocket import (
    BINARY,
    CONTINUATION,
    FINAL,
    FINAL_TEXT,
    IN_2_BYTES,
    IN_8_BYTES,
    LEAST_BYTES,
    LENGTH,
    MASK_BYTES,
    MASKED,
    OPCODE,
    SMALL_FRAGMENT,
    TEXT,
    FrameReader,
)

STEP_BYTES: Final = 64 * 1024
"""Bytes compressed at once: 2 ms. Then other clients have their turn."""

NO_MASK: Final = bytes(MASK_BYTES)
TOO_LONG: Final = bytes((FINAL_TEXT, MASKED | IN_8_BYTES)) + (2**62).to_bytes(8) + NO_MASK
"""The head of a frame that is longer than any limit: the parser ends the connection by 1009."""
MALFORMED: Final = bytes((0xFF, MASKED)) + NO_MASK
"""A frame that the parser ends the connection for, by 1002."""
IDLE: Final = bytes((0x8A, MASKED)) + NO_MASK
"""An empty pong. The parser counts it among what asks for nothing, as it counts small fragments."""


@attrs.define(eq=False, repr=False)
class CompressedStream(trio.abc.HalfCloseableStream):
    """The server's end of a compressed connection.

    The first ``plain`` bytes pass as they are: the response to the upgrade. One ``send_all`` is
    given whole frames, as an outbox without a descriptor gives them.
    """

    stream: trio.abc.HalfCloseableStream
    packer: Packer
    unpacker: FrameUnpacker
    plain: int
    descriptor: Callable[[], int] = attrs.field(default=lambda: -1)
    """Returns the descriptor that ``stream`` writes to, unchanged; for ``send_now``."""
    _left: bytes = b""
    """Compressed already, and not written."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        packed, self._left = [self._left], b""
        size = len(packed[0])
        with memoryview(data) as view:
            for part, is_text in self._parts(view):
                packed.append(await self._packed(part) if is_text else bytes(part))
                size += len(packed[-1])
                if size >= BATCH_BYTES:
                    await self.stream.send_all(b"".join(packed))
                    packed, size = [], 0
        if size:
            await self.stream.send_all(b"".join(packed))

    def send_now(self, data: bytes | memoryview) -> bool:
        """Write some short whole frames, as far as the socket takes them.

        Return False if some is left, which the next ``send_all`` writes first. Nothing may be left
        when this is called.
        """
        with memoryview(data) as view:
            parts = self._parts(view)
            packed = b"".join([self._whole(part) if text else part for part, text in parts])
        try:
            taken = os.write(self.descriptor(), packed)
        except OSError:  # it is full, or broken, which the writer finds out
            taken = 0
        self._left = packed[taken:]
        return not self._left

    def _parts(self, view: memoryview) -> Iterator[tuple[memoryview, bool]]:
        """Yield what passes as it is, and the payloads of text frames, with True."""
        at, self.plain = self.plain, 0
        if at:
            yield view[:at], False
        while at < len(view):
            start, end = _payload(view, at)
            is_text = view[at] == FINAL_TEXT
            yield view[start if is_text else at : end], is_text
            at = end

    async def _packed(self, payload: memoryview) -> bytes:
        if len(payload) <= STEP_BYTES:
            return self._whole(payload)
        parts = []
        for at in range(0, len(payload), STEP_BYTES):
            if at:
                await trio.lowlevel.checkpoint()
            parts.append(self.packer.feed(payload[at : at + STEP_BYTES]))
        return self._frame(b"".join(parts) + self.packer.finish())

    def _whole(self, payload: memoryview) -> bytes:
        return self._frame(self.packer.feed(payload) + self.packer.finish())

    def _frame(self, message: bytes) -> bytes:
        return frame_header(self.packer.first, len(message)) + message

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while received := await self.stream.receive_some(max_bytes):
            if frames := self.unpacker.feed(received):
                return frames
        return b""

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def aclose(self) -> None:
        await self.stream.aclose()


def _payload(frames: memoryview, at: int) -> tuple[int, int]:
    """Return start and end of the payload of our own, unmasked frame at ``at``."""
    length = frames[at + 1]
    start = at + 2
    if length >= IN_2_BYTES:
        size = 2 if length == IN_2_BYTES else 8
        length = int.from_bytes(frames[start : start + size])
        start += size
    return start, start + length


class FrameUnpacker(Part):
    """Turns one client's frames into frames without compression. No I/O.

    Frames of messages that aren't compressed pass, as their bytes come.
    """

    unpacking: Unpacking
    frames: FrameReader
    """The parser that the plain frames are for. Its limit holds for a compressed message, too: as
    it comes, and unpacked."""
    _buffer: bytearray = msgspec.field(default_factory=bytearray)
    _passing: int = 0
    """Bytes of a frame that passes, and that haven't come yet."""
    _parts: list[bytes] = msgspec.field(default_factory=list)
    """Payloads of the compressed message that is under way."""
    _size: int = 0
    _opcode: int = 0
    """That message's opcode; 0 while none is under way."""
    _plain: bool = False
    """True while a fragmented message is under way that isn't compressed."""
    _ended: bool = False

    def feed(self, received: bytes | bytearray) -> bytes:
        """Return the plain frames that are complete now, or as much of one as has come."""
        self._buffer += received
        out: list[bytes] = []
        while self._buffer and not self._ended:
            if self._passing:
                passed = bytes(self._buffer[: self._passing])
                del self._buffer[: len(passed)]
                self._passing -= len(passed)
                out.append(passed)
            elif not self._next(out):
                break
        return b"".join(out)

    def _next(self, out: list[bytes]) -> bool:
        """Take the next frame, or begin to pass it. Return False while its head is incomplete."""
        buffer = self._buffer
        if len(buffer) < LEAST_BYTES:
            return False
        first, second = buffer[0], buffer[1]
        size_bytes = {IN_2_BYTES: 2, IN_8_BYTES: 8}.get(second & LENGTH, 0)
        start = LEAST_BYTES + size_bytes + (MASK_BYTES if second & MASKED else 0)
        if len(buffer) < start:
            return False
        length = second & LENGTH
        if size_bytes:
            length = int.from_bytes(buffer[LEAST_BYTES : LEAST_BYTES + size_bytes])
        kind = self._kind(first, masked=second & MASKED > 0)
        if kind == "wrong":
            self._end(out, MALFORMED)
        elif kind == "passes":
            self._passing = start + length
        elif self._size + length > self.frames.limit:
            self._end(out, TOO_LONG)
        elif len(buffer) < start + length:
            return False
        else:
            payload = _unmasked(buffer, start, start + length)
            del buffer[: start + length]
            self._take(first, payload, out)
        return True

    def _kind(self, first: int, *, masked: bool) -> str:
        """Return what becomes of a frame: it ``passes``, is ``packed``, or is ``wrong`` here."""
        opcode = first & OPCODE
        if opcode > BINARY:
            return "passes"
        begins = (first & ~FINAL) in self.unpacking.first
        under_way = self._opcode > 0
        if begins or under_way:
            goes_on = first & ~FINAL == CONTINUATION
            right = masked and (goes_on if under_way else not self._plain)
            return "packed" if right else "wrong"
        if self.unpacking.only:
            return "wrong"
        self._plain = not first & FINAL
        return "passes"

    def _take(self, first: int, payload: bytes, out: list[bytes]) -> None:
        """Take one frame of a compressed message."""
        if (self._opcode or not first & FINAL) and len(payload) < SMALL_FRAGMENT:
            out.append(IDLE)
        self._opcode = self._opcode or first & OPCODE
        self._parts.append(payload)
        self._size += len(payload)
        if first & FINAL:
            packed, opcode = b"".join(self._parts), self._opcode
            self._parts, self._size, self._opcode = [], 0, 0
            try:
                text = self.unpacking.message(packed, opcode, self._limit)
            except TooLongError:
                self._end(out, TOO_LONG)
            except DamagedError:
                self._end(out, MALFORMED)
            else:
                out.append(_frame(BINARY, b"") if text is None else _frame(TEXT, text))

    @property
    def _limit(self) -> int:
        return min(self.frames.limit, UNPACKED_BYTES)

    def _end(self, out: list[bytes], last: bytes) -> None:
        """Have the parser end the connection. Nothing that comes after can be read."""
        self._ended = True
        out.append(last)


def _frame(opcode: int, payload: bytes) -> bytes:
    """Return a client's frame, masked by zeros."""
    head = bytearray(frame_header(FINAL | opcode, len(payload)))
    head[1] |= MASKED
    return bytes(head) + NO_MASK + payload


def _unmasked(buffer: bytearray, start: int, end: int) -> bytes:
    size = end - start
    mask = bytes(buffer[start - MASK_BYTES : start]) * (size // MASK_BYTES + 1)
    return (int.from_bytes(buffer[start:end]) ^ int.from_bytes(mask[:size])).to_bytes(size)
