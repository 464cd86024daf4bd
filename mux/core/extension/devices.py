"""``mux/pairing/*``, ``mux/devices/*`` and ``POST /v1/pair``: devices with tokens of their own."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from mux.core.extension.parts import Described, Done, Nothing, method, notification
from mux.core.protocol.envelope.text_limits import Name
from mux.core.protocol.scope import Scope

Kind = Literal["paired", "invite", "novascale"]
"""How a device came into the book: by a code, by an invitation, brought along from NovaScale."""

# ── mux/pairing ───────────────────────────────────────────────────────────────────────────────────


class Grant(msgspec.Struct, rename="camel"):
    """The rights that a device gets.

    ``name`` empty: the device's own name. ``lifetimeSeconds`` null: for ever.
    """

    scopes: list[Scope]
    name: Name = ""
    lifetime_seconds: float | None = None


class BeginParams(Grant, rename="camel"):
    """The rights of the device that comes with the ticket.

    ``letters``: true to get eight letters as well. ``ticketSeconds``: how long the ticket lasts,
    300 at most. ``replaces``: true if the device takes the place of the one of that name, which is
    shut out when the new one comes.
    """

    kind: Literal["paired", "invite"] = "paired"
    letters: bool = False
    ticket_seconds: float = 300.0
    replaces: bool = False


class Begun(msgspec.Struct, rename="camel"):
    """A ticket of one use.

    ``openDoor``: true if a WebSocket listener asks nobody for a token. ``origins``: those origins
    of the broker's page that have a name. ``letters`` stand for the ticket, for people who can't
    open a link; letters made before no longer hold.
    """

    id: int
    ticket: str
    expires_in_seconds: float
    open_door: bool
    origins: list[str]
    letters: str | msgspec.UnsetType = msgspec.UNSET


class Confirm(msgspec.Struct):
    """The operator's decision, once both codes were compared."""

    id: int
    accept: bool


class Asked(msgspec.Struct):
    """A device came with the ticket.

    ``code``: the code that the device must show as well. ``from``: its address.
    """

    id: int
    name: str
    code: str
    origin: str = msgspec.field(name="from")


class Outcome(enum.Enum):
    """The outcome of a pairing. ``again``: a used ticket came once more, which ends nothing."""

    PAIRED = "paired"
    DECLINED = "declined"
    UNANSWERED = "unanswered"
    LEFT = "left"
    CALLED_OFF = "called-off"
    AGAIN = "again"


class Ended(msgspec.Struct):
    """The end of a pairing.

    ``name``: the device's name in the register. ``from``: the address from which a used ticket
    came.
    """

    id: int
    outcome: Outcome
    name: str | msgspec.UnsetType = msgspec.UNSET
    origin: str | msgspec.UnsetType = msgspec.field(name="from", default=msgspec.UNSET)


# ── mux/devices ───────────────────────────────────────────────────────────────────────────────────


class AddParams(Grant, rename="camel"):
    """Params of ``mux/devices/add``.

    ``tokenSha256``: the digest of a token that the device has already, as 64 hex digits in lower
    case.
    """

    kind: Literal["novascale"] = "novascale"
    token_sha256: str | None = None


class Named(msgspec.Struct):
    """The name of a paired device."""

    name: str


class RenameParams(Named):
    """Params of ``mux/devices/rename``. ``to``: the device's new name."""

    to: str


class ScopeParams(Named):
    """Params of ``mux/devices/scope``. ``scopes``: all scopes that the device has from now on."""

    scopes: list[Scope]


class DeviceShown(msgspec.Struct, rename="camel"):
    """A paired device. Times are Unix seconds.

    ``expiresAt`` is null for never, ``seenAt`` for not yet. ``attached``: the number of its
    connections now. ``address``: where it was seen last. ``proof``: what it is let in by: a token,
    or a browser's ``key``. ``self``: true for the device that asks.
    """

    name: str
    kind: Kind
    scopes: list[Scope]
    made_at: float
    expires_at: float | None
    expired: bool
    seen_at: float | None
    address: str | None
    attached: int
    proof: Literal["token", "key"]
    own: bool = msgspec.field(name="self")


class Devices(msgspec.Struct):
    """All paired devices."""

    devices: list[DeviceShown]


class Added(DeviceShown, rename="camel"):
    """The device that was added.

    ``token``: the token made for it, shown this once; absent if the device has one.
    """

    token: str | msgspec.UnsetType = msgspec.UNSET


