"""Moves long bodies between a socket and a file in a thread, past the parser and the loop.

A thread stays for a short time: it takes or gives what there is, waits a moment for more, and goes.
So the loop has work for one file twenty times a second, however quick the peer is, and everybody
else's messages go on meanwhile. Only for sockets whose bytes are those of the body (no TLS).

Used by ``adapter``. Everything here blocks.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Final

Write = Callable[[memoryview], None]
"""Takes bytes that are good until it returns. Called in a thread."""

PIECE_BYTES: Final = 256 * 1024
"""Bytes written at once, and a thread's buffer. Twice as many are no quicker."""

STAY_SECONDS: Final = 0.05
"""Seconds that a thread stays: whoever calls the transfer off waits for that long."""

THREADS: Final = 8
"""Files that move at the same time; a further one waits for its turn, 50 ms a round."""


def receive(descriptor: int, most: int, write: Write) -> int:
    """Receive at most so many bytes and write them. Return how many came.

    Raises ``OSError`` if the connection is broken, ``EOFError`` at its end; what came before is
    written then.
    """
    space = memoryview(bytearray(min(PIECE_BYTES, most)))
    readable = _poll(descriptor, select.POLLIN)
    until = time.monotonic() + STAY_SECONDS
    came = filled = 0
    try:
        while came + filled < most:
            try:
                size = os.readv(descriptor, [space[filled : filled + most - came - filled]])
            except BlockingIOError:
                if not readable(until):
                    break
                continue
            if not size:
                raise EOFError("the connection has ended")
            filled += size
            if filled == len(space):
                came, filled = came + filled, 0
                write(space)
                if time.monotonic() > until:
                    break
    finally:
        if filled:
            write(space[:filled])
    return came + filled


def send(descriptor: int, file: int, at: int, end: int) -> int:
    """Send a file's bytes from ``at`` on, not past ``end``. Return where the next ones begin.

    Raises ``OSError`` if the connection is broken, ``EOFError`` where the file ends before.
    """
    space = memoryview(bytearray(min(PIECE_BYTES, end - at)))
    writable = _poll(descriptor, select.POLLOUT)
    until = time.monotonic() + STAY_SECONDS
    while at < end and time.monotonic() < until:
        size = os.preadv(file, [space[: end - at]], at)
        if not size:
            raise EOFError("the file is shorter than it was")
        sent = 0
        while sent < size:
            try:
                sent += os.write(descriptor, space[sent:size])
            except BlockingIOError:
                if not writable(until):
                    break
        at += sent
    return at


def _poll(descriptor: int, events: int) -> Callable[[float], bool]:
    poll = select.poll()
    poll.register(descriptor, events)

    def ready(until: float) -> bool:
        """Wait until the socket is ready; return False if the time is over before."""
        left = until - time.monotonic()
        return left > 0 and bool(poll.poll(left * 1000))

    return ready
