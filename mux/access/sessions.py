"""Sessions of browsers: the challenge that a key answers, and the short tokens it is given.

A browser has no token of its own. On each connection it signs what the broker has just made up
(`Challenge`), and by that is its device. For plain requests it then gets tokens of ten minutes,
which are kept as digests, in memory alone, and end with their device. Where it has no connection (a
worker), it asks for a challenge by itself, and signs that one request.

Used by ``downstream``, for the challenge on a WebSocket and for plain requests.
"""

from __future__ import annotations

import secrets
import socket
from typing import Final, Literal

import msgspec
import trio

import mux
from mux.access import public_key
from mux.access.authentication import AuthError, bearer, device_principal
from mux.access.device import Device, digest_of
from mux.access.devices import DeviceRegistry
from mux.core.extension.sessions import Session, ShortToken
from mux.core.part import Part
from mux.core.policy.principal import Principal

CHALLENGE_SECONDS: Final = 10.0
"""Time to sign: a phone's key store takes one second, a bad network three."""

NONCE_BYTES: Final = 32

TOKEN_PREFIX: Final = "ams_"
"""Marks short tokens, as ``device.TOKEN_PREFIX`` marks long ones."""

TOKEN_BYTES: Final = 32

TOKEN_SECONDS: Final = 600.0
"""Lifetime of a short token: an upload over a bad network takes that long; who finds one in a
memory dump has it no longer."""

MOST_OF_DEVICE: Final = 16
"""Short tokens of one device at once; the oldest goes. A tab needs one, its worker another."""

SIGNED: Final = b"appmux "
"""Begins the ``Authorization`` of a request that is signed: device, nonce and signature follow."""

MOST_CHALLENGES: Final = 256
"""Challenges for plain requests that wait at once; the oldest goes."""

Reason = Literal["malformed", "unknown-device", "expired-device", "wrong-signature", "late"]


class NotProvenError(AuthError):
    """A challenge that wasn't answered rightly; ``reason`` is for programs."""

    def __init__(self, reason: Reason, text: str, whose: Principal | None = None) -> None:
        super().__init__(text, whose)
        self.reason: Reason = reason


class Challenge(msgspec.Struct, frozen=True):
    """A question that only a device's key answers, on one connection, once."""

    origin: str
    """Origin of the page, as its browser says."""
    nonce: str
    time: int
    """Unix seconds, for whoever reads what was signed; the deadline goes by trio's clock."""
    until: float
    """Deadline on trio's clock, which nobody sets back."""

    def text(self, device: str) -> str:
        """Return the text to sign."""
        return "\n".join(("appmux challenge", device, self.nonce, self.origin, str(self.time)))

    def text_of(self, device: str, method: str, target: str) -> str:
        """Return the text to sign for one plain request."""
        lines = (device, self.nonce, self.origin, str(self.time), method, target)
        return "\n".join(("appmux request", *lines))


class _Token(msgspec.Struct, frozen=True):
    device: str
    until: float
    """Expiry on trio's clock, which stands still while the machine sleeps."""
    wall_until: float
    """Expiry in Unix seconds, of a clock that may be set back."""


class Sessions(Part):
    """Challenges and short tokens of one broker."""

    registry: DeviceRegistry
    host: str = msgspec.field(default_factory=socket.gethostname)
    """This machine's name, which people have to see before they approve anything on it."""
    _tokens: dict[str, _Token] = msgspec.field(default_factory=dict)
    """Tokens by digest, the oldest first."""
    _asked: dict[str, Challenge] = msgspec.field(default_factory=dict)
    """Challenges for plain requests, by nonce, oldest first."""

    # -- the challenge -----------------------------------------------------------------------------

    async def challenge(self, origin: str) -> Challenge:
        """Make up a challenge for a page of this origin."""
        await public_key.prepare()
        nonce = secrets.token_urlsafe(NONCE_BYTES)
        until = trio.current_time() + CHALLENGE_SECONDS
        return Challenge(origin, nonce, int(self.registry.clock()), until)

    def prove(self, challenge: Challenge, device: str, signature: str) -> Principal:
        """Return the principal of the device that has signed. Raises ``NotProvenError``.

        A challenge must be proved once at most: the caller drops it, right or wrong.
        """
        return self._prove(challenge, device, challenge.text(device), signature)

    def _prove(self, challenge: Challenge, device: str, text: str, signature: str) -> Principal:
        if challenge.until <= trio.current_time():
            raise NotProvenError("late", "the challenge was answered too late")
        known = self.registry.by_id(device)
        if known is None or not known.key:
            raise NotProvenError("unknown-device", "this device isn't known (any more)")
        if not public_key.signed(known.key, text, signature):
            raise NotProvenError("wrong-signature", "the signature isn't this device's")
        try:
            return device_principal(known, self.registry.clock())
        except AuthError as expired:
            text = "this device has expired"
            raise NotProvenError("expired-device", text, _principal(known)) from expired

    def describe(self, principal: Principal) -> Session:
        """Return who a browser is here, as it is told."""
        return Session(
            device=principal.device,
            name=principal.name,
            scopes=sorted(principal.scopes),
            expires_at=principal.expires_at,
            host=self.host,
            version=mux.__version__,
        )

    # -- plain requests ----------------------------------------------------------------------------

    def token_for(self, device: str) -> ShortToken:
        """Make a short token of a device."""
        now, wall = trio.current_time(), self.registry.clock()
        self._tokens = {
            digest: each for digest, each in self._tokens.items() if _holds(each, now, wall)
        }
        own = [digest for digest, each in self._tokens.items() if each.device == device]
        for digest in own[: max(0, len(own) - MOST_OF_DEVICE + 1)]:
            del self._tokens[digest]
        text = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        self._tokens[digest_of(text)] = _Token(device, now + TOKEN_SECONDS, wall + TOKEN_SECONDS)
        return ShortToken(text, TOKEN_SECONDS)

    async def challenge_request(self, origin: str) -> Challenge:
        """Make up a challenge by which one plain request of this origin may be signed."""
        challenge = await self.challenge(origin)
        for nonce in list(self._asked)[: max(0, len(self._asked) - MOST_CHALLENGES + 1)]:
            del self._asked[nonce]
        self._asked[challenge.nonce] = challenge
        return challenge

    def authenticate(self, authorization: bytes | None, method: str, target: str) -> Principal:
        """Return the principal of a plain request, by its short token or its signature.

        Raises ``AuthError``. A challenge is used up, right or wrong.
        """
        if authorization is not None and authorization[: len(SIGNED)].lower() == SIGNED:
            words = authorization[len(SIGNED) :].decode("latin-1").split()
            whose, nonce, signature = words if len(words) == 3 else ("", "", "")  # noqa: PLR2004
            challenge = self._asked.pop(nonce, None)
            if challenge is None:
                raise AuthError("this challenge isn't known, or was answered already")
            text = challenge.text_of(whose, method, target)
            return self._prove(challenge, whose, text, signature)
        token = self._tokens.get(digest_of(bearer(authorization)))
        now, wall = trio.current_time(), self.registry.clock()
        device = self.registry.by_id(token.device) if token is not None else None
        if token is None or device is None or not _holds(token, now, wall):
            raise AuthError("invalid session token")
        return device_principal(device, wall)


def _holds(token: _Token, now: float, wall: float) -> bool:
    return token.until > now and token.wall_until > wall


def _principal(device: Device) -> Principal:
    return Principal(device.name, "device", device.expires, device.scopes, device.id)
