"""Judges requests of browsers by ``Origin``, ``Host`` and ``Sec-Fetch-*``: pure functions.

A request with one of these headers (but ``Host``) is a browser's. It comes from a page that the
broker served, or from somebody following a link to that page, or it is refused. What is allowed
gives no rights: those are of the session alone (see ``access.sessions``).

Used by ``routes``. Everything is compared exactly as browsers write it: in lower case, without a
default port, IPv6 in brackets and short. What is written otherwise comes from no page of ours.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

from mux.downstream.http.head import RequestHead
from mux.errors import AppmuxError

LOOPBACK_NAMES: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Hosts under which a browser on this machine, or at the other end of ``ssh -L``, reaches a
loopback listener."""

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

SAFE_METHODS: Final = frozenset({b"GET", b"HEAD"})
"""Methods that browsers send without ``Origin`` to the page's own origin."""

SHARE: Final = b"/share"
"""The path to which an installed app's share sheet posts where no worker runs. Browsers give it no
origin; nothing is done with it."""

_AUTHORITY = re.compile(r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?")


class Reach(msgspec.Struct, frozen=True):
    """The way by which a connection reached the broker, as far as browsers are judged by it."""

    scheme: str
    """``http``, or ``https`` where the listener has TLS."""
    host: str
    """The IP address of our end, bare; empty on a unix socket."""
    port: int
    """Our end's port; 0 on a unix socket."""
    origins: frozenset[str] = frozenset()
    """The operator's further origins (``web.origins``)."""
    named: str = ""
    """The listener's origin, where that is by a name alone: its address is none then."""

    @property
    def loopback(self) -> bool:
        """True if only this machine connects there, and whoever has a tunnel to it."""
        if self.named:
            return False
        if not self.host:
            return True
        ip = ipaddress.ip_address(self.host.partition("%")[0])
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return (mapped or ip).is_loopback

    @property
    def own(self) -> str:
        """The origin of our end itself: its name's, else its address's; empty on a unix socket."""
        if self.named:
            return self.named
        return origin_of(self.scheme, self.host, self.port) if self.host else ""


def origin_of(scheme: str, host: str, port: int) -> str:
    """Write an origin as browsers do. ``host`` is an IP address or a name, without brackets."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host
    else:
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        ip = mapped or ip
        name = f"[{ip}]" if isinstance(ip, ipaddress.IPv6Address) else str(ip)
    return f"{scheme}://{name}" + ("" if port == DEFAULT_PORTS.get(scheme) else f":{port}")


def is_origin(text: str) -> bool:
    """Return whether a text is an ``http`` or ``https`` origin, written as browsers write it."""
    scheme, separator, authority = text.partition("://")
    match = _AUTHORITY.fullmatch(authority)
    if scheme not in DEFAULT_PORTS or not separator or match is None:
        return False
    host = match["host"]
    if host.endswith(".") or host.startswith(("-", ".")) or match["port"] is None:
        return not host.endswith(".") and not host.startswith(("-", "."))
    port = int(match["port"])
    return port < 2**16 and port != DEFAULT_PORTS[scheme]


class OriginError(AppmuxError):
    """A text in ``web.origins`` is no origin."""


def require_origins(origins: tuple[str, ...]) -> None:
    """Raise ``OriginError`` if one of the operator's origins isn't written as browsers write it."""
    for text in origins:
        if not is_origin(text):
            raise OriginError(
                f"web.origins: {text!r} is no origin as browsers write it: https://NAME or"
                " https://NAME:PORT, in lower case, without a path and the usual port"
            )


def host_allowed(head: RequestHead, reach: Reach) -> bool:
    """Return whether ``Host`` is a name under which the broker is reached: else a page elsewhere
    has had its own name point to us."""
    host = _only(head, b"host")
    return host is not None and _known_authority(host, reach)


def host_is_address(head: RequestHead) -> bool:
    """Return whether ``Host`` is an IP address or ``localhost``, which nobody else can point to."""
    host = (_only(head, b"host") or "").lower()
    if host.partition(":")[0] == "localhost":
        return True
    bare = host.rpartition("]")[0].strip("[") if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True


def refused(head: RequestHead, path: bytes, reach: Reach) -> str | None:
    """Return why a browser's request is refused, for the log; None if it may go on."""
    if not host_allowed(head, reach):
        return "its Host is no name of the broker's"
    if (wrong := _wrong_fetch(head)) is not None:
        return wrong
    origins = head.values(b"origin")
    if not origins:
        if head.method in SAFE_METHODS and not head.values(b"upgrade"):
            return None
        return None if path == SHARE else "it has no Origin"
    if path == SHARE and origins == [b"null"]:
        return None
    if len(origins) > 1:
        return "it has several Origins"
    origin = origins[0].decode("latin-1")
    return None if _known_origin(origin, head, reach) else "its Origin is none of the broker's"


def _wrong_fetch(head: RequestHead) -> str | None:
    """Return what is wrong with ``Sec-Fetch-*``; not every browser sends them."""
    sites = head.values(b"sec-fetch-site")
    if not sites or sites in ([b"same-origin"], [b"none"]):
        return None
    followed = head.values(b"sec-fetch-mode") == [b"navigate"] and head.values(
        b"sec-fetch-dest"
    ) == [b"document"]
    if sites in ([b"cross-site"], [b"same-site"]) and followed and head.method in SAFE_METHODS:
        return None  # a link: the page opens, with nothing of who linked
    return "another page sent it"


def _known_origin(origin: str, head: RequestHead, reach: Reach) -> bool:
    if origin in reach.origins or (origin == reach.own and origin != ""):
        return True
    scheme, _, authority = origin.partition("://")
    host = _only(head, b"host")
    return reach.loopback and scheme == reach.scheme and authority == host and _is_loopback(host)


def _known_authority(host: str, reach: Reach) -> bool:
    known = {origin.partition("://")[2] for origin in (*reach.origins, reach.own) if origin}
    return host in known or (reach.loopback and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    match = _AUTHORITY.fullmatch(host)
    return match is not None and match["host"] in LOOPBACK_NAMES


def _only(head: RequestHead, name: bytes) -> str | None:
    values = head.values(name)
    return values[0].decode("latin-1") if len(values) == 1 else None
