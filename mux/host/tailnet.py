"""The addresses of this machine, and those of them that are in a Tailnet.

From the kernel on Linux, from ``ifconfig`` elsewhere.
"""

from __future__ import annotations

import fcntl
import ipaddress
import re
import socket
import struct
import sys
from typing import Final

from mux.host.steps import Runner, run

TAILNET: Final = ipaddress.IPv4Network("100.64.0.0/10")
"""The range that Tailscale assigns. Some providers use the range for their customers, too."""

TAILNET_6: Final = ipaddress.IPv6Network("fd7a:115c:a1e0::/48")
"""The range of IPv6 that it assigns."""

USUAL_NAMES: Final = ("tailscale", "utun")
"""Prefixes of the name of Tailscale's interface, on Linux and on macOS."""

_SIOCGIFADDR: Final = 0x8915
_NAME_BYTES: Final = 15


def addresses(runner: Runner = run) -> list[tuple[str, ipaddress.IPv4Address]]:
    """Return (interface, address) of each IPv4 interface."""
    return _of_linux() if sys.platform == "linux" else _of_ifconfig(runner(("ifconfig",)).stdout)


def own(runner: Runner = run) -> list[str]:
    """Return this machine's addresses in the Tailnet's range, the likelier first."""
    candidates = [(name, ip) for name, ip in addresses(runner) if ip in TAILNET]
    candidates.sort(key=lambda each: not each[0].startswith(USUAL_NAMES))
    return [str(ip) for _name, ip in candidates]


def _of_linux() -> list[tuple[str, ipaddress.IPv4Address]]:
    interfaces = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _number, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:_NAME_BYTES])
            try:
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, request)
            except OSError:  # the interface has no IPv4 address
                continue
            # struct ifreq: the name in 16 bytes, then a sockaddr_in with the address in its 4..8.
            interfaces.append((name, ipaddress.IPv4Address(answer[20:24])))
    return interfaces


def _of_ifconfig(output: str) -> list[tuple[str, ipaddress.IPv4Address]]:
    interfaces, name = [], ""
    for line in output.splitlines():
        if heading := re.match(r"(\S+?):", line):
            name = heading[1]
        if inet := re.match(r"\s+inet (?:addr:)?([0-9.]+)", line):
            interfaces.append((name, ipaddress.IPv4Address(inet[1])))
    return interfaces
