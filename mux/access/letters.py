"""Eight letters that stand for a pairing ticket, for a device that can't open a link.

They are short enough to be typed, so they could be guessed, had one enough tries: there is one set
of letters at a time, it dies with its ticket, and after `MOST_WRONG` wrong tries from anywhere. Ten
of 2**40 are no chance worth having, and the operator still compares codes.

Used by ``browser_pairing``.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

import msgspec

from mux.access.tickets import PairingTicket
from mux.core.part import Part

ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""32 signs that nobody confuses: without I, O, 0, 1."""

LENGTH: Final = 8

MOST_WRONG: Final = 10

MOST_USED: Final = 16
"""Letters in use to remember, for devices that ask how their pairing stands: as many as tickets."""


def normal(text: str) -> str:
    """Return the letters as they were made, of what somebody has typed."""
    return text.upper().translate({ord(" "): None, ord("-"): None})


class Letters(Part):
    """The letters that are good now, and those that a device has used already."""

    _now: bytes = b""
    """Digest of the letters that may be used; empty if there are none."""
    _wrong: int = 0
    _tickets: dict[bytes, PairingTicket] = msgspec.field(default_factory=dict)
    """The ticket whose letters may be used, and those that were used, by the letters' digest."""

    def make(self, ticket: PairingTicket) -> str:
        """Return new letters for a ticket. Those before can't be used any more."""
        text = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        self._tickets = {
            digest: each for digest, each in self._tickets.items() if each.browser is not None
        }
        while len(self._tickets) >= MOST_USED:
            del self._tickets[next(iter(self._tickets))]
        self._now, self._wrong = _digest(text), 0
        self._tickets[self._now] = ticket
        return text

    def find(self, text: str) -> PairingTicket | None:
        """Return the ticket that the letters stand for; a wrong try counts."""
        digest = _digest(text)
        ticket = self._tickets.get(digest)
        if ticket is not None and (ticket.browser is not None or digest == self._now):
            return ticket
        self._wrong += 1
        if self._wrong >= MOST_WRONG:
            self._now = b""
        return None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
