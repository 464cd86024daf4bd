"""The running server: its nursery tree, its signals, its drain.

    RunningServer.run
    ├─ upstream.run          the app-server, one life after another
    ├─ store.run             the journal on disk, written behind
    ├─ audit.run             the audit log, likewise
    ├─ schema.run            learns what is experimental in the codex that runs
    ├─ directories.run       resolves paths in requests
    ├─ access.registry.run   the device registry, where it isn't written at once
    ├─ pushes.run            sends notices to the devices' push services
    ├─ delivery.run          notices when quiet hours begin and end
    ├─ dispatcher.run        writes outboxes; calls the core at its next deadline
    ├─ reads.run             journal entries for clients that are behind
    ├─ requests.run          answers what takes time, outside the core
    ├─ uploads.run           drops those that have expired
    ├─ rare modules          loaded a second after the start
    ├─ systemd_notify.keep   reports to systemd's watchdog, where there is one
    ├─ signals, reload       SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reloads
    └─ connections           outlives the accept loops by the time to drain
       └─ accept loops       cancelled first; the Tailnet's with it (``tailnet.run``)
          └─ per connection: routes → connection

Stop order: the accept loops end; clients get a close frame (1001) and what they are owed; the
app-server's stdin is closed, its exit awaited; at last it is terminated.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio
from msgspec.structs import replace

import mux
from mux.access.authentication import Authenticator, open_auth
from mux.access.requests import DeviceRequests
from mux.access.throttle import LoginThrottle
from mux.config.model import Auth, Config
from mux.core.part import Part, later
from mux.core.state import app_server
from mux.dispatch.dispatcher import Dispatcher
from mux.downstream import connection, listener
from mux.downstream.challenge import Challenger
from mux.downstream.http.proxies import TrustedProxies
from mux.downstream.http.request import Exposition, Peer, Services
from mux.downstream.http.routes import admit
from mux.downstream.listener import Listener
from mux.downstream.sockets.streams import Accepted
from mux.downstream.sockets.tls import Certificate
from mux.downstream.sockets.unauthenticated import Slot, Unauthenticated
from mux.errors import AppmuxError
from mux.files.uploads import Uploads
from mux.host.directories import Directories
from mux.notices.lock_screen import LockScreen
from mux.notices.requests import NoticeRequests
from mux.server import collector
from mux.server.journal_reads import JournalReads
from mux.server.late_web import LateWeb
from mux.server.observability import systemd_notify
from mux.server.reload import Reload
from mux.server.requests import OutsideRequests
from mux.server.terminal import Terminal
from mux.storage.audit_log import Audit
from mux.storage.journal import Store
from mux.tailnet.https import TailnetHttps
from mux.upstream.process import Upstream
from mux.upstream.schema import CodexSchema
from mux.upstream.supervised import Supervision

if TYPE_CHECKING:
    from mux.server.observability.metrics import Metrics


log = structlog.get_logger()


CLOSE_GOING_AWAY = 1001
CLOSE_SERVICE_RESTART = 1012

RENEW_DRAIN = 2.0
"""Seconds in which clients take what they are owed before the broker is restarted. What one doesn't
take it finds in the journal when it comes back."""

RARE_AFTER = 1.0
"""Seconds from the start until ``RARE`` is loaded, which takes a thread 80 ms of CPU. The first
moment belongs to clients that have waited for the broker."""

RARE = (
    "mux.downstream.websocket.odd_frames",
    "mux.downstream.http.odd_heads",
    "email.utils",  # for the date of an HTTP response
    "mux.server.observability.metrics",
)
"""Modules for pings, closes, requests that are no upgrade, and scrapers. One that is wanted earlier
is loaded then."""

SIGNAL_STATUS = 128
"""A shell's way to say "ended by signal N": 128 + N."""


