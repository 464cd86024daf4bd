"""What one client's bytes say: WebSocket frames in, whole messages out. No I/O.

The WebSocket library (wsproto) judges everything odd: fragments, binary messages, pings, closes,
and all that is malformed, with the code that it is closed with. It never sees the common case, a
short text message in one frame, which it takes four times as long for as is needed (`_text`).

Hands to: ``downstream``, the messages, and in ``owed`` what is to be written back.
Hears from: ``downstream``, the bytes as they come.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

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
"""A client's frame: two bytes, its length if it is longer than these tell, the mask (RFC 6455,
5.2); so its head's size goes by the length in its second byte."""

SMALL_FRAGMENT = 256
"""Bytes of a fragment below which it counts as idle: no library cuts messages that small."""

ALL = 2**63
"""More frames than there can be."""

SHORT_TEXT = 32 * 1024
"""Bytes up to which a text is unmasked here; of longer ones the library's way is the quicker."""


def accepted(key: bytes) -> bytes:
    """The answer 101 to an upgrade with this ``Sec-WebSocket-Key``."""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + generate_accept_token(key) + b"\r\n\r\n"
    )


@attrs.define(eq=False, repr=False)
class FrameReader:
    """One connection's frames. ``limit``: bytes of a message; a longer one ends it with 1009.

    ``owed``: frames to write back, in order. ``ended``: the client's close frame has come, or
    something after which nothing can be read; then ``owed`` holds the close frame for it.
    ``more``: whether the last `feed` left bytes that it hasn't looked at. ``idle``: how many frames
    came that carry nothing or next to nothing: pings, pongs, the smallest fragments.
    """

    limit: int
    owed: list[bytes] = attrs.field(factory=list)
    ended: bool = False
    more: bool = False
    idle: int = 0
    _made: Connection | None = None
    _buffer: bytearray = attrs.field(factory=bytearray)
    _parts: list[str] = attrs.field(factory=list)
    _size: int = 0
    _in_parts: bool = False

    def feed(self, received: bytes | bytearray, most: int = ALL) -> list[bytes | None]:
        """The messages that are complete now: UTF-8 of each text, None for a binary one.

        ``most`` frames are looked at; the others stay, for the next call (see ``more``).
        """
        buffer = self._buffer
        buffer += received
        taken: list[bytes | None] = []
        at = 0
        self.more = False
        while not self.ended and (payload := self._payload(at)):
            start, end = payload
            if self._is_short_text(at, end - start):
                text = _text(buffer, start, end)
                if text is None:
                    self._end(CloseReason.INVALID_FRAME_PAYLOAD_DATA, "text isn't UTF-8")
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
        """Our close frame. What comes until the client's own is still read."""
        return self._library.send(CloseConnection(code, reason))

    @property
    def _library(self) -> Connection:
        """Made when it is needed: of most connections it never sees more than the last frame."""
        if self._made is None:
            self._made = Connection(ConnectionType.SERVER)
        return self._made

    def _payload(self, at: int) -> tuple[int, int] | None:
        """Where the payload of the frame at ``at`` begins and ends; None while some is missing.

        A frame that can't be right goes on to the end of all there is, for the library to judge.
        """
        buffer = self._buffer
        there = len(buffer)
        if there < at + LEAST_BYTES:
            return None
        first, second = buffer[at], buffer[at + 1]
        if not _is_sane(first, second):
            return there, there
        length = second & LENGTH
        start = at + HEAD_BYTES.get(length, SHORT_HEAD_BYTES)
        if there < start:
            return None
        if length >= IN_2_BYTES:
            length = int.from_bytes(buffer[at + LEAST_BYTES : start - MASK_BYTES])
        if length + (self._size if first & OPCODE <= BINARY else 0) > self.limit:
            self._end(CloseReason.MESSAGE_TOO_BIG, f"longer than {self.limit} bytes")
            return None
        return (start, start + length) if there >= start + length else None

    def _is_short_text(self, at: int, size: int) -> bool:
        """Whether the frame at ``at`` is a whole message of the common kind."""
        first, second = self._buffer[at], self._buffer[at + 1]
        whole = first == FINAL_TEXT and not self._in_parts
        return whole and second & MASKED > 0 and size <= SHORT_TEXT

    def _by_library(self, frame: bytes, payload: int) -> Iterator[bytes | None]:
        if frame[0] & OPCODE <= BINARY:
            part = self._in_parts or not frame[0] & FINAL
            self.idle += part and payload < SMALL_FRAGMENT
            self._in_parts = not frame[0] & FINAL
            self._size = self._size + payload if self._in_parts else 0
        else:
            self.idle += 1
        self._library.receive_data(frame)
        for event in self._library.events():
            if not isinstance(event, TextMessage | BytesMessage):
                self._control(event)
                continue
            if isinstance(event, TextMessage):
                self._parts.append(event.data)
            if event.message_finished:
                yield "".join(self._parts).encode() if isinstance(event, TextMessage) else None
                self._parts.clear()

    def _control(self, event: Event) -> None:
        state = self._library.state
        if isinstance(event, Ping) and state is ConnectionState.OPEN:
            self.owed.append(self._library.send(event.response()))
        elif isinstance(event, CloseConnection):
            if state is ConnectionState.REMOTE_CLOSING:
                self.ended = True
                self.owed.append(self._library.send(event.response()))
            elif state is ConnectionState.CLOSED:
                self.ended = True
            else:
                self._end(event.code, event.reason or "")

    def _end(self, code: int, reason: str) -> None:
        self.ended = True
        if self._library.state is ConnectionState.OPEN:
            self.owed.append(self.close(code, reason))


def _is_sane(first: int, second: int) -> bool:
    """Whether a client's frame may begin with these bytes."""
    opcode = first & OPCODE
    if not second & MASKED or first & RESERVED or opcode not in OPCODES:
        return False
    # A control frame is whole and short.
    return opcode <= BINARY or (first & FINAL > 0 and second & LENGTH < IN_2_BYTES)


def _text(buffer: bytearray, start: int, end: int) -> bytes | None:
    """What the mask before ``start`` hides; None if it isn't UTF-8.

    Both are taken as one long number each: the quickest way to XOR them that Python has.
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
