"""The app-server's process: spawn it, write its stdin, read its stdout and stderr, see it end.

Hands to: ``dispatcher``, each line of stdout, and start and end of the process.
Hears from: ``dispatcher``, the lines for its stdin.

The pipe is read in large chunks, and all lines of a chunk are handled before the next read, nearly
always in one step: that is what makes the batches that the clients' writers send.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import attrs
import structlog
import trio

from mux.config.codex_binary import identity
from mux.core.events import UpstreamExited, UpstreamStarted
from mux.dispatcher import Dispatcher
from mux.outbox import Outbox
from mux.posix import descriptors

CHUNK_BYTES = 256 * 1024
"""Read at once, where the pipe holds as much: about a thousand small deltas."""

PIPE_BYTES = 1024 * 1024
"""Asked of the kernel (Linux) for stdout, so that a burst doesn't block the app-server; 64 KiB is
the default, 1 MiB the most that an ordinary user may ask."""

STDERR_KEPT = 20
"""Last lines of stderr that are told when the process ends: a panic's message and its place."""

STDERR_LINE_BYTES = 16 * 1024
"""A longer line of stderr is cut: it goes into a log, where nobody reads more."""

EOF_DEADLINE = 5.0
"""Seconds from closing stdin to its exit, which takes 0.02 s when it is well."""

TERMINATE_DEADLINE = 2.0
"""Seconds from SIGTERM to its exit, before it is killed."""

LAST_LINES_DEADLINE = 1.0
"""Seconds from its exit to its last line being read; the pipe holds 1 MiB at most."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class Upstream:
    """One app-server process after another, each started when the core says so."""

    command: tuple[str | Path, ...]
    dispatcher: Dispatcher
    generation: int = 0
    pid: int | None = None
    status: int | None = None
    stderr: deque[str] = attrs.field(factory=lambda: deque(maxlen=STDERR_KEPT))
    _outbox: Outbox = attrs.field(factory=Outbox)
    _process: trio.Process | None = None
    _killed_because: str | None = None
    _stopping: trio.Event = attrs.field(factory=trio.Event)
    _wait: float = 0.0
    _wanted: trio.Event = attrs.field(factory=trio.Event)
    _binary: tuple[int, ...] | None = None

    # ── what the core says ────────────────────────────────────────────────────────────────────

    def send(self, line: bytes) -> None:
        """Owe the app-server one line. Doesn't wait: what may be in flight bounds what is owed."""
        self._outbox.append(line + b"\n")

    def start(self, after: float) -> None:
        """Start the next process, after so many seconds. Said again, the last one holds."""
        self._wait = after
        self._wanted.set()

    def stop(self) -> None:
        """Let the process end in order: its stdin is closed once all is written."""
        self._stopping.set()

    def kill(self, reason: str) -> None:
        """End the process at once, without its own good-bye."""
        self._killed_because = reason
        if self._process is not None:
            self._process.kill()

    # ── lives ─────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Run one process after another until cancelled; then end the one that runs, in order."""
        while True:
            self._stopping, self._killed_because = trio.Event(), None
            try:
                await self._live()
            except OSError as failure:
                self._killed_because = f"{self.command[0]} can't be started: {failure.strerror}"
            self._wanted = trio.Event()
            self.dispatcher.handle(UpstreamExited(self.why_it_ended(), time.time()))
            await self._until_wanted()

    async def _until_wanted(self) -> None:
        """Wait until told to start, and then as long as told last."""
        waits = True
        while waits:
            await self._wanted.wait()
            self._wanted = trio.Event()
            with trio.move_on_after(self._wait) as waiting:
                await self._wanted.wait()
            waits = not waiting.cancelled_caught

    async def _live(self) -> None:
        self._outbox = Outbox(writes=self.dispatcher.writes)
        self._binary = identity(self.command[0])
        process = await trio.lowlevel.open_process(
            descriptors.as_started(self.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C in the terminal is for the broker, which then ends the process in order.
            start_new_session=True,
        )
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.generation += 1
        self.pid, self._process = process.pid, process
        self._outbox.descriptor = process.stdin.fileno  # type: ignore[attr-defined]
        _widen(process.stdout)
        log.info("app-server started", pid=process.pid, generation=self.generation)
        # One for both who read it: what the first has of a line is the beginning of the second's.
        errors = Lines()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, process.stdin)
                nursery.start_soon(self._read_errors, process.stderr, errors)
                nursery.start_soon(self._stop_when_told, process)
                nursery.start_soon(_see_its_end, process, nursery.cancel_scope)
                self.dispatcher.handle(UpstreamStarted(self.generation))
                await self._read(process.stdout)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await _end(process)
                await self._rest_of_errors(process.stderr, errors)
            self.pid, self.status, self._process = None, process.returncode, None

    async def _stop_when_told(self, process: trio.Process) -> None:
        await self._stopping.wait()
        self._outbox.finish()
        await trio.sleep(EOF_DEADLINE)
        log.warning("app-server did not end by itself", pid=process.pid)
        process.terminate()
        await trio.sleep(TERMINATE_DEADLINE)
        process.kill()

    def why_it_ended(self) -> str:
        """For people: how the last process ended."""
        return self._killed_because or _status_text(self.status)

    @property
    def killed(self) -> bool:
        """Whether the last process was ended by the broker, or never started."""
        return self._killed_because is not None

    @property
    def outdated(self) -> bool:
        """Whether the binary on disk is another than the one that runs."""
        return self.pid is not None and self._binary != identity(self.command[0])

    async def _write(self, stdin: trio.abc.SendStream) -> None:
        # A broken pipe is told by stdout's end, which comes with it.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._outbox.write_to(stdin)
            await stdin.aclose()

    async def _read(self, stdout: trio.abc.ReceiveStream) -> None:
        lines = Lines()
        while chunk := await _receive(stdout):
            read = lines.split(chunk)
            while (heard := self.dispatcher.handle_lines(read)) < len(read):
                read = read[heard:]
                await trio.lowlevel.checkpoint()

    async def _read_errors(self, stderr: trio.abc.ReceiveStream, lines: Lines) -> None:
        while chunk := await stderr.receive_some(CHUNK_BYTES):
            self._log_errors(lines.split(chunk))

    async def _rest_of_errors(self, stderr: trio.abc.ReceiveStream, lines: Lines) -> None:
        # What it said last is why it ended; a grandchild may hold the pipe open, so not for long.
        with trio.move_on_after(TERMINATE_DEADLINE):
            await self._read_errors(stderr, lines)
        await stderr.aclose()

    def _log_errors(self, lines: list[bytes]) -> None:
        for line in lines:
            text = _COLOURS.sub("", line[:STDERR_LINE_BYTES].decode(errors="replace")).rstrip()
            if text:
                self.stderr.append(text)
                log.info("app-server stderr", line=text)


