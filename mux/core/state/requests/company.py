"""The clients that have asked for something lately: whether one of them has company.

Used by ``scheduler``: a client that is alone may send as much as it likes.
"""

from __future__ import annotations

from mux.core.part import Part
from mux.core.policy.principal import ClientId

COMPANY_SECONDS = 0.25
"""A client counts as active for this long after its last request. A program that waits for each
answer asks again within a fraction of that; a person's next key press finds a burst before it."""


class Company(Part):
    """The client that asked last, and when any other did."""

    _latest: ClientId = 0
    _latest_at: float = -COMPANY_SECONDS
    _other_at: float = -COMPANY_SECONDS

    def note(self, client: ClientId, now: float) -> None:
        """Note that a client asks for something; the broker's own accounts don't count."""
        if client > 0:
            if client != self._latest:
                self._other_at = self._latest_at
                self._latest = client
            self._latest_at = now

    def has(self, client: ClientId, now: float) -> bool:
        """Return whether another client has asked for something lately."""
        other = self._other_at if client == self._latest else self._latest_at
        return now - other < COMPANY_SECONDS
