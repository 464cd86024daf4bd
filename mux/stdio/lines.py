"""Lines out of the client's bytes, and what is said to one that can't be passed on.

Hands to: ``stdio``, lines; and the client, errors. Hears from: ``stdio``, what stdin gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mux.core.protocol import jsonrpc

LINE_BYTES: Final = 64 * 1024 * 1024
"""The longest message that the broker takes (``limits.message_bytes``, unless it is set lower)."""

KEPT_BYTES: Final = 4096
"""Of each end of a line that is too long: where its id stands."""

_ID = rb'("(?:[^"\\]|\\.)*"|-?[0-9]+)'
_SCALAR = rb'(?:"(?:[^"\\]|\\.)*"|[-+.\w]+)'
_ID_IN_HEAD = re.compile(
    rb'\s*\{(?:\s*"(?!id")[^"\\]*"\s*:\s*' + _SCALAR + rb'\s*,)*\s*"id"\s*:\s*' + _ID + rb"\s*,"
)
_ID_IN_TAIL = re.compile(rb',\s*"id"\s*:\s*' + _ID + rb"\s*\}\s*\Z")
_METHOD = re.compile(rb'[{,]\s*"method"\s*:\s*"')


class Lines:
    """Bytes in, whole lines out. Of a line that is too long only its two ends are held."""

    def __init__(self, longest: int = LINE_BYTES) -> None:
        self.errors: list[bytes] = []
        self._longest = longest
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, received: bytes) -> Iterator[bytes]:
        """The lines that end in these bytes; blank ones are left out. See ``errors`` afterwards."""
        *whole, rest = received.split(b"\n")
        for piece in whole:
            self._hold(piece)
            yield from self._ended()
        self._hold(rest)

    def ends(self) -> Iterator[bytes]:
        """The last line, if it has no line end."""
        yield from self._ended()

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        self._pieces.append(piece)
        if self._size > self._longest + 1:  # one more: it may be the line end's CR
            held = b"".join(self._pieces)
            self._pieces = [held[:KEPT_BYTES], held[KEPT_BYTES:][-KEPT_BYTES:]]

    def _ended(self) -> Iterator[bytes]:
        size, line = self._size, b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if size > self._longest + line.endswith(b"\r"):
            self.errors.append(_too_long(line, size, self._longest))
            return
        line = line.removesuffix(b"\r")
        if not line or line.isspace():
            return
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError as error:
                text = f"not UTF-8, at byte {error.start} of the line: {error.reason}"
                self.errors.append(jsonrpc.error(jsonrpc.NO_ID, jsonrpc.PARSE_ERROR, text))
                return
        yield line


def _too_long(ends: bytes, size: int, longest: int) -> bytes:
    """The error for a line of which there are only the two ends."""
    head, tail = ends[:KEPT_BYTES], ends[KEPT_BYTES:]
    found = _ID_IN_HEAD.match(head) or _ID_IN_TAIL.search(tail)
    # An answer's id is the broker's: an error under it would look like one to the client's own.
    asked = found is not None and (_METHOD.search(head) or _METHOD.search(tail))
    id = found[1] if found is not None and asked else jsonrpc.NO_ID
    text = (
        f"Invalid request: a message of {size} bytes; the broker takes {longest} at most:"
        " name large content by its path, or send it in parts"
    )
    return jsonrpc.error(id, jsonrpc.INVALID_REQUEST, text)
