"""The controlling terminal: whether a SIGHUP says that it has gone.

SIGHUP has two meanings: "read your files again", from an operator or a service manager, and "your
terminal is gone", from the kernel or a shell. Only the second comes with a terminal lost.

Hands to: nobody. Hears from: ``server``, at its start and at a SIGHUP.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import attrs

DEVICE = Path("/dev/tty")
"""The controlling terminal of whoever opens it."""

_GONE = frozenset({errno.ENXIO, errno.EIO, errno.ENOENT, errno.ENODEV, errno.ENOTTY})
"""What opening it says where there is none, or one that has hung up."""


@attrs.frozen
class Terminal:
    """``attended``: the process was started on a terminal, whose end is meant to be its own."""

    attended: bool

    @classmethod
    def at_start(cls) -> Terminal:
        """As it is now. Who ignores SIGHUP (``nohup``) is to outlive the terminal."""
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        return cls(attended=not nohup and _is_there())

    def has_hung_up(self) -> bool:
        """Whether it was there at the start and isn't any more."""
        return self.attended and not _is_there()


def _is_there() -> bool:
    try:
        descriptor = os.open(DEVICE, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as failure:
        # Anything else says nothing of the terminal: no descriptor free, a sandbox.
        return failure.errno not in _GONE
    os.close(descriptor)
    return True
