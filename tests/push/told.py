"""Pushes and endpoints for tests."""

from __future__ import annotations

from typing import Any

from mux.push.endpoints import Endpoint, Service
from mux.push.message import Push

NOW = 1_800_000_000.0


def push(**more: Any) -> Push:
    """An approval with all that it can tell."""
    fields: dict[str, Any] = {
        "id": "p-1",
        "kind": "approval",
        "collapse": "thread-a",
        "expires_at": NOW + 3600,
        "count": 2,
        "title": "Tidy the larder",
        "body": "rm -r jam/",
        "urgent": True,
        "ticket": "ticket-0123456789abcdef",
        "actions": ("approve", "decline"),
    }
    return Push(**fields | more)


def endpoint(
    service: Service, level: Any = "full", device: str = "phone", **address: str
) -> Endpoint:
    """One that is registered."""
    return Endpoint(f"{device}-{service}", device, service, address, level, NOW)
