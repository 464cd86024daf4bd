"""A client's identity, once authenticated.

Made by ``mux.access.authentication``, carried by ``ClientAttached``, stored with the client's
protocol state.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mux.core.policy.scopes import ALL
from mux.core.protocol.scope import Scope

ClientId = int
"""The broker's own number for one attached client; never used again after the client left."""


PrincipalKind = Literal["local-user", "capability-token", "jwt", "device", "open"]


class Principal(msgspec.Struct, frozen=True):
    """An authenticated identity."""

    name: str
    """For operators: a JWT's ``sub``, or ``local`` for the unix socket's owner."""
    kind: PrincipalKind
    """The way in which the identity was proved."""
    expires_at: float | None = None
    """Unix seconds; None for never."""
    scopes: frozenset[Scope] = ALL
    """The principal's permissions (see ``scopes``)."""
    device: str = ""
    """The number of the paired device, which outlives its name; empty for other principals."""

    @property
    def identity(self) -> tuple[str, str]:
        """Equal for a client that comes back with a newer token, or under another device name."""
        return (self.kind, self.device or self.name)

    @property
    def key(self) -> str:
        """The identity as one text. A device's push endpoints are stored under it."""
        return ":".join(self.identity)


def device_key(device: str) -> str:
    """Return the key of a paired device, by its number."""
    return f"device:{device}"


class Owner(msgspec.Struct, frozen=True):
    """The client that registered a tool, or began a turn.

    Program and principal outlive the client's connection.
    """

    client: ClientId
    program: str
    principal: Principal
