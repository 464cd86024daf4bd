"""The deltas of an item of a running turn, kept for clients that join late.

A command may print more than is copied or written in one step. So a long stream is kept in pieces,
and a joiner gets one delta of it, as a rope of these.

Used by ``running_turn``, and by ``notifications`` for each delta.
"""

from __future__ import annotations

import attrs

from mux.core.protocol.envelope.jsonrpc import ItemParams
from mux.core.protocol.envelope.rope import PIECE_BYTES, Rope
from mux.core.protocol.journal_entry import with_delta, with_long_delta


@attrs.define(eq=False, repr=False)
class DeltaStream:
    """Consecutive deltas of one stream of one item, e.g. its text, or one part of its summary."""

    method: str
    index: int | None
    first: bytes
    _text: bytearray = attrs.field(factory=bytearray)
    """What was streamed since the last piece was full: the inside of a JSON string."""
    _pieces: list[bytes] = attrs.field(factory=list)
    """What was streamed before, in full pieces."""

    def takes(self, method: str, params: ItemParams) -> bool:
        """Return whether a delta continues this stream."""
        return method == self.method and params.index == self.index

    def add(self, delta: bytes) -> None:
        """Append the inside of a delta, which is a JSON string; any other value is left out."""
        if delta.startswith(b'"'):
            self.add_text(delta[1:-1])

    def add_text(self, text: bytes) -> None:
        """Append text: the insides of JSON strings."""
        self._text += text
        if len(self._text) >= PIECE_BYTES:
            self._pieces.append(bytes(self._text))
            self._text.clear()

    def end(self, size: int) -> bytes:
        """Return the last bytes of the text, so many at most if there are more."""
        if len(self._text) < size and self._pieces:
            return self._pieces[-1][len(self._text) - size :] + self._text
        return bytes(self._text[-size:])

    def line(self) -> bytes | Rope:
        """Return one delta that carries the whole stream."""
        if self._pieces:
            return with_long_delta(self.first, [*self._pieces, bytes(self._text)])
        return with_delta(self.first, b'"' + self._text + b'"')
