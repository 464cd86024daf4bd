"""`appmux-codex app-server --listen URL`: a program's own listener, on the shared runtime."""

from __future__ import annotations

import re
import signal
import socket
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mux.demo.scripted_model import Say
from tests.end_to_end.brokered import brokered, client
from tests.end_to_end.doors import STAND_IN, environ
from tests.end_to_end.native import Home, Native, private_home
from tests.end_to_end.peer import PATIENCE, connect_unix, connect_ws
from tests.end_to_end.scenes import DELTA, TURN_COMPLETED, join, shared_thread, status_shows


@asynccontextmanager
async def relayed(home: Home, url: str, *arguments: str) -> AsyncIterator[tuple[trio.Process, str]]:
    """The stand-in, listening there; its process, and the URL that it says it listens at."""
    process: trio.Process = await trio.lowlevel.open_process(
        [STAND_IN, *arguments, "app-server", "--listen", url],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environ(home),
        cwd=str(home.work),
    )
    try:
        assert process.stderr is not None
        said = b""
        with trio.fail_after(PATIENCE):
            while not (where := re.search(rb"listening on: (\S+)\n", said)):
                piece = await process.stderr.receive_some()
                assert piece, said.decode()
                said += piece
        yield process, where[1].decode()
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.fixture
async def broker() -> AsyncIterator[Native]:
    async with brokered() as running:
        yield running


async def _ends(process: trio.Process) -> int:
    process.send_signal(signal.SIGTERM)
    with trio.fail_after(PATIENCE):
        return await process.wait()


async def test_who_dials_the_socket_is_on_the_shared_runtime(
    broker: Native, tmp_path: Path
) -> None:
    path = tmp_path / "engine.sock"
    async with (
        relayed(broker.home, f"unix://{path}") as (process, url),
        connect_unix(path) as engine,
        connect_unix(path) as other,
        client(broker, "phone") as phone,
    ):
        assert url == f"unix://{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await engine.initialize("engine")
        await other.initialize("other")
        thread = await shared_thread(broker, engine, phone)
        await join(other, thread)
        broker.model.on("talk", Say("all of it"))
        places = [(each, len(each.inbox)) for each in (engine, other, phone)]
        await phone.start_turn(thread, "talk")
        for each, since in places:
            await each.wait_method(TURN_COMPLETED, since=since, threadId=thread)
            assert "".join(d["params"]["delta"] for d in each.heard(DELTA)).endswith("all of it")
        await other.close()
        await status_shows(phone, lambda report: len(report["clients"]) == 2)
        assert await _ends(process) == 0
        assert not path.exists()
        await status_shows(phone, lambda report: len(report["clients"]) == 1)


async def test_a_port_of_loopback_leads_to_the_brokers_own(broker: Native) -> None:
    async with relayed(broker.home, "ws://127.0.0.1:0", "-c", "a=1") as (process, url):
        assert url != broker.url
        async with connect_ws(url) as peer:
            await peer.initialize("engine")
            assert "data" in await peer.request("thread/list", {})
        async with await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as stream:
            await stream.send_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        assert await _ends(process) == 0


async def test_a_page_gets_in_by_a_relayed_port_no_more_than_by_the_brokers(broker: Native) -> None:
    async with (
        relayed(broker.home, "ws://127.0.0.1:0") as (_, url),
        await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as stream,
    ):
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\n"
            b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 403")


async def test_the_broker_goes_and_so_do_its_connections(broker: Native, tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    async with relayed(broker.home, f"unix://{path}"), connect_unix(path) as engine:
        await engine.initialize("engine")
        broker.process.kill()
        with trio.fail_after(PATIENCE):
            await engine.wait_gone()


def _refused(home: Home, url: str) -> str:
    done = subprocess.run(
        [STAND_IN, "app-server", "--listen", url],
        env=environ(home),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


async def test_where_it_cannot_listen(broker: Native, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    used = tmp_path / "used"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(used))
        listening.listen()
        run = trio.to_thread.run_sync
        home = broker.home
        assert "exists and is not a socket" in await run(_refused, home, f"unix://{file}")
        assert "is already in use" in await run(_refused, home, f"unix://{used}")
        nowhere = f"unix://{tmp_path}/none/x"
        assert "No such file" in await run(_refused, home, nowhere)
        assert "in use" in await run(_refused, home, broker.url)
    async with relayed(broker.home, f"unix://{used}"), connect_unix(used) as peer:  # stale now
        await peer.initialize("engine")


async def test_without_a_broker_it_says_so(tmp_path: Path) -> None:
    with private_home("http://127.0.0.1:9") as home:
        run = trio.to_thread.run_sync
        assert "no broker to attach to" in await run(_refused, home, f"unix://{tmp_path}/x")
        assert "no broker with a loopback listener" in await run(_refused, home, "ws://127.0.0.1:0")
