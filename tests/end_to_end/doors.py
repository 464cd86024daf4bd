"""The stdio door on a test bench: `appmux stdio`, a real process, with a `Peer` at its pipes.

Hands to: the tests. Hears from: `appmux stdio`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from tests.end_to_end.native import Home, Native, codex_bin
from tests.end_to_end.peer import PATIENCE, Peer, StdioLink, plainly

BESIDE: Final = Path(sys.executable).parent
"""Where the installed commands are."""

APPMUX: Final = str(BESIDE / "appmux")
STAND_IN: Final = str(BESIDE / "appmux-codex")


def environ(home: Home, **more: str) -> dict[str, str]:
    """What the door and the stand-in are started with beside a broker in this home."""
    return home.environ() | {"APPMUX_CODEX_BIN": str(codex_bin())} | more


@attrs.define
class Door:
    """A running door. `said`: its stderr so far."""

    process: trio.Process
    peer: Peer
    said: bytearray = attrs.field(factory=bytearray)
    _news: trio.Event = attrs.field(factory=trio.Event)

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for piece in self.process.stderr:
            self.said += piece
            self._news.set()
            self._news = trio.Event()

    async def says(self, words: str) -> None:
        """Wait until stderr has these words."""
        with trio.fail_after(PATIENCE):
            while words.encode() not in self.said:
                await self._news.wait()

    async def ends(self) -> int:
        """Wait for its end; the exit status."""
        with trio.fail_after(PATIENCE):
            return await self.process.wait()

    async def leaves(self) -> int:
        """Close its stdin and wait for its end; the exit status."""
        await self.peer.close()
        return await self.ends()


@asynccontextmanager
async def opened(
    home: Home,
    *arguments: str,
    command: Sequence[str] = (APPMUX, "stdio"),
    more: Mapping[str, str] | None = None,
) -> AsyncIterator[Door]:
    """A door in this home, which may have a broker."""
    with plainly():
        async with trio.open_nursery() as nursery:
            process: trio.Process = await trio.lowlevel.open_process(
                [*command, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environ(home, **(more or {})),
                cwd=str(home.work),
            )
            door = Door(process, Peer(StdioLink(process)))
            nursery.start_soon(door.peer.listen)
            nursery.start_soon(door.listen)
            try:
                yield door
            finally:
                if process.poll() is None:
                    process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def door(broker: Native, *arguments: str, name: str = "door") -> AsyncIterator[Door]:
    """A door of this broker, its client past the handshake."""
    async with opened(broker.home, "--socket", str(broker.socket), *arguments) as there:
        await there.peer.initialize(name)
        yield there
