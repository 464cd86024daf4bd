"""A paired device: its record, its token, and the names that it may have.

Used by ``devices``, which keeps all of them, and by whoever deals with one.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from typing import Final

import msgspec

from mux.core.extension.devices import Kind
from mux.core.protocol.scope import Scope
from mux.errors import AppmuxError

TOKEN_PREFIX: Final = "amx_"
"""Marks our tokens, for people and for programs that search for leaked secrets."""

TOKEN_BYTES: Final = 32
"""Random bytes of a token: as many as its digest has."""

LONGEST_NAME: Final = 64
"""Characters of a device's name; more would break every table."""

RESERVED: Final = frozenset({"local", "capability-token", "jwt", "appmux"})
"""Names by which logs and lists call principals that aren't devices."""


class DeviceError(AppmuxError):
    """A name that is taken or not allowed, an unknown device, or a full registry."""


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A paired device. Times are in Unix seconds."""

    id: str
    name: str
    kind: Kind
    scopes: frozenset[Scope]
    made: float
    digest: str
    """SHA-256 of the device's token, in hex; of a browser, a name of its key that no token has."""
    expires: float | None = None
    """None means never."""
    seen: float | None = None
    """Time at which it last connected or left."""
    address: str | None = None
    """Host that it last connected from."""
    key: str = ""
    """Public key of a browser (see ``public_key``), which has no token; empty for others."""

    def __repr__(self) -> str:
        """Name the device without its digest, which no log needs."""
        return f"Device({self.id!r}, {self.name!r})"

    def expired(self, now: float) -> bool:
        """Return whether the device's lifetime is over."""
        return self.expires is not None and self.expires <= now


def digest_of(token: str) -> str:
    """Return the digest by which a token is stored.

    A token's 256 random bits need no salt and no slow hash.
    """
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """Make a device's token, of characters that need no escaping in a header or a URI."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def proper_name(name: str) -> str:
    """Return the name as it is stored. Raises ``DeviceError`` if it isn't allowed."""
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise DeviceError(
            f"a device's name has 1 to {LONGEST_NAME} printable characters: choose another"
        )
    if name.casefold() in RESERVED:
        raise DeviceError(f"a device can't be named {name!r}: who isn't a device is called so")
    return name


def printable_name(name: str, otherwise: str = "device") -> str:
    """Return the nearest allowed name to the one that a device proposes."""
    shown = "".join(letter if letter.isprintable() else " " for letter in name)
    try:
        return proper_name(" ".join(shown.split())[:LONGEST_NAME].strip())
    except DeviceError:
        return otherwise
