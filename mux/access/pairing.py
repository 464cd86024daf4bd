"""Pairing: a single-use ticket is exchanged for a device's token, once the operator confirms.

    operator            broker                       device
    begin ───────────▶  ticket made  ─ ─ QR code ─ ▶ reads it
                        looked up, used  ◀────────── POST /v1/pair {ticket, name, nonce}
    name, code  ◀─────  waits                        shows the same code
    confirm  ────────▶  device registered  ────────▶ token

Both sides compute the code from the ticket and the device's name and nonce. So a stranger who got
hold of the ticket shows another code than the device in the operator's hand.

Nothing is left half-done: a ticket ends with the connection that asked for it, and a device that
left before it had its token is not in the registry.

A browser is paired by its key in place of a token, and asks again and again (``browser_pairing``).

Used by ``requests``, for the operator's requests, and ``post_routes``, for ``POST /v1/pair``.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import msgspec
import structlog
import trio
from msgspec.structs import replace

from mux.access.device import Device, digest_of, new_token, printable_name
from mux.access.devices import DeviceRegistry, DeviceRegistryError
from mux.access.public_key import digest_of_key
from mux.access.replies import CONFIRM_SECONDS, Reply, not_paired, refusal, token_granted
from mux.access.tickets import DeviceGrant, PairingTicket, code_of
from mux.core.extension.devices import (
    Asked,
    Ended,
    Outcome,
    PairRequest,
)
from mux.core.part import Part
from mux.core.policy.principal import ClientId
from mux.errors import AppmuxError

TICKET_SECONDS: Final = 300.0
"""Lifetime of a ticket: enough to find the phone and open its camera; short enough that a photo of
the screen is of no use."""

TICKET_BYTES: Final = 16
"""Random bytes: nobody guesses 128 bits in five minutes, and the QR code stays small."""

MOST_TICKETS: Final = 16
"""Tickets at once. One operator needs one."""

TOLD_AGAIN: Final = 3
"""Times that an operator is notified of a used ticket that comes again. There is a limit because
its holder could send it on and on."""

LONGEST_NONCE: Final = 128
LONGEST_PROPOSAL: Final = 512
"""Most characters of a device's nonce and of its proposed name, which is shortened afterwards."""

ASKED: Final = "mux/pairing/asked"
ENDED: Final = "mux/pairing/ended"
"""Notifications to the operator: a device asks to be paired, and the outcome."""

log = structlog.get_logger()


class PairingError(AppmuxError):
    """A pairing that can't begin, or can't be confirmed."""


