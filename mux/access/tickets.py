"""A pairing ticket: what it grants, who has brought it, how it ended; and the code of its device.

Used by ``pairing`` and ``browser_pairing``.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
import trio

from mux.access.device import Device
from mux.core.extension.devices import Kind, Outcome
from mux.core.part import Part
from mux.core.policy.principal import ClientId
from mux.core.protocol.scope import Scope

CODE_DIGITS: Final = 6
"""Digits of the code: one of a million strangers shows the same code as the device in hand."""


class DeviceGrant(msgspec.Struct, frozen=True):
    """The operator's grant to a device that is to be paired."""

    kind: Kind
    scopes: frozenset[Scope]
    name: str = ""
    """If empty, the device proposes its name."""
    lifetime: float | None = None
    """Seconds; None means that the device never expires."""
    operator: str = ""
    """The operator's name, for the audit log."""
    replaces: bool = False
    """True if it takes the place of the device of that name."""


class Browser(msgspec.Struct, frozen=True):
    """A browser that asks to be paired."""

    key: str
    """Its public key (see ``public_key``)."""
    nonce: str
    until: float
    """Time on trio's clock by which the operator must have decided."""


class PairingTicket(Part):
    """A ticket, and the pairing that it begins."""

    id: int
    owner: ClientId
    """The operator's connection."""
    grant: DeviceGrant
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
    token: str = ""
    browser: Browser | None = None
    """The browser that has sent the ticket; None for a device that gets a token."""
    ended: trio.Event = msgspec.field(default_factory=trio.Event)
    """Set once the operator has decided, or can't decide any more."""

    def holds(self, now: float, wall: float) -> bool:
        """Return whether the ticket hasn't expired."""
        return self.until > now and self.wall_until > wall

    @property
    def waits(self) -> bool:
        """True if a device waits for the operator to confirm it."""
        return bool(self.came) and self.outcome is None


def code_of(ticket: str, name: str, nonce: str) -> str:
    """Compute the short code of a device that gets a token, as both sides show it."""
    return short_code("appmux pair", ticket, name, nonce)


def short_code(*parts: str) -> str:
    """Compute a short code: ``"493 027"``."""
    text = "\n".join(parts)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % 10**CODE_DIGITS
    digits = f"{number:0{CODE_DIGITS}}"
    return f"{digits[:3]} {digits[3:]}"
