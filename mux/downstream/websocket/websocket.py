"""A parser of one client's bytes: WebSocket frames in, whole messages out. No I/O.

``odd_frames`` handles everything unusual: fragments, binary messages, pings, closes, and all that
is malformed. It never sees the common case, a short text message in one frame, for which its
library takes four times as long as is needed (`_text`).

Used by ``connection``.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from mux.downstream.websocket.odd_frames import OddFrames

ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What follows the client's key in the text whose SHA-1 accepts an upgrade (RFC 6455, 4.2.2)."""

FINAL, RESERVED, OPCODE = 0x80, 0x70, 0x0F
MASKED, LENGTH = 0x80, 0x7F
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
FINAL_TEXT = FINAL | TEXT
IN_2_BYTES, IN_8_BYTES = 126, 127
MASK_BYTES = 4
LEAST_BYTES = 2
HEAD_BYTES = {IN_2_BYTES: 2 + 2 + MASK_BYTES, IN_8_BYTES: 2 + 8 + MASK_BYTES}
SHORT_HEAD_BYTES = 2 + MASK_BYTES
"""Sizes of the head of a client's frame, by the length in its second byte. The head is two bytes,
the payload's length if it doesn't fit in them, and the mask (RFC 6455, 5.2)."""

SMALL_FRAGMENT = 256
"""Fragments with fewer bytes count as idle: no library cuts messages that small."""

NOT_UTF_8, TOO_BIG = 1007, 1009
"""Codes of close frames (RFC 6455, 7.4.1)."""

ALL = 2**63
"""More frames than there can be."""

SHORT_TEXT = 32 * 1024
"""Texts up to this many bytes are unmasked here; for longer ones the library is quicker."""


def accepted(key: bytes, *headers: bytes) -> bytes:
    """Return the 101 response to an upgrade with this ``Sec-WebSocket-Key``.

    ``headers`` are further ones, each without its line end.
    """
    first = b"HTTP/1.1 101 Switching Protocols", b"Upgrade: WebSocket", b"Connection: Upgrade"
    digest = sha1(key + ACCEPT_SUFFIX, usedforsecurity=False).digest()
    accept = b"Sec-WebSocket-Accept: " + b64encode(digest)
    return b"\r\n".join((*first, accept, *headers, b"", b""))


