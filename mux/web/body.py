"""Reads a request's whole body, where it is short enough to be held."""

from __future__ import annotations

from starlette.requests import Request

from mux.errors import AppmuxError


class TooLongError(AppmuxError):
    """A body of more bytes than its route takes."""


async def read(request: Request, most: int) -> bytes:
    """Return the body. Raises ``TooLongError`` past ``most`` bytes; the rest isn't read then."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise TooLongError(f"the body is longer than {most} bytes")
        pieces.append(piece)
    return b"".join(pieces)
