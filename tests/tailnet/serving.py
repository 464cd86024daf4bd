"""A broker with https on the Tailnet, beside a stand-in of tailscaled.

Hands to: the tests. Hears from: `brokered`, `stand_in`.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests import knocks
from tests.end_to_end.brokered import brokered
from tests.end_to_end.devices import appmux
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, Json, Peer, connect, connect_unix
from tests.ports import kept_port
from tests.tailnet.stand_in import Tailscaled, tailscaled

ADDRESS: Final = "127.0.0.2"
"""Every Linux has it, and nobody else listens there."""


@attrs.frozen
class Served:
    """The broker, its tailscaled, its operator."""

    broker: Native
    daemon: Tailscaled
    operator: Peer
    port: int

    @property
    def origin(self) -> str:
        return f"https://{self.daemon.name}:{self.port}"

    async def appmux(self, *arguments: str) -> Any:
        """A command beside this broker, to its end."""
        return await appmux(self.broker, *arguments)

    async def status(self) -> Json:
        """What is served, after a look at tailscaled."""
        said: Json = await self.operator.request("mux/tailnet/read")
        return said

    async def enable(self) -> Json:
        """Say yes to the name that tailscaled has."""
        said: Json = await self.operator.request("mux/tailnet/enable", {"name": self.daemon.name})
        return said

    @asynccontextmanager
    async def encrypted(
        self, address: str = ADDRESS, name: str | None = None
    ) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
        """A connection by a name, checked as a browser checks it."""
        context = ssl.create_default_context(cafile=str(self.daemon.ca))
        async with await trio.open_tcp_stream(address, self.port) as bare:
            stream = trio.SSLStream(
                bare, context, server_hostname=name or self.daemon.name, https_compatible=True
            )
            with trio.fail_after(PATIENCE):
                await stream.do_handshake()
            yield stream

    async def get(self, path: str, *headers: str, host: str = "") -> knocks.Reply:
        """Ask for something over https."""
        lines = [f"GET {path} HTTP/1.1", f"host: {host or self.daemon.name}:{self.port}", *headers]
        async with self.encrypted() as stream:
            return await knocks.ask(stream, "\r\n".join([*lines, "", ""]).encode())

    @asynccontextmanager
    async def client(self, token: str) -> AsyncIterator[Peer]:
        """A device's program, by the name."""
        headers = [("Authorization", f"Bearer {token}")]
        async with (
            self.encrypted() as stream,
            connect(stream, f"{self.daemon.name}:{self.port}", "/", headers) as peer,
        ):
            await peer.initialize("abroad")
            yield peer

    async def until_of(self, address: str = ADDRESS) -> float:
        """The end of the certificate that new connections get, in Unix seconds."""
        async with self.encrypted(address) as stream:
            ends = stream.getpeercert()["notAfter"]
        return float(ssl.cert_time_to_seconds(ends))


@asynccontextmanager
async def served(
    directory: Path, *arguments: str, fields: Json | None = None, **options: Any
) -> AsyncIterator[Served]:
    """A broker whose tailscaled is the stand-in. https isn't enabled yet."""
    with (
        tailscaled(directory, **({"addresses": (ADDRESS,)} | (fields or {}))) as daemon,
        kept_port() as port,
    ):
        environ = {
            "APPMUX_TAILNET_SOCKET": str(daemon.socket),
            "APPMUX_TAILNET_PORT": str(port),
        } | options.pop("environ", {})
        async with (
            brokered(*arguments, environ=environ, **options) as broker,
            connect_unix(broker.socket) as operator,
        ):
            yield Served(broker, daemon, operator, port)


def choice(broker: Native) -> Json | None:
    """What the state directory has of the operator's yes."""
    [path] = [broker.home.home / ".local" / "state" / "appmux" / "tailnet.json"]
    return json.loads(path.read_text()) if path.exists() else None
