"""A broker that lives a year in some minutes: its core, its dispatcher and its stores, without I/O
but to the disk.

The clock is the life's own, and every part is given it. The app-server is played: it answers what
it is asked. Pushes are accepted by nobody. There is no chance in it, so two lives are the same.

Hands to: `year`, which says what happens.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from mux.access.device import Device, digest_of
from mux.access.devices import DeviceRegistry, open_registry
from mux.config import model
from mux.core.broker import Broker
from mux.core.commands import ReadJournal
from mux.core.events import (
    ClientDrained,
    ClientLeft,
    ClientSent,
    Event,
    JournalExtent,
    JournalRead,
    TimePassed,
    UpstreamExited,
    UpstreamSent,
    UpstreamStarted,
)
from mux.core.limits import Limits
from mux.core.policy.principal import ClientId, Principal
from mux.core.policy.scopes import ALL
from mux.core.state.app_server import Introduction
from mux.dispatch.dispatcher import Dispatcher
from mux.dispatch.outbox import ClientPort, Outbox
from mux.notices.delivery import NoticeDelivery
from mux.notices.ledger import Ledger
from mux.notices.preferences import open_preferences
from mux.push.outcome import Delivered
from mux.push.sender import Pushes
from mux.storage.audit_log import Audit
from mux.storage.journal import Store
from tests.shells import Nothing, idle_shells

BORN: Final = 1_800_000_000.0
"""Unix seconds."""
DAY: Final = 86_400.0
AUDIT_AGE: Final = 90 * DAY
"""A quarter instead of a year, so that its end is seen."""
LIMITS: Final = Limits(probe_interval=1800.0)
"""The usual ones, but not a probe each half minute: a million of them would be most of the year."""
HOST: Final = Principal("local", "local-user")
APPROVAL: Final = "item/commandExecution/requestApproval"
HELLO: Final = {
    "userAgent": "appmux/0.163.0 (Debian 12.0.0; x86_64) xterm (appmux; 0.1)",
    "codexHome": "/home/someone/.codex",
    "platformFamily": "unix",
    "platformOs": "linux",
}

Json = dict[str, Any]


@attrs.define(eq=False)
class Sink(Outbox):
    """A socket that takes everything at once."""

    life: Life | None = None
    client: ClientId = 0

    def append(self, frame: bytes | memoryview) -> None:
        """Keep nothing, but the ids of what is asked for."""
        if self.life is not None and b'requestApproval"' in frame[:400]:
            self.life.offered.append((self.client, bytes(frame)))

    def report_when_drained(self) -> None:
        """There is room as soon as the event is over."""
        if self.life is not None:
            self.life.dispatcher._next.append(ClientDrained(self.client))


@attrs.define(eq=False, repr=False)
class Clocked(Dispatcher):
    """A dispatcher on the life's clock."""

    now: float = 0.0

    def handle(self, event: Event) -> None:
        """Let the core handle an event, now."""
        self._handle_now(event, self.now)

    def leaves(self, client: ClientId) -> None:
        """A client goes."""
        del self._ports[client]
        self.handle(ClientLeft(client))


class AppServer(Nothing):
    """Takes the lines that it is written."""

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque()

    def send(self, line: bytes) -> None:
        """Take one."""
        self.lines.append(line)


