"""stdin, stdout and stderr as a program may be started with: closed, without a reader, or stuck.

Hands to: file descriptors 0 to 2. Hears from: the entry points; ``stdio``, what it tells a person.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import Final

STDERR: Final = 2
ALL: Final = (0, 1, STDERR)


def complete() -> None:
    """Put ``/dev/null`` where a standard descriptor is closed. Called first of all.

    Else the next file or socket gets its number, and what is said to a person is written there.
    ``sys.__stderr__`` stays None where it was closed, which tells.
    """
    for descriptor in ALL:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    sys.stdin = sys.stdin or open(0, closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(STDERR, "w", closefd=False, encoding="utf-8")  # noqa: SIM115


def say(text: str) -> None:
    """Write to stderr what it takes at once; the rest is dropped. Never waits, never fails.

    For programs that do one thing at a time, and mustn't stand still because nobody reads them.
    """
    left = text.encode(errors="backslashreplace")
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    with contextlib.suppress(OSError):
        while left and any(event & select.POLLOUT for _, event in poll.poll(0)):
            # As much as never blocks once `poll` has said so.
            left = left[os.write(STDERR, left[: select.PIPE_BUF]) :]