@attrs.define(eq=False, repr=False)
class FrameReader:
    """Reads one connection's frames, and makes the frames that answer them."""

    limit: int
    """Most bytes of a message; a longer one ends the connection with 1009."""
    owed: list[bytes] = attrs.field(factory=list)
    """Frames to write back, in order."""
    ended: bool = False
    """True if the client's close frame has come, or something after which nothing can be read.
    Then ``owed`` holds the close frame that answers it."""
    more: bool = False
    """True if the last `feed` left frames unread that may be complete."""
    idle: int = 0
    """Number of frames that carried nothing or next to nothing: pings, pongs, the smallest
    fragments. The caller resets it."""
    _made: OddFrames | None = None
    _buffer: bytearray = attrs.field(factory=bytearray)
    _in_parts: bool = False
    """True if a fragmented message is under way."""
    _size: int = 0
    """Bytes of its payload so far."""
    _rest: int = 0
    """Bytes to come of a long frame, of which the library has had the others. So that frame is read
    as it comes, and not in one long step when it is complete."""

    def feed(self, received: bytes | bytearray, most: int = ALL) -> list[bytes | None]:
        """Return the messages that are complete now: UTF-8 of each text, None for a binary one.

        At most ``most`` frames are read; the others stay for the next call (see ``more``).
        """
        buffer = self._buffer
        buffer += received
        taken: list[bytes | None] = []
        at = 0
        self.more = False
        if self._rest and not self.ended:
            at = min(self._rest, len(buffer))
            self._rest -= at
            taken += self._receive(bytes(buffer[:at]))
        while not self.ended and not self._rest and (payload := self._payload(at)):
            start, end = payload
            if end > len(buffer):
                if end - start > SHORT_TEXT:
                    self._rest = end - len(buffer)
                    taken += self._by_library(bytes(buffer[at:]), end - start)
                    at = len(buffer)
                break
            if self._is_short_text(at, end - start):
                text = _text(buffer, start, end)
                if text is None:
                    self._end(NOT_UTF_8, "text isn't UTF-8")
                else:
                    taken.append(text)
            else:
                taken += self._by_library(bytes(buffer[at:end]), end - start)
            at = end
            most -= 1
            if not most:
                self.more = at < len(buffer)
                break
        del buffer[:at]
        return taken

    def close(self, code: int, reason: str) -> bytes:
        """Return our close frame. Frames before the client's own close frame can still be fed."""
        return self._odd.close(code, reason)

    @property
    def _odd(self) -> OddFrames:
        """The reader of odd frames, made when needed: mostly it sees nothing but the last frame."""
        if self._made is None:
            from mux.downstream.websocket.odd_frames import OddFrames  # noqa: PLC0415 (a 20th of a start)

            self._made = OddFrames(self.owed)
        return self._made

    def _payload(self, at: int) -> tuple[int, int] | None:
        """Return start and end of the payload of the frame at ``at``; None without its whole head.

        The end may be yet to come. A malformed frame reaches to the end of the buffer, so that the
        library judges it.
        """
        buffer = self._buffer
        end = len(buffer)
        if end < at + LEAST_BYTES:
            return None
        first, second = buffer[at], buffer[at + 1]
        if not _is_sane(first, second):
            return end, end
        length = second & LENGTH
        start = at + HEAD_BYTES.get(length, SHORT_HEAD_BYTES)
        if end < start:
            return None
        if length >= IN_2_BYTES:
            length = int.from_bytes(buffer[at + LEAST_BYTES : start - MASK_BYTES])
        if length + (self._size if first & OPCODE <= BINARY else 0) > self.limit:
            self._end(TOO_BIG, f"longer than {self.limit} bytes")
            return None
        return start, start + length

    def _is_short_text(self, at: int, size: int) -> bool:
        """Return whether the frame at ``at`` is a whole short text message."""
        first, second = self._buffer[at], self._buffer[at + 1]
        whole = first == FINAL_TEXT and not self._in_parts
        return whole and second & MASKED > 0 and size <= SHORT_TEXT

    def _by_library(self, frame: bytes, payload: int) -> list[bytes | None]:
        if frame[0] & OPCODE <= BINARY:
            part = self._in_parts or not frame[0] & FINAL
            self.idle += part and payload < SMALL_FRAGMENT
            self._in_parts = not frame[0] & FINAL
            self._size = self._size + payload if self._in_parts else 0
        else:
            self.idle += 1
        return self._receive(frame)

    def _receive(self, received: bytes) -> list[bytes | None]:
        messages = self._odd.receive(received)
        self.ended = self._odd.ended
        return messages

    def _end(self, code: int, reason: str) -> None:
        self.ended = True
        self._odd.end(code, reason)


def _is_sane(first: int, second: int) -> bool:
    """Return whether a client's frame may begin with these bytes."""
    opcode = first & OPCODE
    if not second & MASKED or first & RESERVED or opcode not in OPCODES:
        return False
    # A control frame is whole and short.
    return opcode <= BINARY or (first & FINAL > 0 and second & LENGTH < IN_2_BYTES)


def _text(buffer: bytearray, start: int, end: int) -> bytes | None:
    """Unmask the payload by the mask before ``start``; None if the text isn't UTF-8.

    Payload and mask are one long number each: the quickest XOR that Python has.
    """
    size = end - start
    mask = bytes(buffer[start - MASK_BYTES : start]) * (size // MASK_BYTES + 1)
    hidden = int.from_bytes(buffer[start:end])
    text = (hidden ^ int.from_bytes(mask[:size])).to_bytes(size)
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return None
    return text
