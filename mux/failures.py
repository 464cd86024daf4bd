"""Who failed to say who it is: counted by address, and made to wait for the next answer.

A token can't be guessed; this keeps the trying cheap for us and slow for others. Only refusals
wait: whoever is let in is let in at once, even from an address (of a proxy, say) where others fail.

Hands to: ``door``, a pause before a refusal. Hears from: ``door``.
"""

from __future__ import annotations

import ipaddress
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
"""Failures after which an address may not try to pair at all, until they are forgotten."""

MOST_ADDRESSES: Final = 1024
"""Remembered at once; then the one that failed longest ago is forgotten."""

MOST_WAITING: Final = 64
"""Refusals that wait at once. Past it they go out unpaused: open connections are dearer to us than
to whoever makes them."""

NETWORK_BITS: Final = 64
"""Of an IPv6 address: the rest is its owner's to choose."""


@attrs.define
class _Failed:
    count: int = 0
    last: float = 0.0


@attrs.define(eq=False, repr=False)
class Failures:
    """The failures of each address. ``total``: since the start, for the metrics."""

    total: int = 0
    _addresses: dict[str, _Failed] = attrs.field(factory=dict)
    _waiting: int = 0

    async def pause(self, address: str) -> int:
        """Count a failure, and wait as long as it has earned; how many that makes."""
        count, seconds = self.count(address, trio.current_time())
        if self._waiting < MOST_WAITING:
            self._waiting += 1
            try:
                await trio.sleep(seconds)
            finally:
                self._waiting -= 1
        return count

    def count(self, address: str, now: float) -> tuple[int, float]:
        """Count a failure: how many of this address that makes, and the pause in seconds."""
        self.total += 1
        key = network(address)
        failed = self._addresses.pop(key, None)
        if failed is None or now - failed.last >= FORGOTTEN_AFTER:
            failed = _Failed()
        failed.count += 1
        failed.last = now
        self._addresses[key] = failed  # at the end: the order is that of the last failures
        if len(self._addresses) > MOST_ADDRESSES:
            del self._addresses[next(iter(self._addresses))]
        if failed.count <= FREE:
            return failed.count, 0.0
        doubled = FIRST_PAUSE * 2.0 ** min(failed.count - FREE - 1, 16)
        return failed.count, min(doubled, LONGEST_PAUSE)

    def too_many(self, address: str, now: float) -> bool:
        """Whether this address has failed too often to be heard."""
        failed = self._addresses.get(network(address))
        if failed is None or now - failed.last >= FORGOTTEN_AFTER:
            return False
        return failed.count >= TOO_MANY

    def facts(self) -> dict[str, Any]:
        """For ``mux/status``: in all, and by address."""
        return {
            "total": self.total,
            "addresses": {key: failed.count for key, failed in self._addresses.items()},
        }


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