class Pairing(Part):
    """All tickets of a broker."""

    registry: DeviceRegistry
    notify: Callable[[ClientId, str, object], None]
    """``notify(client, method, params)`` notifies an operator's connection."""
    record: Callable[[str, dict[str, object]], None]
    """``record(kind, fields)`` puts a pairing's outcome into the audit log."""
    replaced: Callable[[str], None] = lambda _name: None
    """Called with the name of a device whose place another takes: it has to go first."""
    _tickets: dict[str, PairingTicket] = msgspec.field(default_factory=dict)
    """Tickets by their digest, until they expire, used or not."""
    _ids: itertools.count[int] = msgspec.field(default_factory=lambda: itertools.count(1))

    # -- the operator begins ---------------------------------------------------------------------

    def begin(
        self, owner: ClientId, grant: DeviceGrant, lasts: float = TICKET_SECONDS
    ) -> tuple[PairingTicket, str]:
        """Return a new ticket that lasts so many seconds, and its text.

        Raises ``DeviceError``, ``PairingError``.
        """
        if grant.name and not grant.replaces:
            grant = replace(grant, name=self.registry.free_name(grant.name))
        now, wall = trio.current_time(), self.registry.clock()
        # A finished ticket stays until it expires, so that a second use is refused as one, and a
        # browser that has slept learns how it ended.
        self._tickets = {
            digest: each
            for digest, each in self._tickets.items()
            if each.holds(now, wall) or each.waits
        }
        if len(self._tickets) >= MOST_TICKETS:
            raise PairingError(
                f"{MOST_TICKETS} tickets are out already: wait until they expire (within"
                f" {TICKET_SECONDS / 60:.0f} minutes)"
            )
        text = secrets.token_urlsafe(TICKET_BYTES)
        until, wall_until = now + lasts, wall + lasts
        ticket = PairingTicket(next(self._ids), owner, grant, until, wall_until)
        self._tickets[digest_of(text)] = ticket
        return ticket, text

    # -- a device comes --------------------------------------------------------------------------

    async def exchange(self, body: bytes, address: str) -> Reply:
        """Return the reply to a device, once the operator has decided or time is up.

        The caller must pass the reply to ``conclude``, and cancel this call if the device leaves.
        """
        try:
            sent = _read(body)
        except ValueError:
            text = 'send {"ticket": "…", "name": "…", "nonce": "…"} as JSON'
            return refusal(HTTPStatus.BAD_REQUEST, "malformed", text)
        ticket = self.find(sent.ticket)
        if ticket is None:
            return refusal(HTTPStatus.UNAUTHORIZED, "unknown-ticket", "no such ticket")
        return self.refuse(ticket, address) or await self._await_word(ticket, sent, address)

    def find(self, text: str) -> PairingTicket | None:
        """Find a ticket by its text."""
        return self._tickets.get(digest_of(text))

    def refuse(self, ticket: PairingTicket, address: str) -> Reply | None:
        """Return the refusal of a ticket that can't be used any more."""
        if ticket.came:
            self._again(ticket, address)
            text = "the ticket has been used: ask for a new one"
            return refusal(HTTPStatus.CONFLICT, "used-ticket", text, f"ticket {ticket.id}")
        now, wall = trio.current_time(), self.registry.clock()
        if ticket.outcome is not None or not ticket.holds(now, wall):
            text = "the ticket holds no more: ask for a new one"
            return refusal(HTTPStatus.GONE, "expired-ticket", text)
        return None

    def _again(self, ticket: PairingTicket, address: str) -> None:
        """Notify the operator that a used ticket came once more: it may have been stolen."""
        ticket.again += 1
        if ticket.again <= TOLD_AGAIN:
            self.notify(ticket.owner, ENDED, Ended(ticket.id, Outcome.AGAIN, origin=address))
            log.warning("a pairing ticket was used again", client=address)

    async def _await_word(self, ticket: PairingTicket, sent: PairRequest, address: str) -> Reply:
        self.claim(ticket, sent.name, code_of(sent.ticket, sent.name, sent.nonce), address)
        try:
            with trio.move_on_after(CONFIRM_SECONDS):
                await ticket.ended.wait()
        except trio.Cancelled:
            self._lost(ticket)
            raise
        if ticket.outcome is None:
            self.end(ticket, Outcome.UNANSWERED)
        if ticket.device is None:
            return not_paired(ticket)
        return token_granted(ticket, ticket.device)

    def claim(self, ticket: PairingTicket, name: str, code: str, address: str) -> None:
        """Use a ticket up for the device that has sent it, and notify the operator."""
        ticket.came = ticket.grant.name or printable_name(name)
        log.info("a device asks to be paired", client=address, name=ticket.came)
        self.notify(ticket.owner, ASKED, Asked(ticket.id, ticket.came, code, address))

    # -- the operator decides --------------------------------------------------------------------

    def confirm(self, owner: ClientId, id: int, *, accept: bool) -> None:
        """Accept or decline the device that came. `ENDED` follows, once it has its token.

        Raises ``PairingError`` if no device waits (any more). Raises ``DeviceError`` and
        ``DeviceRegistryError`` if the device can't be added; then the pairing is over.
        """
        ticket = next(
            (each for each in self._tickets.values() if (each.id, each.owner) == (id, owner)), None
        )
        if ticket is None or not ticket.came:
            raise PairingError("no device waits for your word on this")
        if ticket.browser is not None and ticket.browser.until <= trio.current_time():
            self.end(ticket, Outcome.UNANSWERED)
        if ticket.outcome is not None:
            raise PairingError("the device isn't waiting any more; nothing was paired")
        if not accept:
            self.end(ticket, Outcome.DECLINED)
            return
        if ticket.browser is None:
            ticket.token = new_token()
        try:
            ticket.device = self._enter(ticket)
        except AppmuxError:
            self.end(ticket, Outcome.CALLED_OFF)
            raise
        ticket.outcome = Outcome.PAIRED
        ticket.ended.set()
        if ticket.browser is not None:  # it has all that it needs: its key
            self._notify_paired(ticket, ticket.device)

    def _enter(self, ticket: PairingTicket) -> Device:
        grant, browser = ticket.grant, ticket.browser
        name = grant.name or self.registry.name_like(ticket.came)
        key = "" if browser is None else browser.key
        digest = digest_of_key(key) if key else digest_of(ticket.token)
        if grant.replaces:
            self.replaced(name)
        return self.registry.add(name, grant.kind, grant.scopes, digest, grant.lifetime, key=key)

    def conclude(self, reply: Reply, *, delivered: bool) -> None:
        """Finish the pairing if its reply was delivered; else undo it."""
        ticket = reply.about
        if ticket is None or ticket.device is None:
            return
        if delivered:
            # Recorded and notified only now: until the device has its token, it isn't paired.
            ticket.token = ""
            self._notify_paired(ticket, ticket.device)
        else:
            self._lost(ticket)

    def _lost(self, ticket: PairingTicket) -> None:
        """Undo a pairing whose device left without its token."""
        if ticket.device is not None:
            try:
                self.registry.revoke(ticket.device)
            except DeviceRegistryError as failure:
                log.error("a device that left before it was paired stays", why=str(failure))
            ticket.device, ticket.outcome = None, None
        self.end(ticket, Outcome.LEFT)

    def called_off(self, owner: ClientId) -> None:
        """End the operator's open pairings: with its connection gone, nobody can confirm them."""
        for ticket in self._tickets.values():
            if ticket.owner == owner and ticket.outcome is None:
                ticket.outcome = Outcome.CALLED_OFF
                ticket.ended.set()

    def end(self, ticket: PairingTicket, outcome: Outcome) -> None:
        """End a pairing without a device; does nothing if it has ended already."""
        if ticket.outcome is None:
            ticket.outcome = outcome
            ticket.ended.set()
            self._record("device/refused", ticket, why=outcome.value)
            self._notify_end(ticket)

    def _notify_paired(self, ticket: PairingTicket, device: Device) -> None:
        self._record("device/paired", ticket, scopes=sorted(device.scopes))
        self._notify_end(ticket)

    def _record(self, kind: str, ticket: PairingTicket, **more: object) -> None:
        name = ticket.device.name if ticket.device is not None else ticket.came
        fields = {"device": name, "kind": ticket.grant.kind, "by": ticket.grant.operator}
        self.record(kind, {**fields, **more})

    def _notify_end(self, ticket: PairingTicket) -> None:
        name = ticket.device.name if ticket.device is not None else msgspec.UNSET
        self.notify(ticket.owner, ENDED, Ended(ticket.id, ticket.outcome or Outcome.LEFT, name))


def _read(body: bytes) -> PairRequest:
    """Decode a device's request. Raises ``ValueError`` (msgspec's errors are subclasses)."""
    sent = msgspec.json.decode(body, type=PairRequest)
    if len(sent.nonce) > LONGEST_NONCE or len(sent.name) > LONGEST_PROPOSAL:
        raise ValueError("too long")
    return sent
