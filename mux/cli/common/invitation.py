"""An invitation for a device: where the broker is, in a link or a URI.

Used by ``pair`` and ``open``. The address comes from the broker's listeners, its ``web.origins``,
this machine's Tailnet addresses and ``--host``.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import socket
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import quote, urlencode

import attrs

from mux.errors import AppmuxError
from mux.host.tailnet import TAILNET

DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}

_PLACE: Final = re.compile(
    r"(?:(?P<scheme>wss?)://)?(?P<host>\[[0-9a-fA-F:.%\w]+\]|[^\s:/?#\[\]@]+)(?::(?P<port>[0-9]{1,5}))?/?"
)
_LARGEST_PORT: Final = 65535


class PhoneAddressError(AppmuxError):
    """Raised when there is no address at which a phone could reach the broker."""


@attrs.frozen
class PhoneAddress:
    """The address to which a phone connects."""

    scheme: str
    host: str
    """The host, without the brackets of an IPv6 address."""
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The origin of the broker's page at this address."""
        scheme = "https" if self.scheme == "wss" else "http"
        text = str(self).partition("://")[2]
        usual = f":{DEFAULT_PORTS[self.scheme]}"
        return f"{scheme}://{text.removesuffix(usual)}"

    @property
    def by_name(self) -> bool:
        """True if the address is a name, and no IP address."""
        return _ip(self.host) is None

    @property
    def loopback(self) -> bool:
        """True if only this machine reaches the address."""
        ip = _ip(self.host)
        return self.host == "localhost" if ip is None else ip.is_loopback


_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def _ip(host: str) -> _Ip | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# -- where -----------------------------------------------------------------------------------------


def listening(urls: Iterable[str]) -> list[PhoneAddress]:
    """Return the WebSocket listeners among these URLs, unchanged (``0.0.0.0`` and all)."""
    matches = (_PLACE.fullmatch(url) for url in urls if url.startswith(("ws://", "wss://")))
    return [
        PhoneAddress(match["scheme"], match["host"].strip("[]"), int(match["port"]))
        for match in matches
        if match is not None and match["port"]
    ]


def reachable(listeners: Iterable[PhoneAddress], own: Iterable[str]) -> list[PhoneAddress]:
    """Return the addresses at which other machines reach the broker, the best first.

    That is the Tailnet's name, then the other addresses of the Tailnet. ``own`` are those of ours.
    """
    places: list[PhoneAddress] = []
    for listener in listeners:
        ip = _ip(listener.host)
        if ip is not None and ip.is_unspecified:
            places += [attrs.evolve(listener, host=each) for each in own]
        elif not listener.loopback:
            places.append(listener)
    return sorted(dict.fromkeys(places), key=_rank)


def _rank(place: PhoneAddress) -> int:
    ip = _ip(place.host)
    if ip is None:  # the Tailnet's, with a certificate
        return 0
    return 1 if ip.version == 4 and ip in TAILNET else 2  # noqa: PLR2004


def resolve(host: str) -> list[str]:
    """Return the IP addresses of a host name. Raises ``PhoneAddressError``."""
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as failure:
        raise PhoneAddressError(
            f"host unknown: {host!r} has no address; --host takes a name or an IP address of this"
            " machine's"
        ) from failure
    return list(dict.fromkeys(str(each[4][0]) for each in addresses))


def named(
    host: str, listeners: list[PhoneAddress], addresses: Callable[[str], list[str]] = resolve
) -> PhoneAddress:
    """Return the address of ``--host``: ``HOST``, ``HOST:PORT``, or a whole ``wss://HOST[:PORT]``.

    A whole address is taken as it is: a proxy may forward it. For any other, the broker must listen
    there. Raises ``PhoneAddressError``.
    """
    bare = _ip(host)
    match = _PLACE.fullmatch(f"[{host}]" if bare is not None and bare.version == 6 else host)  # noqa: PLR2004
    if match is None or int(match["port"] or 0) > _LARGEST_PORT:
        raise PhoneAddressError(
            f"{host!r} is no host: write a name, an IP address, or wss://NAME:PORT"
        )
    name, port = match["host"].strip("[]"), match["port"] and int(match["port"])
    if match["scheme"]:
        return PhoneAddress(match["scheme"], name, port or DEFAULT_PORTS[match["scheme"]])
    for listener in listeners:
        if listener.host == name and port in (None, listener.port):
            return listener
    ips = [_ip(each) for each in addresses(name)]
    for listener in listeners:
        at = _ip(listener.host)
        served = at in ips or (at is not None and at.is_unspecified)
        if served and (not port or port == listener.port):
            return attrs.evolve(listener, host=name)
    raise PhoneAddressError(
        f"the broker doesn't listen at {host}, but at {_listed(listeners)}: add `--listen"
        f" ws://IP:14500` to `appmux serve`, or write the whole address (`--host wss://{name}:443`)"
        " if a proxy there passes it on"
    )


def _listed(listeners: Iterable[PhoneAddress]) -> str:
    return ", ".join(map(str, listeners)) or "no TCP address"


# -- where a page works ----------------------------------------------------------------------------


def page_origin(listeners: list[PhoneAddress], own: Iterable[str], named: Iterable[str]) -> str:
    """Return the origin under which a browser reaches the broker's page, the best there is.

    That is one over https, for every device; else one on loopback, for this machine. Over plain
    http browsers make no keys elsewhere. ``named`` are the broker's ``web.origins``, ``own`` our
    addresses in the Tailnet. Raises ``PhoneAddressError`` if there is none.
    """
    secure = [origin for origin in named if origin.startswith("https://")]
    secure += [place.origin for place in reachable(listeners, own) if place.scheme == "wss"]
    if secure:
        return secure[0]
    for listener in listeners:
        ip = _ip(listener.host)
        if ip is not None and ip.is_unspecified:
            return attrs.evolve(listener, host="127.0.0.1" if ip.version == 4 else "::1").origin  # noqa: PLR2004
        if listener.loopback:
            return listener.origin
    raise PhoneAddressError(
        f"browsers need https or loopback, and the broker listens at {_listed(listeners)}: add"
        " `--listen ws://127.0.0.1:14500` to `appmux serve`, or pair an app by `appmux pair --app`"
    )


def is_loopback(origin: str) -> bool:
    """Return whether only this machine reaches an origin."""
    host = origin.partition("://")[2].rpartition(":")[0] or origin.partition("://")[2]
    return PhoneAddress("ws", host.strip("[]"), 0).loopback


# -- how it is told --------------------------------------------------------------------------------


def page_link(origin: str, ticket: str) -> str:
    """Return the link that a browser is paired by.

    The ticket stands behind the ``#``, which browsers keep to themselves.
    """
    return f"{origin}/#pair={ticket}"


def pair_uri(place: PhoneAddress, ticket: str) -> str:
    """Return ``appmux://pair?…``: what an app needs to exchange the ticket."""
    params = {"scheme": place.scheme, "host": place.host, "port": place.port, "ticket": ticket}
    return "appmux://pair?" + urlencode(params, quote_via=quote)


def novascale_uri(place: PhoneAddress, name: str, token: str) -> str:
    """Return the URI that the NovaScale app imports."""
    payload = {
        "type": "novascale-codex-host",
        "version": 1,
        "name": name,
        "host": place.host,
        "port": place.port,
        "scheme": place.scheme,
        "auth": {"mode": "capability-token", "token": token},
    }
    text = json.dumps(payload, separators=(",", ":")).encode()
    encoded = base64.urlsafe_b64encode(text).rstrip(b"=").decode()
    return f"novascale-codex://import?payload={encoded}"
