"""Answers what the core leaves to the shells: ``mux/status``, devices, notices, the audit log.

The command ``AnswerOutside`` asks, by way of ``dispatcher``. The core has checked the scope.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import Any, Final

import msgspec
import trio

from mux.access.requests import DeviceRequests
from mux.access.throttle import LoginThrottle
from mux.core.commands import AnswerOutside
from mux.core.extension.tailnet import METHODS as TAILNET
from mux.core.extension.tailnet import EnableParams
from mux.core.features.history.thread_files import ToOpen
from mux.core.part import Part, later
from mux.dispatch.dispatcher import Dispatcher
from mux.dispatch.shells import DEFERRED
from mux.downstream.listener import Listener
from mux.errors import AppmuxError
from mux.files.downloads import Downloads
from mux.notices.requests import METHODS, NoticeRequests
from mux.server.audit_requests import AuditRequests
from mux.server.observability import stderr
from mux.server.settings_watch import SettingsWatch
from mux.storage.audit_log import Audit
from mux.storage.journal import Store
from mux.tailnet.https import TailnetHttps
from mux.tailnet.node import TailscaledError
from mux.upstream.process import Upstream
from mux.upstream.schema import CodexSchema

UNKNOWN: Final[dict[str, Any]] = {
    "file": None,
    "changed": [],
    "trouble": None,
    "authMode": None,
}
"""The settings of a broker that wasn't started from any file."""


_to_open = msgspec.json.Decoder(ToOpen)
_to_enable = msgspec.json.Decoder(EnableParams)


class TailnetRequestError(AppmuxError):
    """A request about https on the Tailnet that can't be granted."""


class OutsideRequests(Part):
    """Answers requests by the parts of one broker."""

    listeners: list[Listener]
    dispatcher: Dispatcher
    upstream: Upstream
    schema: CodexSchema
    store: Store
    audit: Audit
    devices: DeviceRequests
    notices: NoticeRequests
    throttle: LoginThrottle
    tailnet: TailnetHttps
    settings: SettingsWatch | None = None
    downloads: Downloads = later()
    _audit_pages: AuditRequests = later()
    _began: float = msgspec.field(default_factory=trio.current_time)
    _slow: trio.Nursery | None = None
    """Tasks of requests that take time; None before `run`."""

    def __post_init__(self) -> None:
        self.downloads = Downloads(self.devices.still)
        self._audit_pages = AuditRequests(self.audit.writer.directory)

    async def run(self) -> None:
        """Answer what takes time, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._slow = nursery
            await trio.sleep_forever()

    def answer(self, request: AnswerOutside) -> object:
        """Return the result of a request, or ``DEFERRED``. Raises ``AppmuxError``."""
        match request.method:
            case "mux/status":
                return {"asker": request.client, **self.dispatcher.report()}
            case "mux/notices/test" if self._slow is not None:
                self._slow.start_soon(self._later, request, self.notices.test(request))
                return DEFERRED
            case "mux/audit/list" if self._slow is not None:
                self._slow.start_soon(self._later, request, self._audit_pages.list(request.params))
                return DEFERRED
            case method if method in TAILNET and self._slow is not None:
                self._slow.start_soon(self._later, request, self._of_tailnet(request))
                return DEFERRED
            case "mux/files/open":
                to_open = _to_open.decode(request.params)
                whose = self.dispatcher.broker.principal_of(request.client)
                return self.downloads.offer(to_open.path, to_open.directory, whose)
            case method if method in METHODS:
                return self.notices.answer(request)
            case _:
                return self.devices.answer(request)

    async def _later(self, request: AnswerOutside, answer: Awaitable[object]) -> None:
        try:
            result = await answer
        except AppmuxError as wrong:
            result = wrong
        self.dispatcher.answered(request, result)

    async def _of_tailnet(self, request: AnswerOutside) -> object:
        try:
            match request.method:
                case "mux/tailnet/enable":
                    return await self.tailnet.enable(_to_enable.decode(request.params).name)
                case "mux/tailnet/disable":
                    return await self.tailnet.disable()
                case _:
                    return await self.tailnet.refresh()
        except msgspec.DecodeError as wrong:
            raise TailnetRequestError(f"`{request.method}`: {wrong}") from wrong
        except TailscaledError as failure:
            raise TailnetRequestError(f"{failure}: {failure.remedy}") from failure

    def _broker(self) -> dict[str, object]:
        supervision, durable = self.upstream.supervision, self.upstream.durable
        if supervision is None:
            return {"supervisor": None, "handovers": 0, "handoverTrouble": None}
        trouble = durable.trouble if durable is not None else None
        return {
            "supervisor": os.getppid(),
            "handovers": supervision.lives,
            "handoverTrouble": trouble or supervision.trouble,
        }

    def _listener(self, each: Listener) -> dict[str, object]:
        is_open = each.kind == "ws" and self.devices.open_door
        return {"url": each.url, "kind": each.kind, "openDoor": is_open}

    def status(self) -> dict[str, Any]:
        """Return the part of ``mux/status`` that only the server knows."""
        registry = self.devices.registry
        return {
            "broker": self._broker()
            | {
                "uptimeSeconds": round(trio.current_time() - self._began, 3),
                "settings": UNKNOWN if self.settings is None else self.settings.status(),
            },
            "appServer": {
                "pid": self.upstream.pid,
                "outdated": self.upstream.outdated,
                "schemaVersion": self.schema.version,
                "lastWords": list(self.upstream.stderr),
            },
            "store": self.store.status(),
            "audit": self.audit.status(),
            "devices": {"count": len(list(registry)), "trouble": registry.file.trouble},
            "notices": self.notices.delivery.status(),
            "failedAuthentications": self.throttle.status(),
            "log": stderr.status(),
            "listeners": [self._listener(each) for each in self.listeners]
            + [{"url": url, "kind": "ws", "openDoor": False} for url in self.tailnet.urls],
            "tailnet": self.tailnet.status(),
        }
