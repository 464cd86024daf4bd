"""A broker that is killed at ten moments of one upload, by other people's clients."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio
import tusclient.client
from tusclient.exceptions import TusCommunicationError, TusUploadFailed

from tests.end_to_end import killed_at
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.native import Native
from tests.end_to_end.plays import AWARE
from tests.end_to_end.scenes import eventually
from tests.end_to_end.test_uploads import read, state_of

MIB: Final = 1024 * 1024
SIZE: Final = 48 * MIB
KILLS: Final = 10
SEED: Final = 20
MOST_SENT: Final = 1.3
"""Times the file. At a kill, what the broker's socket holds is lost: the more, the busier the
machine is, but never near the half of the file that is lost where nothing was kept."""

PIECE: Final = 64 * 1024
PACE: Final = 0.004
"""Seconds for a piece: 15 MiB a second. What a network holds of it on its way is a few pieces."""

PATIENCE: Final = 300.0
"""Seconds for ten starts of a broker, on a machine that does something else too."""


@attrs.define
class Network:
    """What is between a client and the broker: it counts what the client sends."""

    port: int
    broker: int
    sent: int = 0

    async def carry(self, near: trio.SocketStream) -> None:
        """Carry one connection, until either end is gone."""
        async with near:
            try:
                far = await trio.open_tcp_stream("127.0.0.1", self.broker)
            except OSError:
                return  # the broker is dead at the moment
            far.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, PIECE)
            async with far, trio.open_nursery() as nursery:
                nursery.start_soon(self._back, far, near, nursery.cancel_scope)
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while piece := await near.receive_some(PIECE):
                        self.sent += len(piece)
                        await far.send_all(piece)
                        await trio.sleep(PACE)
                nursery.cancel_scope.cancel()

    async def _back(
        self, far: trio.SocketStream, near: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for piece in far:
                await near.send_all(piece)
        scope.cancel()


@asynccontextmanager
async def between(broker: Native) -> AsyncIterator[Network]:
    """A network to the broker."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    network = Network(port, int(broker.url.rpartition(":")[2]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, network.carry, listeners)
        yield network
        nursery.cancel_scope.cancel()


async def kill_at(broker: Native, moments: list[int]) -> None:
    """Kill the broker each time that so many bytes have come."""
    folder = state_of(broker) / "uploads"

    def came() -> int:
        return sum(each.stat().st_size for each in folder.glob("*.part"))

    for moment in moments:
        await eventually(partial(lambda most: came() >= most, moment), f"{moment} bytes came")
        pid = broker.broker_pid
        os.kill(pid, signal.SIGKILL)
        await eventually(partial(_is_another, broker, pid), "the next broker")


def _is_another(broker: Native, pid: int) -> bool:
    try:
        return broker.broker_pid != pid
    except (ValueError, AssertionError, OSError):
        return False  # it is about to write its number


def _moments() -> list[int]:
    drawn = random.Random(SEED)
    # Each with room before the end, for the next broker to be there before all has come.
    return sorted(drawn.randrange(MIB, SIZE - 8 * MIB) for _ in range(KILLS))


@asynccontextmanager
async def stage() -> AsyncIterator[tuple[Native, Network, str]]:
    """A broker with a thread, and a network to it."""
    # However often it dies, the next broker is started at once.
    program = (sys.executable, "-m", killed_at.__name__)
    environ = {"PYTHONPATH": str(Path(__file__).parents[2])}
    async with brokered(program=program, environ=environ) as broker:
        async with client(broker, "desk", **AWARE) as desk:
            thread = await desk.start_thread(broker.home.work)
            await desk.run_turn(thread, "hello")
        async with between(broker) as network:
            yield broker, network, thread


async def test_without_checksums_little_is_sent_again(tmp_path: Path) -> None:
    program = Path(__file__).parents[1] / "tus" / "upload.js"
    node = shutil.which("node")
    if node is None or not (program.parent / "node_modules").is_dir():
        pytest.skip("npm could not install tus-js-client, or there is no node: `make newest`")
    body = os.urandom(SIZE)
    file = tmp_path / "core.bin"
    file.write_bytes(body)
    async with stage() as (broker, network, thread), trio.open_nursery() as nursery:
        nursery.start_soon(kill_at, broker, _moments())
        endpoint = f"http://127.0.0.1:{network.port}/v1/files"
        command = [node, str(program), endpoint, str(file), thread, "", str(2 * SIZE), str(SIZE)]
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False
            )
        assert done.returncode == 0, done.stderr.decode()
        _check(broker, network, body, SIZE * MOST_SENT)


def _check(broker: Native, network: Network, body: bytes, most: float) -> None:
    placed = broker.home.work / "uploads" / "core.bin"
    assert hashlib.sha256(read(placed)).digest() == hashlib.sha256(body).digest()
    assert {each.name for each in placed.parent.iterdir()} == {".gitignore", "core.bin"}
    assert len(body) <= network.sent <= most


def test_with_checksums_one_chunk_is_sent_again() -> None:
    """tuspy blocks, so it runs in a thread of its own."""
    trio.run(_by_tuspy)


CHUNK: Final = MIB


async def _by_tuspy() -> None:
    body = os.urandom(SIZE)
    async with stage() as (broker, network, thread), trio.open_nursery() as nursery:
        nursery.start_soon(kill_at, broker, _moments())
        with trio.fail_after(PATIENCE):
            url = f"http://127.0.0.1:{network.port}/v1/files"
            await trio.to_thread.run_sync(_upload, url, body, thread)
        # Of each kill one chunk, and of each chunk the head of its request.
        _check(broker, network, body, SIZE + KILLS * CHUNK + (SIZE / CHUNK + 10 * KILLS) * 1024)


def _upload(url: str, body: bytes, thread: str) -> None:
    tus: Any = tusclient.client.TusClient(url)
    sending = tus.uploader(
        file_stream=io.BytesIO(body),
        chunk_size=CHUNK,
        metadata={"filename": "core.bin", "thread": thread},
        upload_checksum=True,
    )
    while sending.offset < SIZE:
        # The library gives up by itself; whoever uses it asks where to go on (OSError: requests').
        with suppress(TusUploadFailed, TusCommunicationError, OSError):
            if sending.url:
                sending.offset = sending.get_offset()
            if sending.offset < SIZE:
                sending.upload_chunk()
