"""A byte stream of the app-server, split into lines.

Used by ``process``, for stdout and stderr.
"""

from __future__ import annotations

import attrs

from mux.core.protocol.envelope.long_line import LONG_BYTES, LongLine


@attrs.define(eq=False, repr=False)
class Lines:
    """Splits a byte stream into lines.

    The parts of a line of many chunks are joined only once, at its end, so its length costs once.
    """

    _parts: list[bytes] = attrs.field(factory=list)
    """Parts of the unfinished line."""

    def split(self, chunk: bytes | bytearray) -> list[bytes]:
        """Return the lines that ``chunk`` completes, without line ends and empty lines.

        An unfinished last line is never returned.
        """
        *whole, rest = bytes(chunk).split(b"\n")
        if whole and self._parts:
            whole[0] = b"".join((*self._parts, whole[0]))
            self._parts.clear()
        if rest:
            self._parts.append(rest)
        return list(filter(None, whole))

    def unfinished(self) -> bytes:
        """Remove and return the unfinished line."""
        begun = b"".join(self._parts)
        self._parts.clear()
        return begun


@attrs.define(eq=False, repr=False)
class MessageLines:
    """Splits a byte stream into messages, each on a line. A long one stays in pieces.

    So each step handles one chunk, however long the line.
    """

    _lines: Lines = attrs.field(factory=Lines)
    _begun: int = 0
    """Bytes of the unfinished line, until it is long."""
    _long: LongLine | None = None
    """The unfinished line, once it is long."""

    def split(self, chunk: bytes) -> list[bytes | LongLine]:
        """Return the lines that ``chunk`` completes, as ``Lines.split`` does."""
        messages: list[bytes | LongLine] = []
        if not self._begun and chunk.endswith(b"\n"):  # whole lines, as nearly always
            messages += filter(None, chunk[:-1].split(b"\n"))
            return messages
        if self._long is not None:
            piece, end, chunk = chunk.partition(b"\n")
            self._long.add(piece)
            if not end:
                return messages
            messages.append(self._long)
            self._long, self._begun = None, 0
        messages += self._lines.split(chunk)
        last = chunk.rfind(b"\n") + 1
        self._begun = len(chunk) - last + (0 if last else self._begun)
        if self._begun >= LONG_BYTES:
            self._long = LongLine(self._lines.unfinished())
        return messages
