"""What a device says of where it is reached, checked before anything is sent there.

A URL comes from whoever may register, so the broker must not be made to knock at the doors of its
own host or network: only ``https`` to public addresses, unless the settings name the host. Here the
text is judged; ``web`` judges what its name resolves to, at each connection.

Hands to: ``sender``, an address as ``endpoints`` keeps it. Hears from: ``sender``, the client's.
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
from mux.push.push import PushError

LONGEST: Final = 2048
"""Characters of any one field: push services' URLs have some 200, FCM's tokens 160 to 300."""

FIELDS: Final[Mapping[Service, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "apns": (("token", "environment"), ()),
    "fcm": (("token",), ()),
    "webpush": (("endpoint", "p256dh", "auth"), ()),
    "unifiedpush": (("endpoint",), ("p256dh", "auth")),
    "ntfy": (("server", "topic"), ("token",)),
}
"""What an address has, and what it may have besides. The rest comes from the settings alone."""

POINT: Final = 65
AUTH: Final = 16
"""Bytes of a browser's public key and of its secret (RFC 8291)."""

_APNS_TOKEN = re.compile(r"[0-9a-fA-F]{64,200}")
_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
_PLAIN = re.compile(r"[\x21-\x7e]+")


def check(
    service: str, given: Mapping[str, object], private_hosts: Collection[str]
) -> tuple[Service, dict[str, str]]:
    """The service and the address, if they can be used. Raises ``PushError``: what, what to do."""
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
    pass  # its tokens have no form that Google promises


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
    """Base64url, padded or not. Raises ``ValueError``."""
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
        return  # a name: what it resolves to is judged when it is called
    if not public(address):
        raise PushError(
            f"{what} is at an address of this host or its network: only hosts in"
            " `push.private_hosts` may be"
        )


def named(host: str, port: int | None, private_hosts: Collection[str]) -> bool:
    """Whether the settings allow this host, at this port, whatever its address."""
    low = host.lower()
    allowed = {each.lower() for each in private_hosts}
    return low in allowed or f"{low}:{port}" in allowed or f"[{low}]:{port}" in allowed


def public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is on the Internet at large: not this host, its networks, or a special range."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return public(inner)
        if address.teredo is not None or address in _NAT64:
            return False
    return address.is_global and not address.is_multicast


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
"""Leads to any IPv4 address, private ones among them."""
