"""Connections of which nobody knows yet who they are: so many and no more, of all and of each.

Who connects and says nothing costs a descriptor for as long as the door waits. Where there is no
room for one more, the oldest goes that has said nothing: whoever has something to say says it at
once, so the newcomer is the likelier client.

Hands to: nobody. Hears from: ``listener``, who comes and goes; ``routes``, who has said something.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import structlog
import trio

from mux.access.throttle import network
from mux.posix import descriptors

MOST: Final = 1024
"""In all: as many as the kernel queues, since all clients of a full broker may come back in the
same moment. Of few descriptors half, so that clients that are attached have the others."""

MOST_OF_ADDRESS: Final = 256
"""Of one IPv4 address or IPv6 /64: a proxy's, or an office's, whose requests are on their way."""

TOLD_EVERY: Final = 60.0
"""Seconds between two log lines about it."""

UNIX: Final = "unix"
"""The far end's name on a unix socket: only our own user is there, so it isn't counted apart."""

log = structlog.get_logger()


@attrs.define(eq=False)
class Place:
    """One connection. ``asked``: it has sent a whole request's head.

    ``scope`` is cancelled where it has to go, before it is known and never after.
    """

    network: str
    asked: bool = False
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.define(eq=False, repr=False)
class Unauthenticated:
    """All of them. ``refused``: how many had to go, or weren't let in, since the start.

    ``held_back_from``: see ``descriptors.for_connections``.
    """

    held_back_from: int = attrs.field(factory=descriptors.for_connections)
    refused: int = 0
    _places: dict[Place, None] = attrs.field(factory=dict)
    _of_network: dict[str, int] = attrs.field(factory=dict)
    _told_at: float = -TOLD_EVERY
    _untold: int = 0

    @property
    def most(self) -> int:
        """How many there may be in all."""
        return min(MOST, self.held_back_from // 2)

    def __len__(self) -> int:
        return len(self._places)

    @contextmanager
    def place(self, descriptor: int, address: str) -> Iterator[Place | None]:
        """A place for an accepted connection, until it is known or gone; None: there is none.

        Somebody else may have to go for it.
        """
        key = network(address)
        if not self._has_room(descriptor, key):
            yield None
            return
        place = Place(key)
        self._places[place] = None
        self._of_network[key] = self._of_network.get(key, 0) + 1
        try:
            with place.scope:
                yield place
        finally:
            self.known(place)

    def known(self, place: Place) -> None:
        """It has said who it is, or has gone. Twice is as once."""
        if place in self._places:
            del self._places[place]
            self._of_network[place.network] -= 1
            if not self._of_network[place.network]:
                del self._of_network[place.network]

    def no_descriptor(self, reason: str) -> None:
        """A connection couldn't even be accepted."""
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
        """Have the oldest go that has said nothing; whether there was one. Either is told."""
        self.refused += 1
        self._tell(reason)
        for place in self._places:
            if not place.asked and key in (None, place.network):
                self.known(place)
                place.scope.cancel()
                return True
        return False

    def _tell(self, reason: str) -> None:
        self._untold += 1
        now = trio.current_time()
        if now >= self._told_at + TOLD_EVERY:
            log.warning("connections refused", why=reason, since_last_told=self._untold)
            self._told_at, self._untold = now, 0
