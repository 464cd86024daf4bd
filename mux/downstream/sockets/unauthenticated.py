"""Limits on connections that haven't authenticated yet, in all and of each network.

A peer that connects and sends nothing costs a descriptor for as long as we wait for its request.
Where there is no room for one more, the oldest connection that has sent no request is closed: a
client sends its request at once, so the newcomer is likelier to be one.

Used by ``listener``, which gives each accepted connection a `Slot`, and ``server``, which notes
that a request has come and that a client is known.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Final

import attrs
import msgspec
import structlog
import trio

from mux.access.throttle import network
from mux.core.part import Part
from mux.posix import descriptors

MOST: Final = 1024
"""Most in all: as many as the kernel queues, since all clients of a full broker may reconnect in
the same moment. Where descriptors are few it is half of them; attached clients have the others."""

MOST_OF_ADDRESS: Final = 256
"""Most of one IPv4 address or IPv6 /64: a proxy or an office whose requests are on their way."""

TOLD_EVERY: Final = 60.0
"""Seconds between two log lines about refused connections."""

UNIX: Final = "unix"
"""The peer's name on a unix socket. Only our own user connects there, so it has no limit of its
own."""

log = structlog.get_logger()


@attrs.define(eq=False)
class Slot:
    """The place that one unauthenticated connection takes up."""

    network: str
    known: Callable[[Slot], None]
    """Frees it."""
    has_request: bool = False
    """True if the peer has sent a whole request's head."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Cancelled to close the connection for want of room; never once the client is known."""

    def __enter__(self) -> Slot:
        self.scope.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        try:
            return self.scope.__exit__(kind, error, trace)
        finally:
            self.known(self)


class Unauthenticated(Part):
    """All unauthenticated connections of a broker."""

    held_back_from: int = msgspec.field(default_factory=descriptors.for_connections)
    """The first descriptor that no connection may use (see ``descriptors.for_connections``)."""
    refused: int = 0
    """Connections that were closed for want of room, or not let in, since the start."""
    _places: dict[Slot, None] = msgspec.field(default_factory=dict)
    """Oldest first."""
    _of_network: dict[str, int] = msgspec.field(default_factory=dict)
    _told_at: float = -TOLD_EVERY
    _untold: int = 0

    @property
    def most(self) -> int:
        """Most unauthenticated connections at once, of all networks."""
        return min(MOST, self.held_back_from // 2)

    def __len__(self) -> int:
        return len(self._places)

    def place(self, descriptor: int, address: str) -> AbstractContextManager[Slot | None]:
        """Give an accepted connection a place until it is known or gone; None if there is no room.

        Another connection may be closed to make room. The place is a context manager by itself: a
        generator for one would take half a kilobyte for as long as its client stays.
        """
        key = network(address)
        if not self._has_room(descriptor, key):
            return nullcontext()
        place = Slot(key, self.known)
        self._places[place] = None
        self._of_network[key] = self._of_network.get(key, 0) + 1
        return place

    def known(self, place: Slot) -> None:
        """Free the place of a client that has authenticated, or has gone. Idempotent."""
        if place in self._places:
            del self._places[place]
            self._of_network[place.network] -= 1
            if not self._of_network[place.network]:
                del self._of_network[place.network]

    def no_descriptor(self, reason: str) -> None:
        """Make room after a connection couldn't be accepted for want of a descriptor."""
        self._make_room(reason)

    def _has_room(self, descriptor: int, key: str) -> bool:
        if descriptor >= self.held_back_from:
            return self._make_room("no descriptor is free that isn't held back")
        if key != UNIX and self._of_network.get(key, 0) >= min(MOST_OF_ADDRESS, self.most):
            return self._make_room(f"{key} has too many that haven't said who they are", key)
        if len(self._places) >= self.most:
            return self._make_room("too many haven't said who they are")
        return True

    def _make_room(self, reason: str, key: str | None = None) -> bool:
        """Close the oldest connection that has sent no request (of network ``key``, if given).

        Return whether there was one. Logged either way.
        """
        self.refused += 1
        self._log_refusal(reason)
        for place in self._places:
            if not place.has_request and key in (None, place.network):
                self.known(place)
                place.scope.cancel()
                return True
        return False

    def _log_refusal(self, reason: str) -> None:
        self._untold += 1
        now = trio.current_time()
        if now >= self._told_at + TOLD_EVERY:
            log.warning("connections refused", why=reason, since_last_told=self._untold)
            self._told_at, self._untold = now, 0
