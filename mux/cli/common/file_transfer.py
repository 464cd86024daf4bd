"""The way of files between a command and the broker: HTTP over its unix socket, without a token.

Used by ``put`` and ``get``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import httpx

from mux.config import locate
from mux.errors import AppmuxError

TIMEOUT: Final = 60.0
"""Seconds that the broker may take for one answer: the digest of 2 GiB, on a slow disk."""


class NoSocketError(AppmuxError):
    """The broker listens on no unix socket."""


def web_client(urls: Iterable[str]) -> httpx.Client:
    """Return a client of the broker that listens at these URLs. Raises ``NoSocketError``."""
    socket = next((url for url in urls if url.startswith(locate.UNIX)), None)
    if socket is None:
        raise NoSocketError("the broker has no unix socket, by which files go: add `unix://`")
    path = locate.address(Path(socket.removeprefix(locate.UNIX)))
    transport = httpx.HTTPTransport(uds=path)
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=TIMEOUT)
