"""Tickets: each lets one device answer one approval once, with one of two words, for a short time.

Only digests are stored, in memory: an approval doesn't outlive the broker either. A ticket that is
over is remembered for a while, so that a second use gets its proper error.

Used by: ``delivery``, which issues one for each actionable push; ``lock_screen``, which checks it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, Literal

import msgspec

from mux.core.part import Part

PREFIX: Final = "amt_"
"""Distinguishes a ticket from a device's token, for us and for programs that look for leaked
secrets."""

TICKET_BYTES: Final = 32
"""256 bits."""

REMEMBERED_SECONDS: Final = 3600.0
"""How long a ticket that is over still gets its proper error."""

MOST: Final = 4096
"""Far more than approvals can wait; when it is reached, the oldest ticket is forgotten."""

Answer = Literal["approve", "decline"]
ANSWERS: Final[tuple[Answer, ...]] = ("approve", "decline")


class AnswerTicket(Part):
    """A ticket. It is over when either clock says so."""

    digest: str
    device: str
    """The key of the device that may use it."""
    request: int
    """The id under which the core offers the approval."""
    push: str
    """The id of the push that carries it."""
    until: float
    """On the caller's clock, which stands still while the machine sleeps."""
    wall_until: float
    """The same moment in Unix seconds; that clock may be set back."""
    used: bool = False

    def over(self, now: float, wall: float) -> bool:
        """Return whether the ticket has run out, by either clock."""
        return self.until <= now or self.wall_until <= wall


class AnswerTickets(Part):
    """All tickets, by digest."""

    _tickets: dict[str, AnswerTicket] = msgspec.field(default_factory=dict)

    def issue(
        self, device: str, request: int, push: str, *, seconds: float, now: float, wall: float
    ) -> str:
        """Make a ticket and return its text, which is stored nowhere."""
        self._tickets = {
            digest: each
            for digest, each in self._tickets.items()
            if each.until + REMEMBERED_SECONDS > now
        }
        while len(self._tickets) >= MOST:
            del self._tickets[next(iter(self._tickets))]
        text = PREFIX + secrets.token_urlsafe(TICKET_BYTES)
        digest = digest_of(text)
        self._tickets[digest] = AnswerTicket(
            digest, device, request, push, now + seconds, wall + seconds
        )
        return text

    def find(self, text: str) -> AnswerTicket | None:
        """Return the ticket of this text, used or not; None if there is none.

        The time that a look-up takes reveals nothing of any ticket.
        """
        digest = digest_of(text)
        ticket = self._tickets.get(digest)
        if ticket is None or not hmac.compare_digest(ticket.digest, digest):
            return None
        return ticket


def digest_of(text: str) -> str:
    """Return the digest that is stored in place of a ticket's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
