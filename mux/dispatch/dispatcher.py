"""The only caller of the core: event → ``Broker.handle`` → perform. Nothing here awaits.

trio runs one task at a time, and everything between two awaits is one step. So whichever task has
an event calls ``handle``, and the event is decided and its commands performed before any other task
runs. All shared state has one owner, with no lock and no queue in between.

Used by ``downstream``, ``upstream`` and the other shells; uses the outboxes of clients and of the
app-server.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import structlog
import trio

import mux
from mux.core.broker import Broker
from mux.core.commands import (
    AnswerOutside,
    Command,
    ConnectionCommand,
    Forward,
    Publish,
    PublishRun,
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
    UpstreamSentLong,
)
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.long_line import LongLine
from mux.core.protocol.envelope.rope import Rope
from mux.core.protocol.journal_entry import Entry
from mux.core.protocol.threads.overrides import Overrides
from mux.core.reports.status_report import report
from mux.core.state.app_server import AppServerState
from mux.dispatch.outbox import (
    TEXT,
    ClientPort,
    Traffic,
    WriteScheduler,
    frame_header,
    text_frame,
    text_frames,
)
from mux.dispatch.shells import DEFERRED, Shells
from mux.errors import AppmuxError

LOOK_AGAIN: Final = 60.0
"""Seconds after which the wall clock is checked again if nothing else wakes the task: it may have
been set, or the machine may have slept."""

MOVED: Final = 1.0
"""Seconds by which the wall clock must be off before the core gets ``ClockMoved``: less is how a
clock is kept right."""

LINES_SECONDS = 0.003
"""Seconds of handling lines before clients have their turn: a thousand deltas take as long, one
read."""

LINES_A_LOOK = 16
"""Lines between two looks at the clock. A look costs a fiftieth of a line."""

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class Dispatcher:
    """Carries events to the core and its commands to the shells."""

    broker: Broker
    debug: bool = False
    """Log each message."""
    wall: Callable[[], float] = time.time
    """Returns the wall clock's Unix seconds."""
    shells: Shells = attrs.field(init=False)
    """Set by ``connect``, before the first event."""
    traffic: Traffic = attrs.field(factory=Traffic)
    writes: WriteScheduler = attrs.field(factory=WriteScheduler)
    _ports: dict[ClientId, ClientPort] = attrs.field(factory=dict)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    _frames: list[bytes] = attrs.field(factory=list)
    """Frames not yet delivered, all for ``_recipients``."""
    _recipients: tuple[ClientId, ...] = ()
    _entries: list[Entry] = attrs.field(factory=list)
    """Entries of the journal not yet stored."""
    _frozen: bool = False
    _next: list[Event] = attrs.field(factory=list)
    """Events that came up while commands were performed."""
    _alarm: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _ahead: float = math.nan
    """Seconds by which the wall clock was ahead of trio's when that was last reported to the core.
    Not a number until it is looked at for the first time."""

    def connect(self, shells: Shells) -> None:
        """Give the dispatcher its shells: all at once, as most of them report to it."""
        self.shells = shells

    def attach(
        self,
        port: ClientPort,
        principal: Principal,
        transport: str,
        peer: str,
        *,
        local: bool = False,
        overrides: Overrides | None = None,
    ) -> ClientId:
        """Attach an authenticated client and return its number. ``local``: it is on this host."""
        client = next(self._numbers)
        self._ports[client] = port
        port.outbox.on_full = lambda: self._next.append(ClientLags(client))
        port.outbox.on_drained = lambda: self.handle(ClientDrained(client))
        expires = math.inf if principal.expires_at is None else principal.expires_at - self.wall()
        who = (client, principal, transport, peer)
        self.handle(ClientAttached(*who, expires, local, overrides))
        self.shells.connections.came(client, principal, peer)
        return client

    def number_clients_after(self, client: ClientId) -> None:
        """Use no client number up to this one: an earlier broker did."""
        self._numbers = itertools.count(client + 1)

    def freeze(self) -> None:
        """Let the core hear nothing more: what it knows is the next broker's from here on."""
        self._frozen = True

    def origin_of(self, client: ClientId) -> str:
        """Return the origin of the page that an attached client is; empty if it is none."""
        return self._ports[client].origin

    def detach(self, client: ClientId) -> None:
        """Detach a client whose connection is gone."""
        if self._frozen:
            del self._ports[client]
            return
        now = trio.current_time()
        self._check_clock(now)  # first: this may close the client, which needs its port
        del self._ports[client]
        self._handle_now(ClientLeft(client), now)
        self.shells.connections.left(client)

    def ready(self) -> bool:
        """Return whether the app-server can be used."""
        return self.broker.app_server_state is AppServerState.READY

    def handle(self, event: Event) -> None:
        """Let the core handle an event, and perform the commands that it returns."""
        if self._frozen:
            return
        now = trio.current_time()
        self._check_clock(now)
        self._handle_now(event, now)

    def _handle_now(self, event: Event, now: float) -> None:
        if type(event) is ClientSent:
            self.traffic.from_clients += 1
        self._decide(event, now)
        if self._frames:
            self._deliver()
        if self._next:
            self._handle_raised()

    def handle_lines(self, lines: Sequence[bytes | LongLine]) -> int:
        """Handle lines that the app-server wrote at once, then deliver what they cause at once.

        To 32 clients that is half the work: of a hundred deltas each is appended once, not 32
        times. Nobody waits longer for it, as no writer runs before the last line is decided. But
        lines differ in what they cost, so the step ends after ``LINES_SECONDS``. Return how many
        lines were handled.
        """
        now, began = trio.current_time(), time.perf_counter()
        handled, look_at = 0, LINES_A_LOOK
        self._check_clock(now)
        while handled < len(lines):
            try:
                handled += self._handle_next(lines, handled, now)
            except Exception:
                # A line of a newer codex that can't be handled is lost alone: it must not end
                # everybody's runtime.
                size = len(lines[handled])
                log.exception("a line of the app-server could not be handled", bytes=size)
                handled += 1
            if handled >= look_at:
                look_at = handled + LINES_A_LOOK
                if time.perf_counter() - began > LINES_SECONDS:
                    break
        self.traffic.from_app_server += handled
        self._keep()
        self._deliver()
        self._set_alarm()
        if self._next:
            self._handle_raised()
        return handled

    def _handle_next(self, lines: Sequence[bytes | LongLine], at: int, now: float) -> int:
        """Handle the next line, or the next run of deltas. Return how many lines that are."""
        alone = at == len(lines) - 1  # most reads at a model's pace: no run is looked for
        handled, commands = (0, []) if alone else self.broker.handle_run(lines, at, now)
        if not handled:
            line = lines[at]
            event = UpstreamSent(line) if isinstance(line, bytes) else UpstreamSentLong(line)
            handled, commands = 1, self.broker.handle(event, now)
        for command in commands:
            self._perform(command)
        return handled

    def _check_clock(self, now: float) -> None:
        """Report to the core if the wall clock was set, or went on while the machine slept.

        This comes before anything else is decided, so that nothing is taken from, or sent to, a
        client whose credential has expired.
        """
        ahead = self.wall() - now
        moved = ahead - self._ahead
        if -MOVED < moved < MOVED:
            return
        self._ahead = ahead
        if math.isnan(moved):
            return
        log.info("the clock was set, or the machine slept", seconds=round(moved, 1))
        self._decide(ClockMoved(moved), now)
        self._deliver()
        self.shells.notices.clock_moved()

    def _decide(self, event: Event, now: float) -> None:
        for command in self.broker.handle(event, now):
            self._perform(command)
        self._keep()
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self.broker.next_wakeup < self._alarm.deadline:  # noqa: PLR1730 (setting it costs more)
            self._alarm.deadline = self.broker.next_wakeup

    def _handle_raised(self) -> None:
        """Handle the events that came up while commands were performed, and no others could be."""
        while self._next:
            self.handle(self._next.pop(0))

    def _perform(self, command: Command) -> None:
        if type(command) is Publish:
            if command.recipients:
                self._address(command.recipients, command.method)
                if isinstance(message := command.message, bytes):
                    self._frames.append(text_frame(message))
                else:
                    self._deliver_pieces(message)
            if command.entry is not None:
                self._entries.append(command.entry)
        elif type(command) is PublishRun:
            if command.recipients:
                self._address(command.recipients, command.method)
                self._frames += text_frames(command.messages)
            self._entries += command.entries
        else:
            if self._frames:
                self._deliver()  # first: a `Close`, say, must come behind what was published before
            self._keep()  # first: it may be read from the journal
            self._perform_rarer(command)

    def _address(self, recipients: tuple[ClientId, ...], method: str) -> None:
        if recipients is not self._recipients:
            self._deliver()  # first: each client gets its messages in the core's order
            self._recipients = recipients
        if self.debug:
            log.debug("to clients", clients=recipients, method=method)

    def _keep(self) -> None:
        """Store the entries that were published, all at once: a read may hold hundreds."""
        if self._entries:
            self.shells.keep(*self._entries)
            self._entries.clear()

    def _deliver(self) -> None:
        """Append the frames for the same clients to each of their outboxes, as one piece."""
        if self._frames:
            frames = b"".join(self._frames)
            self.traffic.to_clients += len(self._frames) * len(self._recipients)
            self.traffic.bytes_to_clients += len(frames) * len(self._recipients)
            self._frames.clear()
            for client in self._recipients:
                self._ports[client].outbox.append(frames)

    def _deliver_pieces(self, message: Rope) -> None:
        """Append a long message to its recipients' outboxes in its pieces, which isn't a copy."""
        self._frames.append(frame_header(TEXT, len(message)))
        self._deliver()
        self.traffic.bytes_to_clients += len(message) * len(self._recipients)
        for client in self._recipients:
            self._ports[client].outbox.append_pieces(message.pieces)

    def _perform_rarer(self, command: Command) -> None:
        match command:
            case Forward(line, method):
                self.traffic.to_app_server += 1
                self.shells.app_server.send(line)
                if self.debug:
                    log.debug("to app-server", method=method)
            case AnswerOutside():
                self._serve(command)
            case ConnectionCommand(client):
                self._ports[client].perform(command)
            case _:
                self.shells.perform(command)

    def _serve(self, request: AnswerOutside) -> None:
        try:
            result = self.shells.answer(request)
        except AppmuxError as wrong:
            result = wrong
        if result is not DEFERRED:
            self._next.append(_answer(request, result))

    def answered(self, request: AnswerOutside, result: object) -> None:
        """Send the result of a request that was ``DEFERRED``, or the error that it ended with."""
        if request.client in self._ports:
            self.handle(_answer(request, result))

    def notify(self, client: ClientId, method: str, params: object) -> None:
        """Notify a client of something that only the shells know. Does nothing if it has left."""
        port = self._ports.get(client)
        if port is not None:
            frame = text_frame(jsonrpc.notification(method, params))
            self.traffic.to_clients += 1
            self.traffic.bytes_to_clients += len(frame)
            port.outbox.append(frame)

    def report(self) -> dict[str, Any]:
        """Return the answer to ``mux/status``: the core's report, and what the shells add."""
        whole = report(self.broker, trio.current_time())
        for client in whole["clients"]:
            port = self._ports[client["id"]]
            client["bytesOwed"], client["pid"] = port.outbox.owed, port.pid
        broker = {"version": mux.__version__, "pid": os.getpid()}
        facts = self.shells.status()
        whole["appServer"] |= facts.pop("appServer", {})
        broker |= facts.pop("broker", {})
        return {"broker": broker, **facts, **whole}

    def close_all(self, code: int, reason: str, origin: str | None = None) -> None:
        """Close every client's connection, or those of an origin's pages."""
        for port in list(self._ports.values()):
            if origin in (None, port.origin):
                port.close(code, reason)

    def owed(self) -> list[int]:
        """Return the bytes owed to each client."""
        return [port.outbox.owed for port in self._ports.values()]

    @property
    def attached(self) -> int:
        """The number of attached clients."""
        return len(self._ports)

    async def run(self) -> None:
        """Have outboxes written, and give the core ``TimePassed`` whenever it is due.

        Runs until it is cancelled.
        """
        trio.lowlevel.add_instrument(self.writes)
        try:
            while True:
                moment = min(self.broker.next_wakeup, trio.current_time() + LOOK_AGAIN)
                self._alarm = trio.CancelScope(deadline=moment)
                with self._alarm:
                    await trio.sleep_forever()
                now = trio.current_time()
                self._check_clock(now)
                if self.broker.next_wakeup <= now and not self._frozen:
                    self._handle_now(TimePassed(), now)
        finally:
            trio.lowlevel.remove_instrument(self.writes)


def _answer(request: AnswerOutside, result: object) -> AnsweredOutside:
    """Return the answer's event: by the core a client that is behind gets it in its place."""
    if isinstance(result, AppmuxError):
        message = jsonrpc.error(request.origin, jsonrpc.INVALID_REQUEST, str(result))
    else:
        message = jsonrpc.result(request.origin, result)
    return AnsweredOutside(request.client, message, request.method)
