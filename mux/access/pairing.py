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

Used by ``requests``, for the operator's requests, and ``post_routes``, for ``POST /v1/pair``.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import attrs
import msgspec
import structlog
import trio

from mux.access.devices import (
    Device,
    DeviceRegistry,
    DeviceRegistryError,
    digest_of,
    new_token,
    printable_name,
)
from mux.core.extension.devices import (
    Asked,
    Ended,
    Kind,
    NotPaired,
    Outcome,
    Paired,
    PairRequest,
    WhyNot,
)
from mux.core.policy.principal import ClientId
from mux.core.protocol.scope import Scope
from mux.errors import AppmuxError

TICKET_SECONDS: Final = 300.0
"""Lifetime of a ticket: enough to find the phone and open its camera; short enough that a photo of
the screen is of no use."""

CONFIRM_SECONDS: Final = 120.0
"""Time for the operator to compare two codes. The device waits with an open request."""

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

CODE_DIGITS: Final = 6
"""Digits of the code: one of a million strangers shows the same code as the device in hand."""

ASKED: Final = "mux/pairing/asked"
ENDED: Final = "mux/pairing/ended"
"""Notifications to the operator: a device asks to be paired, and the outcome."""

log = structlog.get_logger()


class PairingError(AppmuxError):
    """A pairing that can't begin, or can't be confirmed."""


@attrs.frozen
class Wanted:
    """The operator's grant to a device that is to be paired."""

    kind: Kind
    scopes: frozenset[Scope]
    name: str = ""
    """If empty, the device proposes its name."""
    lifetime: float | None = None
    """Seconds; None means that the device never expires."""
    by: str = ""
    """The operator's name, for the audit log."""


@attrs.frozen
class Reply:
    """A reply to a ``POST``."""

    status: HTTPStatus
    body: bytes = attrs.field(repr=False)
    about: PairingTicket | None = None
    """The ticket whose pairing depends on this reply's delivery."""
    whose: str = ""
    """Whose token or ticket failed, where that is known (see ``throttle``); of a used ticket, the
    ticket itself."""


@attrs.define(eq=False, repr=False)
class PairingTicket:
    """A ticket, and the pairing that it begins."""

    id: int
    owner: ClientId
    """The operator's connection."""
    wanted: Wanted
    until: float
    """Expiry on trio's clock, which stands still while the machine sleeps."""
    wall_until: float
    """Expiry in Unix seconds, of a clock that may be set back."""
    came: str = ""
    """Name of the device that has sent the ticket; empty while the ticket is unused."""
    outcome: Outcome | None = None
    """None while the pairing is open."""
    again: int = 0
    """Times that the ticket was sent once more after its use."""
    device: Device | None = None
    token: str = attrs.field(default="", repr=False)
    ended: trio.Event = attrs.field(factory=trio.Event)
    """Set once the operator has decided, or can't decide any more."""


def _holds(ticket: PairingTicket, now: float, wall: float) -> bool:
    return ticket.until > now and ticket.wall_until > wall


def code_of(ticket: str, name: str, nonce: str) -> str:
    """Compute the short code, as both sides show it: ``"493 027"``."""
    text = "\n".join(("appmux pair", ticket, name, nonce))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 10**CODE_DIGITS
    digits = f"{number:0{CODE_DIGITS}}"
    return f"{digits[:3]} {digits[3:]}"


