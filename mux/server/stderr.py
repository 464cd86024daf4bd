"""The broker's stderr: it never makes anybody wait, and a line that can't be written is no fault.

The terminal closes, the pipe's reader goes or stands still, the disk that holds the log is full:
the line is dropped and counted, and the next one is tried again. A thread writes, as nothing else
never blocks: ``poll`` knows nothing of disks, and ``O_NONBLOCK`` would hold for everybody who
shares the terminal or pipe.

It takes the place of ``sys.stderr``, so that whatever is said there (log lines, banners, warnings,
tracebacks) goes this way.

Hands to: file descriptor 2. Hears from: ``logs``, and all that prints to ``sys.stderr``.
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
"""Kept for a reader that stands still; some 5,000 lines, more than a burst has."""

BATCH_BYTES: Final = 64 * 1024
"""Written at once: what a pipe holds."""

LAST_LINES_DEADLINE: Final = 1.0
"""Seconds that the last lines have at the end of the process; one that reads needs none."""

STALLED: Final = "its reader takes nothing"
CLOSED: Final = "it is closed"


class Stderr(io.TextIOBase):
    """A text stream over a descriptor (None: there is none), written by a thread of its own.

    ``dropped``: lines that were lost so far. ``trouble``: why, while that goes on. ``missed`` is
    called with the number of lines lost, once lines are taken again; in the writing thread.
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
        # Reentrant: a finalizer that is run in here may have something to say, too.
        self._changed = threading.Condition(threading.RLock())
        if descriptor is not None:
            threading.Thread(target=self._write_all, name="stderr", daemon=True).start()
            atexit.register(self.drain)

    # ── for those who write ───────────────────────────────────────────────────────────────────

    def write(self, text: str) -> int:
        """Take the text; its lines are written when they are whole, or at ``flush``."""
        if not isinstance(text, str):
            raise TypeError(f"expected text, not {type(text).__name__}")
        with self._changed:
            self._begun.append(text)
            if "\n" in text:
                self._take()
        return len(text)

    def flush(self) -> None:
        """Have what there is written, without waiting for it."""
        with self._changed:
            self._take()

    def _take(self) -> None:
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
        """Wait until all is written; one that has stood still for long isn't waited for."""
        with self._changed:
            self._take()
            since = time.monotonic() if self._writing_since is None else self._writing_since
            deadline = since + LAST_LINES_DEADLINE
            while self._bytes and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """The descriptor. Raises ``OSError`` if there is none."""
        if self._descriptor is None:
            raise io.UnsupportedOperation(CLOSED)
        return self._descriptor

    def isatty(self) -> bool:
        return self._descriptor is not None and os.isatty(self._descriptor)

    def status(self) -> dict[str, object]:
        """How it fares, for ``mux/status``."""
        return {"droppedLines": self.dropped, "trouble": self.trouble}

    # ── the thread ────────────────────────────────────────────────────────────────────────────

    def _write_all(self) -> None:
        torn = False
        while True:
            batch = self._next_batch()
            left, reason = self._write(b"\n" + batch if torn else batch)
            # What is cut off in the middle isn't gone on with: the next line gets one of its own.
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
        """Write; what couldn't be, and why. Blocks."""
        assert self._descriptor is not None
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody who shares it has made it so
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError as failure:
                return data, failure.strerror or str(failure)
        return data, None


def install() -> None:
    """Put a `Stderr` in the place of ``sys.stderr``, unless somebody else has put his there."""
    there = sys.__stderr__
    if there is None:
        sys.stderr = Stderr(None)
    elif sys.stderr is there:
        sys.stderr = Stderr(STDERR, there.encoding)


def status() -> dict[str, object]:
    """How the log fares, for ``mux/status``."""
    there = sys.stderr
    if isinstance(there, Stderr):
        return there.status()
    return {"droppedLines": 0, "trouble": None}