class Revoked(msgspec.Struct):
    """The device that was revoked. ``closed``: the number of its connections that were closed."""

    name: str
    closed: int


class Limited(DeviceShown, rename="camel"):
    """The device with its new scopes.

    ``closed``: the number of its connections that were closed; they come back with the new scopes.
    """

    closed: int


# ── POST /v1/pair ─────────────────────────────────────────────────────────────────────────────────


class PairRequest(msgspec.Struct):
    """The body of ``POST /v1/pair``. ``name``: 512 characters at most. ``nonce``: 128 at most."""

    ticket: str
    name: str = ""
    nonce: str = ""


class Paired(msgspec.Struct, rename="camel"):
    """Status 200: the device's own token. ``expiresAt``: Unix seconds, null for never."""

    token: str
    name: str
    scopes: list[Scope]
    expires_at: float | None


WhyNot = Literal[
    "malformed",
    "unknown-ticket",
    "declined",
    "used-ticket",
    "expired-ticket",
    "unanswered",
    "called-off",
    "too-many",
]


class NotPaired(msgspec.Struct):
    """Status 400, 401, 403, 409, 410 or 429. ``message``: for a person."""

    error: WhyNot
    message: str


# ── examples ──────────────────────────────────────────────────────────────────────────────────────

_NAME = "Ada's phone"
_TICKET = "QuKMHXgwnKnmECVvZmKeig"
_TOKEN = "amx_…"
_SHOWN = DeviceShown(
    name=_NAME,
    kind="paired",
    scopes=["approve", "observe"],
    made_at=1790000000.0,
    expires_at=None,
    expired=False,
    seen_at=1790000060.5,
    address="192.0.2.7",
    attached=1,
    proof="token",
    own=False,
)

METHODS: dict[str, Described] = {
    "mux/pairing/begin": method(
        "A ticket for a device; `mux/pairing/asked` comes when it is used.",
        BeginParams(["approve", "observe"], _NAME, 86400.0),
        Begun(1, _TICKET, 300.0, open_door=False, origins=[]),
    ),
    "mux/pairing/confirm": method(
        "The operator's word on the device that came.", Confirm(1, accept=True), Done()
    ),
    "mux/devices/list": method("All devices.", Nothing(), Devices([_SHOWN])),
    "mux/devices/add": method(
        "A device without pairing: with a token that is made, or one that it has.",
        AddParams(["observe"], "wall display"),
        Added(
            name="wall display",
            kind="novascale",
            scopes=["observe"],
            made_at=1790000000.0,
            expires_at=None,
            expired=False,
            seen_at=None,
            address=None,
            attached=0,
            proof="token",
            own=False,
            token=_TOKEN,
        ),
    ),
    "mux/devices/revoke": method(
        "Shut a device out, and cut its connections.", Named(_NAME), Revoked(_NAME, 1)
    ),
    "mux/devices/rename": method(
        "Another name for a device; its connections stay.",
        RenameParams(_NAME, "Ada's new phone"),
        msgspec.structs.replace(_SHOWN, name="Ada's new phone"),
    ),
    "mux/devices/scope": method(
        "Other scopes for a device.",
        ScopeParams(_NAME, ["observe"]),
        Limited(
            name=_NAME,
            kind="paired",
            scopes=["observe"],
            made_at=1790000000.0,
            expires_at=None,
            expired=False,
            seen_at=1790000060.5,
            address="192.0.2.7",
            attached=0,
            proof="token",
            own=False,
            closed=1,
        ),
    ),
}

NOTIFICATIONS: dict[str, Described] = {
    "mux/pairing/asked": notification(
        "A device came with your ticket: compare the codes, then confirm.",
        Asked(1, _NAME, "020 761", "192.0.2.7:51234"),
    ),
    "mux/pairing/ended": notification(
        "What became of the device that came.", Ended(1, Outcome.PAIRED, _NAME)
    ),
}

SHAPES: dict[str, Described] = {
    "pair": Described(
        "`POST /v1/pair`: a ticket against a token; the bodies.",
        {
            "request": PairRequest(_TICKET, _NAME, "n"),
            "paired": Paired(_TOKEN, _NAME, ["observe"], 1800000000.0),
            "refused": NotPaired("declined", "the operator said no"),
        },
    ),
}
