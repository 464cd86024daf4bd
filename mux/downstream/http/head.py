"""The head of a request, and the response to it.

Used by ``http`` and ``odd_heads``, which read and write them, and by all that judges requests.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import h11

HEAD_BYTES = 32 * 1024
"""Most bytes of one request's head: four times what common servers take, for long JWTs."""

BROWSER_HEADERS = frozenset(
    {b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-fetch-user"}
)
"""Headers that only browsers send, and that a page's script can neither set nor leave out."""


class RequestHead(msgspec.Struct, frozen=True, eq=False):
    """A request's line and headers."""

    method: bytes
    target: bytes
    version: bytes
    headers: dict[bytes, list[bytes]]
    """Values in their order, by the header's name in lower case."""
    rest: bytes
    """Bytes after the head that have come already: first frames of a client that doesn't wait."""
    parser: h11.Connection | None = None
    """The connection's parser, which has read this head; None for the usual upgrade."""

    def __repr__(self) -> str:
        """Show the request's line alone: headers hold tokens."""
        return f"RequestHead({self.method!r}, {self.target!r}, {self.version!r})"

    @property
    def from_browser(self) -> bool:
        """True if the request has a header that only browsers send.

        Of a WebSocket that is `Origin`, which no browser leaves out: node's own client sends
        `Sec-Fetch-Mode` as well, and is a program.
        """
        if b"upgrade" in self.headers:
            return b"origin" in self.headers
        return not BROWSER_HEADERS.isdisjoint(self.headers)

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of one header, in their order."""
        return self.headers.get(name, [])


class HttpResponse(msgspec.Struct, frozen=True):
    """A response to one request."""

    status: HTTPStatus
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "text/plain; charset=utf-8"
    whose: str = ""
    """Whose token or ticket failed, where that is known (see ``access.throttle``)."""
