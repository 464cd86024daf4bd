"""Nobody reads the broker's stderr, or the door's: they go on, and say how much was lost."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import pytest
import trio

from tests.end_to_end.brokered import brokered
from tests.end_to_end.doors import opened
from tests.end_to_end.lives import appmux
from tests.end_to_end.native import Home, Native, codex_bin, private_home
from tests.end_to_end.peer import PATIENCE, Json, Peer, answers, connect_unix
from tests.end_to_end.scenes import LIST, ended, eventually, status, status_shows

PIPE_BYTES: Final = 4096
"""Of the smallest pipe that Linux gives: soon full."""

LEAD: Final = """import fcntl, os, sys, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal at its stderr its own, and becomes what is named."""


@attrs.frozen
class Broker:
    process: trio.Process
    home: Home

    @property
    def socket(self) -> str:
        return str(self.home.codex_home / "app-server-control" / "app-server-control.sock")

    async def ends(self) -> int:
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def serving(
    stderr: int | None, *before: str, level: str = "debug", session: bool = False
) -> AsyncIterator[Broker]:
    """`appmux serve`, its stderr as given; `before` are the words that start it."""
    with private_home("http://127.0.0.1:1/v1") as home:
        own = {"APPMUX_CODEX_BIN": str(codex_bin()), "APPMUX_LOG_LEVEL": level}
        process = await trio.lowlevel.open_process(
            [*before, sys.executable, "-m", "mux", "serve", "--listen", "unix://"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=home.environ() | own,
            cwd=str(home.work),
            start_new_session=session,
        )
        try:
            yield Broker(process, home)
        finally:
            with trio.CancelScope(shield=True):
                for end in (process.terminate, process.kill):
                    if process.poll() is None:
                        end()
                        with trio.move_on_after(PATIENCE):
                            await process.wait()


@asynccontextmanager
async def attached(broker: Broker) -> AsyncIterator[Peer]:
    """A client of it, once it listens."""

    async def there() -> bool:
        try:
            stream = await trio.open_unix_socket(broker.socket)
        except OSError:
            return False
        await stream.aclose()
        return True

    with trio.fail_after(PATIENCE):
        while not await there():  # noqa: ASYNC110 (there is no event for it)
            await trio.sleep(0.01)
    async with connect_unix(broker.socket) as peer:
        await peer.initialize("there")
        yield peer


async def heard_all_the_same(peer: Peer) -> Json:
    """Ask for things; what the broker says then of its log."""
    for _ in range(5):
        await peer.request(LIST)
    report = await status_shows(peer, lambda report: report["log"]["droppedLines"])
    return report["log"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("closing", "why"),
    [("2>&-", "it is closed"), ("2>/dev/full", "No space left on device")],
)
async def test_a_log_that_never_works(closing: str, why: str) -> None:
    before = ("/bin/sh", "-c", f'exec "$0" "$@" {closing}')
    async with serving(None, *before) as broker, attached(broker) as peer:
        assert (await heard_all_the_same(peer))["trouble"] == why
        there = Native(broker.process, broker.home, None)  # type: ignore[arg-type]
        shown = await appmux(there, "status", "--all")
        assert "lines could not be written" in shown.stdout
        assert f"TROUBLE with the log: {why}" in shown.stdout
        broker.process.send_signal(signal.SIGTERM)
        assert await broker.ends() == 0


async def test_the_pipes_reader_goes() -> None:
    """As in `appmux serve 2>&1 | head`."""
    reader, writer = os.pipe()
    async with serving(writer) as broker:
        os.close(writer)
        async with attached(broker) as peer:
            os.close(reader)
            assert (await heard_all_the_same(peer))["trouble"] == "Broken pipe"
        broker.process.send_signal(signal.SIGHUP)  # without a terminal: a reload
        async with attached(broker) as peer:
            await peer.request(LIST)
        broker.process.send_signal(signal.SIGTERM)
        assert await broker.ends() == 0


async def test_the_pipes_reader_stands_still_and_goes_on() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    async with serving(writer) as broker:
        os.close(writer)
        async with attached(broker) as peer:
            # A method's name is logged: a megabyte is soon there. (Requests aren't slowed as
            # notifications are, of which few have to be enough for anybody.)
            while not (await status(peer))["log"]["droppedLines"]:
                asked = [await peer.ask("x" * 250) for _ in range(50)]
                for id in asked:
                    await peer.wait(answers(id))
            log = (await status(peer))["log"]
            assert log["trouble"] == "its reader takes nothing"
            heard = bytearray()

            async def read() -> None:
                stream = trio.lowlevel.FdStream(reader)
                async for piece in stream:
                    heard.extend(piece)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await status_shows(peer, lambda report: report["log"]["trouble"] is None)
                await eventually(lambda: b"log lines are missing" in heard, "that some are missing")
                nursery.cancel_scope.cancel()
            *lines, _ = bytes(heard).split(b"\n")  # the last may be cut off by the test's own end
            said = [line for line in lines if not line.startswith(b"  listening on: ")]
            assert len(lines) - len(said) == 1
            for line in said:
                json.loads(line)  # none was torn


async def test_a_full_pipe_does_not_keep_it_from_ending() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    async with serving(writer) as broker:
        os.close(writer)
        async with attached(broker) as peer:
            for _ in range(20):
                await peer.notify("x" * 900)
            await peer.request(LIST)
        broker.process.send_signal(signal.SIGTERM)
        assert await broker.ends() == 0
    os.close(reader)


@pytest.mark.parametrize("is_leader", [True, False])
async def test_its_terminal_goes(is_leader: bool) -> None:
    """The kernel tells the session's leader, which is a shell or the broker: then it drains."""
    controller, terminal = os.openpty()
    before = [sys.executable, "-c", LEAD]
    if not is_leader:
        before += ["/bin/sh", "-c", '"$0" "$@" & wait $!']
    async with serving(terminal, *before, level="info", session=True) as broker:
        os.close(terminal)
        async with attached(broker) as peer:
            pid = (await status(peer))["broker"]["pid"]
            if is_leader:
                os.kill(pid, signal.SIGHUP)  # with its terminal there: a reload
                await peer.request(LIST)
            os.close(controller)
            if not is_leader:
                os.kill(pid, signal.SIGHUP)  # as a shell does for its jobs
            await peer.wait_gone()
        await eventually(lambda: ended(pid), "the broker's end")
        if is_leader:
            assert await broker.ends() == 0


