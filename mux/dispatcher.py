"""The only caller of the core: event → ``Broker.handle`` → perform. Nothing here awaits.

trio runs one task at a time, and everything between two awaits is one step. So whichever task
heard something calls ``handle``, and it is decided and done before anybody else runs: one owner of
all shared state, with no lock and no queue in between.

Hands to: outboxes (of clients, of the app-server). Hears from: ``downstream`` and ``upstream``.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import attrs
import structlog
import trio

import mux
from mux.core.broker import Broker
from mux.core.commands import (
    AnswerOutside,
    Charge,
    Close,
    Command,
    Forward,
    GiveUp,
    KillUpstream,
    LoadExperimentalSchema,
    Log,
    LogNoticeDecision,
    NoticeAnswerJudged,
    Notify,
    Publish,
    ReadJournal,
    ReadOn,
    Record,
    Resolve,
    StartUpstream,
    StopReading,
    StopUpstream,
    TellWhenDrained,
    Withdraw,
)
from mux.core.events import (
    AnsweredOutside,
    ClientAttached,
    ClientDrained,
    ClientLags,
    ClientLeft,
    ClientSent,
    ClockMoved,
    Event,
    TimePassed,
    UpstreamSent,
)
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol import jsonrpc
from mux.core.protocol.journal_entry import Entry
from mux.core.state.app_server import AppServerState
from mux.core.status_report import report
from mux.errors import AppmuxError
from mux.outbox import Outbox, WriteScheduler, text_frame

LOOK_AGAIN: Final = 60.0
"""Seconds after which the wall's clock is looked at again if nothing else wakes us: it may have
been set, or the machine may have slept."""

MOVED: Final = 1.0
"""Seconds by which it must be off before anybody is told: less is how a clock is kept right."""

DEFERRED: Final = object()
"""The result of a request that the shells will answer later, by ``Dispatcher.answered``."""

LINES_SECONDS = 0.003
"""Of hearing lines, until clients have their turn: as long as a thousand deltas take, one read."""

LINES_A_LOOK = 16
"""Lines between two looks at the clock, which costs a fiftieth of a line."""

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class ClientPort:
    """What the dispatcher needs of one connection. ``close(code, reason)`` doesn't wait.

    ``idle``: how many messages came by it that ask for nothing; whoever reads them bounds that.
    ``read_on``: set while nothing more is to be read; then it is told when.
    """

    outbox: Outbox
    close: Callable[[int, str], None]
    idle: int = 0
    read_on: trio.Event | None = None


@attrs.define
class Traffic:
    """Messages since the start, by direction; a message to three clients counts three times."""

    from_clients: int = 0
    to_app_server: int = 0
    from_app_server: int = 0
    to_clients: int = 0
    bytes_to_clients: int = 0


class AppServer(Protocol):
    """What the dispatcher needs of the app-server's side; none of it waits."""

    def send(self, line: bytes) -> None: ...
    def start(self, after: float) -> None: ...
    def stop(self) -> None: ...
    def kill(self, reason: str) -> None: ...


class ConnectionWatcher(Protocol):
    """Who is told of each client that comes and goes; none of it waits."""

    def came(self, client: ClientId, principal: Principal, peer: str) -> None: ...
    def left(self, client: ClientId) -> None: ...


class NoticeSink(Protocol):
    """Who turns what the core says of notices into pushes; none of it waits."""

    def notify(self, command: Notify) -> None: ...
    def withdraw(self, command: Withdraw) -> None: ...
    def explain(self, command: LogNoticeDecision) -> None: ...
    def judged(self, command: NoticeAnswerJudged) -> None: ...


