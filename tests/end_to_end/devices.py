"""Devices on a test bench: paired over HTTP, and the operator's commands with and without terminal.

Hands to: the tests. Hears from: the broker, at `POST /v1/pair`; `appmux`, as a process.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests import knocks
from tests.end_to_end.native import Native
from tests.end_to_end.peer import PATIENCE, Json, Peer, connect_unix

DEVICES_ONLY: Final = ("--ws-auth", "device-token")


async def post(where: str | Path, body: Json) -> tuple[int, Json]:
    """Send a ticket to `ws://…` or to a unix socket's path; the status and the answer."""
    text = json.dumps(body)
    head = ("content-length: " + str(len(text)), "content-type: application/json")
    async with await _open(where) as stream:
        reply = await knocks.ask(stream, knocks.request("POST /v1/pair", *head, body=text))
    return reply.status, json.loads(reply.body)


async def _open(where: str | Path) -> trio.SocketStream:
    if isinstance(where, Path):
        return await trio.open_unix_socket(str(await trio.Path(where).resolve()))
    url: str = where
    host, _, port = url.removeprefix("ws://").rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def pair(broker: Native, operator: Peer, name: str, *scopes: str, **wanted: Any) -> str:
    """Pair a device as its app and its operator do together; its token."""
    asked = {"name": name, "scopes": list(scopes), **wanted}
    begun = await operator.request("mux/pairing/begin", asked)
    answers: list[tuple[int, Json]] = []

    async def device() -> None:
        answers.append(await post(broker.url, {"ticket": begun["ticket"]}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(device)
        await operator.wait_method("mux/pairing/asked", id=begun["id"])
        await operator.request("mux/pairing/confirm", {"id": begun["id"], "accept": True})
        await operator.wait_method("mux/pairing/ended", id=begun["id"], outcome="paired")
    ((status, granted),) = answers
    assert status == 200
    return str(granted["token"])


@asynccontextmanager
async def operator_of(broker: Native) -> AsyncIterator[Peer]:
    """The broker's owner, on its unix socket."""
    async with connect_unix(broker.socket) as peer:
        yield peer


def listed(devices: Json) -> dict[str, Json]:
    """The answer to `mux/devices/list` by name."""
    return {each["name"]: each for each in devices["devices"]}


def closed(peer: Peer) -> tuple[int, str | None]:
    """The close code and reason that ended the peer's connection."""
    reason = peer.link.connection.closed  # type: ignore[attr-defined]
    return reason.code, reason.reason


# --- The operator's commands ----------------------------------------------------------------------


async def appmux(
    broker: Native, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """`appmux` with these arguments, where there is no terminal."""
    done = await trio.run_process(
        [sys.executable, "-m", "mux", *arguments],
        env=broker.home.environ() | environ,
        cwd=str(broker.home.work),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


@attrs.define
class Terminal:
    """`appmux` on a terminal of its own, or on pipes: what it shows, and what is typed."""

    process: trio.Process
    _output: trio.abc.ReceiveStream
    _keyboard: trio.abc.SendStream | None = None
    shown: str = ""

    async def see(self, pattern: str) -> re.Match[str]:
        """Wait until it shows `pattern`."""
        with trio.fail_after(PATIENCE):
            while not (found := re.search(pattern, self.shown)):
                if not await self._read():
                    raise AssertionError(f"{pattern!r} was never shown:\n{self.shown}")
        return found

    async def until(self, wanted: Callable[[str], bool]) -> None:
        """Wait until all that it showed is what is wanted."""
        with trio.fail_after(PATIENCE):
            while not wanted(self.shown):
                if not await self._read():
                    raise AssertionError(f"this isn't it:\n{self.shown}")

    async def type(self, text: str) -> None:
        """Type it."""
        assert self._keyboard is not None
        await self._keyboard.send_all(text.encode())

    async def end(self) -> int:
        """Wait for its exit; the status. All that it showed is in `shown`."""
        with trio.fail_after(PATIENCE):
            while await self._read():
                pass
            return await self.process.wait()

    async def _read(self) -> bool:
        """Read on; whether there was more."""
        try:
            piece = await self._output.receive_some()
        except trio.BrokenResourceError:  # how Linux says that nobody has the terminal open
            return False
        self.shown += piece.decode(errors="replace").replace("\r\n", "\n")
        return bool(piece)


@asynccontextmanager
async def piped(broker: Native, *arguments: str) -> AsyncIterator[Terminal]:
    """`appmux` with these arguments, where there is no terminal, while it runs."""
    async with _started(broker, arguments, subprocess.DEVNULL, subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Terminal(process, process.stdout)


@asynccontextmanager
async def terminal(
    broker: Native, *arguments: str, size: tuple[int, int] | None = None
) -> AsyncIterator[Terminal]:
    """`appmux` with these arguments on a terminal; ended at the end, if it still runs.

    `size`: its columns and lines.
    """
    master, slave = os.openpty()
    if size is not None:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    async with (
        trio.lowlevel.FdStream(master) as stream,
        _started(broker, arguments, slave, slave) as process,
    ):
        os.close(slave)
        yield Terminal(process, stream, stream)


@asynccontextmanager
async def _started(
    broker: Native, arguments: Sequence[str], stdin: int, stdout: int
) -> AsyncIterator[trio.Process]:
    environ = {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "mux", *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        env=broker.home.environ() | environ,
        cwd=str(broker.home.work),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