async def test_a_terminal_that_is_not_its_own_goes() -> None:
    controller, terminal = os.openpty()
    async with serving(terminal, session=True) as broker:
        os.close(terminal)
        async with attached(broker) as peer:
            os.close(controller)
            assert (await heard_all_the_same(peer))["trouble"] == "Input/output error"
            os.kill(broker.process.pid, signal.SIGHUP)
            await peer.request(LIST)


# --- The stdio door -------------------------------------------------------------------------------

SPOILT: Final = {
    "closed": "os.close(2)",
    "on a full disk": "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)",
    "without a reader": "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 2)",
    "never read": """reader, writer = os.pipe()
os.set_inheritable(reader, True)
os.set_blocking(writer, False)
try:
    while True:
        os.write(writer, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(writer, True)
os.dup2(writer, 2)""",
}


@pytest.mark.parametrize("how", SPOILT)
async def test_a_door_outlives_its_broker_though_nobody_reads_what_it_says(how: str) -> None:
    spoils = (
        f"import os, sys\n{SPOILT[how]}\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = (sys.executable, "-c", spoils, "-m", "mux", "stdio")
    with private_home("http://127.0.0.1:1/v1") as home:
        async with brokered(home=home) as broker:
            socket = str(broker.socket)
            async with opened(home, "--socket", socket, command=command) as there:
                await there.peer.initialize("door")
                broker.process.terminate()
                with trio.fail_after(PATIENCE):
                    await broker.process.wait()
                async with brokered(home=home):
                    await there.peer.request(LIST)
                    assert await there.leaves() == 0
