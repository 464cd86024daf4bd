"""permessage-deflate (RFC 7692), which every browser offers, as a server speaks it.

A compressed text message has RSV1 set. The client is asked to compress each message for itself, so
that nothing is held for it between two of them.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

import attrs
import msgspec

from mux.downstream.websocket.compression import DamagedError, TooLongError
from mux.downstream.websocket.websocket import BINARY, FINAL_TEXT, TEXT

RSV1: Final = 0x40
"""The bit of a frame's first byte that says that its message is compressed."""

WINDOW_BITS: Final = 13
MEMORY_LEVEL: Final = 6
"""64 KiB for a client's compressor. With zlib's largest, 256 KiB, a turn's bytes are 2 % fewer."""
LEAST_WINDOW_BITS: Final = 9
"""zlib makes no raw stream with a window of 2^8, which the RFC allows."""
CLIENT_WINDOW_BITS: Final = 12

TAIL: Final = b"\x00\x00\xff\xff"
"""The end of a flushed block, which the RFC leaves out of a message."""
EMPTY: Final = b"\x00"
"""The empty message, deflated (RFC 7692, 7.2.3.6)."""


class Deflate(msgspec.Struct, frozen=True):
    """An offer of permessage-deflate that is taken."""

    answer: bytes
    """The header of the 101 response that takes it."""
    window_bits: int = WINDOW_BITS
    """The compressor's window; the client may have asked for a smaller one."""
    forgets: bool = False
    """The client asked that no message be compressed by means of the ones before."""


_PARAMETER = re.compile(rb"\s*([a-z_-]+)(?:\s*=\s*\"?([0-9]+)\"?)?\s*")


def taken(offer: bytes) -> Deflate | None:
    """Return how one offer is taken; None for another extension, and for what RFC 7692 forbids."""
    matches = [_PARAMETER.fullmatch(part) for part in offer.split(b";")]
    pairs = [(match[1], match[2]) for match in matches if match is not None]
    parameters = dict(pairs[1:])
    if len(pairs) < len(matches) or len(parameters) < len(pairs) - 1:
        return None
    if pairs[0] != (b"permessage-deflate", None):
        return None
    answer = [b"permessage-deflate", b"client_no_context_takeover"]
    bits, forgets = WINDOW_BITS, False
    for name, value in parameters.items():
        match name, value:
            case b"client_no_context_takeover", None:
                pass
            case b"server_no_context_takeover", None:
                forgets = True
                answer.append(name)
            case b"client_max_window_bits", None:
                answer.append(b"%b=%d" % (name, CLIENT_WINDOW_BITS))
            case b"client_max_window_bits", bytes() if _is_window(value):
                answer.append(b"%b=%d" % (name, min(int(value), CLIENT_WINDOW_BITS)))
            case b"server_max_window_bits", bytes() if _is_window(value):
                bits = min(int(value), bits)
                answer.append(b"%b=%b" % (name, value))
            case _:
                return None
    if bits < LEAST_WINDOW_BITS:
        return None
    return Deflate(b"Sec-WebSocket-Extensions: " + b"; ".join(answer), bits, forgets)


def _is_window(value: bytes) -> bool:
    return value in {b"8", b"9", b"10", b"11", b"12", b"13", b"14", b"15"}


@attrs.define(eq=False)
class Deflater:
    """Deflates a connection's messages, one after the other (``permessage-deflate``)."""

    window_bits: int
    forgets: bool
    first: int = FINAL_TEXT | RSV1
    _stream: zlib._Compress = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._stream = zlib.compressobj(
            wbits=-self.window_bits, memLevel=min(MEMORY_LEVEL, self.window_bits)
        )

    def feed(self, part: memoryview) -> bytes:
        """Deflate a part of a message; returns what is ready."""
        return self._stream.compress(part)

    def finish(self) -> bytes:
        """Return the rest of the message, without the tail that RFC 7692 has left out."""
        rest = self._stream.flush(zlib.Z_SYNC_FLUSH).removesuffix(TAIL) or EMPTY
        if self.forgets:
            self._begin()
        return rest


class Inflater(msgspec.Struct, eq=False):
    """Inflates messages that each stand for themselves (``client_no_context_takeover``)."""

    first: frozenset[int] = frozenset({RSV1 | TEXT, RSV1 | BINARY})
    only: bool = False

    def message(self, packed: bytes, opcode: int, limit: int) -> bytes | None:
        """Return the text of a message. Raises ``TooLongError`` and ``DamagedError``."""
        if opcode == BINARY:
            return None
        stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        try:
            text = stream.decompress(packed + TAIL, limit + 1)
        except zlib.error as error:
            raise DamagedError(str(error)) from error
        if len(text) > limit:
            raise TooLongError
        return text
