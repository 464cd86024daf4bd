"""The addresses of the operator's proxies (``web.trusted_proxies``): read, and compared with."""

from __future__ import annotations

import ipaddress
from typing import Final

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

EXPECTED: Final = (
    'a list of addresses or networks, as ["127.0.0.1", "10.0.4.0/24"]; not of everybody'
)
"""What an error says that the setting takes."""

_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


def plain(text: str) -> Ip:
    """Read an IP address: without its zone, and as IPv4 if it is such a one written as IPv6.

    Raises ``ValueError``.
    """
    ip = ipaddress.ip_address(text.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip


def network(text: str) -> Network:
    """Read one item of ``web.trusted_proxies``.

    Raises ``ValueError`` for what is no address or network, for one with bits behind its length,
    for IPv4 written as IPv6, and for a network of everybody: whoever could name any address.
    """
    found = ipaddress.ip_network(text)
    if found.prefixlen == 0:
        raise ValueError("everybody is no proxy")
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        raise ValueError("IPv4 written as IPv6")
    return found


def are_networks(texts: tuple[str, ...]) -> bool:
    """Return whether all of these texts are addresses or networks."""
    try:
        for text in texts:
            network(text)
    except ValueError:
        return False
    return True
