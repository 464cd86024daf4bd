"""Addresses to listen on: read and check a ``--listen`` URL, without opening a socket."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path

import attrs
import msgspec

from mux.config.locate import CONTROL_SOCKET
from mux.errors import AppmuxError

LARGEST_PORT = 65535

LOCAL = "+local"
"""Follows ``ws`` or ``wss`` in a listen URL.

Part of the scheme, not a query: no shell wants a scheme quoted, and the list in a variable is split
at commas only.
"""


class ListenUrlError(AppmuxError):
    """A ``--listen`` URL can't be read; the error texts are the app-server's."""

    exit_status = 2


class OpenDoorError(AppmuxError):
    """A listener would be reachable from other machines without authentication."""


@attrs.frozen
class TcpAddress:
    """A TCP address to listen on: ``ws://IP:PORT`` or ``wss://IP:PORT``."""

    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int
    """0: the kernel chooses the port."""
    tls: bool = False
    """The scheme is ``wss``."""
    local: bool = attrs.field(default=False, eq=False)
    """Written ``ws+local://`` or ``wss+local://``.

    The operator declares by it that nothing forwards connections from elsewhere to this address, so
    every client is on this host. Clients needn't know.
    """

    @property
    def url(self) -> str:
        """The URL that clients connect to."""
        return f"{'wss' if self.tls else 'ws'}://{self}"

    @property
    def loopback(self) -> bool:
        """True if only this host's programs can connect to it."""
        # Not ``is_loopback``: its answer for ::ffff:127.0.0.1 depends on Python's version.
        return self.ip in _LOOPBACK_4 or self.ip == _LOOPBACK_6

    def __str__(self) -> str:
        host = f"[{self.ip}]" if self.ip.version == 6 else str(self.ip)  # noqa: PLR2004
        return f"{host}:{self.port}"


class UnixAddress(msgspec.Struct, frozen=True):
    """A unix socket to listen on, by its absolute path: ``unix://PATH``."""

    path: Path
    control: bool = False
    """Codex's own control socket."""

    def __str__(self) -> str:
        return str(self.path)


Address = TcpAddress | UnixAddress

_LOOPBACK_4 = ipaddress.IPv4Network("127.0.0.0/8")
_LOOPBACK_6 = ipaddress.IPv6Address("::1")
_IP_AND_PORT = re.compile(r"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[0-9a-fA-F:.]+)\]):(?P<port>[0-9]+)")


def parse_listen_url(url: str, codex_home: Path) -> Address:
    """Parse a listen URL.

    Accepted are ``ws://IP:PORT`` and ``wss://IP:PORT``, each also with ``+local``; ``unix://PATH``
    (relative to the working directory); and ``unix://``, the control socket below ``codex_home``.

    Raises ``ListenUrlError``.
    """
    scheme, separator, rest = url.partition("://")
    match scheme + separator:
        case "ws://" | "wss://":
            return _parse_ip_and_port(url, scheme, rest)
        case "ws+local://" | "wss+local://":
            return _local(url, _parse_ip_and_port(url, scheme.removesuffix(LOCAL), rest))
        case "unix://" if not rest:
            return UnixAddress(Path.cwd() / codex_home / CONTROL_SOCKET, control=True)
        case "unix://" if "\0" not in rest:
            return UnixAddress(Path.cwd() / rest)
        case _:
            raise ListenUrlError(
                f"unsupported --listen URL `{url}`; expected `unix://`, `unix://PATH`,"
                " `ws://IP:PORT`, `wss://IP:PORT`"
            )


def _parse_ip_and_port(url: str, scheme: str, rest: str) -> TcpAddress:
    parts = _IP_AND_PORT.fullmatch(rest)
    if parts is not None:
        try:
            ip = (
                ipaddress.IPv4Address(parts["v4"])
                if parts["v4"]
                else ipaddress.IPv6Address(parts["v6"])
            )
            port = int(parts["port"])
        except ValueError:
            pass
        else:
            if port <= LARGEST_PORT:
                return TcpAddress(ip, port, tls=scheme == "wss")
    raise ListenUrlError(f"invalid websocket --listen URL `{url}`; expected `{scheme}://IP:PORT`")


def _local(url: str, address: TcpAddress) -> TcpAddress:
    if not address.loopback:
        raise ListenUrlError(
            f"invalid --listen URL `{url}`: only a loopback address can be `{LOCAL}`; others are"
            " reached from elsewhere"
        )
    return attrs.evolve(address, local=True)


def host_of(peer: str) -> str:
    """Return the host in a peer's name, without brackets.

    The name is like ``10.0.0.7:5123``, ``[fd7a::1]:5123``, ``unix``; or, where a proxy has told it,
    without a port.
    """
    if peer.startswith("["):
        return peer[1:].partition("]")[0]
    return peer.partition(":")[0]


def refuse_open_door(addresses: Iterable[Address], auth_mode: str | None) -> None:
    """Raise ``OpenDoorError`` if another machine could connect without authentication."""
    if auth_mode is not None:
        return
    for address in addresses:
        if isinstance(address, TcpAddress) and not address.loopback:
            raise OpenDoorError(
                f"refusing to start non-loopback websocket listener {address} without auth;"
                " configure `--ws-auth device-token` (paired devices alone), `--ws-auth"
                " capability-token` or `--ws-auth signed-bearer-token`"
            )
