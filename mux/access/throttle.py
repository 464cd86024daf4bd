"""Who failed to say who it is: counted, and made to wait for the next answer.

Neither a token nor a ticket can be guessed; what this spares is our CPU and the log. So only
refusals wait. Whoever brings the right thing is let in at once, even from an address (of a proxy,
say) where others fail.

Two things are counted: the address, which many may share, and whose token or ticket it was, where
that is known. An address only slows its refusals and its log lines. Whose failures are too many is
told so (429), and nobody else is.

Hands to: ``routes``, a pause before a refusal. Hears from: ``routes``.
"""

from __future__ import annotations

import ipaddress
import math
from typing import Any, Final

import attrs
import trio

FREE: Final = 3
"""Failures of an address that cost it nothing: a person mistypes."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""Seconds: doubled with each further failure, from the first to the longest."""

FORGOTTEN_AFTER: Final = 600.0
"""Seconds without a failure, after which an address begins anew."""

TOO_MANY: Final = 20
"""Failures after which an address has a log line a minute, not one each; and after which whoever is
known is told no more than that these were too many, until they are forgotten."""

QUIET_SECONDS: Final = 60.0
"""Between two log lines of an address that failed too often."""

MOST_ADDRESSES: Final = 1024
"""Remembered at once, and as many of those who are known; then the one that failed longest ago is
forgotten."""

MOST_WAITING: Final = 64
"""Refusals that wait at once. Past it they go out unpaused: open connections are dearer to us than
to whoever makes them."""

NETWORK_BITS: Final = 64
"""Of an IPv6 address: the rest is its owner's to choose."""


@attrs.define
class _Failed:
    count: int = 0
    last: float = 0.0
    logged: float = -math.inf


@attrs.frozen
class Counted:
    """A failure: how many of its address (or of whose it is) that makes, and what it has earned.

    ``pause`` in seconds; ``loud``: it is worth a line in the log; ``too_many``: of the one whose
    token or ticket it was.
    """

    count: int
    pause: float
    loud: bool
    too_many: bool = False


@attrs.define(eq=False, repr=False)
class LoginThrottle:
    """The failures of each address and of each that is known. ``total``: since the start."""

    total: int = 0
    _addresses: dict[str, _Failed] = attrs.field(factory=dict)
    _known: dict[str, _Failed] = attrs.field(factory=dict)
    _waiting: int = 0

    async def wait(self, counted: Counted) -> None:
        """Wait as long as a failure has earned."""
        if self._waiting < MOST_WAITING:
            self._waiting += 1
            try:
                await trio.sleep(counted.pause)
            finally:
                self._waiting -= 1

    def count(self, address: str, now: float, whose: str = "") -> Counted:
        """Count a failure. ``whose`` token or ticket it was; empty where nobody knows."""
        self.total += 1
        failed = _add(self._addresses, network(address), now)
        loud = failed.count <= TOO_MANY or now - failed.logged >= QUIET_SECONDS
        if loud:
            failed.logged = now
        if not whose:
            return Counted(failed.count, _earned(failed.count), loud)
        known = _add(self._known, whose, now)
        most = max(failed.count, known.count)
        return Counted(most, _earned(most), loud, too_many=known.count > TOO_MANY)

    def status(self) -> dict[str, Any]:
        """For ``mux/status``: in all, and by address."""
        return {
            "total": self.total,
            "addresses": {key: failed.count for key, failed in self._addresses.items()},
        }


def _add(table: dict[str, _Failed], key: str, now: float) -> _Failed:
    failed = table.pop(key, None)
    if failed is None or now - failed.last >= FORGOTTEN_AFTER:
        failed = _Failed()
    failed.count += 1
    failed.last = now
    table[key] = failed  # at the end: the order is that of the last failures
    if len(table) > MOST_ADDRESSES:
        del table[next(iter(table))]
    return failed


def _earned(count: int) -> float:
    if count <= FREE:
        return 0.0
    return min(FIRST_PAUSE * 2.0 ** min(count - FREE - 1, 16), LONGEST_PAUSE)


def network(address: str) -> str:
    """What of a far end's name (``10.0.0.7:5123``, ``[fd7a::1]:5123``, ``unix``) is counted."""
    host = address.rpartition(":")[0].strip("[]") or address
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((ip, NETWORK_BITS), strict=False))
