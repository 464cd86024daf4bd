"""Reads what tailscaled says of this machine in its Tailnet, and what keeps it from https.

Pure. Used by ``tailscaled``, which asks, and by whoever tells a person what to do.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

from mux.errors import AppmuxError

RUNNING: Final = "Running"
"""The only state in which a node is reached."""

DNS_PAGE: Final = "https://login.tailscale.com/admin/dns"

SWITCHED_OFF: Final = (
    f"open {DNS_PAGE} (or have an admin of the tailnet do it), switch MagicDNS on if it isn't, and"
    " click *Enable HTTPS* under *HTTPS Certificates*; then run `appmux tailnet enable`"
)

RESTART: Final = "run `sudo systemctl restart tailscaled`"
BUSY: Final = "`journalctl -u tailscaled` (on a Mac: its app) says more; it is tried again"

_UP: Final = "run `sudo tailscale up`"
_STATES: Final = {
    "NeedsLogin": ("Tailscale isn't logged in here", _UP),
    "Stopped": ("Tailscale is stopped here", _UP),
    "NeedsMachineAuth": (
        "this machine isn't approved in the tailnet",
        "have an admin of the tailnet approve it: https://login.tailscale.com/admin/machines",
    ),
}
"""For people: what a state means, and what to do. In any other state Tailscale is starting."""

_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9-]+)+")


class TailscaledError(AppmuxError):
    """tailscaled can't be asked, or refuses. The text says what is, ``remedy`` what to do.

    ``again_soon``: asking again costs nobody anything, as no certificate was ordered.
    """

    def __init__(self, text: str, remedy: str, *, again_soon: bool = True) -> None:
        super().__init__(text)
        self.remedy = remedy
        self.again_soon = again_soon


class Trouble(msgspec.Struct, frozen=True):
    """A fault, and what to do about it."""

    text: str
    remedy: str


class Node(msgspec.Struct, frozen=True):
    """A machine in its Tailnet: this one."""

    state: str
    """tailscaled's own word: ``Running``, ``Stopped``, ``NeedsLogin``, …"""
    name: str = ""
    """The DNS name, in lower case and without a trailing dot; empty if there is none."""
    addresses: tuple[str, ...] = ()
    """IPv4 and IPv6."""
    certified: tuple[str, ...] = ()
    """The names for which tailscaled gets certificates; none where HTTPS is off in the tailnet."""

    def require_https(self) -> None:
        """Raise ``TailscaledError`` if this machine can't have a certificate as things are."""
        if self.state != RUNNING:
            starting = (f"Tailscale is starting here ({self.state})", "wait a moment")
            raise TailscaledError(*_STATES.get(self.state, starting))
        if not self.name or not self.certified:
            raise TailscaledError("HTTPS is off in this tailnet", SWITCHED_OFF)
        if self.name not in self.certified:
            names = ", ".join(self.certified)
            raise TailscaledError(
                f"tailscaled gets certificates for {names}, not for {self.name}",
                "see the machine's name in https://login.tailscale.com/admin/machines",
            )


class _Self(msgspec.Struct, rename="pascal"):
    dns_name: str = msgspec.field(default="", name="DNSName")
    tailscale_ips: list[str] | None = msgspec.field(default=None, name="TailscaleIPs")


class _Status(msgspec.Struct, rename="pascal"):
    backend_state: str
    cert_domains: list[str] | None = None
    self_: _Self | None = msgspec.field(default=None, name="Self")


def read(status: bytes) -> Node:
    """Return what a status of tailscaled's says. Raises ``TailscaledError``."""
    try:
        read = msgspec.json.decode(status, type=_Status)
        own = read.self_ or _Self()
        addresses = tuple(str(ipaddress.ip_address(each)) for each in own.tailscale_ips or ())
    except (msgspec.DecodeError, ValueError) as failure:
        raise TailscaledError(
            f"tailscaled's status can't be read: {failure}", "`tailscale version` tells its version"
        ) from failure
    name = _plain(own.dns_name)
    if name and not _NAME.fullmatch(name):
        raise TailscaledError(f"tailscaled calls this machine {name!r}", "give it a DNS name")
    certified = tuple(_plain(each) for each in read.cert_domains or ())
    return Node(read.backend_state, name, addresses, certified)


def _plain(name: str) -> str:
    return name.removesuffix(".").lower()