async def _receive(stdout: trio.abc.ReceiveStream) -> bytes:
    """What came. Nearly always it has to be waited for, so that comes first."""
    descriptor: int = stdout.fileno()  # type: ignore[attr-defined]
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        with contextlib.suppress(BlockingIOError):
            return os.read(descriptor, CHUNK_BYTES)


@attrs.define(eq=False, repr=False)
class Lines:
    """Splits a byte stream into lines; what a chunk leaves unfinished is kept in parts.

    A line of many chunks is joined once, at its end, so that its length costs only once.
    """

    _parts: list[bytes] = attrs.field(factory=list)

    def split(self, chunk: bytes | bytearray) -> list[bytes]:
        """The lines that ``chunk`` completes, without ends. An unended last one never comes."""
        *whole, rest = bytes(chunk).split(b"\n")
        if whole and self._parts:
            whole[0] = b"".join((*self._parts, whole[0]))
            self._parts.clear()
        if rest:
            self._parts.append(rest)
        return list(filter(None, whole))


async def _see_its_end(process: trio.Process, reading: trio.CancelScope) -> None:
    """Its stdout's end tells, which is read first; unless a child that outlives it has that too."""
    await process.wait()
    await trio.sleep(LAST_LINES_DEADLINE)
    reading.cancel()


async def _end(process: trio.Process) -> None:
    assert process.stdin
    assert process.stdout
    await process.stdin.aclose()
    with trio.move_on_after(EOF_DEADLINE):
        # It may be blocked on a full pipe: what it still says is read and dropped.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drop, process.stdout)
            await process.wait()
            nursery.cancel_scope.cancel()
    if process.returncode is None:
        log.warning("app-server did not end by itself", pid=process.pid)
        process.terminate()
        with trio.move_on_after(TERMINATE_DEADLINE):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    await process.stdout.aclose()


async def _drop(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some(CHUNK_BYTES):
        pass


def _status_text(status: int | None) -> str:
    if status is None:
        return "it is running"
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"killed by {name}"


def _widen(stdout: trio.abc.ReceiveStream) -> None:
    if sys.platform == "linux":
        # Some sandboxes refuse; the default size works as well, only with more reads.
        with contextlib.suppress(OSError):
            fcntl.fcntl(stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # type: ignore[attr-defined]
