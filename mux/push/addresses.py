"""Checks the addresses that devices register, before anything is sent there.

A URL comes from whoever may register. The broker must not be made to call services of its own host
or network: so only ``https`` to public addresses is allowed, unless the settings name the host.
This module checks the text of the URL; ``http_client`` checks what its name resolves to, at each
connection.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

from mux.push.endpoints import SERVICES, Service
from mux.push.message import PushError

LONGEST: Final = 2048
"""Characters of any one field: push services' URLs have some 200, FCM's tokens 160 to 300."""

FIELDS: Final[Mapping[Service, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "apns": (("token", "environment"), ()),
    "fcm": (("token",), ()),
    "webpush": (("endpoint", "p256dh", "auth"), ()),
    "unifiedpush": (("endpoint",), ("p256dh", "auth")),
    "ntfy": (("server", "topic"), ("token",)),
}
"""The required and the optional fields of each service's address. Other services come from the
settings alone."""

POINT: Final = 65
AUTH: Final = 16
"""Bytes of a browser's public key (``POINT``) and of its secret (RFC 8291)."""

_APNS_TOKEN = re.compile(r"[0-9a-fA-F]{64,200}")
_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
_PLAIN = re.compile(r"[\x21-\x7e]+")


def check(
    service: str, given: Mapping[str, object], private_hosts: Collection[str]
) -> tuple[Service, dict[str, str]]:
    """Return the service and the address, ready for `Endpoints.add`.

    Raises ``PushError`` if they can't be used; its text says what is wrong and what to do.
    """
    known = next((each for each in SERVICES if each == service and each in FIELDS), None)
    if known is None:
        raise PushError(
            f"a device can't register for the service {service!r}: one of {', '.join(FIELDS)}"
        )
    needed, more = FIELDS[known]
    unknown = sorted(given.keys() - {*needed, *more})
    missing = [name for name in needed if not given.get(name)]
    if unknown or missing:
        wrong = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown)} besides"
        raise PushError(f"an address for {known} {wrong}: it has {_list(needed, more)}")
    address = {name: _text(known, name, given[name]) for name in given if given[name] is not None}
    _CHECKS[known](address, private_hosts)
    return known, address


def _list(needed: tuple[str, ...], more: tuple[str, ...]) -> str:
    return ", ".join(needed) + (f", perhaps {', '.join(more)}" if more else "")


def _text(service: str, name: str, value: object) -> str:
    if isinstance(value, str) and len(value) <= LONGEST and _PLAIN.fullmatch(value):
        return value
    raise PushError(
        f"{service}: {name} must be a text of 1 to {LONGEST} ASCII characters without spaces"
    )


def _apns(address: dict[str, str], _hosts: Collection[str]) -> None:
    if not _APNS_TOKEN.fullmatch(address["token"]):
        raise PushError("apns: token must be the device token in hex, 64 digits or more")
    address["token"] = address["token"].lower()
    if address["environment"] not in ("production", "sandbox"):
        raise PushError(
            'apns: environment must be "production" (TestFlight, App Store) or "sandbox" (Xcode)'
        )


def _fcm(address: dict[str, str], _hosts: Collection[str]) -> None:
    pass  # Google promises no format of tokens


def _webpush(address: dict[str, str], hosts: Collection[str]) -> None:
    check_url("webpush: endpoint", address["endpoint"], hosts)
    point, auth = (_bytes("webpush", name, address[name]) for name in ("p256dh", "auth"))
    if len(point) != POINT or point[0] != 4 or len(auth) != AUTH:  # noqa: PLR2004 (uncompressed)
        raise PushError(
            "webpush: p256dh must be an uncompressed P-256 point (65 bytes) and auth 16 bytes, both"
            " in base64url, as PushSubscription.getKey() gives them"
        )


def _unifiedpush(address: dict[str, str], hosts: Collection[str]) -> None:
    if ("p256dh" in address) != ("auth" in address):
        raise PushError("unifiedpush: p256dh and auth come together, or neither: without them"
                        " nothing is encrypted")  # fmt: skip
    if "auth" in address:
        _webpush(address, hosts)
    else:
        check_url("unifiedpush: endpoint", address["endpoint"], hosts)


def _ntfy(address: dict[str, str], hosts: Collection[str]) -> None:
    check_url("ntfy: server", address["server"], hosts)
    address["server"] = address["server"].rstrip("/")
    if not _TOPIC.fullmatch(address["topic"]):
        raise PushError("ntfy: topic must be 1 to 64 letters, digits, - and _")


_CHECKS: Final = {
    "apns": _apns,
    "fcm": _fcm,
    "webpush": _webpush,
    "unifiedpush": _unifiedpush,
    "ntfy": _ntfy,
}


def _bytes(service: str, name: str, text: str) -> bytes:
    try:
        return decoded(text)
    except (ValueError, binascii.Error):
        raise PushError(f"{service}: {name} isn't base64url") from None


def decoded(text: str) -> bytes:
    """Decode base64url, padded or not. Raises ``ValueError``."""
    if not re.fullmatch(r"[-_A-Za-z0-9]+={0,2}", text):
        raise ValueError("not base64url")
    bare = text.rstrip("=")
    return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))


# -- URLs ------------------------------------------------------------------------------------------


def check_url(what: str, url: str, private_hosts: Collection[str]) -> None:
    """Refuse a URL that a stranger mustn't make this host call. Raises ``PushError``."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        odd = "@" in parts.netloc or parts.fragment or parts.scheme not in ("http", "https")
    except ValueError:
        raise PushError(f"{what} isn't a URL") from None
    if not host or odd:
        raise PushError(f"{what} must be a URL as https://HOST/PATH, without a name or password")
    if named(host, port, private_hosts):
        return
    if parts.scheme != "https":
        raise PushError(
            f"{what} must be https://: plain http only goes to hosts in `push.private_hosts`"
        )
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return  # a name: what it resolves to is checked at each connection
    if not public(address):
        raise PushError(
            f"{what} is at an address of this host or its network: only hosts in"
            " `push.private_hosts` may be"
        )


def named(host: str, port: int | None, private_hosts: Collection[str]) -> bool:
    """Return whether the settings allow this host at this port, whatever its address."""
    low = host.lower()
    allowed = {each.lower() for each in private_hosts}
    return low in allowed or f"{low}:{port}" in allowed or f"[{low}]:{port}" in allowed


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SPECIAL_4: Final = tuple(map(ipaddress.IPv4Network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
    "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4",
)))  # fmt: skip
"""IANA's registry of special-purpose addresses, and multicast. Some in it are reachable from
everywhere (anycast of relays and name servers) and lead to the nearest; no push service is
there."""

_GLOBAL_6: Final = ipaddress.IPv6Network("2000::/3")
"""All addresses that were ever given out of IPv6. Those outside are of this host or its network, or
translated to an IPv4 address, private ones among them (64:ff9b::/96, 64:ff9b:1::/48,
::ffff:0:0/96)."""

_SPECIAL_6: Final = tuple(map(ipaddress.IPv6Network, (
    "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)))  # fmt: skip
"""IANA's registry for IPv6: Teredo and 6to4, which hold IPv4 addresses, documentation, and the
like."""

_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""The first half of an interface identifier that holds an IPv4 address (RFC 5214)."""


def public(address: _Address) -> bool:
    """Return whether the address is public: not of this host, its networks or a special range.

    The tables are our own, as Python's answers differ between its versions.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    return (
        address in _GLOBAL_6
        and not any(address in network for network in _SPECIAL_6)
        and int(address) >> 32 & 0xFFFF_FFFF not in _ISATAP
    )
