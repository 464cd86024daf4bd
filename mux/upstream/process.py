"""The app-server's process: spawn it, write its stdin, read its stdout and stderr, see it end.

``dispatcher`` gets each line of stdout, and start and end of the process; it sends the lines for
stdin.

The pipe is read in large chunks. All lines of a chunk are handled before the next read, nearly
always in one step, so that clients' writers send them in batches.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import msgspec
import structlog
import trio

from mux.config.codex_binary import identity
from mux.core.events import UpstreamExited, UpstreamHandedOver, UpstreamStarted
from mux.core.part import Part
from mux.dispatch.dispatcher import Dispatcher
from mux.dispatch.outbox import Outbox
from mux.posix import descriptors
from mux.storage.broker_state import BrokerState
from mux.upstream.exit_status import in_words
from mux.upstream.lines import Lines, MessageLines
from mux.upstream.supervised import SupervisedProcess, Supervision

CHUNK_BYTES = 256 * 1024
"""Most bytes of one read: about a thousand small deltas."""

PIPE_BYTES = 1024 * 1024
"""Size of stdout's pipe (Linux), so that a burst doesn't block the app-server. The default is
64 KiB; 1 MiB is the most that an ordinary user may ask for."""

STDERR_KEPT = 20
"""Last lines of stderr that are reported when the process ends: a panic's message and location."""

STDERR_LINE_BYTES = 16 * 1024
"""Bytes after which a line of stderr is cut: it goes into a log, where nobody reads more."""

EOF_DEADLINE = 5.0
"""Seconds from closing stdin to the exit; a healthy app-server takes 0.02 s."""

TERMINATE_DEADLINE = 2.0
"""Seconds from SIGTERM to the exit; then the process is killed."""

LAST_LINES_DEADLINE = 1.0
"""Seconds from the exit until the last lines are read; the pipe holds 1 MiB at most."""

LEVELS = {
    "TRACE": "debug",
    "DEBUG": "debug",
    "INFO": "info",
    "WARN": "warning",
    "ERROR": "error",
}
"""The app-server's levels in its lines on stderr, and ours."""

_LEVEL = re.compile(rf"\S+ +({'|'.join(LEVELS)}) ")
"""Matches the beginning of such a line: a time, and the level."""

LEAVING_DEADLINE = 1.0
"""Seconds to write what is owed before the process is left to the next broker."""

LOOK_SECONDS = 0.01

Process = trio.Process | SupervisedProcess
"""A running app-server: a child of our own, or the supervisor's."""

