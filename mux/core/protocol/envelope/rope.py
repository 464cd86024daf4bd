"""A rope: a long text in the pieces that it came in, so that it needn't be copied to be passed on.

A part of a rope is a view of the same bytes. Whoever writes a rope writes it piece by piece, with
others' turns in between.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

Piece = bytes | memoryview

PIECE_BYTES = 256 * 1024
"""Most bytes of a piece: copied, searched or written in some 0.1 ms."""


class Rope:
    """A long text in pieces. It is never changed."""

    __slots__ = ("_ends", "pieces")

    def __init__(self, pieces: Iterable[Piece]) -> None:
        """Make a rope of these pieces; one that is too long is cut."""
        self.pieces: Sequence[Piece] = [
            part for piece in pieces if piece for part in _cut_to_size(piece)
        ]
        self._ends = list(accumulate(map(len, self.pieces)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def whole(self) -> bytes:
        """Return the text in one piece, which copies it."""
        return b"".join(self.pieces)

    def views(self, start: int, stop: int) -> list[Piece]:
        """Return the part from ``start`` up to ``stop`` as views."""
        pieces: list[Piece] = []
        at = bisect_right(self._ends, start)
        while start < stop and at < len(self.pieces):
            piece, end = self.pieces[at], self._ends[at]
            begin = end - len(piece)
            view = memoryview(piece)[start - begin : min(stop, end) - begin]
            pieces.append(view)
            start, at = end, at + 1
        return pieces

    def text(self, start: int, stop: int) -> bytes:
        """Return a copy of the part from ``start`` up to ``stop``."""
        return b"".join(self.views(start, stop))

    def edited(self, edits: Iterable[tuple[int, int, Iterable[Piece]]]) -> Rope:
        """Return a rope with some parts replaced.

        Each edit is where the part starts, where it stops, and what stands there instead; they
        don't overlap.
        """
        pieces: list[Piece] = []
        done = 0
        for start, stop, instead in sorted(edits, key=lambda edit: edit[:2]):
            pieces += self.views(done, start)
            pieces += instead
            done = stop
        pieces += self.views(done, len(self))
        return Rope(pieces)


def _cut_to_size(piece: Piece) -> Iterable[Piece]:
    if len(piece) <= PIECE_BYTES:
        return (piece,)
    view = memoryview(piece)
    return [view[at : at + PIECE_BYTES] for at in range(0, len(view), PIECE_BYTES)]
