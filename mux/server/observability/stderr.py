"""The broker's stderr: writing never waits, and a line that can't be written is no error.

If the terminal closes, the pipe's reader goes or stalls, or the log's disk is full, the line is
dropped and counted, and the next one is tried again. A thread writes, since nothing else never
blocks the broker: ``poll`` doesn't cover disks, and ``O_NONBLOCK`` would hold for all programs that
share the terminal or pipe.

A `Stderr` replaces ``sys.stderr``, so that everything printed there (log lines, banners, warnings,
tracebacks) goes this way.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from mux.posix.standard_streams import STDERR

QUEUED_BYTES: Final = 1024 * 1024
"""Most bytes queued for a reader that stalls: some 5,000 lines, more than a burst has."""

BATCH_BYTES: Final = 64 * 1024
"""Most bytes of one write: as many as a pipe holds."""

LAST_LINES_DEADLINE: Final = 1.0
"""Seconds to write the last lines in at the end of the process; a reader that reads needs none."""

STALLED: Final = "its reader takes nothing"
CLOSED: Final = "it is closed"


class Stderr(io.TextIOBase):
    """A text stream over a descriptor (None: there is none), written by a thread of its own.

    ``dropped`` counts the lines lost so far. ``trouble`` is the reason while lines are being lost.
    ``missed`` is called, in the writing thread, with the number of lines lost, once lines are
    taken again.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor: int | None, encoding: str = "utf-8") -> None:
        self.encoding = encoding
        self.dropped = 0
        self.trouble: str | None = None if descriptor is not None else CLOSED
        self.missed: Callable[[int], None] = lambda _lines: None
        self._descriptor = descriptor
        self._unsaid = 0
        self._begun: list[str] = []
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._writing_since: float | None = None
        # Reentrant: a finalizer that runs in here may print, too.
        self._changed = threading.Condition(threading.RLock())
        if descriptor is not None:
            threading.Thread(target=self._write_all, name="stderr", daemon=True).start()
            atexit.register(self.drain)

    # ── the text stream ───────────────────────────────────────────────────────────────────────

    def write(self, text: str) -> int:
        """Queue a text; its lines are written when they are whole, or at ``flush``."""
        if not isinstance(text, str):
            raise TypeError(f"expected text, not {type(text).__name__}")
        with self._changed:
            self._begun.append(text)
            if "\n" in text:
                self._queue_line()
        return len(text)

    def flush(self) -> None:
        """Queue an unfinished line, too. Doesn't wait until it is written."""
        with self._changed:
            self._queue_line()

    def _queue_line(self) -> None:
        line = "".join(self._begun).encode(self.encoding, self.errors)
        self._begun.clear()
        if not line:
            return
        if self._descriptor is None or self._bytes + len(line) > QUEUED_BYTES:
            self._lose(line, self.trouble or STALLED)
            return
        self._lines.append(line)
        self._bytes += len(line)
        self._changed.notify_all()

    def _lose(self, lines: bytes, reason: str) -> None:
        lost = max(1, lines.count(b"\n"))
        self.dropped += lost
        self._unsaid += lost
        self.trouble = reason

    def drain(self) -> None:
        """Wait until all is written, but not for a write that began `LAST_LINES_DEADLINE` ago."""
        with self._changed:
            self._queue_line()
            since = time.monotonic() if self._writing_since is None else self._writing_since
            deadline = since + LAST_LINES_DEADLINE
            while self._bytes and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Return the descriptor. Raises ``OSError`` if there is none."""
        if self._descriptor is None:
            raise io.UnsupportedOperation(CLOSED)
        return self._descriptor

    def isatty(self) -> bool:
        return self._descriptor is not None and os.isatty(self._descriptor)

    def status(self) -> dict[str, object]:
        """Return lost lines and their reason, for ``mux/status``."""
        return {"droppedLines": self.dropped, "trouble": self.trouble}

    # ── the thread ────────────────────────────────────────────────────────────────────────────

    def _write_all(self) -> None:
        torn = False
        while True:
            batch = self._next_batch()
            left, reason = self._write(b"\n" + batch if torn else batch)
            # The rest of a line cut off in the middle is dropped: the next text starts a new line.
            torn = bool(left) and not batch.endswith(b"\n" + left) and left != batch
            with self._changed:
                self._bytes -= len(batch)
                self._writing_since = None
                missed = 0
                if reason is not None:
                    self._lose(left, reason)
                else:
                    self.trouble = None
                    missed, self._unsaid = self._unsaid, 0
                self._changed.notify_all()
            if missed:
                self.missed(missed)

    def _next_batch(self) -> bytes:
        with self._changed:
            while not self._lines:
                self._changed.wait()
            batch = [self._lines.popleft()]
            size = len(batch[0])
            while self._lines and size + len(self._lines[0]) <= BATCH_BYTES:
                batch.append(self._lines.popleft())
                size += len(batch[-1])
            self._writing_since = time.monotonic()
            return b"".join(batch)

    def _write(self, data: bytes) -> tuple[bytes, str | None]:
        """Write. Return the rest that couldn't be written, and the reason. Blocks."""
        assert self._descriptor is not None
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # a program that shares it has made it non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError as failure:
                return data, failure.strerror or str(failure)
        return data, None


def install() -> None:
    """Put a `Stderr` in the place of ``sys.stderr``, unless something else was put there."""
    original = sys.__stderr__
    if original is None:
        sys.stderr = Stderr(None)
    elif sys.stderr is original:
        sys.stderr = Stderr(STDERR, original.encoding)


def status() -> dict[str, object]:
    """Return lost log lines and their reason, for ``mux/status``."""
    stream = sys.stderr
    if isinstance(stream, Stderr):
        return stream.status()
    return {"droppedLines": 0, "trouble": None}
