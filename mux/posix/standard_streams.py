"""stdin, stdout and stderr as a program may be started with: closed, without a reader, or stalled.

Used by the entry points, and by ``stdio`` for messages to a person.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import Final

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
ALL: Final = (STDIN, STDOUT, STDERR)


def complete() -> None:
    """Put ``/dev/null`` where a standard descriptor is closed. Call it before anything else.

    Else the next file or socket gets its number, and messages to a person are written into it.
    ``sys.__stderr__`` stays None if stderr was closed: so ``server.observability.stderr`` knows.
    """
    for descriptor in ALL:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    sys.stdin = sys.stdin or open(0, closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(STDERR, "w", closefd=False, encoding="utf-8")  # noqa: SIM115


def write_stderr(text: str) -> None:
    """Write to stderr as much as it takes at once; the rest is dropped. Never waits, never fails.

    For programs that do one thing at a time, and mustn't stall because nobody reads their stderr.
    """
    left = text.encode(errors="backslashreplace")
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    with contextlib.suppress(OSError):
        while left and any(event & select.POLLOUT for _, event in poll.poll(0)):
            # A write of this size never blocks once `poll` has reported the pipe as writable.
            left = left[os.write(STDERR, left[: select.PIPE_BUF]) :]
