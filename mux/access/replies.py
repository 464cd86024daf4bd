"""Replies to a ``POST`` of a device: JSON, with a word for programs and a sentence for people.

Used by ``pairing``, ``browser_pairing``, ``notices.lock_screen`` and
``downstream.http.post_routes``.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import attrs
import msgspec

from mux.access.device import Device
from mux.access.tickets import PairingTicket
from mux.core.extension.devices import NotPaired, Outcome, Paired, WhyNot

CONFIRM_SECONDS: Final = 120.0
"""Time for the operator to compare two codes."""


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


def refusal(status: HTTPStatus, error: WhyNot, message: str, whose: str = "") -> Reply:
    """Return a refusal, as JSON."""
    return Reply(status, msgspec.json.encode(NotPaired(error, message)), whose=whose)


def not_paired(ticket: PairingTicket) -> Reply:
    """Return the reply to a device whose pairing has ended without it."""
    match ticket.outcome:
        case Outcome.DECLINED:
            return refusal(HTTPStatus.FORBIDDEN, "declined", "the operator said no")
        case Outcome.UNANSWERED:
            text = f"the operator gave no word within {CONFIRM_SECONDS:.0f} s"
            return refusal(HTTPStatus.GONE, "unanswered", text)
        case _:
            text = "the pairing was called off: ask for a new ticket"
            return refusal(HTTPStatus.GONE, "called-off", text)


def token_granted(ticket: PairingTicket, device: Device) -> Reply:
    """Return the reply to a device that gets a token."""
    granted = Paired(ticket.token, device.name, sorted(device.scopes), device.expires)
    return Reply(HTTPStatus.OK, msgspec.json.encode(granted), ticket)


def too_many() -> Reply:
    """Return the reply to too many failures with the same ticket, or as the same device."""
    text = "too many wrong attempts with this ticket, or by this device: ask for a new ticket"
    return refusal(HTTPStatus.TOO_MANY_REQUESTS, "too-many", text)


def malformed(text: str) -> Reply:
    """Return the reply to a request whose body can't be read; ``text`` says why."""
    return refusal(HTTPStatus.BAD_REQUEST, "malformed", text)
