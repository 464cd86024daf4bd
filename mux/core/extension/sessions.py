"""A browser's session: ``POST /v1/session``, the challenge on its WebSocket, ``mux/session/*``."""

from __future__ import annotations

from typing import Literal

import msgspec

from mux.core.extension.parts import Described, Done, Nothing, method, notification
from mux.core.protocol.scope import Scope

# ── POST /v1/session ──────────────────────────────────────────────────────────────────────────────


class PublicKey(msgspec.Struct):
    """A public key, as ``exportKey("jwk", …)`` gives it. Other members are ignored."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: str
    y: str


class SessionRequest(msgspec.Struct):
    """The body of ``POST /v1/session``. It has either ``ticket`` or ``letters``.

    ``name``: 512 characters at most. ``nonce``: 128 at most. Sent again with the same ``nonce`` and
    ``key``, it asks how the pairing stands.
    """

    key: PublicKey
    nonce: str
    ticket: str = ""
    letters: str = ""
    name: str = ""


class SessionWaits(msgspec.Struct):
    """Status 202: the operator hasn't decided. Send the same body again."""

    state: Literal["waiting"] = "waiting"


class SessionPaired(msgspec.Struct, rename="camel"):
    """Status 200.

    ``device``: the name by which the browser is known in the challenge. ``expiresAt``: Unix
    seconds, null for never.
    """

    device: str
    name: str
    scopes: list[Scope]
    expires_at: float | None
    state: Literal["paired"] = "paired"


# ── the challenge ─────────────────────────────────────────────────────────────────────────────────


class Challenge(msgspec.Struct):
    """The first message on a browser's WebSocket. ``POST /v1/session/challenge`` gives one, too.

    ``time``: the broker's clock, in Unix seconds.
    """

    nonce: str
    time: int


class Proof(msgspec.Struct):
    """The browser's first message. ``signature``: r and s, 32 bytes each, in base64url."""

    device: str
    signature: str


class ShortToken(msgspec.Struct, rename="camel"):
    """A bearer token for plain requests. It ends with its device, or after ``expiresInSeconds``."""

    token: str
    expires_in_seconds: float


class Session(msgspec.Struct, rename="camel"):
    """The browser's session. ``host``: this machine's name. ``version``: appmux's."""

    device: str
    name: str
    scopes: list[Scope]
    expires_at: float | None
    host: str
    version: str


class Proven(Session, rename="camel"):
    """The answer to a right signature."""

    token: ShortToken


class NotProven(msgspec.Struct):
    """The ``data`` of error -32020, after which the connection is closed."""

    reason: Literal["malformed", "unknown-device", "expired-device", "wrong-signature", "late"]


_KEY = PublicKey(
    "EC",
    "P-256",
    "Mr-Rexmz-pXMrmhONnoB-bLUSw5QLHCsNXZ5k0dzV5E",
    "OmS0cLXSfwo2lcOAWlQwlrBL0dGyMRTHR7Lz4dpOsZ4",
)
_TOKEN = ShortToken("ams_…", 600.0)
_WHO = {
    "device": "8c1f6f0b52a7d3e4",
    "name": "Ada's phone",
    "scopes": ["approve", "observe"],
    "expires_at": None,
}

METHODS: dict[str, Described] = {
    "mux/session/prove": method(
        "A browser's answer to its challenge: the first message that it sends.",
        Proof("8c1f6f0b52a7d3e4", "…"),
        Proven(**_WHO, host="desk", version="1.0", token=_TOKEN),  # type: ignore[arg-type]
    ),
    "mux/session/token": method(
        "A token of ten minutes for a browser's plain requests.", Nothing(), _TOKEN
    ),
    "mux/session/end": method(
        "The device ends itself: it is revoked, and its connections are closed.", Nothing(), Done()
    ),
}

NOTIFICATIONS: dict[str, Described] = {
    "mux/session/challenge": notification(
        "The first message on a browser's WebSocket, before it is a client.",
        Challenge("5EVvQy2rZoYkQ3m0ypKYPQ", 1790000000),
    ),
}

SHAPES: dict[str, Described] = {
    "session": Described(
        "`POST /v1/session`: a browser's key is let in by a ticket or by letters; the bodies."
        " `challenge`: what `POST /v1/session/challenge` is answered.",
        {
            "request": SessionRequest(
                _KEY, "n", ticket="QuKMHXgwnKnmECVvZmKeig", name="Ada's phone"
            ),
            "waiting": SessionWaits(),
            "paired": SessionPaired(**_WHO),  # type: ignore[arg-type]
            "challenge": Challenge("5EVvQy2rZoYkQ3m0ypKYPQ", 1790000000),
        },
    ),
    "session.refused": Described(
        "Error -32020: the challenge wasn't answered rightly.",
        {"data": NotProven("wrong-signature")},
    ),
}
