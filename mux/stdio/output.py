"""Stdout of the stdio bridge: what is owed to the client, written as it takes it."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from mux.posix.standard_streams import STDOUT

OWED_BYTES: Final = 1024 * 1024
"""Bytes owed to stdout beyond which nothing is read from the broker.

To the broker we are then a slow client.
"""

WRITE_BYTES: Final = select.PIPE_BUF
"""Bytes written at once: as many as never block when ``poll`` says so.

Making stdout non-blocking instead would make it so for every process that shares it.
"""

_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL
_LINE_END = memoryview(b"\n")


class Output:
    """The bytes that are owed to stdout."""

    def __init__(self) -> None:
        self._owed: deque[memoryview] = deque()
        self._bytes = 0

    @property
    def is_behind(self) -> bool:
        """True if so much is owed that no more is to be read from the broker."""
        return self._bytes >= OWED_BYTES

    @property
    def is_full(self) -> bool:
        """True if so much is owed that no more is to be read from the client.

        One that floods requests and reads no answers must not fill us with error answers.
        """
        return self._bytes >= 2 * OWED_BYTES

    @property
    def events(self) -> int:
        """The events of stdout to wait for.

        Even with none of them ``poll`` reports that stdout's reader has gone.
        """
        return select.POLLOUT if self._owed else 0

    def owe(self, lines: Iterable[bytes]) -> None:
        """Append lines, without their ends."""
        for line in lines:
            self._owed.append(memoryview(line))
            self._owed.append(_LINE_END)
            self._bytes += len(line) + 1

    def write(self, event: int) -> None:
        """Write a piece, if the event of ``poll`` says so.

        Raises ``BrokenPipeError`` if nobody reads stdout any more.
        """
        if event & select.POLLERR:
            raise BrokenPipeError
        if not self._owed or not event & (select.POLLOUT | _GONE):
            return
        taken, size = [], 0
        while self._owed and size < WRITE_BYTES:
            piece = self._owed.popleft()
            taken.append(piece[: WRITE_BYTES - size])
            if len(piece) > len(taken[-1]):
                self._owed.appendleft(piece[len(taken[-1]) :])
            size += len(taken[-1])
        data = b"".join(taken)
        written = os.write(STDOUT, data)
        if written < size:
            self._owed.appendleft(memoryview(data)[written:])
        self._bytes -= written

    def flush(self, seconds: float) -> None:
        """Write what is owed, for so long at most."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(STDOUT, select.POLLOUT)
        while self._owed and (left := deadline - time.monotonic()) > 0:
            for _, event in poll.poll(left * 1000):
                self.write(event)
