"""The controlling terminal: tells whether a SIGHUP means that it is gone.

SIGHUP has two meanings: "read your files again", from an operator or a service manager, and "your
terminal is gone", from the kernel or a shell. Only with the second is the terminal lost.

Used by ``nursery``, at the start and at each SIGHUP.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import msgspec

DEVICE = Path("/dev/tty")
"""The controlling terminal of the process that opens it."""

_GONE = frozenset({errno.ENXIO, errno.EIO, errno.ENOENT, errno.ENODEV, errno.ENOTTY})
"""Errors of opening it if there is no terminal, or it has hung up."""


class Terminal(msgspec.Struct, frozen=True):
    """The terminal that the process was started on, if any."""

    attended: bool
    """True if there was a terminal, and the process is meant to end with it."""

    @classmethod
    def at_start(cls) -> Terminal:
        """Check for a terminal. With SIGHUP ignored (``nohup``) the process is to outlive it."""
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        return cls(attended=not nohup and _is_there())

    def has_hung_up(self) -> bool:
        """Return whether the terminal was there at the start and isn't any more."""
        return self.attended and not _is_there()


def _is_there() -> bool:
    try:
        descriptor = os.open(DEVICE, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as failure:
        # Any other error says nothing about the terminal: no descriptor is free, or a sandbox.
        return failure.errno not in _GONE
    os.close(descriptor)
    return True
