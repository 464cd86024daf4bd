"""The processes that the supervisor has at a time: a broker, and an app-server.

Used by ``supervisor``.
"""

from __future__ import annotations

from typing import Final

from mux.supervisor.channel import Channel
from mux.supervisor.processes import Pipes

NEVER: Final = float("inf")


class AppServer:
    """The app-server that runs."""

    def __init__(self, pid: int, pipes: Pipes) -> None:
        self.pid = pid
        self.pipes = pipes
        self.drained = True
        """Whether the supervisor reads its stderr."""
        self.status: int | None = None
        """How it ended; None while it runs."""


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
