"""Few file descriptors: nobody can take them all, and the broker has some for itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from tests import knocks
from tests.end_to_end.brokered import brokered, client, logged
from tests.end_to_end.frames import Framer
from tests.end_to_end.lives import kill_app_server, life
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE
from tests.end_to_end.scenes import LIST, app_server_pid, eventually, status

FEW: Final = 256
MANY: Final = 4096
IDLE: Final = 2 * FEW
MOST_TOLD: Final = 2
"""Log lines: one a minute."""


def limited(limits: str) -> list[str]:
    return ["/bin/sh", "-c", f'{limits} && exec "$@"', "sh"]


def limit_of(pid: int) -> tuple[int, int]:
    """The soft and the hard limit of descriptors of a process."""
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            soft, hard = line.split()[3:5]
            return int(soft), int(hard)
    raise AssertionError("no such limit")


def running_as(pid: int) -> list[str]:
    """The words of a process's command."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


async def connected(broker: Native) -> trio.SocketStream:
    host, _, port = broker.url.removeprefix("ws://").rpartition(":")
    with trio.fail_after(PATIENCE):
        return await trio.open_tcp_stream(host, int(port))


async def got(stream: trio.SocketStream, path: str) -> bytes:
    """What it answers to a `GET`; nothing if it has closed."""
    answer = b""
    with trio.fail_after(PATIENCE), contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(knocks.local(f"GET {path}"))
        async for piece in stream:
            answer += piece
    return answer


def refusals(broker: Native) -> list[str]:
    return [str(each.fields["why"]) for each in logged(broker) if "refused" in each.event]


async def test_the_app_server_has_the_limit_that_the_broker_was_started_with() -> None:
    before = limited(f"ulimit -S -n {FEW} && ulimit -H -n {MANY}")
    async with brokered(before=before) as broker, client(broker, "there") as there:
        assert limit_of(broker.broker_pid) == (MANY, MANY)
        pid = await app_server_pid(there)
        assert limit_of(pid) == (FEW, MANY)
        assert running_as(pid)[1] == "app-server"  # itself, not the shell that has limited it


async def test_idle_connections_cost_nobody_a_thing() -> None:
    """As soon as it listens, before its metrics are loaded; then all goes on as ever."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(brokered(before=limited(f"ulimit -n {FEW}")))
        idle = [await stack.enter_async_context(await connected(broker)) for _ in range(IDLE)]
        async with client(broker, "there") as there:
            assert await got(idle[0], "/healthz") == b""  # the oldest went first
            assert b"200 OK" in await got(idle[-1], "/healthz")
            async with await connected(broker) as scraper:
                assert b"appmux_app_server_up 1" in await got(scraper, "/metrics")
            await kill_app_server(there)
            await life(there, 2)
            await there.request(LIST)
            report = await status(there)
            assert (report["store"]["trouble"], report["audit"]["trouble"]) == (None, None)
        await eventually(lambda: refusals(broker), "that it is told")
        assert len(refusals(broker)) <= MOST_TOLD
        assert "Traceback" not in broker.shown()


@asynccontextmanager
async def upgraded(broker: Native) -> AsyncIterator[Framer]:
    """A client that is let in: it counts as known."""
    async with await connected(broker) as stream:
        framer = Framer(stream)
        await framer.upgrade("/", b"")
        yield framer


async def test_as_many_clients_as_there_is_room_for() -> None:
    """One more isn't let in, until another leaves. The app-server can be started again."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(brokered(before=limited(f"ulimit -n {FEW}")))
        there = await stack.enter_async_context(client(broker, "there"))
        attached: list[AsyncExitStack] = []
        with contextlib.suppress(Exception):  # whichever way it is told
            while len(attached) < FEW:
                one = AsyncExitStack()
                await one.enter_async_context(upgraded(broker))
                attached.append(one)
                stack.push_async_exit(one)
        assert FEW // 2 < len(attached) < FEW - 64
        await eventually(lambda: refusals(broker), "that it is told")
        assert refusals(broker) == ["no descriptor is free that isn't held back"]
        await kill_app_server(there)
        await life(there, 2)
        await there.request(LIST)
        await attached[0].aclose()
        while True:
            with contextlib.suppress(Exception):
                async with upgraded(broker) as late:
                    await late.initialize("late")
                    break
        assert len(refusals(broker)) <= MOST_TOLD
        assert "Traceback" not in broker.shown()
