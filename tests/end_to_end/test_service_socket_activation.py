"""What systemd does for a service, done by a plain parent: sockets, a notify socket, a watchdog.

`appmux serve` is a real process over the real app-server; the parent is this test.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio

from tests.end_to_end.native import Home, codex_bin, private_home
from tests.end_to_end.peer import connect_unix, connect_ws

PATIENCE = 40.0

HANDING_OVER = """
import os, sys
fds = [int(word) for word in sys.argv[1].split(",")]
spare = [os.dup2(fd, 100 + at) for at, fd in enumerate(fds)]
for at, fd in enumerate(spare):
    os.dup2(fd, 3 + at)
os.environ["LISTEN_PID"] = str(os.getpid() + int(os.environ.pop("PID_OFF", "0")))
os.environ["LISTEN_FDS"] = str(len(fds))
os.environ["LISTEN_FDNAMES"] = ":".join(["appmux.socket"] * len(fds))
os.execv(sys.executable, [sys.executable, "-m", "mux", *sys.argv[2:]])
"""


@attrs.define
class Parent:
    """The directories, the sockets that are handed over, and what the broker says to systemd."""

    home: Home
    short: Path
    tcp: socket.socket
    unix: socket.socket
    notified: trio.socket.SocketType

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.tcp.getsockname()[1]}"

    @property
    def path(self) -> Path:
        return self.short / "own.sock"

    async def told(self, *wanted: str) -> list[str]:
        """What the broker says up to the first of ``wanted``, that included."""
        heard: list[str] = []
        with trio.fail_after(PATIENCE):
            while not heard or heard[-1] not in wanted:
                heard += (await self.notified.recv(4096)).decode().splitlines()
        return heard

    @asynccontextmanager
    async def started(
        self, *listen: str, status: int | None = 0, **environ: str
    ) -> AsyncIterator[trio.Process]:
        """`appmux serve` with the sockets; in the end it is drained, and must exit so."""
        arguments = [part for url in listen for part in ("--listen", url)]
        fds = [self.tcp.fileno(), self.unix.fileno()]
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", HANDING_OVER, ",".join(map(str, fds)), "serve", *arguments],
            env=self.home.environ()
            | {
                "APPMUX_CODEX_BIN": str(codex_bin()),
                "NOTIFY_SOCKET": str(self.short / "notify"),
                "PYTHONPATH": os.pathsep.join(sys.path),
            }
            | environ,
            pass_fds=fds,
            cwd=str(self.home.work),
        )
        try:
            yield process
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            with trio.fail_after(PATIENCE):
                assert await process.wait() == status
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


@pytest.fixture
def parent() -> Iterator[Parent]:
    short = Path(tempfile.mkdtemp(prefix="am"))
    with (
        private_home("http://127.0.0.1:9/v1") as home,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
    ):
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(short / "own.sock"))
        tcp.listen()
        unix.listen()
        notified.bind(str(short / "notify"))
        made = Parent(home, short, tcp, unix, trio.socket.from_stdlib_socket(notified))
        yield made
        made.tcp.close()  # a test may have put another in its place
    shutil.rmtree(short)


async def test_sockets_of_the_manager_are_served_and_outlive_the_broker(parent: Parent) -> None:
    async with parent.started(parent.url, f"unix://{parent.path}") as first:
        assert "READY=1" in await parent.told("READY=1")
        async with connect_ws(parent.url) as over_tcp, connect_unix(parent.path) as over_unix:
            await over_tcp.initialize("one")
            await over_unix.initialize("two")
            report = await over_unix.request("mux/status")
        # Each address once, though it is in `--listen` as well as handed over.
        assert sorted(each["url"] for each in report["listeners"]) == sorted(
            [parent.url, f"unix://{parent.path}"]
        )
        variables = trio.Path(f"/proc/{report['appServer']['pid']}/environ")
        if await variables.exists():  # as a file that can be read it is Linux's only
            assert b"LISTEN_" not in await variables.read_bytes()
    assert first.returncode == 0
    assert "STOPPING=1" in await parent.told("STOPPING=1")
    assert parent.path.is_socket(), "the path is the manager's to remove"
    # A client that comes while no broker runs is queued, and served by the next one.
    with socket.create_connection(("127.0.0.1", parent.tcp.getsockname()[1])) as waiting:
        waiting.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        async with parent.started(parent.url, f"unix://{parent.path}"):
            await parent.told("READY=1")
            answer = await trio.to_thread.run_sync(waiting.recv, 4096)
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_what_is_handed_over_comes_on_top_of_the_settings(parent: Parent) -> None:
    async with parent.started("ws://127.0.0.1:0"):
        await parent.told("READY=1")
        async with connect_unix(parent.path) as peer:
            await peer.initialize("one")
            report = await peer.request("mux/status")
        assert len(report["listeners"]) == 3


async def test_sockets_for_another_process_are_left_alone(parent: Parent) -> None:
    async with parent.started("ws://127.0.0.1:0", PID_OFF="1"):
        await parent.told("READY=1")
        announced = next(parent.home.home.rglob("broker.json"))
        listening = json.loads(await trio.Path(announced).read_text())["listeners"]
        assert len(listening) == 1
        assert parent.url not in listening


async def test_an_open_door_is_refused_as_from_a_flag(parent: Parent) -> None:
    parent.tcp.close()
    parent.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    parent.tcp.bind(("0.0.0.0", 0))
    parent.tcp.listen()
    async with parent.started("ws://127.0.0.1:0", status=1) as process:
        with trio.fail_after(PATIENCE):
            await process.wait()


async def test_a_socket_that_does_not_listen_is_refused(parent: Parent) -> None:
    parent.tcp.close()
    parent.tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    async with parent.started("ws://127.0.0.1:0", status=1) as process:
        with trio.fail_after(PATIENCE):
            await process.wait()


async def test_the_watchdog_hears_from_a_broker_that_lives(parent: Parent) -> None:
    async with parent.started("ws://127.0.0.1:0", WATCHDOG_USEC="4000000") as process:
        await parent.told("READY=1")
        for _ in range(3):
            await parent.told("WATCHDOG=1")
        process.send_signal(signal.SIGSTOP)
        await _silence(parent)
        process.send_signal(signal.SIGCONT)
        await parent.told("WATCHDOG=1")


async def _silence(parent: Parent) -> None:
    """What was said before the stop is taken in; then nothing comes for two beats and a half."""
    with suppress(trio.TooSlowError):
        while True:
            with trio.fail_after(0.1):
                await parent.notified.recv(4096)
    with pytest.raises(trio.TooSlowError), trio.fail_after(2.5):
        await parent.notified.recv(4096)


async def test_a_watchdog_for_another_process_is_none_of_its_business(parent: Parent) -> None:
    async with parent.started("ws://127.0.0.1:0", WATCHDOG_USEC="200000", WATCHDOG_PID="1"):
        await parent.told("READY=1")
    assert await parent.told("STOPPING=1") == ["STOPPING=1"]
