"""The bytes owed to one peer: the core's commands append, one task writes in batches.

``append`` never waits, so a decision never waits for a socket. While the writer is idle, what is
owed is written without it, if the socket takes it: waking the writer costs five times as much. That
happens once all that can be decided now is decided (``WriteScheduler``), so what sixteen clients
ask goes to the app-server in one piece. Otherwise the writer joins what is owed and sends it in one
call: under load a batch holds hundreds of frames.

Used by ``dispatcher`` (frames) and, for clients, by ``downstream`` (pong and close frames of the
WebSocket layer).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import attrs
import msgspec
import trio

from mux.core.commands import (
    Charge,
    Close,
    ConnectionCommand,
    ReadOn,
    ReportWhenDrained,
    StopReading,
)

TEXT = 0x81
"""The first byte of a text message's only frame."""

SHORT, MEDIUM = 126, 1 << 16
"""Payload lengths from which a frame's header needs 2, and 8, bytes more (RFC 6455, 5.2)."""

BATCH_BYTES = 256 * 1024
"""Bytes joined into one write. A larger batch saves no time and holds a second copy of more
bytes."""

COMPRESSED_BYTES = 16 * 1024
"""Most bytes that are compressed where they are written, which nobody else goes on beside: half a
millisecond. More of them the writer compresses, step by step."""

DRAINED_SHARE = 4
"""An outbox has room again when it holds a quarter of its limit: enough to keep the socket busy
while the next part is read."""