@attrs.define(eq=False, repr=False)
class Pairing:
    """All tickets of a broker."""

    registry: DeviceRegistry
    notify: Callable[[ClientId, str, object], None]
    """``notify(client, method, params)`` notifies an operator's connection."""
    record: Callable[[str, dict[str, object]], None]
    """``record(kind, fields)`` puts a pairing's outcome into the audit log."""
    _tickets: dict[str, PairingTicket] = attrs.field(factory=dict, repr=False)
    """Tickets by their digest, until they expire, used or not."""
    _ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    # -- the operator begins ---------------------------------------------------------------------

    def begin(self, owner: ClientId, wanted: Wanted) -> tuple[PairingTicket, str]:
        """Return a new ticket, and its text. Raises ``DeviceError``, ``PairingError``."""
        if wanted.name:
            wanted = attrs.evolve(wanted, name=self.registry.free_name(wanted.name))
        now, wall = trio.current_time(), self.registry.clock()
        # A finished ticket stays until it expires, so that a second use is refused as one.
        self._tickets = {
            digest: each
            for digest, each in self._tickets.items()
            if _holds(each, now, wall) or _waits(each)
        }
        if len(self._tickets) >= MOST_TICKETS:
            raise PairingError(
                f"{MOST_TICKETS} tickets are out already: wait until they expire (within"
                f" {TICKET_SECONDS / 60:.0f} minutes)"
            )
        text = secrets.token_urlsafe(TICKET_BYTES)
        until, wall_until = now + TICKET_SECONDS, wall + TICKET_SECONDS
        ticket = PairingTicket(next(self._ids), owner, wanted, until, wall_until)
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
            return _refusal(HTTPStatus.BAD_REQUEST, "malformed", text)
        ticket = self._tickets.get(digest_of(sent.ticket))
        if ticket is None:
            return _refusal(HTTPStatus.UNAUTHORIZED, "unknown-ticket", "no such ticket")
        if ticket.came:
            self._again(ticket, address)
            text = "the ticket has been used: ask for a new one"
            return _refusal(HTTPStatus.CONFLICT, "used-ticket", text, f"ticket {ticket.id}")
        if ticket.outcome is not None or not _holds(
            ticket, trio.current_time(), self.registry.clock()
        ):
            text = "the ticket holds no more: ask for a new one"
            return _refusal(HTTPStatus.GONE, "expired-ticket", text)
        return await self._await_word(ticket, sent, address)

    def _again(self, ticket: PairingTicket, address: str) -> None:
        """Notify the operator that a used ticket came once more: it may have been stolen."""
        ticket.again += 1
        if ticket.again <= TOLD_AGAIN:
            self.notify(ticket.owner, ENDED, Ended(ticket.id, Outcome.AGAIN, origin=address))
            log.warning("a pairing ticket was used again", client=address)

    async def _await_word(self, ticket: PairingTicket, sent: PairRequest, address: str) -> Reply:
        ticket.came = ticket.wanted.name or printable_name(sent.name)
        code = code_of(sent.ticket, sent.name, sent.nonce)
        log.info("a device asks to be paired", client=address, name=ticket.came)
        self.notify(ticket.owner, ASKED, Asked(ticket.id, ticket.came, code, address))
        try:
            with trio.move_on_after(CONFIRM_SECONDS):
                await ticket.ended.wait()
        except trio.Cancelled:
            self._lost(ticket)
            raise
        if ticket.outcome is None:
            self._end(ticket, Outcome.UNANSWERED)
        if ticket.device is None:
            return _no(ticket)
        return _yes(ticket, ticket.device)

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
        if ticket.outcome is not None:
            raise PairingError("the device isn't waiting any more; nothing was paired")
        if not accept:
            self._end(ticket, Outcome.DECLINED)
            return
        ticket.token = new_token()
        try:
            ticket.device = self._enter(ticket)
        except AppmuxError:
            self._end(ticket, Outcome.CALLED_OFF)
            raise
        ticket.outcome = Outcome.PAIRED
        ticket.ended.set()

    def _enter(self, ticket: PairingTicket) -> Device:
        wanted, digest = ticket.wanted, digest_of(ticket.token)
        name = wanted.name or self.registry.name_like(ticket.came)
        return self.registry.add(name, wanted.kind, wanted.scopes, digest, wanted.lifetime)

    def conclude(self, reply: Reply, *, delivered: bool) -> None:
        """Finish the pairing if its reply was delivered; else undo it."""
        ticket = reply.about
        if ticket is None or ticket.device is None:
            return
        if delivered:
            # Recorded and notified only now: until the device has its token, it isn't paired.
            ticket.token = ""
            self._record("device/paired", ticket, scopes=sorted(ticket.device.scopes))
            self._notify_end(ticket)
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
        self._end(ticket, Outcome.LEFT)

    def called_off(self, owner: ClientId) -> None:
        """End the operator's open pairings: with its connection gone, nobody can confirm them."""
        for ticket in self._tickets.values():
            if ticket.owner == owner and ticket.outcome is None:
                ticket.outcome = Outcome.CALLED_OFF
                ticket.ended.set()

    def _end(self, ticket: PairingTicket, outcome: Outcome) -> None:
        """End a pairing without a device; does nothing if it has ended already."""
        if ticket.outcome is None:
            ticket.outcome = outcome
            ticket.ended.set()
            self._record("device/refused", ticket, why=outcome.value)
            self._notify_end(ticket)

    def _record(self, kind: str, ticket: PairingTicket, **more: object) -> None:
        name = ticket.device.name if ticket.device is not None else ticket.came
        fields = {"device": name, "kind": ticket.wanted.kind, "by": ticket.wanted.by}
        self.record(kind, {**fields, **more})

    def _notify_end(self, ticket: PairingTicket) -> None:
        name = ticket.device.name if ticket.device is not None else msgspec.UNSET
        self.notify(ticket.owner, ENDED, Ended(ticket.id, ticket.outcome or Outcome.LEFT, name))


def _waits(ticket: PairingTicket) -> bool:
    """Return whether a device waits for the operator to confirm it."""
    return bool(ticket.came) and ticket.outcome is None


def _read(body: bytes) -> PairRequest:
    """Decode a device's request. Raises ``ValueError`` (msgspec's errors are subclasses)."""
    sent = msgspec.json.decode(body, type=PairRequest)
    if len(sent.nonce) > LONGEST_NONCE or len(sent.name) > LONGEST_PROPOSAL:
        raise ValueError("too long")
    return sent


# -- replies ---------------------------------------------------------------------------------------


def _refusal(status: HTTPStatus, error: WhyNot, message: str, whose: str = "") -> Reply:
    return Reply(status, msgspec.json.encode(NotPaired(error, message)), whose=whose)


def _no(ticket: PairingTicket) -> Reply:
    match ticket.outcome:
        case Outcome.DECLINED:
            return _refusal(HTTPStatus.FORBIDDEN, "declined", "the operator said no")
        case Outcome.UNANSWERED:
            text = f"the operator gave no word within {CONFIRM_SECONDS:.0f} s"
            return _refusal(HTTPStatus.GONE, "unanswered", text)
        case _:
            text = "the pairing was called off: ask for a new ticket"
            return _refusal(HTTPStatus.GONE, "called-off", text)


def _yes(ticket: PairingTicket, device: Device) -> Reply:
    granted = Paired(ticket.token, device.name, sorted(device.scopes), device.expires)
    return Reply(HTTPStatus.OK, msgspec.json.encode(granted), ticket)


def too_many() -> Reply:
    """Return the reply to too many failures with the same ticket, or as the same device."""
    text = "too many wrong attempts with this ticket, or by this device: ask for a new ticket"
    return _refusal(HTTPStatus.TOO_MANY_REQUESTS, "too-many", text)


def malformed(text: str) -> Reply:
    """Return the reply to a request whose body can't be read; ``text`` says why."""
    return _refusal(HTTPStatus.BAD_REQUEST, "malformed", text)
