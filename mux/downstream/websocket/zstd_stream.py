"""Codex's own compression of a WebSocket, ``zstd-stream-v1``, both ways.

Each message is one binary frame. All messages of a direction are one zstd stream, flushed after
each of them, and a new zstd frame may begin at any message. Text frames are errors.

Imported by ``offers`` when it is first taken: a start doesn't pay for it.
"""

from __future__ import annotations

import sys
from typing import Final

import attrs

from mux.downstream.websocket.compression import DamagedError, TooLongError
from mux.downstream.websocket.websocket import BINARY, FINAL

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL: Final = 3
WINDOW_LOG: Final = 17
"""128 KiB of window; the protocol allows 2^20, at eight times the memory a client."""
MOST_WINDOW_LOG: Final = 20
"""The protocol's own bound, for what a client sends."""


@attrs.define(eq=False)
class ZstdPacker:
    """Compresses messages into one zstd frame, which never ends."""

    first: int = FINAL | BINARY
    _stream: zstd.ZstdCompressor = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        parameter = zstd.CompressionParameter
        self._stream = zstd.ZstdCompressor(
            options={
                parameter.compression_level: LEVEL,
                parameter.window_log: WINDOW_LOG,
            }
        )

    def feed(self, part: memoryview) -> bytes:
        """Compress a part of a message; returns what is ready."""
        return self._stream.compress(part)

    def finish(self) -> bytes:
        """Return the rest of the message."""
        return self._stream.flush(self._stream.FLUSH_BLOCK)


@attrs.define(eq=False)
class ZstdUnpacking:
    """Reads zstd frames that follow each other; a message ends within one, or with it."""

    first: frozenset[int] = frozenset({BINARY})
    only: bool = True
    _stream: zstd.ZstdDecompressor | None = None

    def message(
        self,
        packed: bytes,
        opcode: int,  # noqa: ARG002 (all are binary)
        limit: int,
    ) -> bytes | None:
        """Return the text of a message. Raises ``TooLongError`` and ``DamagedError``."""
        text = bytearray()
        while packed:
            if self._stream is None or self._stream.eof:
                window = {int(zstd.DecompressionParameter.window_log_max): MOST_WINDOW_LOG}
                self._stream = zstd.ZstdDecompressor(options=window)
            try:
                text += self._stream.decompress(packed, limit + 1 - len(text))
            except zstd.ZstdError as error:
                raise DamagedError(str(error)) from error
            if len(text) > limit:
                raise TooLongError
            packed = self._stream.unused_data if self._stream.eof else b""
        return bytes(text)
