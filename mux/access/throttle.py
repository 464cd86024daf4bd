"""Counts failures to authenticate, and delays the refusals that answer them.

Neither a token nor a ticket can be guessed; the throttle spares our CPU and the log. So only
refusals wait. A client with valid credentials is let in at once, even from an address (of a proxy,
say) where others fail.

Failures are counted by address, which many may share, and by the owner of the token or ticket,
where it is known. Failures of an address only slow its refusals and its log lines. An owner with
too many failures gets a 429, and nobody else does.

Used by ``downstream``, before each refusal.
"""

from __future__ import annotations

import functools
import ipaddress
import math
from typing import Any, Final

import msgspec
import trio

from mux.config.addresses import host_of
from mux.config.proxies import plain
from mux.core.part import Part

FREE: Final = 3
"""Failures of an address that aren't delayed: a person mistypes."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""Seconds that a refusal waits: doubled with each failure, from the first to the longest."""

FORGOTTEN_AFTER: Final = 600.0
"""Seconds without a failure, after which the count starts again."""

TOO_MANY: Final = 20
"""Failures after which an address gets a log line a minute instead of one for each failure. A known
owner then learns only that there were too many, until they are forgotten."""

QUIET_SECONDS: Final = 60.0
"""Time between two log lines of an address that failed too often."""

MOST_ADDRESSES: Final = 1024
"""Addresses to remember at once, and as many known owners. Past it, the one that failed longest ago
is forgotten."""

MOST_WAITING: Final = 64
"""Refusals that wait at once. Past it they go out without a pause: open connections cost us more
than the peers that make them."""

MOST_HOSTS: Final = 256
"""Hosts whose network is remembered: parsing an address takes a fiftieth of an attach, and those
that come mostly come again."""

NETWORK_BITS: Final = 64
"""Bits of an IPv6 address that are counted: its owner chooses the rest."""


class _Failed(msgspec.Struct):
    count: int = 0
    last: float = 0.0
    logged: float = -math.inf


class FailureCount(msgspec.Struct, frozen=True):
    """A failure that was counted, and what follows from it."""

    count: int
    """Failures so far of its address, or of the known owner if those are more."""
    pause: float
    """Seconds to wait before the refusal."""
    loud: bool
    """True if it is worth a line in the log."""
    too_many: bool = False
    """True if the owner of the token or ticket has failed too often."""


class LoginThrottle(Part):
    """The failures of each address and of each known owner of a token or ticket."""

    total: int = 0
    """All failures since the start."""
    _addresses: dict[str, _Failed] = msgspec.field(default_factory=dict)
    _known: dict[str, _Failed] = msgspec.field(default_factory=dict)
    _waiting: int = 0

    async def wait(self, counted: FailureCount) -> None:
        """Wait as long as a failure has earned, unless `MOST_WAITING` wait already."""
        if self._waiting < MOST_WAITING:
            self._waiting += 1
            try:
                await trio.sleep(counted.pause)
            finally:
                self._waiting -= 1

    def count(self, address: str, now: float, whose: str = "") -> FailureCount:
        """Count a failure. ``whose`` names the owner of the token or ticket; empty if unknown."""
        self.total += 1
        failed = _add(self._addresses, network(address), now)
        loud = failed.count <= TOO_MANY or now - failed.logged >= QUIET_SECONDS
        if loud:
            failed.logged = now
        if not whose:
            return FailureCount(failed.count, _earned(failed.count), loud)
        known = _add(self._known, whose, now)
        most = max(failed.count, known.count)
        return FailureCount(most, _earned(most), loud, too_many=known.count > TOO_MANY)

    def status(self) -> dict[str, Any]:
        """Return the failures for ``mux/status``: in all, and by address."""
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
    table[key] = failed  # moved to the end: the table is in the order of last failures
    if len(table) > MOST_ADDRESSES:
        del table[next(iter(table))]
    return failed


def _earned(count: int) -> float:
    if count <= FREE:
        return 0.0
    return min(FIRST_PAUSE * 2.0 ** min(count - FREE - 1, 16), LONGEST_PAUSE)


def network(address: str) -> str:
    """Return the part of a peer's name that is counted: an IPv4 address, an IPv6 /64, or ``unix``.

    The name is as ``host_of`` has it.
    """
    return _network(host_of(address))


@functools.lru_cache(maxsize=MOST_HOSTS)
def _network(host: str) -> str:
    try:
        ip = plain(host)
    except ValueError:
        return host
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ipaddress.IPv6Network((ip, NETWORK_BITS), strict=False))
