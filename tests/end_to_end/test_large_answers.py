"""Clients that read slowly, but read, get all that they ask for: they are slowed, never cut."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio

from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.frames import TEXT, Framer
from tests.end_to_end.native import Native
from tests.end_to_end.scenes import LIST
from tests.end_to_end.stalling import RECEIVE_BUFFER

READ: Final = "fs/readFile"
LIMITS: Final = {
    "APPMUX_LIMITS_OUTBOX_BYTES": str(256 * 1024),
    "APPMUX_LIMITS_CATCH_UP_BYTES": str(64 * 1024),
    "APPMUX_LIMITS_ANSWERS_BYTES": str(256 * 1024),
    "APPMUX_LIMITS_PINNED_BYTES": str(4 * 1024 * 1024),
}
"""A sixteenth of what they are, so that a sixteenth of the bytes does."""

FILE_BYTES: Final = 1_500_000
ANSWER_BYTES: Final = FILE_BYTES * 4 // 3
PAUSE: Final = 0.004
"""Seconds after each read of 16 KiB or so: some 4 MB/s."""

BLOCKED: Final = 1.5
"""Seconds in which a write that isn't taken counts as blocked."""

PATIENCE: Final = 60.0


@asynccontextmanager
async def slow(running: Native, transport: str) -> AsyncIterator[Framer]:
    """A client that reads a little at a time, all the time."""
    if transport == "unix":
        stream: Any = await trio.open_unix_socket(str(running.socket))
        path = "/"
    else:
        host, _, port = running.url.removeprefix("ws://").rpartition(":")
        plug = trio.socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        await plug.connect((host, int(port)))
        stream, path = trio.SocketStream(plug), "/"
    async with stream:
        framer = Framer(Throttled(stream))  # type: ignore[arg-type]
        await framer.upgrade(path, b"")
        await framer.initialize("slow")
        yield framer


@attrs.define
class Throttled:
    """A stream that is read a little at a time."""

    stream: trio.SocketStream

    async def send_all(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        received = await self.stream.receive_some(min(max_bytes, RECEIVE_BUFFER))
        await trio.sleep(PAUSE)
        return received


async def answers(framer: Framer, count: int) -> list[Any]:
    """The next answers, each parsed."""
    found: list[Any] = []
    with trio.fail_after(PATIENCE):
        while len(found) < count:
            opcode, payload = await framer.receive()
            if opcode == TEXT and b'"method":' not in payload[:100]:
                found.append(json.loads(payload))
    return found


@pytest.mark.parametrize("transport", ["tcp", "unix"])
async def test_one_that_asks_for_large_files_and_reads_slowly_gets_them_all(
    transport: str, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * FILE_BYTES)
    asked = {"method": READ, "params": {"path": str(large)}}
    async with (
        brokered(environ=LIMITS) as broker,
        slow(broker, transport) as framer,
        client(broker, "desk") as desk,
    ):
        for id in range(4):
            await framer.send_text(json.dumps({"id": id, **asked}))
        await framer.send_text(json.dumps({"id": "last", "method": LIST, "params": {}}))
        got: list[Any] = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                got.extend(await answers(framer, 5))

            nursery.start_soon(read)
            for _ in range(20):  # another client's are answered meanwhile
                await desk.request(LIST, {})
        large_ones = [each for each in got if each["id"] != "last"]
        assert [each["id"] for each in large_ones] == [0, 1, 2, 3]
        sizes = {len(each["result"]["dataBase64"]) for each in large_ones}
        assert sizes == {ANSWER_BYTES}


async def test_one_that_sends_requests_and_reads_nothing_is_read_no_more_and_then_answered(
    tmp_path: Path,
) -> None:
    """By the socket: the broker takes nothing more, so the client's writes block."""
    some = tmp_path / "some"
    some.write_bytes(b"x" * 6_000)
    request = {"method": READ, "params": {"path": str(some), "padding": "x" * 8_000}}
    async with brokered(environ=LIMITS) as broker, slow(broker, "tcp") as framer:
        sent, blocked = 0, False
        while not blocked:
            with trio.move_on_after(BLOCKED) as patience:
                await framer.send_text(json.dumps({"id": sent, **request}))
                sent += 1
            blocked = patience.cancelled_caught
            assert sent < 10_000, "it reads on"
        got = await answers(framer, sent)
        assert [each["id"] for each in got] == list(range(sent))
        assert all("result" in each for each in got)
