"""The processes that the supervisor has at a time: a broker, and an app-server.

Used by ``supervisor``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Final

from mux.supervisor.channel import UNKNOWN, Channel
from mux.supervisor.processes import Pipes

NEVER: Final = float("inf")

EOF_DEADLINE: Final = 5.0
TERMINATE_DEADLINE: Final = 2.0
"""Seconds from closing the app-server's stdin to SIGTERM, and from that to SIGKILL."""

WATCHDOG_SHARE: Final = 0.75
"""The share of systemd's deadline after which a broker that gives no sign of life is killed."""

OWN_DELAY_SHARE: Final = 0.1
"""The share of systemd's deadline by which the supervisor may notice a broker's deadline late. When
it is later, the supervisor didn't run: it was stopped, or the machine was, and the broker perhaps
with it."""


class AppServer:
    """The app-server that runs."""

    def __init__(self, pid: int, pipes: Pipes, handle: int | None = None) -> None:
        self.pid = pid
        self.pipes = pipes
        self.handle = handle
        """Its pidfd, if it is an earlier supervisor's child and not our own."""
        self.drained = True
        """True while the supervisor reads its stderr, and not the broker."""
        self.status: int | None = None
        """The status with which it ended; None while it runs."""
        self.end_steps: list[tuple[float, int]] = []
        """The signals that are due, each with its time, if it is to end."""

    def end(self) -> None:
        """End the app-server in order: close its stdin, and send signals if that isn't enough."""
        if self.end_steps:
            return
        self.pipes.close_stdin()
        late = time.monotonic() + EOF_DEADLINE
        self.end_steps = [(late, signal.SIGTERM), (late + TERMINATE_DEADLINE, signal.SIGKILL)]

    @property
    def next_step(self) -> float:
        """The time at which the next signal is due; never, if none is."""
        return self.end_steps[0][0] if self.end_steps else NEVER

    def send_due(self, now: float) -> None:
        """Send the signals that are due."""
        while self.next_step <= now:
            _at, number = self.end_steps.pop(0)
            self.signal(number)

    def signal(self, number: int) -> None:
        """Send the app-server a signal, unless it has ended."""
        if self.handle is None:
            os.kill(self.pid, number)  # a child that isn't reaped yet, so nobody else's number
        else:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, number)  # type: ignore[attr-defined,unused-ignore]

    def reap(self) -> int | None:
        """Return how it has ended; None while it runs. Afterwards it isn't to be asked again."""
        if self.handle is None:
            return _reap(self.pid)
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        return UNKNOWN if poll.poll(0) else None

    def close(self) -> None:
        """Close the pipes and the pidfd that are open."""
        self.pipes.close()
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


class Broker:
    """The broker that runs."""

    def __init__(self, pid: int, channel: Channel, since: float) -> None:
        self.pid = pid
        self.channel = channel
        self.since = since
        self.served = False
        self.ends = False
        """True if the broker has said that the supervisor is to end with it."""
        self.renews = False
        self.alive_at = NEVER
        """When the broker last said that its loop comes round; only where systemd asks for that."""
        self.deaf = False
        """True once the channel is closed: the broker's end is near."""

    def hangs_at(self, watchdog: float) -> float:
        """Return when a broker that says no more is given up. ``watchdog``: systemd's seconds."""
        return self.alive_at + watchdog * WATCHDOG_SHARE

    def excuse(self, now: float, watchdog: float) -> bool:
        """Begin a new deadline if the last one was noticed late. Return whether it was."""
        late = now - self.hangs_at(watchdog) > watchdog * OWN_DELAY_SHARE
        if late:
            self.alive_at = now
        return late

    def reap(self) -> int | None:
        """Return how it has ended; None while it runs. Afterwards it isn't to be asked again."""
        return _reap(self.pid)


def _reap(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None