class WriteScheduler(trio.abc.Instrument):
    """Writes all outboxes that owe something, before trio's loop waits for anything.

    This is a hook of the loop, not a task, as no step of a task costs as little. The hook may wake
    no task (the loop has decided already how long to wait), so waking is put off to the loop's next
    round.
    """

    def __init__(self) -> None:
        self._owing: list[Outbox] = []
        self.before: Callable[[], None] = lambda: None
        """Called before anything is written that was decided in this round."""

    def add(self, outbox: Outbox) -> None:
        """Have the outbox written in this round of the loop."""
        self._owing.append(outbox)

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 (trio's)
        """Write the outboxes. trio calls this in its thread, between two steps of tasks."""
        self.before()
        if self._owing:
            stuck = [outbox for outbox in self._owing if not outbox.write_now()]
            self._owing.clear()
            if stuck:
                trio.lowlevel.current_trio_token().run_sync_soon(_wake_all, stuck)


def _wake_all(outboxes: list[Outbox]) -> None:
    for outbox in outboxes:
        outbox.wake()


class Traffic(msgspec.Struct):
    """Messages since the start, by direction; a message to three clients counts three times."""

    from_clients: int = 0
    to_app_server: int = 0
    from_app_server: int = 0
    to_clients: int = 0
    bytes_to_clients: int = 0


@attrs.define(eq=False, repr=False)
class Outbox:
    """Bytes owed to one peer."""

    limit: float = float("inf")
    """Bytes from which the outbox counts as full."""
    on_full: Callable[[], None] = attrs.field(default=lambda: None)
    """Called when more than ``limit`` bytes are owed, once until the outbox has drained again."""
    on_drained: Callable[[], None] = attrs.field(default=lambda: None)
    """Called by the writer, once for each ``report_when_drained``."""
    wake_writer: Callable[[], None] = attrs.field(default=lambda: None)
    """Called when there is something to write: starts the writer task (if it wasn't started with
    the outbox), or wakes it."""
    descriptor: Callable[[], int] | None = None
    """Returns the descriptor that the stream writes to, if the bytes go out unchanged (no TLS). The
    descriptor doesn't block."""
    compressed: Callable[[bytes | memoryview], bool] | None = None
    """Writes a short piece of whole frames compressed, in place of ``descriptor``; False if its
    stream has some of it left, which goes out before all else that the stream is given."""
    writes: WriteScheduler | None = None
    """The scheduler that writes the outbox; without one, ``append`` writes it."""
    owed: int = 0
    _frames: list[bytes | memoryview] = attrs.field(factory=list)
    _idle: bool = True
    _sealed: bool = False
    _full: bool = False
    _report: bool = False

    def append(self, frame: bytes | memoryview) -> None:
        """Owe one more frame, and have it written. Does nothing once sealed."""
        if self._sealed:
            return
        self._frames.append(frame)
        self.owed += len(frame)
        if self.owed > self.limit and not self._full:
            self._full = True
            self.on_full()
        if self._idle and len(self._frames) == 1:
            if self.writes is not None and self.descriptor is not None:
                self.writes.add(self)
            elif not self.write_now():
                self.wake()

    def append_pieces(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Owe the rest of a frame whose beginning is owed already, in pieces."""
        for piece in pieces:
            self.append(piece)

    def write_now(self) -> bool:
        """Write what is owed if the writer is idle. Return False if the writer must be woken.

        This method itself wakes nobody and calls nobody.
        """
        if not self._idle or not self._frames:
            return True
        if self.descriptor is None or (self.owed > BATCH_BYTES and len(self._frames) > 1):
            return False
        if self.compressed is not None and self.owed > COMPRESSED_BYTES:
            return False
        whole = _joined(self._frames)
        if self.compressed is not None:
            self.owed -= len(whole)
            # If some is left the writer is woken, by a frame of no bytes.
            self._frames = [] if self.compressed(whole) else [b""]
            return not self._frames
        try:
            taken = os.write(self.descriptor(), whole)
        except OSError:  # it is full, or broken, which the writer finds out
            taken = 0
        self.owed -= taken
        # A view, not a copy: the same large piece may be owed to each of many clients.
        self._frames = [memoryview(whole)[taken:]] if taken < len(whole) else []
        self._full = self._full and bool(self._frames)
        return not self._frames

    def report_when_drained(self) -> None:
        """Have ``on_drained`` called once there is room.

        The writer calls it, so never during this call.
        """
        self._report = True
        self.wake()

    def finish(self, last: bytes = b"") -> None:
        """Owe ``last`` and nothing after it. The writer ends once all is written."""
        if not self._sealed:
            if last:
                self.append(last)
            self._sealed = True
            self.wake()

    def wake(self) -> None:
        """Wake the writer if it is idle."""
        if self._idle:
            self._idle = False
            self.wake_writer()

    def discard(self) -> None:
        """Accept nothing more and start no writer: the peer is gone."""
        self._sealed, self._idle = True, False

    async def write_to(self, stream: trio.abc.SendStream) -> None:
        """Write what is owed until sealed. Raises what the stream raises."""
        while True:
            self._check_drained()
            if self._frames:
                frames, self._frames = self._frames, []
                await self._write(stream, frames)
            elif self._sealed:
                return
            elif not self._report:
                work = trio.Event()
                self.wake_writer, self._idle = work.set, True
                await work.wait()

    def _check_drained(self) -> None:
        if self.owed <= self.limit / DRAINED_SHARE:
            self._full = False
            if self._report:
                self._report = False
                self.on_drained()

    async def _write(self, stream: trio.abc.SendStream, frames: list[bytes | memoryview]) -> None:
        batch: list[bytes | memoryview] = []
        size = 0
        for frame in frames:
            batch.append(frame)
            size += len(frame)
            if size >= BATCH_BYTES:
                await self._send(stream, batch, size)
                batch, size = [], 0
        if batch:
            await self._send(stream, batch, size)

    async def _send(
        self, stream: trio.abc.SendStream, batch: list[bytes | memoryview], size: int
    ) -> None:
        await stream.send_all(_joined(batch))
        self.owed -= size
        self._check_drained()


@attrs.define(eq=False, repr=False)
class ClientPort:
    """The dispatcher's end of one client's connection."""

    outbox: Outbox
    close: Callable[[int, str], None]
    """Called with a WebSocket code and a reason; doesn't wait."""
    idle: int = 0
    """Messages that asked for nothing or were refused; the task that reads from the client bounds
    them."""
    pid: int | None = None
    """The client's process, where the system tells it."""
    origin: str = ""
    """The origin of the page, if the client is one."""
    read_on: trio.Event | None = None
    """Present while the connection must not be read; set as soon as it may be."""

    def perform(self, command: ConnectionCommand) -> None:
        """Perform a command of the core on the connection."""
        match command:
            case Close(_, code, reason):
                self.close(code, reason)
            case Charge():
                self.idle += 1
            case StopReading():
                self.read_on = trio.Event()
            case ReadOn():
                if self.read_on is not None:
                    self.read_on.set()
                    self.read_on = None
            case ReportWhenDrained():
                self.outbox.report_when_drained()
            case _:
                raise TypeError(f"no such command: {command!r}")


class _Headers(dict[int, bytes]):
    """Headers of text frames by their payload's size; there are as many as sizes of deltas."""

    def __missing__(self, size: int) -> bytes:
        header = self[size] = frame_header(TEXT, size)
        return header


_HEADERS = _Headers()


def _joined(frames: list[bytes | memoryview]) -> bytes | memoryview:
    return frames[0] if len(frames) == 1 else b"".join(frames)


def text_frame(message: bytes) -> bytes:
    """Return a WebSocket text frame as a server sends it.

    It is unmasked, so that one frame serves every client.
    """
    size = len(message)
    if size < SHORT:
        return b"\x81" + size.to_bytes(1, "big") + message
    if size < MEDIUM:  # as nearly all are, so it's worth a line
        return b"\x81\x7e" + size.to_bytes(2, "big") + message
    return frame_header(TEXT, size) + message


def text_frames(messages: list[bytes]) -> list[bytes]:
    """Return a text frame for each of many short messages."""
    return [_HEADERS[len(message)] + message for message in messages]


def frame_header(first: int, size: int) -> bytes:
    """Return the header of an unmasked frame: its first byte, and the size of its payload."""
    if size < SHORT:
        return bytes((first, size))
    if size < MEDIUM:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")
