"""Sends what waits, by the service of each endpoint, and keeps what became of it.

Hands to: the services, one push at a time for each endpoint; the log, whether all is well.
Hears from: ``server``, what a device is to be told, and what is to be taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from mux import config
from mux.push.addresses import check
from mux.push.endpoints import Endpoint, Endpoints, open_endpoints
from mux.push.push import Push, PushError


@attrs.define(eq=False)
class Pushes:
    """All pushes of one broker. ``trouble``: for people, what is wrong now; None: nothing."""

    settings: config.Push
    endpoints: Endpoints
    clock: Callable[[], float]
    trouble: str | None = None

    @classmethod
    def open(
        cls, state_dir: Path, settings: config.Push, *, clock: Callable[[], float] = time.time
    ) -> Pushes:
        """Those of a state directory. Blocks: call it at the start. Raises ``PushError``."""
        return cls(settings, open_endpoints(state_dir, clock), clock)

    # -- registrations ----------------------------------------------------------------------------

    def services(self) -> dict[str, dict[str, str]]:
        """The services that a device may register for, each with what an app needs to know first
        (Web Push: ``applicationServerKey``; APNs: ``topic``)."""
        return {}

    def register(
        self,
        device: str,
        service: str,
        address: Mapping[str, object],
        level: config.ContentLevel = "opaque",
    ) -> Endpoint:
        """Reach this device there from now on. ``address``: the service's fields, as a client gave
        them. Raises ``PushError``, whose text may go to the client."""
        known, checked = check(service, address, self.settings.private_hosts)
        return self.endpoints.add(device, known, checked, level)

    def unregister(self, device: str, endpoint: str) -> bool:
        """No longer there; whether it was. What waits for it isn't sent. Raises ``PushError``."""
        found = self.endpoints.by_id(endpoint)
        if found is None or found.device != device:
            return False
        return self.endpoints.remove(endpoint)

    def forget(self, device: str) -> None:
        """The device was revoked: nothing goes there any more."""
        self.endpoints.forget(device)

    # -- sending ----------------------------------------------------------------------------------

    def send(self, device: str, push: Push) -> int:
        """Have it sent to every endpoint of the device; how many there are. Doesn't wait.

        Each gets no more than its own content level allows. It takes the place of one with the same
        ``collapse`` that isn't sent yet.
        """
        return len([push.at(each.level) for each in self.endpoints.of(device)])

    def withdraw(self, device: str, collapse: str, count: int = 0) -> None:
        """Take back what the device was told under ``collapse``. Doesn't wait.

        What isn't sent is never sent; where something was, or may have been, a silent push goes
        after it. ``count``: how many things wait there still.
        """

    async def try_now(self, where: str, push: Push) -> list[tuple[Endpoint, str]]:
        """Send at once, past the queue, to one endpoint (its id) or all of a device; what each
        service answered, in words. Raises ``PushError`` if there is no such."""
        found = self.endpoints.by_id(where)
        there = self.endpoints.of(where) if found is None else [found]
        if not there:
            raise PushError(f"nothing is registered for {where!r}")
        await trio.lowlevel.checkpoint()
        return [(each, f"not yet: {push.kind}") for each in there]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send what waits, until cancelled."""
        task_status.started()
        await trio.sleep_forever()

    # -- for people -------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """For ``mux/status``."""
        return {
            "endpoints": len(self.endpoints.all()),
            "queued": 0,
            "trouble": self.trouble,
        }

    def history(self) -> list[dict[str, Any]]:
        """What was to be told lately, the newest first: ``id``, ``kind``, ``device``, ``endpoint``,
        ``service``, ``withdraw``, ``raised``, ``state``, ``attempts``, ``settled``, ``said``."""
        return []
