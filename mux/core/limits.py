"""Every limit of the core in one place, each with its reason.

Read by ``broker``, ``flow`` and ``approvals``; part of ``mux.config.Config``.
"""

from __future__ import annotations

import attrs

MIB = 1024 * 1024


def _limit(default: float, reason: str) -> float:
    return attrs.field(default=default, metadata={"reason": reason})


def _count(default: int, reason: str) -> int:
    return attrs.field(default=default, metadata={"reason": reason})


@attrs.frozen
class Limits:
    """Bounds of one broker. Times in seconds, sizes in bytes, the rest are counts."""

    message_bytes: int = _count(
        64 * MIB, "what the native listener takes; a larger message closes its client with 1009"
    )
    in_flight: int = _count(
        64, "past about 128 queued requests the app-server answers overload and loses some answers"
    )
    in_flight_per_client: int = _count(
        32, "half of the whole, so one client's burst always leaves slots to the others"
    )
    waiting_per_client: int = _count(
        256, "requests that wait for something outside (a command's end) hold memory, not a slot"
    )
    queued_per_client: int = _count(
        1024, "a pipelined burst of 1,000 is taken whole; more is answered -32001"
    )
    queued_bytes_per_client: int = _count(
        128 * MIB, "two messages of the largest size; a client can't fill the host's memory"
    )
    request_deadline: float = _limit(
        120.0, "twice the slowest answer seen; after it the asker gets an error, never silence"
    )
    one_client_deadline: float = _limit(
        10.0, "a request put to one client (token refresh) goes on to the next after this"
    )
    overload_retries: int = _count(8, "with doubling waits this covers about 13 s of overload")
    overload_first_wait: float = _limit(0.05, "the app-server's queue drains in milliseconds")
    held_early: int = _count(
        1024, "notifications of a thread whose creator isn't known yet, until its answer comes"
    )
    outbox_bytes: int = _count(
        64 * MIB, "owed to one client before it is cut; the native limit is 32,768 messages"
    )
    drain: float = _limit(10.0, "systemd's default stop timeout is 90 s; people wait less")
