"""A planned restart of the app-server: who asked for it, and what waits for it."""

from __future__ import annotations

import msgspec

from mux.core.part import Part
from mux.core.policy.principal import ClientId
from mux.core.state.requests.request import Request


class PlannedRestart(Part):
    """The restart that is planned, if one is."""

    requests: list[tuple[ClientId, bytes]] = msgspec.field(default_factory=list)
    """The requests for it, by (client, id). Empty if no restart is planned."""
    at_once: bool = False
    """True if it is to wait for nothing."""
    stopping: bool = False
    """True while the app-server is being stopped for it."""
    held: list[Request] = msgspec.field(default_factory=list)
    """Requests that would begin work, held back until the next life is ready."""

    def is_holding(self, thread: str) -> bool:
        """Return whether a request that may begin a turn of the thread is held back."""
        return any(request.thread == thread for request in self.held)

    def settled(self) -> None:
        """Forget who asked, since all of them have been answered."""
        self.requests.clear()
        self.at_once = False
