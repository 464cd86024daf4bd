"""Tickets: each lets one device answer one approval once, with one of two words, for a short time.

Only digests are kept, in memory: an approval doesn't outlive the broker either. A ticket that is
over is remembered for a while, so that a second use is called by its name.

Hands to: ``lock_screen``. Hears from: ``delivery``, which makes one for an actionable push.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, Literal

import attrs

PREFIX: Final = "amt_"
"""Tells a ticket from a device's token, for us and for programs that look for leaked secrets."""

TICKET_BYTES: Final = 32
"""256 bits."""

REMEMBERED_SECONDS: Final = 3600.0
"""For which one that is over is still called by its name."""

MOST: Final = 4096
"""Far more than approvals can wait; then the oldest is forgotten."""

Answer = Literal["approve", "decline"]
ANSWERS: Final[tuple[Answer, ...]] = ("approve", "decline")


@attrs.define(eq=False, repr=False)
class AnswerTicket:
    """One ticket. ``push``: the id of what carries it; ``until``: on the caller's clock.

    ``wall_until`` is the same in Unix seconds: the caller's clock stands still while the machine
    sleeps, and this one may be set back. The ticket is over when either says so.
    """

    digest: str = attrs.field(repr=False)
    device: str
    request: int
    push: str
    until: float
    wall_until: float
    used: bool = False

    def over(self, now: float, wall: float) -> bool:
        """Whether its time is over."""
        return self.until <= now or self.wall_until <= wall


@attrs.define(eq=False, repr=False)
class AnswerTickets:
    """All tickets, by digest."""

    _tickets: dict[str, AnswerTicket] = attrs.field(factory=dict, repr=False)

    def issue(
        self, device: str, request: int, push: str, *, seconds: float, now: float, wall: float
    ) -> str:
        """A new ticket's text, which is kept nowhere."""
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
        """The ticket of this text, used or not. How long it takes tells nothing of any ticket."""
        digest = digest_of(text)
        ticket = self._tickets.get(digest)
        if ticket is None or not hmac.compare_digest(ticket.digest, digest):
            return None
        return ticket


def digest_of(text: str) -> str:
    """What is kept of a ticket."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
