"""The limits of plain requests, each with its reason.

The limits of a head, of keep-alive and of connections by address hold for everybody: see
``downstream.http.http`` and ``downstream.sockets.unauthenticated``.
"""

from __future__ import annotations

from typing import Final

BODY_BYTES: Final = 4 * 1024
"""Most bytes of a body, unless its route says otherwise: a ticket, a name and a key are a fifth."""

BODY_SECONDS: Final = 10.0
"""Time in which at least `BODY_STEP` more bytes of a body must come: a phone in a lift."""

BODY_STEP: Final = 16 * 1024

WRITE_BYTES: Final = 64 * 1024
"""Most bytes of a response that are given to the socket at once."""

WRITE_SECONDS: Final = 30.0
"""Time in which a peer must take that many: 2 KiB a second, less than any network that shows a
page. A peer that takes none costs a connection for no longer."""

DRAINED_BYTES: Final = 64 * 1024
"""Most bytes of a body that nobody wanted to read off, so that the connection can stay open."""

LINGER_SECONDS: Final = 2.0
"""Time for a peer to read the answer while it still sends a body that nobody wants."""

LINGER_PAUSE: Final = 0.01
"""Seconds between two reads of such a body: it may cost nobody else anything."""
