"""Who a client is, once authenticated.

Made by ``auth`` (shell), carried by ``ClientAttached``, kept beside the client's protocol state.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mux.core.policy.scopes import ALL
from mux.core.protocol.scope import Scope

ClientId = int
"""The broker's own number for one attached client; never used again after it left."""


PrincipalKind = Literal["local-user", "capability-token", "jwt", "device", "open"]


class Principal(msgspec.Struct, frozen=True):
    """One authenticated identity.

    ``name`` is what operators see (a JWT's ``sub``, ``local`` for the unix socket's owner);
    ``kind`` says how it was proved; ``expires_at`` is Unix seconds, or None for never. ``scopes``:
    what it may do (see ``scopes``). ``device``: the paired device's number, which outlives its
    name; empty for others.
    """

    name: str
    kind: PrincipalKind
    expires_at: float | None = None
    scopes: frozenset[Scope] = ALL
    device: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """The same for whoever comes back: with a newer token, or under another device name."""
        return (self.kind, self.device or self.name)

    @property
    def key(self) -> str:
        """The identity as one text, by which a device's push endpoints are kept."""
        return ":".join(self.identity)


def device_key(device: str) -> str:
    """The key of a paired device, by its number."""
    return f"device:{device}"


class Owner(msgspec.Struct, frozen=True):
    """Who registered a tool, or began a turn. Program and principal outlive its connection."""

    client: ClientId
    program: str
    principal: Principal
