"""The client's end of a WebSocket over a unix socket: bytes in, messages out, and the reverse.

We wrote our own, and no more than the stdio bridge needs, because wsproto and h11 take 45 ms to
load, of the 150 in which the bridge must be attached, and hand over a large message as text in
pieces. Frames refused here (RFC 6455) are refused by them too.

Used by ``bridge``, for whole messages as bytes.
"""

from __future__ import annotations

import binascii
import hashlib
import os
import struct
from collections.abc import Iterator
from typing import Final

FRAME_BYTES: Final = 1024 * 1024
"""Bytes sent as one frame at most.

The app-server's own listener takes no frame over 16 MiB, and a frame is held three times while it
is masked.
"""

HEAD_BYTES: Final = 16 * 1024
"""Bytes of the answer to the upgrade, at most. Our broker's has 200."""

OVERRIDES: Final = b"appmux-overrides"
"""The header of the broker's answer that names the overrides that hold (``core.protocol``)."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL: Final = 1000
NO_CLOSE: Final = 1006
"""Stands for a connection that ended without a close frame; never sent."""

_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_LONGEST_CONTROL: Final = 125
_SHORT, _LONG = 126, 127
_ACCEPT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SWITCHING: Final = b"101"


class WebSocketError(Exception):
    """The other end violates the protocol, or refuses the upgrade; the text says how.

    ``status`` is the HTTP status of a refusal; 0 for anything else.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class ClientWebSocket:
    """A connection, from its upgrade to its close."""

    def __init__(self) -> None:
        self.open = False
        """The upgrade was accepted."""
        self.closed: tuple[int, str] | None = None
        """Code and reason of the other end's close frame."""
        self.headers: dict[bytes, bytes] = {}
        """The headers of the answer to the upgrade, by their names in lower case."""
        self.replies: list[bytes] = []
        """Frames owed to the other end: pongs, the answer to a close."""
        self._key = binascii.b2a_base64(os.urandom(16), newline=False)
        self._received = bytearray()
        self._pieces: list[bytes] | None = None
        self._said_goodbye = False

    def hello(self, host: str = "localhost", headers: bytes = b"") -> bytes:
        """Return the upgrade request, which must be sent first. ``headers`` are further lines."""
        return (
            b"GET /rpc HTTP/1.1\r\nHost: "
            + host.encode()
            + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + self._key + b"\r\n" + headers + b"\r\n"
        )

    def feed(self, received: bytes) -> list[bytes]:
        """Return the messages that are complete with these bytes. Raises ``WebSocketError``."""
        self._received += received
        if not self.open and not self._upgraded():
            return []
        messages = []
        while self.closed is None and (frame := self._frame()) is not None:
            message = self._taken(*frame)
            if message is not None:
                messages.append(message)
        return messages

    # ── the upgrade ───────────────────────────────────────────────────────────────────────────

    def _upgraded(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            if len(self._received) > HEAD_BYTES:
                raise WebSocketError("it answered with something that isn't HTTP")
            return False
        head = bytes(self._received[:end])
        del self._received[: end + 4]
        first, *rest = head.split(b"\r\n")
        words = first.split(b" ", 2)
        if not first.startswith(b"HTTP/1.") or words[1:2] != [_SWITCHING]:
            status = int(words[1]) if words[1:2] and words[1].isdigit() else 0
            raise WebSocketError(f"it answered {first[:100].decode(errors='replace')!r}", status)
        fields = _headers(rest)
        digest = hashlib.sha1(self._key + _ACCEPT, usedforsecurity=False).digest()
        if fields.get(b"sec-websocket-accept") != binascii.b2a_base64(digest, newline=False):
            raise WebSocketError("its WebSocket handshake answers another request")
        self.open, self.headers = True, fields
        return True

    # ── frames, coming ────────────────────────────────────────────────────────────────────────

    def _frame(self) -> tuple[int, bool, bytes] | None:
        """Return the next whole frame: opcode, whether it is the message's last, payload."""
        received = self._received
        if len(received) < 2:  # noqa: PLR2004 (the two bytes that each frame has)
            return None
        first, length, start = received[0], received[1], 2
        if first & _RESERVED or length & _MASKED:
            raise WebSocketError("it sent a frame that a server doesn't send")
        if length == _SHORT:
            start = 4
        elif length == _LONG:
            start = 10
        if len(received) < start:
            return None
        if length >= _SHORT:
            (length,) = struct.unpack_from("!H" if length == _SHORT else "!Q", received, 2)
        if len(received) < start + length:
            return None
        with memoryview(received) as view:
            payload = bytes(view[start : start + length])
        del received[: start + length]
        return first & 0x0F, bool(first & _FIN), payload

    def _taken(self, opcode: int, last: bool, payload: bytes) -> bytes | None:
        """Return a message, if this frame ends one."""
        if opcode >= CLOSE:
            self._controlled(opcode, last, payload)
            return None
        begins = opcode != CONTINUATION
        if begins == (self._pieces is not None) or opcode not in (CONTINUATION, TEXT, BINARY):
            raise WebSocketError("it sent frames in an order that makes no message")
        if begins and last:
            return payload
        if self._pieces is None:
            self._pieces = []
        self._pieces.append(payload)
        if not last:
            return None
        whole, self._pieces = b"".join(self._pieces), None
        return whole

    def _controlled(self, opcode: int, last: bool, payload: bytes) -> None:
        if not last or len(payload) > _LONGEST_CONTROL:
            raise WebSocketError("it sent a control frame in pieces")
        if opcode == PING:
            self.replies.append(_frame_of(PONG, payload))
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else NORMAL
            self.closed = (code, payload[2:].decode(errors="replace"))
            if not self._said_goodbye:
                self.replies.append(self.goodbye())

    # ── frames, going ─────────────────────────────────────────────────────────────────────────

    def message(self, text: bytes) -> Iterator[bytes]:
        """Yield a text message (valid UTF-8) in frames, each made only when the caller wants it."""
        opcode = TEXT
        for start in range(0, max(len(text), 1), FRAME_BYTES):
            piece = text[start : start + FRAME_BYTES]
            yield _frame_of(opcode, piece, last=start + FRAME_BYTES >= len(text))
            opcode = CONTINUATION

    def goodbye(self) -> bytes:
        """Return the close frame."""
        self._said_goodbye = True
        return _frame_of(CLOSE, NORMAL.to_bytes(2, "big"))


def read_headers(head: bytes) -> dict[bytes, bytes]:
    """Return the headers of an HTTP head, by their names in lower case."""
    return _headers(head.split(b"\r\n")[1:])


def _headers(lines: list[bytes]) -> dict[bytes, bytes]:
    return {name.strip().lower(): value for name, _, value in map(_parted, lines)}


def _parted(line: bytes) -> tuple[bytes, bytes, bytes]:
    name, colon, value = line.partition(b":")
    return name, colon, value.strip()


def _frame_of(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    first, length = opcode | (_FIN if last else 0), len(payload)
    if length < _SHORT:
        head = struct.pack("!BB", first, _MASKED | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, _MASKED | _SHORT, length)
    else:
        head = struct.pack("!BBQ", first, _MASKED | _LONG, length)
    mask = os.urandom(4)
    return head + mask + _masked(payload, mask)


def _masked(payload: bytes, mask: bytes) -> bytes:
    # As one large number: a hundred times quicker than byte by byte.
    length = len(payload)
    repeated = (mask * (length // 4 + 1))[:length]
    mixed = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
    return mixed.to_bytes(length, "little")
