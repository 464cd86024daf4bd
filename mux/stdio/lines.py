"""Split the client's bytes into lines, and write the error for a line that can't be passed on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mux.core.protocol.envelope import jsonrpc

LINE_BYTES: Final = 64 * 1024 * 1024
"""The longest message that the broker takes (``limits.message_bytes``, unless it is set lower)."""

KEPT_BYTES: Final = 4096
"""Bytes kept of each end of a line that is too long: its id is in one of them."""

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
        """Error answers to the client for lines that were refused; the caller empties the list."""
        self._longest = longest
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Yield the lines that end in these bytes, without blank ones.

        See ``errors`` afterwards.
        """
        *whole, rest = received.split(b"\n")
        for piece in whole:
            self._hold(piece)
            yield from self._ended()
        self._hold(rest)

    def ends(self) -> Iterator[bytes]:
        """Yield the last line, if it has no line end."""
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
    """Return the error for a line of which only the two ends are known."""
    head, tail = ends[:KEPT_BYTES], ends[KEPT_BYTES:]
    match = _ID_IN_HEAD.match(head) or _ID_IN_TAIL.search(tail)
    # The id of an answer was chosen by the broker. An error with that id would look to the client
    # like one to its own request, so only a request's id is used.
    is_request = match is not None and (_METHOD.search(head) or _METHOD.search(tail))
    id = match[1] if match is not None and is_request else jsonrpc.NO_ID
    text = (
        f"Invalid request: a message of {size} bytes; the broker takes {longest} at most:"
        " name large content by its path, or send it in parts"
    )
    return jsonrpc.error(id, jsonrpc.INVALID_REQUEST, text)
