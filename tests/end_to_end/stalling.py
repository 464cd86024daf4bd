"""A client that can stop reading its socket, and go on.

Its receive buffer is small, so that the broker soon notices.

Hands to: the tests of lag and replay, the soak. Hears from: `peer`.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from tests.end_to_end.native import Native
from tests.end_to_end.peer import Peer, WsLink, connect

RECEIVE_BUFFER = 16 * 1024
"""Asked of the kernel, which else takes megabytes for a client that reads nothing."""


@attrs.define
class StallingLink:
    """A link that passes nothing on while it is stalled, and so soon reads nothing."""

    link: WsLink
    going: trio.Event

    async def send(self, message: str | bytes) -> None:
        await self.link.send(message)

    async def receive(self) -> AsyncGenerator[str | bytes, None]:
        async with aclosing(self.link.receive()) as messages:
            async for message in messages:
                await self.going.wait()
                yield message

    async def close(self) -> None:
        await self.link.close()


@attrs.define
class Staller:
    """A client that can stop reading. It still sends."""

    peer: Peer
    link: StallingLink
    stream: trio.SocketStream

    def stall(self) -> None:
        """Read no more from now on."""
        self.link.going = trio.Event()

    def go_on(self) -> None:
        """Read again."""
        self.link.going.set()


@asynccontextmanager
async def connect_stalling(url: str) -> AsyncIterator[Staller]:
    """A client of a WebSocket listener that reads, until told to stall."""
    host, _, port = url.removeprefix("ws://").rpartition(":")
    plug = trio.socket.socket()
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    await plug.connect((host, int(port)))
    stream = trio.SocketStream(plug)
    async with connect(stream, host, "/", queue=1) as peer:
        assert isinstance(peer.link, WsLink)
        link = StallingLink(peer.link, trio.Event())
        link.going.set()
        peer.link = link
        yield Staller(peer, link, stream)


@asynccontextmanager
async def stalling(running: Native, name: str, **capabilities: Any) -> AsyncIterator[Staller]:
    """Such a client of the broker, past its handshake."""
    async with connect_stalling(running.url) as staller:
        await staller.peer.initialize(name, **capabilities)
        yield staller


def memory(pid: int) -> int:
    """Bytes of memory that the process has at this moment (its resident set)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")