PROCESS = "process/"
"""The key under which the app-server's process stands in the broker's state."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

log = structlog.get_logger()


class Inheritance(Part):
    """An app-server that runs, and what an earlier broker has left of it."""

    process: SupervisedProcess
    generation: int
    event: UpstreamHandedOver
    read: bytes
    """What that broker had read, and not handled."""
    cut: bool
    """True if a line goes on whose beginning is lost (see ``broker_state``)."""


class Upstream(Part):
    """Runs one app-server process after another, each started when the core commands it."""

    command: tuple[str | Path, ...]
    dispatcher: Dispatcher
    supervision: Supervision | None = None
    """Starts the processes; None: they are children of our own."""
    durable: BrokerState | None = None
    """Keeps what was read and isn't handled yet."""
    inheritance: Inheritance | None = None
    """The app-server that an earlier broker left, until it is taken over."""
    generation: int = 0
    """Processes started so far."""
    pid: int | None = None
    """The id of the process that runs; None while none does."""
    status: int | None = None
    """Return code of the last process that ended."""
    stderr: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=STDERR_KEPT))
    """Last lines of stderr, without colours."""
    _outbox: Outbox = msgspec.field(default_factory=Outbox)
    _process: Process | None = None
    _killed_because: str | None = None
    _stopping: trio.Event = msgspec.field(default_factory=trio.Event)
    _leaving: bool = False
    """True once the process is to be left to the next broker."""
    _left: trio.Event = msgspec.field(default_factory=trio.Event)
    _reading: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    _wait: float = 0.0
    """Seconds from the core's latest ``start`` to the next process."""
    _start_requested: trio.Event = msgspec.field(default_factory=trio.Event)
    _binary: tuple[int, ...] | None = None
    """Identity of the binary that runs."""

    # ── commands of the core ──────────────────────────────────────────────────────────────────

    def send(self, line: bytes) -> None:
        """Append a line to the outbox. Doesn't wait: the limit on requests in flight bounds it."""
        self._outbox.append(line + b"\n")

    def start(self, after: float) -> None:
        """Start the next process in so many seconds. A later call replaces the delay."""
        self._wait = after
        self._start_requested.set()

    def stop(self) -> None:
        """End the process in order: its stdin is closed once the outbox is written."""
        self._stopping.set()

    def kill(self, reason: str) -> None:
        """Kill the process at once; ``reason`` is for people."""
        self._killed_because = reason
        if self._process is not None:
            self._process.kill()

    async def leave(self) -> None:
        """Leave the process to the next broker: read no more, and write what is owed."""
        self._leaving = True
        self._reading.cancel()
        if self._process is not None:
            await self._left.wait()

    # ── lives ─────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Run one process after another until cancelled; then end the running one in order."""
        while True:
            self._stopping, self._killed_because = trio.Event(), None
            try:
                await self._live()
            except OSError as failure:
                self._killed_because = f"{self.command[0]} can't be started: {failure.strerror}"
            if self._leaving:
                self._left.set()  # also if it was ending just then
                return
            self._start_requested = trio.Event()
            self.dispatcher.handle(UpstreamExited(self.why_it_ended(), time.time()))
            await self._until_start()

    async def _until_start(self) -> None:
        """Wait for ``start``, then for the delay of the latest call."""
        waits = True
        while waits:
            await self._start_requested.wait()
            self._start_requested = trio.Event()
            with trio.move_on_after(self._wait) as waiting:
                await self._start_requested.wait()
            waits = not waiting.cancelled_caught

    async def _live(self) -> None:
        self._outbox = Outbox(writes=self.dispatcher.writes)
        self._binary = identity(self.command[0])
        inherited, self.inheritance = self.inheritance, None
        if inherited is None:
            process = await self._start_process()
            before = (
                self.generation if self.supervision is None else self.supervision.generation - 1
            )
            self.generation = before + 1
            self._note_new(process.pid)
        else:
            process, self.generation = inherited.process, inherited.generation
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.pid, self._process = process.pid, process
        self._outbox.descriptor = process.stdin.fileno  # type: ignore[attr-defined]
        _enlarge_pipe(process.stdout)
        event = "app-server started" if inherited is None else "app-server taken over"
        log.info(event, pid=process.pid, generation=self.generation)
        # One buffer for both readers of stderr: the second one goes on with the first one's line.
        errors = Lines()
        is_over = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, process.stdin)
                nursery.start_soon(self._read_errors, process.stderr, errors)
                nursery.start_soon(self._stop_when_told, process)
                nursery.start_soon(_stop_reading_at_exit, process, nursery.cancel_scope)
                if inherited is None:
                    self.dispatcher.handle(UpstreamStarted(self.generation))
                else:
                    # Ends the line that may have been written in part, which is dropped.
                    self._outbox.append(b"\n")
                    self.dispatcher.handle(inherited.event)
                with trio.CancelScope() as self._reading:
                    await self._read(process.stdout, inherited)
                with trio.move_on_after(LEAVING_DEADLINE if self._leaving else 0):
                    await self._until_written()
                nursery.cancel_scope.cancel()
            is_over = not self._leaving
        finally:
            # Shielded: when the broker is cancelled, the app-server still ends in order.
            with trio.CancelScope(shield=True):
                if not is_over and isinstance(process, SupervisedProcess) and process.is_left():
                    await process.let_go()
                else:
                    await end(process)
                    await self._rest_of_errors(process.stderr, errors)
            self.pid, self.status, self._process = None, process.returncode, None

    async def _until_written(self) -> None:
        while self._outbox.owed:  # noqa: ASYNC110 (once in a broker's life)
            await trio.sleep(LOOK_SECONDS)

    async def _start_process(self) -> Process:
        if self.supervision is not None:
            return await self.supervision.start(self.command, os.environ)
        return await trio.lowlevel.open_process(
            descriptors.as_started(self.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C in the terminal is for the broker, which then ends the process in order.
            start_new_session=True,
        )

    async def _stop_when_told(self, process: Process) -> None:
        await self._stopping.wait()
        self._outbox.finish()
        await trio.sleep(EOF_DEADLINE)
        log.warning("app-server did not end by itself", pid=process.pid)
        process.terminate()
        await trio.sleep(TERMINATE_DEADLINE)
        process.kill()

    def why_it_ended(self) -> str:
        """Return how the last process ended, for people."""
        return self._killed_because or in_words(self.status)

    @property
    def killed(self) -> bool:
        """True if the broker killed the last process, or it couldn't be started."""
        return self._killed_because is not None

    @property
    def outdated(self) -> bool:
        """True if the binary on disk is another than the one that runs."""
        return self.pid is not None and self._binary != identity(self.command[0])

    async def _write(self, stdin: trio.abc.SendStream) -> None:
        # A broken pipe needs no report: stdout ends with it, and `_read` sees that.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._outbox.write_to(stdin)
            await stdin.aclose()

    async def _read(self, stdout: trio.abc.ReceiveStream, inherited: Inheritance | None) -> None:
        lines, cut = MessageLines(), inherited is not None and inherited.cut
        if inherited is not None and inherited.read:
            await self._handle(lines, inherited.read)
        while chunk := await _receive(stdout):
            if cut:  # the rest of a line that the earlier broker had the beginning of
                _, end, chunk = chunk.partition(b"\n")
                cut = not end
            if self.durable is not None:
                self.durable.received(chunk)
            await self._handle(lines, chunk)

    async def _handle(self, lines: MessageLines, chunk: bytes) -> None:
        read = lines.split(chunk)
        blank = chunk.count(b"\n") - len(read)
        while True:
            handled = self.dispatcher.handle_lines(read)
            if self.durable is not None:
                done = sum(map(len, read[:handled])) + handled
                self.durable.handled(done + (blank if handled == len(read) else 0))
            if handled == len(read):
                return
            # Lines left over are handled after a checkpoint, so that a long chunk lets others run.
            read = read[handled:]
            await trio.lowlevel.checkpoint()

    def _note_new(self, pid: int) -> None:
        """Note which process the saved state is of."""
        if self.durable is not None and self.supervision is not None:
            self.durable.renewed()
            self.durable.put(PROCESS, self.supervision.mark(pid, self.generation))

    async def _read_errors(self, stderr: trio.abc.ReceiveStream, lines: Lines) -> None:
        while chunk := await stderr.receive_some(CHUNK_BYTES):
            self._log_errors(lines.split(chunk))

    async def _rest_of_errors(self, stderr: trio.abc.ReceiveStream, lines: Lines) -> None:
        # The last lines tell why the process ended. A grandchild may hold the pipe open, so don't
        # wait long.
        with trio.move_on_after(TERMINATE_DEADLINE):
            await self._read_errors(stderr, lines)
        await stderr.aclose()

    def _log_errors(self, lines: list[bytes]) -> None:
        for line in lines:
            text = _COLOURS.sub("", line[:STDERR_LINE_BYTES].decode(errors="replace")).rstrip()
            if text:
                self.stderr.append(text)
                match = _LEVEL.match(text)
                level = LEVELS[match[1]] if match else "info"
                getattr(log, level)("app-server stderr", line=text)


async def _receive(stdout: trio.abc.ReceiveStream) -> bytes:
    """Receive the next bytes. Waits before the first try: mostly nothing has come yet."""
    descriptor: int = stdout.fileno()  # type: ignore[attr-defined]
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        with contextlib.suppress(BlockingIOError):
            return os.read(descriptor, CHUNK_BYTES)


async def _stop_reading_at_exit(process: Process, reading: trio.CancelScope) -> None:
    """Stop reading after the process's exit.

    Normally the end of stdout tells of the exit, once everything is read. But a child that outlives
    the process may hold stdout open.
    """
    await process.wait()
    await trio.sleep(LAST_LINES_DEADLINE)
    reading.cancel()


async def end(process: Process) -> None:
    """End an app-server in order: by the end of its stdin, or else by signals."""
    assert process.stdin
    assert process.stdout
    await process.stdin.aclose()
    with trio.move_on_after(EOF_DEADLINE):
        # It may be blocked on a full pipe, so its output is read and dropped.
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


def _enlarge_pipe(stdout: trio.abc.ReceiveStream) -> None:
    if sys.platform == "linux":
        # Some sandboxes refuse. The default size works as well, only with more reads.
        with contextlib.suppress(OSError):
            fcntl.fcntl(stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # type: ignore[attr-defined]
