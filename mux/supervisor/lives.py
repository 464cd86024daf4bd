"""The processes that the supervisor has at a time: a broker, and an app-server.

Used by ``supervisor``.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Final

from mux.supervisor.channel import Channel
from mux.supervisor.processes import Pipes

NEVER: Final = float("inf")

EOF_DEADLINE: Final = 5.0
TERMINATE_DEADLINE: Final = 2.0
"""Seconds from closing the app-server's stdin to SIGTERM, and from that to SIGKILL."""


class AppServer:
    """The app-server that runs."""

    def __init__(self, pid: int, pipes: Pipes) -> None:
        self.pid = pid
        self.pipes = pipes
        self.drained = True
        """Whether the supervisor reads its stderr."""
        self.status: int | None = None
        """How it ended; None while it runs."""
        self.end_steps: list[tuple[float, int]] = []
        """When to send it which signal, if it is to end."""

    def end(self) -> None:
        """End it in order: by the end of its stdin, or else by signals."""
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
            os.kill(self.pid, number)


class Broker:
    """The broker that runs."""

    def __init__(self, pid: int, channel: Channel, since: float) -> None:
        self.pid = pid
        self.channel = channel
        self.since = since
        self.served = False
        self.ends = False
        """True if it has said that the supervisor is to end with it."""
        self.renews = False
        self.alive_at = NEVER
        """When it last said that its event loop comes round; it says so only where systemd asks."""
        self.deaf = False
        """True once the channel is closed: its end is near."""