@attrs.define(eq=False, repr=False)
class Life:
    """One life of a broker over a state directory."""

    place: Path
    limits: Limits = LIMITS
    app_server: AppServer = attrs.field(factory=AppServer)
    offered: deque[tuple[ClientId, bytes]] = attrs.field(factory=deque)
    store: Store = attrs.field(init=False)
    audit: Audit = attrs.field(init=False)
    registry: DeviceRegistry = attrs.field(init=False)
    notices: NoticeDelivery = attrs.field(init=False)
    dispatcher: Clocked = attrs.field(init=False)
    subscribed: set[str] = attrs.field(factory=set)
    generation: int = 0
    turns: int = 0
    flushes: int = 0
    began: float = 0.0
    _reads: list[ReadJournal] = attrs.field(factory=list)
    _ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def clock(self) -> float:
        """The wall clock, in Unix seconds."""
        return BORN + (self.dispatcher.now if hasattr(self, "dispatcher") else self.began)

    def begin(self) -> None:
        """Open all that a start opens, and start the app-server."""
        limits, settings = self.limits, model.Config()
        self.registry = open_registry(self.place, self.clock)
        self.store = Store.open(
            self.place, max_bytes=limits.journal_bytes, max_age=limits.journal_age,
            wall_clock=self.clock,
        )  # fmt: skip
        self.audit = Audit.open(
            self.place, max_bytes=settings.audit.max_bytes, max_age=AUDIT_AGE,
            clock=self.clock,
        )  # fmt: skip
        broker = Broker(
            limits, Introduction("appmux", "0.1"), first_id=int(self.clock()) * 1000,
            epoch=self.store.epoch, head=self.store.next_seq - 1,
        )  # fmt: skip
        self.dispatcher = Clocked(broker, wall=self.clock, now=self.began)
        pushes = Pushes.open(self.place, settings.push, clock=self.clock, chance=lambda: 0.5)
        ledger = Ledger.open(self.place, self.clock)
        wishes = open_preferences(self.place, self.clock, "", ())
        self.notices = NoticeDelivery(
            settings.notices, (), pushes, ledger, wishes, self.registry, self.dispatcher,
            self.audit.record, clock=self.clock,
        )  # fmt: skip
        self.dispatcher.connect(
            idle_shells(
                app_server=self.app_server,
                notices=self.notices,
                keep=self.store.append,
                record=self.audit.record,
                read_journal=self._reads.append,
            )
        )
        self.dispatcher.handle(JournalExtent(self.store.epoch, self.store.earliest))
        self.notices.begin()

    async def end(self) -> None:
        """Close the stores."""
        await self.flush()
        await self.store.close()
        self.notices.ledger.close()
        await self.notices.pushes.keeper.close()

    # -- time --------------------------------------------------------------------------------------

    def until(self, moment: float) -> None:
        """Let time pass, waking the core whenever it wants to be woken."""
        clocked = self.dispatcher
        while clocked.broker.next_wakeup <= moment:
            clocked.now = max(clocked.now, clocked.broker.next_wakeup)
            clocked.handle(TimePassed())
            self.answer()
        clocked.now = max(clocked.now, moment)

    async def flush(self) -> None:
        """Have written, and sent, what waits for it."""
        self.flushes += 1
        pushes, now = self.notices.pushes, self.clock()
        self.notices.report_recipients()
        pushes.queue.expire(now)
        for row in list(pushes.queue.ready(now)):
            pushes.queue.begin(row)
            pushes.queue.settle(row, Delivered("200"), now)
        self.store.running_floor = self.dispatcher.broker.running_floor
        await self.store.flush()
        await pushes.keeper.flush()
        while self.audit._pending:
            await self.audit.flush()
        self.dispatcher.handle(JournalExtent(self.store.epoch, self.store.earliest))
        self.notices.preferences.file.flush()
        self.registry.file.flush()

    async def read_journal(self) -> None:
        """Bring those up to date that read on from the disk."""
        while self._reads:
            wanted = self._reads.pop()
            entries = await self.store.read(
                wanted.after, wanted.until, wanted.threads, wanted.max_bytes
            )
            until = wanted.until
            if sum(len(each.message) for each in entries) >= wanted.max_bytes:
                until = entries[-1].seq
            self.dispatcher.handle(JournalRead(wanted.client, tuple(entries), until))

    # -- the app-server ----------------------------------------------------------------------------

    def starts(self) -> None:
        """Start the app-server."""
        self.generation += 1
        self.subscribed.clear()
        self.app_server.lines.clear()
        self.dispatcher.handle(UpstreamStarted(self.generation))
        self.answer()

    def dies(self) -> None:
        """The app-server dies, and is started again."""
        self.dispatcher.handle(UpstreamExited("exited with status 1", self.clock()))
        self.until(self.dispatcher.now + 1.0)
        self.starts()

    def says(self, message: Json) -> None:
        """One line of the app-server; then what it is asked for that is answered."""
        self.dispatcher.handle(UpstreamSent(msgspec.json.encode(message)))

    def notifies(self, method: str, thread: str, **params: Any) -> None:
        """One notification of a thread."""
        self.says({"method": method, "params": {"threadId": thread, **params}})

    def answer(self) -> None:
        """Answer all that the app-server was asked."""
        while self.app_server.lines:
            asked = json.loads(self.app_server.lines.popleft())
            if "id" in asked and "method" in asked:
                self.says({"id": asked["id"], "result": self._result(asked)})

    def _result(self, asked: Json) -> Json:
        params, method = asked.get("params") or {}, asked["method"]
        thread = params.get("threadId") or f"thread-{next(self._numbers):08}"
        if method == "initialize":
            return HELLO
        if method in ("thread/start", "thread/resume"):
            self.subscribed.add(thread)
            shown: Json = {"id": thread, "status": {"type": "idle"}, "cwd": "/w", "turns": []}
            if method == "thread/start":
                self.says({"method": "thread/started", "params": {"thread": shown}})
            return {"thread": shown, "model": "m", "cwd": "/w"}
        if method == "turn/start":
            self.turns += 1
            return {"turn": {"id": f"turn-{self.turns:08}", "status": "inProgress", "items": []}}
        if method == "thread/unsubscribe":
            self.subscribed.discard(thread)
            return {"status": "unsubscribed"}
        if method == "config/read":
            return {"config": {"approval_policy": "on-request"}}
        return {"data": []}

    def unloads(self, thread: str) -> None:
        """The app-server unloads a thread that nobody has subscribed to."""
        self.says({"method": "thread/closed", "params": {"threadId": thread}})

    # -- clients -----------------------------------------------------------------------------------

    def attaches(self, name: str, principal: Principal = HOST, **capabilities: Any) -> ClientId:
        """A client, past its handshake."""
        sink = Sink(life=self)
        port = ClientPort(sink, lambda _code, _reason: None)
        client = self.dispatcher.attach(port, principal, "ws", "127.0.0.1:5")
        sink.client = client
        info = {"name": name, "title": None, "version": "1.0"}
        declared = {"experimentalApi": True, **capabilities}
        self.asks(client, "initialize", {"clientInfo": info, "capabilities": declared})
        self.tells(client, {"method": "initialized"})
        return client

    def asks(self, client: ClientId, method: str, params: Json) -> None:
        """Ask, and be answered."""
        self.tells(client, {"id": next(self._ids), "method": method, "params": params})
        self.answer()

    def tells(self, client: ClientId, message: Json) -> None:
        """One message of a client."""
        self.dispatcher.handle(ClientSent(client, msgspec.json.encode(message)))

    def leaves(self, client: ClientId) -> None:
        """A client goes, and what it leaves is answered."""
        self.dispatcher.leaves(client)
        self.answer()

    def answers_approval(self) -> None:
        """The first one that was offered it accepts."""
        while self.offered:
            client, frame = self.offered.popleft()
            if client in self.dispatcher._ports:
                id = json.loads(frame[frame.index(b"{") :])["id"]
                self.tells(client, {"id": id, "result": {"decision": "accept"}})
                self.offered.clear()

    def pairs(self, name: str) -> tuple[Device, Principal]:
        """A phone is paired, and says where it is told of something."""
        device = self.registry.add(name, "paired", ALL, digest_of(name + f"{self.clock()}"))
        principal = Principal(device.name, "device", scopes=device.scopes, device=device.id)
        address = {"endpoint": f"https://8.8.8.8/{device.id}"}
        self.notices.pushes.register(principal.key, "unifiedpush", address)
        self.notices.report_recipients()
        return device, principal
