"""What is compared: the app-server's own listener, and the broker as shipped; and their clients.

Both sides ask for a token. The broker has its journal, audit log and metrics as it has them by
default. Its app-server is the real one, with a scripted model, or `source`.

Hands to: every measurement, a running server and loads on it.
Hears from: ``/proc`` (CPU and memory; Linux only), `load`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from bench import load, source
from mux.demo.scripted_model import Scripted
from tests.end_to_end.native import Native, codex_bin, launched

SIDES: Final = ("native", "broker")

HERE: Final = Path(__file__).parent.parent
MIB: Final = 1024 * 1024
TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")

SOCKETS: Final = 12_000
"""For 5,000 idle clients, with room."""

TOKEN: Final = "bench-token-of-no-worth"
AUTH: Final = ("--ws-auth", "capability-token", "--ws-token-sha256",
               sha256(TOKEN.encode()).hexdigest())  # fmt: skip

PATIENCE: Final = 600.0
"""Seconds for one turn: natively to hundreds of subscribers it takes minutes."""

ENDLESS_OUTBOX: Final = {"APPMUX_LIMITS_OUTBOX_BYTES": str(4096 * MIB)}
"""For what the broker can do at most: the load shares its cores, and a client that falls behind
would be given less, by another way."""


def prepare() -> None:
    """What a program of the bench does first, for itself and all that it starts.

    As a rule a process may have 1,024 sockets open: as many as it may be allowed, then. And asked
    to terminate it ends as if interrupted, with all that it started.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != now < SOCKETS:
        wanted = SOCKETS if most == resource.RLIM_INFINITY else min(SOCKETS, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    signal.signal(signal.SIGTERM, lambda _signal, _frame: signal.raise_signal(signal.SIGINT))


# --- Servers -------------------------------------------------------------------------------------


@attrs.frozen
class Server:
    """One that runs. ``pid``: of the listener's process; ``app_server``: of the one beneath."""

    url: str
    pid: int
    app_server: int | None
    home: Path


@asynccontextmanager
async def native(model: Scripted | None = None) -> AsyncIterator[Server]:
    """``codex app-server --listen``, the real one."""
    command = [str(codex_bin()), "app-server", "--listen", "ws://127.0.0.1:0", *AUTH]
    async with launched(command, model=model) as running:
        yield await _server(running)


@asynccontextmanager
async def broker(
    model: Scripted | None = None,
    *,
    codex: str | None = None,
    tree: Path = HERE,
    environ: dict[str, str] | None = None,
    module: str = "mux",
    more: Sequence[str] = (),
) -> AsyncIterator[Server]:
    """``appmux serve`` of the working tree ``tree``, over the real app-server or ``codex``.

    ``more``: arguments.
    """
    variables = {
        "APPMUX_CODEX_BIN": codex or str(codex_bin()),
        "APPMUX_LOG_LEVEL": "warning",
        "PYTHONPATH": str(tree),
    }
    command = [sys.executable, "-m", module, "serve", "--listen", "ws://127.0.0.1:0", *AUTH]
    command += more
    async with launched(command, model=model, environ=variables | (environ or {})) as running:
        server = attrs.evolve(await _server(running), pid=running.broker_pid)
        if codex is None:
            with trio.fail_after(PATIENCE):
                # The supervisor's child, in a tree without one the broker's.
                while (child := _child(running.process.pid, server.pid)) is None:  # noqa: ASYNC110 (it isn't told)
                    await trio.sleep(0.01)
            server = attrs.evolve(server, app_server=child)
        yield server


async def _server(running: Native) -> Server:
    url = (await running.wait_log(r"listening on: (ws://\S+)"))[1]
    return Server(url, running.process.pid, None, running.home.root)


@asynccontextmanager
async def serving(
    side: str, model: Scripted | None = None, tree: Path = HERE
) -> AsyncIterator[Server]:
    """One of the two sides, over the real app-server."""
    async with native(model) if side == "native" else broker(model, tree=tree) as server:
        yield server


@asynccontextmanager
async def sourced(
    tree: Path = HERE, environ: dict[str, str] | None = None, module: str = "mux"
) -> AsyncIterator[Server]:
    """The broker over `source`."""
    with tempfile.TemporaryDirectory(prefix="appmux-bench-") as place:
        codex = Path(place) / "codex"
        codex.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{source.__file__}'\n")
        codex.chmod(0o755)
        async with broker(codex=str(codex), tree=tree, environ=environ, module=module) as server:
            yield server


# --- What a process costs ------------------------------------------------------------------------


def cpu_seconds(pid: int | str | None) -> float:
    """User and system time of a process so far; of a thread, if ``pid`` is ``PID/task/TID``."""
    if pid is None:
        return 0.0
    # The second field is the program's name in parentheses, which may hold blanks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_bytes(pid: int) -> int:
    """What a process holds in memory now (RSS)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def peak_bytes(pid: int) -> int:
    """The most that a process has held in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def peak_forgotten(pid: int) -> int:
    """What a process holds now, which is its peak from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return memory_bytes(pid)


def _child(pid: int, broker: int) -> int | None:
    # Each thread has its own: processes are started by a worker thread, which lives on for 10 s.
    for task in Path(f"/proc/{pid}/task").iterdir():
        children = map(int, (task / "children").read_text().split())
        if others := [child for child in children if child != broker]:
            return others[0]
    return None


# --- Loads ---------------------------------------------------------------------------------------


@attrs.frozen
class Load:
    """A process of clients."""

    process: trio.Process

    async def line(self) -> str:
        """The next line that it says. Raises RuntimeError if it ends before."""
        line = bytearray()
        assert self.process.stdout is not None
        with trio.fail_after(PATIENCE):
            while not line.endswith(b"\n"):
                piece = await self.process.stdout.receive_some(1)
                if not piece:
                    raise RuntimeError("the load failed; what it says stands above")
                line += piece
        return line.decode().rstrip()

    async def say(self, text: str = "") -> None:
        """Go on, where it waits for a word."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode() + b"\n")

    async def result(self) -> dict[str, Any]:
        """What it found."""
        found: dict[str, Any] = json.loads(await self.line())
        return found


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[Load]:
    """A module of the bench in a process of its own; ended on the way out."""
    process: trio.Process = await trio.lowlevel.open_process(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=HERE,
    )
    try:
        yield Load(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def loading(job: str, url: str, **keywords: Any) -> AsyncIterator[Load]:
    """Clients with a job of `load`, ready."""
    spec = {"job": job, "url": url, "token": TOKEN, **keywords}
    async with started("bench.load", json.dumps(spec)) as each:
        if (line := await each.line()) != "ready":
            raise RuntimeError(f"the clients could not attach: {line}")
        yield each


@attrs.define
class Driver:
    """Whoever begins the turns, over one connection of this process."""

    url: str
    id: int = 1
    _connection: Any = None
    _received: bytes = b""

    async def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of one request."""
        if self._connection is None:
            self._connection = await trio.to_thread.run_sync(load.attach, self.url, TOKEN)
        self.id += 1
        self._received = text = await trio.to_thread.run_sync(
            load.ask, self._connection, self.id, method, params, abandon_on_cancel=True
        )
        answer = text[text.index(b'{"id":%d,' % self.id) :]
        result: dict[str, Any] = json.JSONDecoder().raw_decode(answer.decode(errors="replace"))[0]
        return dict(result["result"])

    async def replay(self, wanted: str) -> None:
        """Begin a turn of `source`."""
        params = {"threadId": source.thread_id(0), "input": [{"type": "text", "text": wanted}]}
        await self.ask("turn/start", params)

    async def first_turn(self, work: Path, **settings: Any) -> str:
        """A thread of the real app-server, with a turn, without which natively nobody can join."""
        begun = await self.ask("thread/start", {"cwd": str(work), **settings})
        thread = begun["thread"]["id"]
        await self.whole_turn(thread, "hello")
        return str(thread)

    async def turn(self, thread: str, text: str) -> None:
        """Begin a turn; its end comes to those that follow."""
        said = [{"type": "text", "text": text}]
        await self.ask("turn/start", {"threadId": thread, "input": said})

    async def whole_turn(self, thread: str, text: str) -> None:
        """Run a turn to its end, of a thread that is followed here."""
        await self.turn(thread, text)
        await trio.to_thread.run_sync(self._until_completed, abandon_on_cancel=True)

    def close(self) -> None:
        """Go."""
        if self._connection is not None:
            self._connection.close()

    def _until_completed(self) -> None:
        received = self._received
        while load.COMPLETED not in received:
            piece = self._connection.recv(load.RECEIVE_BYTES)
            if not piece:
                raise RuntimeError("closed before the turn ended")
            received += piece


def threads(number: int) -> list[str]:
    """So many of the source's threads."""
    return [source.thread_id(each) for each in range(number)]


def median(values: Sequence[float]) -> float:
    """The middle one, or between the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