@attrs.define(eq=False, repr=False)
class Dispatcher:
    """Carries events to the core and its commands to the shells, which are set once they exist.

    ``keep`` takes an entry of the journal, ``fetch`` has some read for a client that is behind;
    neither waits. ``give_up`` ends the broker with a reason; ``answer`` gives the result of a
    request that the shells answer, or ``DEFERRED``, or raises ``AppmuxError`` with what is wrong;
    ``status`` adds to a report what only the server knows (pid, listeners). ``learn_gate`` has it
    found out, beside, what is experimental; ``resolve``, what paths mean. ``record`` puts something
    into the audit log. ``clock_moved`` is called after the core was told that. ``wall``: Unix
    seconds. ``debug``: log each message.
    """

    broker: Broker
    debug: bool = False
    upstream: AppServer = attrs.field(init=False)
    keep: Callable[[Entry], None] = attrs.field(init=False)
    fetch: Callable[[ReadJournal], None] = attrs.field(init=False)
    doorkeeper: ConnectionWatcher | None = None
    notices: NoticeSink | None = None
    give_up: Callable[[str], None] = attrs.field(init=False)
    status: Callable[[], dict[str, Any]] = attrs.field(default=dict)
    learn_gate: Callable[[], None] = attrs.field(default=lambda: None)
    resolve: Callable[[Resolve], None] = attrs.field(init=False)
    answer: Callable[[AnswerOutside], object] = attrs.field(init=False)
    wall: Callable[[], float] = time.time
    clock_moved: Callable[[], None] = attrs.field(default=lambda: None)
    traffic: Traffic = attrs.field(factory=Traffic)
    writes: WriteScheduler = attrs.field(factory=WriteScheduler)
    record: Callable[[str, dict[str, object]], None] = attrs.field(
        default=lambda _kind, _fields: None
    )
    _ports: dict[ClientId, ClientPort] = attrs.field(factory=dict)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    _frames: list[bytes] = attrs.field(factory=list)
    _recipients: tuple[ClientId, ...] = ()
    _next: list[Event] = attrs.field(factory=list)
    _alarm: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _ahead: float | None = None
    """By how much the wall's clock was ahead of trio's, when somebody was told last."""

    def attach(
        self,
        port: ClientPort,
        principal: Principal,
        transport: str,
        peer: str,
        *,
        local: bool = False,
    ) -> ClientId:
        """A client passed the door; returns its number. ``local``: it is on this host."""
        client = next(self._numbers)
        self._ports[client] = port
        port.outbox.on_full = lambda: self._next.append(ClientLags(client))
        port.outbox.on_drained = lambda: self.handle(ClientDrained(client))
        expires = math.inf if principal.expires_at is None else principal.expires_at - self.wall()
        self.handle(ClientAttached(client, principal, transport, peer, expires, local))
        if self.doorkeeper is not None:
            self.doorkeeper.came(client, principal, peer)
        return client

    def detach(self, client: ClientId) -> None:
        """Its connection is gone."""
        now = trio.current_time()
        self._look_at_clock(now)  # while there is still something that could be closed
        del self._ports[client]
        self._hear(ClientLeft(client), now)
        if self.doorkeeper is not None:
            self.doorkeeper.left(client)

    def ready(self) -> bool:
        """Whether the app-server can be used."""
        return self.broker.state.appserver.state is AppServerState.READY

    def handle(self, event: Event) -> None:
        """Let the core decide, and do what it says."""
        now = trio.current_time()
        self._look_at_clock(now)
        self._hear(event, now)

    def _hear(self, event: Event, now: float) -> None:
        if type(event) is ClientSent:
            self.traffic.from_clients += 1
        self._decide(event, now)
        self._deliver()
        self._hear_next()

    def handle_lines(self, lines: Iterable[bytes]) -> int:
        """Hear what the app-server wrote at once, line by line, and then deliver it at once.

        To 32 clients that is half the work: of a hundred deltas each is appended once, not 32
        times. Nobody waits longer for it, as no writer runs before the last line is decided; but
        lines differ in what they cost, so the step ends in time. Returns how many were heard.
        """
        now, began, heard = trio.current_time(), time.perf_counter(), 0
        self._look_at_clock(now)
        for line in lines:
            look = heard and not heard % LINES_A_LOOK
            if look and time.perf_counter() - began > LINES_SECONDS:
                break
            heard += 1
            try:
                for command in self.broker.handle(UpstreamSent(line), now):
                    self._perform(command)
            except Exception:
                # What a newer codex writes and we can't handle costs one line, not everybody's
                # runtime.
                log.exception("a line of the app-server could not be handled", bytes=len(line))
        self.traffic.from_app_server += heard
        self._deliver()
        self._set_alarm()
        self._hear_next()
        return heard

    def _look_at_clock(self, now: float) -> None:
        """Tell of a wall's clock that was set, or went on while the machine slept.

        Before anything else is decided: who may not be here any more isn't heard, nor told.
        """
        ahead = self.wall() - now
        if self._ahead is None:
            self._ahead = ahead
        moved = ahead - self._ahead
        if -MOVED < moved < MOVED:
            return
        self._ahead = ahead
        log.info("the clock was set, or the machine slept", seconds=round(moved, 1))
        self._decide(ClockMoved(moved), now)
        self._deliver()
        self.clock_moved()

    def _decide(self, event: Event, now: float) -> None:
        for command in self.broker.handle(event, now):
            self._perform(command)
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self.broker.next_wakeup < self._alarm.deadline:  # noqa: PLR1730 (setting it costs more)
            self._alarm.deadline = self.broker.next_wakeup

    def _hear_next(self) -> None:
        """What came up while commands were performed, when the core couldn't be asked."""
        while self._next:
            self.handle(self._next.pop(0))

    def _perform(self, command: Command) -> None:
        if type(command) is Publish:
            if command.recipients:
                if command.recipients is not self._recipients:
                    self._deliver()
                    self._recipients = command.recipients
                self._frames.append(text_frame(command.message))
                if self.debug:
                    log.debug("to clients", clients=command.recipients, method=command.method)
            if command.entry is not None:
                self.keep(command.entry)
        else:
            self._deliver()
            self._perform_rarer(command)

    def _deliver(self) -> None:
        """Give the frames that go to the same clients to each of them as one piece."""
        if self._frames:
            frames = b"".join(self._frames)
            self.traffic.to_clients += len(self._frames) * len(self._recipients)
            self.traffic.bytes_to_clients += len(frames) * len(self._recipients)
            self._frames.clear()
            for client in self._recipients:
                self._ports[client].outbox.append(frames)

    def _perform_rarer(self, command: Command) -> None:
        match command:
            case Forward(line, method):
                self.traffic.to_app_server += 1
                self.upstream.send(line)
                if self.debug:
                    log.debug("to app-server", method=method)
            case Log(level, event, fields):
                getattr(log, level)(event, **fields)
            case Record(kind, fields):
                self.record(kind, fields)
            case AnswerOutside():
                self._serve(command)
            case Close() | Charge() | StopReading() | ReadOn() | TellWhenDrained():
                self._perform_on_client(self._ports[command.client], command)
            case ReadJournal():
                self.fetch(command)
            case Resolve():
                self.resolve(command)
            case Notify() | Withdraw() | LogNoticeDecision() | NoticeAnswerJudged():
                self._perform_on_notices(command)
            case _:
                self._perform_on_app_server(command)

    def _perform_on_client(
        self, port: ClientPort, command: Close | Charge | StopReading | ReadOn | TellWhenDrained
    ) -> None:
        match command:
            case Close(_, code, reason):
                port.close(code, reason)
            case Charge():
                port.idle += 1
            case StopReading():
                port.read_on = trio.Event()
            case ReadOn():
                if port.read_on is not None:
                    port.read_on.set()
                    port.read_on = None
            case TellWhenDrained():
                port.outbox.tell_when_drained()

    def _perform_on_notices(
        self, command: Notify | Withdraw | LogNoticeDecision | NoticeAnswerJudged
    ) -> None:
        if self.notices is not None:
            match command:
                case Notify():
                    self.notices.notify(command)
                case Withdraw():
                    self.notices.withdraw(command)
                case LogNoticeDecision():
                    self.notices.explain(command)
                case NoticeAnswerJudged():
                    self.notices.judged(command)

    def _serve(self, asked: AnswerOutside) -> None:
        try:
            result = self.answer(asked)
        except AppmuxError as wrong:
            message = jsonrpc.error(asked.origin, jsonrpc.INVALID_REQUEST, str(wrong))
        else:
            if result is DEFERRED:
                return
            message = jsonrpc.result(asked.origin, result)
        # By way of the core: for one that is behind it belongs among what it is owed.
        self._next.append(AnsweredOutside(asked.client, message, asked.method))

    def answered(self, asked: AnswerOutside, result: object) -> None:
        """The result of a request that was to be answered later, or what was wrong with it."""
        if asked.client in self._ports:
            if isinstance(result, AppmuxError):
                message = jsonrpc.error(asked.origin, jsonrpc.INVALID_REQUEST, str(result))
            else:
                message = jsonrpc.result(asked.origin, result)
            self.handle(AnsweredOutside(asked.client, message, asked.method))

    def notify(self, client: ClientId, method: str, params: object) -> None:
        """Notify one client of something that only the shells know; nothing if it has left."""
        port = self._ports.get(client)
        if port is not None:
            self._send(port, jsonrpc.notification(method, params))

    def _send(self, port: ClientPort, message: bytes) -> None:
        frame = text_frame(message)
        self.traffic.to_clients += 1
        self.traffic.bytes_to_clients += len(frame)
        port.outbox.append(frame)

    def _perform_on_app_server(self, command: Command) -> None:
        match command:
            case StartUpstream(after):
                self.upstream.start(after)
            case StopUpstream():
                self.upstream.stop()
            case KillUpstream(reason):
                self.upstream.kill(reason)
            case LoadExperimentalSchema():
                self.learn_gate()
            case GiveUp(reason):
                self.give_up(reason)
            case _:
                raise TypeError(f"no such command: {command!r}")

    def report(self) -> dict[str, Any]:
        """The answer to ``mux/status``: what the core knows, and what the shells add."""
        whole = report(self.broker, trio.current_time())
        for client in whole["clients"]:
            client["bytesOwed"] = self._ports[client["id"]].outbox.owed
        broker = {"version": mux.__version__, "pid": os.getpid()}
        facts = self.status()
        whole["appServer"] |= facts.pop("appServer", {})
        return {"broker": broker, **facts, **whole}

    def close_all(self, code: int, reason: str) -> None:
        """Tell every client that its connection ends."""
        for port in list(self._ports.values()):
            port.close(code, reason)

    def owed(self) -> list[int]:
        """The bytes owed to each client."""
        return [port.outbox.owed for port in self._ports.values()]

    @property
    def attached(self) -> int:
        """How many clients are attached."""
        return len(self._ports)

    async def run(self) -> None:
        """Have what is owed written, and the core told of each moment that it waits for."""
        trio.lowlevel.add_instrument(self.writes)
        try:
            while True:
                moment = min(self.broker.next_wakeup, trio.current_time() + LOOK_AGAIN)
                self._alarm = trio.CancelScope(deadline=moment)
                with self._alarm:
                    await trio.sleep_forever()
                now = trio.current_time()
                self._look_at_clock(now)
                if self.broker.next_wakeup <= now:
                    self._hear(TimePassed(), now)
        finally:
            trio.lowlevel.remove_instrument(self.writes)
