"""The requests of one client, as ``scheduler`` keeps them."""

from __future__ import annotations

from collections import deque

import msgspec

from mux.core.state.requests.request import Request


class ClientQueue(msgspec.Struct, eq=False):
    """A client's requests: those that wait, and the numbers of those upstream."""

    queue: deque[Request] = msgspec.field(default_factory=deque)
    queued_bytes: int = 0
    in_flight: int = 0
    waiting: int = 0
    large: int = 0
    fresh: list[Request] = msgspec.field(default_factory=list)
    turns: bool = False
    """True if it stands in the ring of clients with a turn to come."""
