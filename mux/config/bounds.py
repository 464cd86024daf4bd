"""The least and the greatest values of settings, as far as their types don't tell.

Used by ``model``, and by ``load``, which refuses what is beyond.
"""

from __future__ import annotations

from collections.abc import Mapping

from mux.config.addresses import LARGEST_PORT

MAX_IN_FLIGHT = 128
"""The app-server answers overload to more queued requests, and loses some of the answers."""

MAX_SECONDS = 7 * 24 * 3600
"""A week. A longer wait is a slip of the unit (milliseconds), not a wish."""

BOUNDS: Mapping[str, tuple[float, float | None]] = {
    "auth.max_clock_skew_seconds": (0, MAX_SECONDS),
    "tailnet.port": (1, LARGEST_PORT),
    "limits.in_flight": (1, MAX_IN_FLIGHT),
    "limits.overload_retries": (0, 100),
    "limits.held_early": (0, None),
    "audit.max_age": (0, 10 * 365 * 24 * 3600),
    "push.timeout": (0, 300),
    "push.exec.timeout": (0, 300),
    "approvals.quorum": (2, 100),
}
"""Least and greatest value of a number, where they aren't those of its type (``bounds``)."""

NOT_GREATER: Mapping[str, str] = {
    "limits.in_flight_per_client": "limits.in_flight",
    "limits.message_bytes": "limits.queued_bytes_per_client",
}
"""Numbers that must not be greater than another one: a part of it, or what must fit into it."""
