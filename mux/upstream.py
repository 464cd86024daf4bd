"""The app-server's process: spawn it, write its stdin, read its stdout and stderr, see it end.

Hands to: ``dispatcher``, each line of stdout, and start and end of the process.
Hears from: ``dispatcher``, the lines for its stdin.

The pipe is read in large chunks, and all lines of a chunk are handled before the next read: that
is what makes the batches that the clients' writers send.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import structlog
import trio

from mux.core.events import UpstreamExited, UpstreamSent, UpstreamStarted
from mux.dispatcher import Dispatcher
from mux.outbox import Outbox

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

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

log = structlog.get_logger()


@attrs.define(eq=False)
class Upstream:
    """One app-server process after another; at present, one."""

    command: tuple[str | Path, ...]
    dispatcher: Dispatcher
    generation: int = 0
    pid: int | None = None
    status: int | None = None
    ended_because: str | None = None
    stderr: deque[str] = attrs.field(factory=lambda: deque(maxlen=STDERR_KEPT))
    _outbox: Outbox = attrs.field(factory=lambda: Outbox(float("inf"), lambda: None))
    _stop: Callable[[], None] = attrs.field(default=lambda: None)
    _kill: Callable[[], None] = attrs.field(default=lambda: None)

    def send(self, line: bytes) -> None:
        """Owe the app-server one line. Doesn't wait: what may be in flight bounds what is owed."""
        self._outbox.append(line + b"\n")

    def kill(self) -> None:
        """End it at once, without its own good-bye."""
        self._kill()

    def give_up(self, reason: str) -> None:
        """It can't be used: end it."""
        self.ended_because = reason
        self._stop()

    async def run(self) -> None:
        """Run the process until it ends; ``status`` is then its exit status (negative: a signal).

        Raises OSError if it can't be started. When cancelled, ends the process in order: stdin
        closed, waited for, terminated, killed.
        """
        self.generation += 1
        process = await trio.lowlevel.open_process(
            list(self.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C in the terminal is for the broker, which then ends the process in order.
            start_new_session=True,
        )
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.pid, self._kill = process.pid, process.kill
        _widen(process.stdout)
        log.info("app-server started", pid=process.pid, generation=self.generation)
        try:
            async with trio.open_nursery() as nursery:
                self._stop = nursery.cancel_scope.cancel
                nursery.start_soon(self._write, process.stdin)
                nursery.start_soon(self._read_errors, process.stderr)
                self.dispatcher.hear(UpstreamStarted(self.generation))
                await self._read(process.stdout)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await _end(process)
                await self._rest_of_errors(process.stderr)
            self.pid, self.status = None, process.returncode
        self.dispatcher.hear(UpstreamExited(self.why_it_ended()))

    def why_it_ended(self) -> str:
        """For people: how the last process ended."""
        return self.ended_because or _status_text(self.status)

    async def _write(self, stdin: trio.abc.SendStream) -> None:
        # A broken pipe is told by stdout's end, which comes with it.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._outbox.write_to(stdin)

    async def _read(self, stdout: trio.abc.ReceiveStream) -> None:
        lines = Lines()
        hear = self.dispatcher.hear
        while chunk := await stdout.receive_some(CHUNK_BYTES):
            for line in lines.split(chunk):
                hear(UpstreamSent(line))

    async def _read_errors(self, stderr: trio.abc.ReceiveStream) -> None:
        lines = Lines()
        while chunk := await stderr.receive_some(CHUNK_BYTES):
            self._log_errors(lines.split(chunk))

    async def _rest_of_errors(self, stderr: trio.abc.ReceiveStream) -> None:
        # What it said last is why it ended; a grandchild may hold the pipe open, so not for long.
        with trio.move_on_after(TERMINATE_DEADLINE):
            await self._read_errors(stderr)
        await stderr.aclose()

    def _log_errors(self, lines: Iterator[bytes]) -> None:
        for line in lines:
            text = _COLOURS.sub("", line[:STDERR_LINE_BYTES].decode(errors="replace")).rstrip()
            if text:
                self.stderr.append(text)
                log.info("app-server stderr", line=text)


@attrs.define(eq=False)
class Lines:
    """Splits a byte stream into lines; what a chunk leaves unfinished is kept in parts.

    A line of many chunks is joined once, at its end, so that its length costs only once.
    """

    _parts: list[bytes] = attrs.field(factory=list)

    def split(self, chunk: bytes | bytearray) -> Iterator[bytes]:
        """The lines that ``chunk`` completes, without their ends. An unended last one never comes."""
        *whole, rest = bytes(chunk).split(b"\n")
        if whole and self._parts:
            whole[0] = b"".join((*self._parts, whole[0]))
            self._parts.clear()
        yield from filter(None, whole)
        if rest:
            self._parts.append(rest)


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