class AppServerEndedError(AppmuxError):
    """The app-server never came up, so the broker ends, with the app-server's exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.exit_status = status


class RunningServer(Part):
    """The parts of one broker, and the nursery tree that runs them."""

    config: Config
    authenticator: Authenticator
    listeners: list[Listener]
    dispatcher: Dispatcher
    upstream: Upstream
    schema: CodexSchema
    directories: Directories
    store: Store
    access: DeviceRequests
    audit: Audit
    notices: NoticeRequests
    reads: JournalReads
    requests: OutsideRequests
    uploads: Uploads
    certificate: Certificate | None
    throttle: LoginThrottle
    tailnet: TailnetHttps
    unauthenticated: Unauthenticated = msgspec.field(default_factory=Unauthenticated)
    terminal: Terminal = msgspec.field(default_factory=Terminal.at_start)
    services: Services = later()
    _guarded: Services = later()
    """Those of the Tailnet's name, under which nobody is let in without a token."""
    _challenger: Challenger = later()
    _metrics: Metrics | None = None
    _stop: trio.Event = msgspec.field(default_factory=trio.Event)
    _reload: Reload = later()
    _connections: trio.Nursery = later()
    """Runs all connections, and their writers."""
    _serving: int = 0
    _served: trio.Event = msgspec.field(default_factory=trio.Event)
    _signal: signal.Signals | None = None
    _given_up: str | None = None
    _renewing: bool = False

    def __post_init__(self) -> None:
        self._reload = Reload(self.authenticator, self.certificate, self.audit)
        self._challenger = Challenger(self.access.sessions, self.throttle)
        self.services = Services(
            self.authenticator,
            self.ready,
            metrics=self._expose,
            pairing=self.access.pairing,
            decide=LockScreen(self.notices.delivery).decide,
            throttle=self.throttle,
            sessions=self.access.sessions,
            web=LateWeb(
                self.access,
                self.throttle,
                self.uploads,
                self.requests.downloads,
                self.config.web.files,
            ),
            compression=self.config.compression,
            origins=frozenset(self.config.web.origins),
            proxies=TrustedProxies.named(self.config.web.trusted_proxies),
        )
        self._guarded = self.services
        if self.config.auth.mode is None:
            devices = open_auth(Auth(mode="device-token"), self.authenticator.device)
            self._guarded = replace(self.services, authenticator=devices)

    async def run(self) -> None:
        """Serve until told to stop or the app-server ends, then stop in order."""
        supervision = self.upstream.supervision
        if supervision is None:
            await self._run()
        else:
            supervision.renew = self.renew
            # Outside of all else: it tells of the app-server's end to the last.
            async with trio.open_nursery() as supervision_nursery:
                supervision_nursery.start_soon(supervision.run)
                await self._run()
                supervision_nursery.cancel_scope.cancel()
            self._hand_over(supervision)
        if self._given_up is not None:
            raise self._app_server_ended(self._given_up)

    def _hand_over(self, supervision: Supervision) -> None:
        """Say whether another broker is to come, and leave it what it needs, or nothing."""
        durable = self.upstream.durable
        if durable is not None and self._renewing:
            durable.close()
        elif durable is not None:
            durable.remove()
        supervision.send(say="renew" if self._renewing else "end")

    async def _run(self) -> None:
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            async with trio.open_nursery() as root:
                root.start_soon(self._handle_signals, signals, root.cancel_scope)
                if self.upstream.supervision is not None:
                    self.upstream.supervision.gone = root.cancel_scope.cancel
                root.start_soon(self.dispatcher.run)
                root.start_soon(self._reload.run)
                root.start_soon(self.schema.run)
                root.start_soon(self.directories.run)
                root.start_soon(self.access.registry.file.run)
                root.start_soon(self.reads.run)
                root.start_soon(self.requests.run)
                root.start_soon(self.uploads.run)
                root.start_soon(systemd_notify.keep, os.environ, self._state, self._notify)
                await root.start(self.store.run, self.reads.refresh_extent)
                self._record_start()
                await root.start(self.audit.run)
                self.notices.delivery.begin()
                await root.start(self.notices.delivery.pushes.run)
                root.start_soon(self.notices.delivery.run)
                root.start_soon(self._load_rare)
                root.start_soon(self.reads.remember)
                async with trio.open_nursery() as self._connections:
                    await self._serve()
                    self._connections.cancel_scope.cancel()
                self._record_end()
                root.cancel_scope.cancel()

    def _record_start(self) -> None:
        started = {
            "version": mux.__version__,
            "pid": os.getpid(),
            "listeners": [each.url for each in self.listeners],
            "auth": self.config.auth.mode,
            # Another digest than at the last start: the settings were changed in between.
            "config": sha256(repr(self.config).encode()).hexdigest(),
        }
        self.audit.record("broker/started", started)

    def _record_end(self) -> None:
        name = self._signal.name if self._signal is not None else None
        self.audit.record("broker/stopped", {"signal": name, "why": self._given_up})

    async def _serve(self) -> None:
        async with trio.open_nursery() as upstream:
            upstream.start_soon(self.upstream.run)
            async with trio.open_nursery() as accepting:
                for bound in self.listeners:
                    await accepting.start(self._accept, bound)
                accepting.start_soon(self.tailnet.run, self._accept)
                self.reads.refresh_extent()
                self._announce()
                await self._stop.wait()
                if not self._renewing and self.upstream.supervision is not None:
                    self.upstream.supervision.hold_none()  # or connections would wait in vain
                # The order of the end matters: no new clients; then those attached get 1001 and
                # what they are owed; the app-server, whose output that is, ends last.
                accepting.cancel_scope.cancel()
            if self._renewing:
                await self.upstream.leave()
                self.dispatcher.freeze()
                self.dispatcher.close_all(CLOSE_SERVICE_RESTART, "appmux restarts; come back")
            else:
                self.dispatcher.close_all(CLOSE_GOING_AWAY, "appmux is shutting down")
            with trio.move_on_after(RENEW_DRAIN if self._renewing else self.config.limits.drain):
                while self._serving:  # until each client has taken its outbox and close frame
                    self._served = trio.Event()
                    await self._served.wait()
            upstream.cancel_scope.cancel()

    async def _accept(
        self,
        each: Listener,
        *,
        task_status: trio.TaskStatus[Listener] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        attend = partial(self._attend, each)
        await listener.serve(
            each, attend, self._connections, self.unauthenticated, task_status=task_status
        )

    async def _attend(self, each: Listener, stream: Accepted, address: str, place: Slot) -> None:
        secure = each.certificate is not None
        services = self._guarded if each.origin else self.services
        peer = Peer(each.kind, address, services, each.local, secure, each.origin, place)
        admission = await admit(stream, peer)
        if admission is None:
            return
        self._serving += 1
        try:
            await connection.serve(
                stream,
                admission,
                self.dispatcher,
                self._connections,
                message_bytes=self.config.limits.message_bytes,
                outbox_bytes=self.config.limits.outbox_bytes,
                challenger=self._challenger,
                known=partial(self.unauthenticated.known, place),
            )
        finally:
            self._serving -= 1
            self._served.set()

    def renew(self) -> None:
        """Stop the broker, for the next one to go on with the app-server."""
        log.info("restarting the broker; the app-server runs on", clients=self.dispatcher.attached)
        self._renewing = True
        self._stop.set()

    def give_up(self, reason: str) -> None:
        """Stop the broker: the app-server never came up, so nothing can be served."""
        self._given_up = reason
        self._stop.set()

    def _notify(self, state: str) -> None:
        """Send a state to systemd, by the supervisor if there is one: it is the main process."""
        if self.upstream.supervision is not None:
            self.upstream.supervision.send(say="notify", state=state)
        else:
            systemd_notify.send(state)

    def _state(self) -> app_server.AppServerState:
        return self.dispatcher.broker.app_server_state

    def ready(self) -> bool:
        """Return whether all is well, as ``/readyz`` reports it."""
        troubles = (self.store.trouble, self.audit.trouble, self.access.registry.file.trouble)
        return self.dispatcher.ready() and not any(troubles)

    def _announce(self) -> None:
        for bound in self.listeners:
            for line in bound.announcement():
                print(line, file=sys.stderr, flush=True)  # noqa: T201 (API)
        self._notify("READY=1")
        if (supervision := self.upstream.supervision) is not None:
            supervision.serving(self.config.upstream.orphan_wait)
        collector.begin()

    async def _load_rare(self) -> None:
        """Load after the start what the first who needs it would wait for."""
        await trio.sleep(RARE_AFTER)
        try:
            for module in RARE:
                await trio.to_thread.run_sync(importlib.import_module, module)
            self._expose("")
        except (ImportError, OSError) as failure:  # who needs it tries again
            log.warning("a module isn't loaded yet", why=str(failure))

    def _expose(self, accept: str) -> Exposition:
        """Return the metrics for a scraper's ``Accept`` header."""
        if self._metrics is None:
            from mux.server.observability.metrics import Metrics  # noqa: PLC0415 (a twentieth of the start)

            self._metrics = Metrics(
                self.dispatcher,
                self.upstream,
                self.store,
                self.audit,
                self.throttle,
                self.notices.delivery.pushes,
                self.access.registry,
            )
        return self._metrics.expose(accept)

    async def _handle_signals(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            if number == signal.SIGHUP and not self.terminal.has_hung_up():
                self._reload.ask()
            elif self._signal is None:
                self._signal = signal.Signals(number)
                log.info("draining", signal=self._signal.name, clients=self.dispatcher.attached)
                self._notify("STOPPING=1")
                self._stop.set()
            elif number != signal.SIGHUP:  # kernel and shell may both send it for one terminal
                log.warning("ending at once", signal=signal.Signals(number).name)
                self.upstream.kill("the broker was told to end at once")
                scope.cancel()

    def _app_server_ended(self, reason: str) -> AppServerEndedError:
        last = "\n".join(f"  {line}" for line in self.upstream.stderr)
        text = f"codex app-server did not come up: {reason}"
        status = 1 if self.upstream.killed else self.upstream.status or 1
        return AppServerEndedError(
            f"{text}; its last words:\n{last}" if last else text,
            status if status > 0 else SIGNAL_STATUS - status,
        )


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
