"""A broker without sockets whose notices are real: for tests of what becomes of them.

Hands to: the tests, the pushes that were made. Hears from: they, what the app-server says.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import attrs

from mux.access.device import Device, digest_of
from mux.access.devices import DeviceRegistry, open_registry
from mux.config.model import Config, Notices
from mux.core.broker import Broker
from mux.core.events import UpstreamStarted
from mux.core.limits import Limits
from mux.core.policy.approval_policy import Policies
from mux.core.policy.scopes import ALL
from mux.core.protocol.scope import Scope
from mux.core.state.app_server import Introduction
from mux.dispatch.dispatcher import Dispatcher
from mux.notices.lock_screen import LockScreen
from mux.notices.requests import NoticeRequests
from mux.push.message import Push
from tests.core.stories import INITIALIZED, dumps
from tests.shells import idle_shells

FILES = "item/fileChange/requestApproval"
CWD = "/home/ada/work"
TOPIC = {"server": "https://ntfy.example", "topic": "t"}


@attrs.define(eq=False)
class AppServer:
    """What it was written."""

    lines: list[dict[str, Any]] = attrs.field(factory=list)

    def send(self, line: bytes) -> None:
        self.lines.append(json.loads(line))

    def start(self, after: float) -> None: ...
    def stop(self) -> None: ...
    def kill(self, reason: str) -> None: ...


@attrs.define(eq=False)
class Desk:
    """One life of a broker on a state directory. Its clock is set by hand."""

    state_dir: Path
    now: float = attrs.field(factory=time.time)
    settings: Notices = attrs.field(factory=Notices)
    never: tuple[str, ...] = ("escalated", "network", "outside-workspace", "unknown")
    server: AppServer = attrs.field(factory=AppServer)
    dispatcher: Dispatcher = attrs.field(init=False)
    book: DeviceRegistry = attrs.field(init=False)
    asked: NoticeRequests = attrs.field(init=False)
    lockscreen: LockScreen = attrs.field(init=False)
    records: list[tuple[str, dict[str, object]]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        broker = Broker(Limits(), Introduction("appmux", "0.1"), first_id=int(self.now))
        self.dispatcher = Dispatcher(broker)
        self.book = open_registry(self.state_dir, lambda: self.now)
        config = Config(
            state_dir=self.state_dir,
            notices=self.settings,
            approvals=Policies(never_from_notice=self.never),
        )
        record = lambda kind, fields: self.records.append((kind, fields))  # noqa: E731
        self.asked = NoticeRequests.open(config, self.book, self.dispatcher, record)
        noticing = self.asked.delivery
        noticing.clock = noticing.ledger.clock = noticing.preferences.clock = lambda: self.now
        noticing.pushes.clock = lambda: self.now
        self.dispatcher.connect(idle_shells(app_server=self.server, notices=noticing))
        self.lockscreen = LockScreen(noticing)
        noticing.begin()
        self.dispatcher.handle(UpstreamStarted(1))
        self.says({"id": self.server.lines[0]["id"], "result": INITIALIZED})
        self.says({"method": "thread/started", "params": {"thread": {"id": "t", "cwd": CWD}}})

    def says(self, message: object) -> None:
        """The app-server says this."""
        self.dispatcher.handle_lines([dumps(message)])

    def pair(self, name: str, scopes: frozenset[Scope] = ALL) -> Device:
        """A device with an ntfy topic; its token is its name."""
        device = self.book.add(name, "paired", scopes, digest_of(name))
        topic = TOPIC | {"topic": name}
        self.asked.delivery.pushes.register(f"device:{device.id}", "ntfy", topic, "full")
        self.asked.delivery.report_recipients()
        return device

    def asks(self, id: int = 5, path: str = f"{CWD}/new.txt") -> None:
        """An approval of a file change."""
        item = {"id": f"i{id}", "type": "fileChange", "changes": [{"path": path}]}
        params = {"threadId": "t", "turnId": "u"}
        self.says({"method": "item/started", "params": {**params, "item": item}})
        self.says({"method": FILES, "id": id, "params": {**params, "itemId": f"i{id}"}})

    def queued(self) -> list[Push]:
        """The pushes that wait to be sent."""
        return [row.push for row in self.asked.delivery.pushes.queue.waiting()]

    def answered(self) -> list[dict[str, Any]]:
        """What the app-server was answered."""
        return [line for line in self.server.lines if "result" in line]
