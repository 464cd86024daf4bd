"""Sends the pushes that wait, by the service of each endpoint, and stores the outcomes.

One task looks for what is due. Each push is sent by a task of its own, so that a slow one delays
its own endpoint alone. Nothing of a service is imported or opened before there is an endpoint.

Used by: ``notices``, which says what a device is told, and what is taken back.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
import trio

from mux import documents
from mux.config import model
from mux.core.part import Part
from mux.push.addresses import check
from mux.push.endpoints import Endpoint, Endpoints, configured, open_endpoints
from mux.push.message import LAST, Push, PushError
from mux.push.outcome import Delivered, Failed, Gone, Outcome, Retry, without, words
from mux.push.queue import Queue, Row
from mux.push.queue_file import FILE, QueueFile
from mux.push.queue_writer import QueueWriter

if TYPE_CHECKING:
    from mux.push.services.registry import Services

SLOTS: Final = 8
"""Most pushes being sent at once by one service, so that a slow service takes up only its own."""

LONGEST_NAP: Final = 30.0
"""Seconds after which the clock is read again: it is a wall clock, which may be set, or stand still
for this process while the machine sleeps."""

DISK_SECONDS: Final = 2.0
"""How long a push waits for the disk. A disk that neither takes it nor fails holds it up no
longer."""

LAST_WORDS_SECONDS: Final = 2.0
"""Time for closing connections, at the end."""

Link = Callable[[], str | None]
"""Returns the https URL at which devices reach this broker at present, for links and buttons."""

log = structlog.get_logger()


class Pushes(Part):
    """All pushes of one broker. Made by ``open``."""

    settings: model.Push
    state_dir: Path
    endpoints: Endpoints
    queue: Queue
    keeper: QueueWriter
    clock: Callable[[], float]
    link: Link | None = None
    """None: ``push.url`` says it."""
    _services: Services | None = None
    _server_key: str | None = None
    """The public key for Web Push, once it was needed."""
    _faults: dict[str, str] = msgspec.field(default_factory=dict)
    """Why a service can't be used, by its name; ``settings`` for all of them."""
    _busy: dict[str, int] = msgspec.field(default_factory=dict)
    """How many pushes are being sent, by service."""
    _wake: trio.Event = msgspec.field(default_factory=trio.Event)

    @classmethod
    def open(
        cls,
        state_dir: Path,
        settings: model.Push,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        link: Link | None = None,
    ) -> Pushes:
        """Open the endpoints and the queue of a state directory. Blocks: call it at the start.

        ``chance`` returns numbers from 0 to 1. Raises ``PushError`` if registrations can't be read,
        ``StoreError`` if a newer appmux made the queue. After any other failure of the disk it
        works from memory, and says so.
        """
        endpoints = open_endpoints(state_dir, clock, configured(settings, clock()))
        # Above every number of an earlier life, even if its file can't be read just now.
        queue = Queue(chance, next_n=int(clock() * 1000))
        keeper = QueueWriter(queue, QueueFile(state_dir / FILE, clock))
        if endpoints.all() or keeper.file.path.exists():
            keeper.load()
        return cls(settings, state_dir, endpoints, queue, keeper, clock, link)

    # -- registrations ----------------------------------------------------------------------------

    def services(self) -> dict[str, dict[str, str]]:
        """Return the services that a device may register for, with what an app must know first.

        That is ``applicationServerKey`` for Web Push and ``topic`` for APNs. Raises ``PushError``.
        """
        from mux.push.services.vapid import open_vapid  # noqa: PLC0415 (cryptography, once it is wanted)

        if self._server_key is None:
            self._server_key = open_vapid(self.settings.webpush, self.state_dir).public_key
        key = {"applicationServerKey": self._server_key}
        services: dict[str, dict[str, str]] = {"webpush": key, "unifiedpush": key, "ntfy": {}}
        if self.settings.apns.key_file is not None:
            services["apns"] = {"topic": self.settings.apns.topic or ""}
        if self.settings.fcm.service_account_file is not None:
            services["fcm"] = {}
        return services

    def register(
        self,
        device: str,
        service: str,
        address: Mapping[str, object],
        level: model.ContentLevel = "opaque",
        navigate: str | None = None,
    ) -> Endpoint:
        """Register an endpoint of a device. ``navigate``: see `Endpoint`.

        ``address`` holds the service's fields as a client gave them. Raises ``PushError``, whose
        text may go to the client.
        """
        known, checked = check(service, address, self.settings.private_hosts)
        missing = {
            "apns": self.settings.apns.key_file is None and "[push.apns]",
            "fcm": self.settings.fcm.service_account_file is None and "[push.fcm]",
        }.get(known)
        if missing:
            raise PushError(
                f"this host has no key for {known}: its operator sets {missing}"
                f" (see {documents.page('push')})"
            )
        made = self.endpoints.add(device, known, checked, level, navigate)
        self._drop_homeless()
        return made

    def unregister(self, device: str, endpoint: str) -> bool:
        """Remove an endpoint of a device, and drop what waits for it.

        Returns whether it was there. Raises ``PushError``.
        """
        registered = self.endpoints.by_id(endpoint)
        if registered is None or registered.device != device or not self.endpoints.remove(endpoint):
            return False
        self._drop_homeless()
        return True

    def forget(self, device: str) -> None:
        """Remove all endpoints of a device that was revoked."""
        self.endpoints.forget(device)
        self._drop_homeless()

    def _drop_homeless(self) -> None:
        registered = {each.id for each in self.endpoints.all()}
        for endpoint in {row.endpoint for row in self.queue.waiting()} - registered:
            self.queue.drop(endpoint, "no longer registered", self.clock())
        self._changed()

    # -- sending ----------------------------------------------------------------------------------

    def send(self, device: str, push: Push) -> int:
        """Queue a push for every endpoint of the device, and return how many there are. Doesn't
        wait.

        Each endpoint gets no more than its own content level allows. The push takes the place of a
        waiting one with the same ``collapse``.
        """
        endpoints = [each for each in self.endpoints.of(device) if not self._got_last(each)]
        for endpoint in endpoints:
            self.queue.put(endpoint, push, self.clock())
        self._changed()
        return len(endpoints)

    def push_last(self, origin: str, last: Callable[[], Push]) -> None:
        """Send one last push to each page of an origin that has ended, and then drop its endpoint.

        ``last`` makes a push. A tap on any other would open a page that isn't there.
        """
        for endpoint in self.endpoints.all():
            if (endpoint.navigate or "").startswith(f"{origin}/") and not self._got_last(endpoint):
                self.queue.drop(endpoint.id, "its page has ended", self.clock())
                self.queue.put(endpoint, last(), self.clock())
        self._changed()

    def _got_last(self, endpoint: Endpoint) -> bool:
        waiting = self.queue.waiting()
        return any(row.endpoint == endpoint.id and row.push.kind == LAST for row in waiting)

    def withdraw(
        self, device: str, collapse: str, count: int = 0, badge: int | None = None
    ) -> None:
        """Take back what the device was sent under ``collapse``. Doesn't wait.

        A push that isn't sent is never sent. If one was sent, or may have been, a silent push
        follows it. ``count``: how many subjects still wait there; ``badge``: at the device.
        """
        self.queue.withdraw(self.endpoints.of(device), collapse, count, self.clock(), badge)
        self._changed()

    async def try_now(self, where: str, push: Push) -> list[tuple[Endpoint, str]]:
        """Send at once, past the queue, to one endpoint (its id) or all of a device (its key).

        Returns each endpoint with its outcome in words. Raises ``PushError`` if there is no
        endpoint.
        """
        named = self.endpoints.by_id(where)
        endpoints = self.endpoints.of(where) if named is None else [named]
        if not endpoints:
            raise PushError(
                f"nothing is registered for {where!r}: an app registers when it is paired; what is"
                " the host's own is in the settings under [push]"
            )
        services = await self._open_services()
        outcomes: dict[str, str] = {}

        async def one(endpoint: Endpoint) -> None:
            outcome = await self._deliver(services, endpoint, push)
            self._record_outcome(endpoint, outcome)
            outcomes[endpoint.id] = words(outcome)

        async with trio.open_nursery() as nursery:
            for endpoint in endpoints:
                nursery.start_soon(one, endpoint)
        return [(each, outcomes[each.id]) for each in endpoints]

    def refresh(self) -> None:
        """Check again what is due: the clock was set, or the network is back."""
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send what waits, until cancelled.

        A push that is being sent then is sent again in the next life, unless the service had
        answered.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.keeper.run)
                nursery.start_soon(self.endpoints.file.run)
                task_status.started()
                while True:
                    self._wake = trio.Event()
                    await self._start_due(nursery)
                    await self._until_moment()
        finally:
            self.endpoints.file.flush()
            await self.keeper.close()
            if self._services is not None:
                with trio.move_on_after(LAST_WORDS_SECONDS, shield=True):
                    await self._services.web.aclose()

    async def _start_due(self, nursery: trio.Nursery) -> None:
        now = self.clock()
        self.queue.expire(now)
        for row in self.queue.ready(now):
            if self._busy.get(row.service, 0) >= SLOTS:
                continue
            if self._services is None:
                try:
                    await self._open_services()
                except PushError as failure:
                    self._fault("settings", str(failure))
                    return
            if row.state == "queued":  # may have been withdrawn while services were opened
                self._busy[row.service] = self._busy.get(row.service, 0) + 1
                push = row.push
                self.queue.begin(row)
                nursery.start_soon(self._attempt, row, push)
        self.keeper.changed()

    async def _until_moment(self) -> None:
        now = self.clock()
        moment = self.queue.next_moment(now)
        nap = LONGEST_NAP if moment is None else min(LONGEST_NAP, max(0.0, moment - now))
        # With trouble, rows of an earlier life may turn up once the disk can be read.
        if moment is None and not self.queue.waiting() and not self.keeper.trouble:
            await self._wake.wait()
            return
        with trio.move_on_after(nap):
            await self._wake.wait()

    async def _open_services(self) -> Services:
        if self._services is None:
            # Two tasks may do this at once: the second one's result stays, which is harmless.
            self._services = await trio.to_thread.run_sync(
                _open_services, self.settings, self.state_dir, self.link
            )
            self._faults.pop("settings", None)
        return self._services

    async def _attempt(self, row: Row, push: Push) -> None:
        try:
            # The attempt is on disk first: after a kill it is known that the service may have it.
            with trio.move_on_after(DISK_SECONDS):
                await self.keeper.kept(row)
            endpoint = self.endpoints.by_id(row.endpoint)
            if row.state != "queued" or self._services is None:
                return
            if endpoint is None:
                self.queue.settle(row, Gone("no longer registered"), self.clock())
                return
            outcome = await self._deliver(self._services, endpoint, push)
            self.queue.settle(row, outcome, self.clock())
            self._record_outcome(endpoint, outcome)
            if push.kind == LAST and not isinstance(outcome, Retry):
                self.endpoints.gone(endpoint.id)
        finally:
            self.queue.let_go(row)
            self._busy[row.service] -= 1
            self._changed()

    async def _deliver(self, services: Services, endpoint: Endpoint, push: Push) -> Outcome:
        fitting = push.at(endpoint.level)  # the level may have changed since the push was queued
        outcome = await services.deliver(endpoint, fitting, self.clock())
        secrets = [*endpoint.address.values(), push.ticket, push.title, push.body]
        return without(outcome, secrets)  # a service may repeat what it was sent

    def _record_outcome(self, endpoint: Endpoint, outcome: Outcome) -> None:
        text, service = words(outcome), endpoint.service
        self.endpoints.note(endpoint.id, text)
        match outcome:
            case Delivered():
                if self._faults.pop(service, None):
                    log.info("pushes are sent again", service=service)
            case Gone():
                self.endpoints.gone(endpoint.id)
                log.info("a push registration was dropped", service=service, why=outcome.reason)
            case Failed(ours=False):
                log.warning("a push was given up", service=service, why=outcome.reason)
            case Retry(ours=True) | Failed():
                self._fault(service, outcome.reason)

    def _fault(self, service: str, reason: str) -> None:
        if self._faults.get(service) != reason:
            self._faults[service] = reason
            log.error("pushes can't be sent", service=service, why=reason)

    def _changed(self) -> None:
        self.keeper.changed()
        self._wake.set()

    # -- for people -------------------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        """A text for people of what is wrong at present and what to do; None if nothing is."""
        faults = [f"{service}: {reason}" for service, reason in sorted(self._faults.items())]
        files = [each for each in (self.keeper.trouble, self.endpoints.file.trouble) if each]
        return "; ".join([*files, *faults]) or None

    @property
    def faulty(self) -> int:
        """The number of services that can't be used at present because of the host's set-up."""
        return len(self._faults)

    @property
    def oldest(self) -> float:
        """Seconds since the oldest waiting push was raised; 0 if nothing waits."""
        return max((self.clock() - row.raised for row in self.queue.waiting()), default=0.0)

    def status(self) -> dict[str, Any]:
        """Return the pushes' part of ``mux/status``. ``pushes`` counts the rows in each state."""
        counts: dict[str, int] = {}
        for endpoint in self.endpoints.all():
            counts[endpoint.service] = counts.get(endpoint.service, 0) + 1
        return {
            "endpoints": counts,
            "pushes": self.queue.status(),
            "oldestQueuedSeconds": round(self.oldest, 1) if self.queue.waiting() else None,
            "trouble": self.trouble,
        }

    def history(self) -> list[dict[str, Any]]:
        """Return the latest rows, the newest first.

        Keys: ``id``, ``kind``, ``device``, ``endpoint``, ``service``, ``withdraw``, ``raised``,
        ``state``, ``attempts``, ``settled``, ``said``.
        """
        return [row.to_json() for row in reversed(self.queue.rows.values())]


def _open_services(settings: model.Push, state_dir: Path, link: Link | None) -> Services:
    from mux.push.services.registry import open_services  # noqa: PLC0415 (httpx takes its time)

    return open_services(settings, state_dir, link)
