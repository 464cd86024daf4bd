"""A browser's pairing: its public key is let in by a ticket, once the operator confirms.

    operator            broker                       browser
    begin ───────────▶  ticket made  ─ ─ link ─ ─ ─▶ opens it, makes a key
                        ticket used  ◀─────────────  POST /v1/session {ticket, name, nonce, key}
    name, code  ◀─────  waits        ─────────────▶  202; shows the same code, and asks again
    confirm  ────────▶  device registered ────────▶  200 {device, scopes}

Whoever asks again with the same nonce and key is the same browser. So a phone that is locked, or
changes its network, calls nothing off. No answer holds a secret: the browser has its key already.

Used by ``mux.web``, for ``POST /v1/session``. Uses ``pairing``, whose tickets they are.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec
import trio

from mux.access import letters, public_key
from mux.access.device import Device
from mux.access.letters import Letters
from mux.access.pairing import LONGEST_NONCE, LONGEST_PROPOSAL, Pairing
from mux.access.replies import CONFIRM_SECONDS, Reply, malformed, not_paired, refusal
from mux.access.tickets import Browser, PairingTicket, short_code
from mux.core.extension.devices import Outcome
from mux.core.extension.sessions import SessionPaired, SessionRequest, SessionWaits
from mux.core.part import Part

HELD_SECONDS: Final = 20.0
"""Time for which an answer waits for the operator: proxies and phones give up from 30 s on."""

SHAPE: Final = (
    'send {"ticket" or "letters": "…", "name": "…", "nonce": "…", "key": a P-256 key as JWK}'
)


def browser_code(redeemed: str, name: str, nonce: str, key: str) -> str:
    """Compute the short code of a browser, as both sides show it: its key is part of it."""
    return short_code("appmux session", redeemed, name, nonce, *key.split("."))


class BrowserPairing(Part):
    """Lets browsers redeem the tickets of one broker."""

    pairing: Pairing
    letters: Letters = msgspec.field(default_factory=Letters)

    async def redeem(self, body: bytes, address: str) -> Reply:
        """Return the reply to a browser: paired, refused, or that it has to ask again."""
        await public_key.prepare()
        try:
            sent = msgspec.json.decode(body, type=SessionRequest)
            browser = _browser(sent)
        except ValueError:
            return malformed(SHAPE)
        redeemed = letters.normal(sent.letters) if sent.letters else sent.ticket
        ticket = self.letters.find(redeemed) if sent.letters else self.pairing.find(redeemed)
        if ticket is None:
            return refusal(HTTPStatus.UNAUTHORIZED, "unknown-ticket", "no such ticket")
        if not _is_same(ticket.browser, browser):
            refused = self.pairing.refuse(ticket, address)
            if refused is not None:
                return refused
            ticket.browser = browser
            code = browser_code(redeemed, sent.name, sent.nonce, browser.key)
            self.pairing.claim(ticket, sent.name, code, address)
        return await self._outcome(ticket, ticket.browser or browser)

    async def _outcome(self, ticket: PairingTicket, browser: Browser) -> Reply:
        deadline = min(browser.until, trio.current_time() + HELD_SECONDS)
        with trio.move_on_at(deadline):
            await ticket.ended.wait()
        if ticket.outcome is None and browser.until <= trio.current_time():
            self.pairing.end(ticket, Outcome.UNANSWERED)
        if ticket.outcome is None:
            return Reply(HTTPStatus.ACCEPTED, msgspec.json.encode(SessionWaits()))
        if ticket.device is None:
            return not_paired(ticket)
        return Reply(HTTPStatus.OK, msgspec.json.encode(_paired(ticket.device)))


def _browser(sent: SessionRequest) -> Browser:
    """Read who asks. Raises ``ValueError``."""
    if not 0 < len(sent.nonce) <= LONGEST_NONCE or len(sent.name) > LONGEST_PROPOSAL:
        raise ValueError("too long")
    if bool(sent.ticket) == bool(sent.letters):
        raise ValueError("either a ticket or letters")
    key = public_key.key_of(sent.key.x, sent.key.y)
    return Browser(key, sent.nonce, trio.current_time() + CONFIRM_SECONDS)


def _is_same(before: Browser | None, browser: Browser) -> bool:
    return before is not None and (before.key, before.nonce) == (browser.key, browser.nonce)


def _paired(device: Device) -> SessionPaired:
    return SessionPaired(device.id, device.name, sorted(device.scopes), device.expires)
