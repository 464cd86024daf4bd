"""Headers by which proxies tell of a request: that one passed it on, and whom it is from.

That a request was passed on is believed of everybody: nobody gains by saying so. Whom it is from is
believed of the proxies in ``web.trusted_proxies`` alone. Under which names the broker is reached no
header says at all (see ``origins``).

Used by ``routes`` and ``upgrade``, on a head that was read in either of the two ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from mux.config.addresses import host_of
from mux.config.proxies import Ip, Network, network, plain
from mux.downstream.http.head import RequestHead

FORWARDED_FOR: Final = b"x-forwarded-for"
FORWARDED_PROTO: Final = b"x-forwarded-proto"

SAID_BY_PROXIES: Final = frozenset(
    {
        # The standards: RFC 7239, RFC 9110 (a proxy must send it, though nginx doesn't), RFC 8586.
        b"forwarded", b"via", b"cdn-loop",
        # What all of them send, once they are told to say who comes.
        b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port",
        b"x-forwarded-server", b"x-forwarded-prefix", b"x-forwarded-scheme", b"x-forwarded-ssl",
        b"x-forwarded-user", b"x-forwarded-email", b"x-forwarded-client-cert", b"x-forwarded",
        b"x-original-forwarded-for", b"x-original-url",
        # nginx's usual name, and those of other servers.
        b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"x-envoy-external-address",
        # Networks that pass on for others.
        b"cf-connecting-ip", b"cf-ray", b"true-client-ip", b"fastly-client-ip", b"fly-client-ip",
        b"x-azure-clientip", b"x-appengine-user-ip",
        # `tailscale serve`, which says who comes, and whether by Funnel.
        b"tailscale-user-login", b"tailscale-user-name", b"tailscale-user-profile-pic",
        b"tailscale-headers-info", b"tailscale-app-capabilities", b"tailscale-funnel-request",
    }
)  # fmt: skip
"""Headers that a reverse proxy adds and no client has a reason to.

What clients send too isn't among them: trace ids, ``proxy-connection``. They are whole names, as
one look-up for each header is all that an attach can spare.
"""

MOST_HOPS: Final = 16
"""Most entries of ``X-Forwarded-For`` that are read, from the right: no real chain has as many, and
a client can send thousands."""

_ENTRY: Final = re.compile(
    rb"(?:(?P<v4>[0-9.]{7,15})(?::[0-9]{1,5})?"
    rb"|\[(?P<v6>[0-9a-fA-F:.]{2,45})(?:%[\w.-]{1,32})?\](?::[0-9]{1,5})?"
    rb"|(?P<bare>[0-9a-fA-F:.]{2,45})(?:%[\w.-]{1,32})?)"
)
"""An address, perhaps with a port; IPv6 in brackets or not, perhaps with a zone."""

_SECURE: Final = {b"https": True, b"wss": True, b"http": False, b"ws": False}


def passed_on(head: RequestHead) -> bool:
    """Return whether a request says that a proxy passed it on."""
    return not SAID_BY_PROXIES.isdisjoint(head.headers)


class Forwarding(msgspec.Struct, frozen=True):
    """A trusted proxy's account of a request."""

    proxy: str
    """The proxy's own address."""
    client: str
    """The client's name, without a port; empty if the proxy doesn't know it."""
    secure: bool | None
    """Whether the client came encrypted; None if the proxy doesn't say."""


class TrustedProxies(msgspec.Struct, frozen=True):
    """The proxies whose word on clients counts: ``web.trusted_proxies``."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def named(cls, texts: Iterable[str]) -> TrustedProxies:
        """Return the proxies of the setting, which was checked when it was loaded."""
        return cls(tuple(network(text) for text in texts))

    def trusts(self, peer: str) -> bool:
        """Return whether a peer, by its name, is one of them."""
        if not self.networks:
            return False
        ip = _ip_of(host_of(peer))
        return ip is not None and self._has(ip)

    def forwarding(self, peer: str, head: RequestHead) -> Forwarding | None:
        """Return what a peer says of a request that it passed on; None if it isn't to be believed.

        The client is the right-most in ``X-Forwarded-For`` that isn't trusted: each of them appends
        whom it had it from, and what stands further left is what a client made up. Where that is no
        address ("unknown", a name made up to hide one), the client is the proxy that said so.
        """
        if not self.trusts(peer) or not passed_on(head):
            return None
        client: Ip | None = None
        for entry in _from_the_right(head.values(FORWARDED_FOR)):
            ip = address_in(entry)
            if ip is None:
                break
            client = ip
            if not self._has(ip):
                break
        return Forwarding(host_of(peer), "" if client is None else named(client), _secure(head))

    def _has(self, ip: Ip) -> bool:
        return any(ip in each for each in self.networks)


def address_in(entry: bytes) -> Ip | None:
    """Read one entry of ``X-Forwarded-For``; None if it is no address."""
    match = _ENTRY.fullmatch(entry.strip())
    if match is None:
        return None
    return _ip_of((match["v4"] or match["v6"] or match["bare"]).decode("ascii"))


def named(ip: Ip) -> str:
    """Return the name of a peer of which only the address is known."""
    return str(ip) if ip.version == 4 else f"[{ip}]"  # noqa: PLR2004


@lru_cache(maxsize=64)  # a few proxies, and those that come by them at once
def _ip_of(text: str) -> Ip | None:
    try:
        return plain(text)
    except ValueError:
        return None


def _from_the_right(values: list[bytes]) -> list[bytes]:
    """Return the last entries of a header that may stand several times, the last one first."""
    pieces = (value.rsplit(b",", MOST_HOPS) for value in reversed(values))
    return [entry for each in pieces for entry in reversed(each)][:MOST_HOPS]


def _secure(head: RequestHead) -> bool | None:
    """Return what the nearest proxy says of the encryption: it is the last one to have written."""
    for value in reversed(head.values(FORWARDED_PROTO)):
        return _SECURE.get(value.rpartition(b",")[2].strip().lower())
    return None
