"""The stdio bridge's memory of its client while the connection lasts.

It is all that a lost connection is resumed from (``rejoin``): the handshake, threads and their
settings, running turns, server requests that were offered, watches, processes. A pure state machine
over the lines of both sides; it does no I/O.

Lines pass unchanged but for one thing. To the client's ``initialize`` a relay's declaration is
added, so that the broker numbers its messages (``protocol.md``, "For clients that know the
broker"); the numbers are taken off again.

When the connection is lost, requests in flight are answered with an error. Turns and server
requests that ended with the broker are ended for the client, as the broker does it when its
app-server dies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from mux.core.protocol.envelope import client_message, jsonrpc
from mux.core.protocol.envelope.jsonrpc import ABSENT, BadMessageError, ClientMessage
from mux.core.protocol.methods import request_rule
from mux.core.protocol.rules import Route
from mux.core.protocol.threads import thread_settings
from mux.core.protocol.threads.turn_messages import ended_by_death, started_turn
from mux.stdio import messages as reading
from mux.stdio.messages import EXTENSION, Life, Message, Params, Turn

WATCH, UNWATCH = "fs/watch", "fs/unwatch"
SPAWN, EXITED = "process/spawn", "process/exited"
INITIALIZE, UNSUBSCRIBE = "initialize", "thread/unsubscribe"
STATUS, RESOLVED = "thread/status/changed", "serverRequest/resolved"

Lines: TypeAlias = list[bytes]


class Waiting(NamedTuple):
    """A request of the client that has no answer yet."""

    method: str
    thread: str | None
    params: bytes
    """JSON text of the params, empty if they aren't needed."""
    line: bytes
    """The whole line of an ``initialize``; empty for other methods."""


class Running(NamedTuple):
    """A running turn, as the client knows it."""

    turn: str
    started: bytes
    """The ``turn/started`` notification."""
    since: int
    """The cursor when the turn started."""
    also: str | None = None
    """A review's other id, which its answer and its end use."""

    def interrupted(self, unix_time: float) -> Lines:
        """Return the notification that ends the turn, where no app-server can send it any more."""
        return ended_by_death(self.started, self.also, unix_time)


class Followed(msgspec.Struct):
    """A thread that the client follows, and what to load it with again.

    ``core.protocol.threads.thread_settings`` makes the params from these.
    """

    loaded_with: bytes = b""
    """Params of the request that loaded the thread; empty if none did."""
    settings: bytes = b""
    """Settings of the thread, as last notified; empty if never."""


class Offered(NamedTuple):
    """A server request that was offered to the client and isn't resolved."""

    thread: str
    since: int
    """The cursor when the request was offered."""
    answer: bytes = b""
    """The client's answer, which may not have reached the broker."""


class ResumeState:
    """The state of one client, over all its connections.

    ``numbers`` has the broker number its messages, without which nothing can be replayed.
    """

    def __init__(self, *, numbers: bool) -> None:
        self.in_flight: dict[bytes, list[Waiting]] = {}
        """The client's requests without an answer, by id; a client may use an id twice."""
        self.adds = numbers
        """The relay's declaration is added to ``initialize``, and numbers are taken off."""
        self.hello: dict[str, bytes] | None = None
        """The fields of the client's own ``initialize``, once it was answered."""
        self.initialized = False
        self.life: Life | None = None
        self.cursor = 0
        """The client's place in the journal: the greatest number it has seen."""
        self.follows: dict[str, Followed] = {}
        self.running: dict[str, Running] = {}
        self.offered: dict[bytes, Offered] = {}
        self.watches: dict[bytes, bytes] = {}
        self._processes: set[str] = set()
        self._opted_out: frozenset[str] = frozenset()

    # ── the client's lines ────────────────────────────────────────────────────────────────────

    @property
    def shakes_hands(self) -> bool:
        """True while the client's first ``initialize`` has no answer."""
        return self.hello is None and any(
            request.method == INITIALIZE for all in self.in_flight.values() for request in all
        )

    def from_client(self, line: bytes) -> bytes:
        """Return the line to pass on.

        A line that is no message passes too: the broker says what is wrong with it.
        """
        try:
            message = client_message.read_client(line)
        except BadMessageError:
            return line
        if message.kind == "request":
            if message.method == INITIALIZE and self.hello is None:
                line = self._declared(message.fields)
            self.in_flight.setdefault(message.id, []).append(_waiting(message, line))
        elif message.kind == "notification":
            self.initialized |= message.method == "initialized"
        elif message.id in self.offered:
            self.offered[message.id] = self.offered[message.id]._replace(answer=line)
        return line

    def _declared(self, fields: dict[str, bytes]) -> bytes:
        """Return ``initialize`` with the relay's declaration, unless the client has its own."""
        params = jsonrpc.read_fields(fields.get("params", b"")) or {}
        capabilities = reading.object_of(params.get("capabilities"))
        extensions = reading.object_of(capabilities.get("extensions"))
        self._opted_out = reading.texts(capabilities.get("optOutNotificationMethods"))
        if EXTENSION in extensions:
            self.adds = False  # the client knows the broker itself: it gets all that it declared
        if self.adds and params:
            extensions[EXTENSION] = b'{"version":1,"relay":true}'
            capabilities["extensions"] = jsonrpc.write(extensions)
            params["capabilities"] = jsonrpc.write(capabilities)
            fields = fields | {"params": jsonrpc.write(params)}
        return jsonrpc.write(fields)

    # ── the broker's messages ─────────────────────────────────────────────────────────────────

    def answered(self, text: bytes, message: Message) -> Lines:
        """Return what the client gets for an answer to one of its own requests."""
        request = self._no_longer_in_flight(bytes(message.id))
        if request is None or message.error is not ABSENT:
            return [text]
        if request.method == INITIALIZE:
            self.hello = jsonrpc.read_fields(request.line)
            self.life = reading.life(text)
            self.cursor = self.life.seq if self.life else 0
            return [reading.without_life(text) if self.adds else text]
        self._learn(request, text)
        return [text]

    def notified(self, text: bytes, message: Message, method: str, params: Params) -> None:
        """Update the state from a notification that the client gets."""
        thread = params.threadId
        if method == RESOLVED:
            self.offered.pop(bytes(params.requestId), None)
        elif method == EXITED:
            self._processes.discard(params.processHandle or "")
        elif thread is not None:
            self._apply(text, method, thread, params)
            if message.seq:
                self.follows.setdefault(thread, Followed())
            if method in ("thread/closed", "thread/deleted"):
                self._forget(thread)

    def _apply(self, text: bytes, method: str, thread: str, params: Params) -> None:
        if method == "turn/started" and params.turn is not None:
            before, turn = self.running.get(thread), params.turn
            begun = before.turn if before is not None else None
            also = begun if begun == turn.rootTurnId != turn.id else None
            self.running[thread] = Running(turn.id, text, self.cursor, also)
        elif method == "turn/completed":
            self.running.pop(thread, None)
        elif method == thread_settings.UPDATED and thread in self.follows:
            self.follows[thread].settings = thread_settings.read_updated(text)

    def _forget(self, thread: str) -> None:
        self.follows.pop(thread, None)
        self.running.pop(thread, None)

    def _no_longer_in_flight(self, id: bytes) -> Waiting | None:
        waiting = self.in_flight.get(id)
        if not waiting:
            return None
        request = waiting.pop(0)
        if not waiting:
            del self.in_flight[id]
        return request

    def _learn(self, request: Waiting, text: bytes) -> None:
        """Update the state from a request that succeeded."""
        rule = request_rule(request.method)
        if request.method == SPAWN:
            handle = jsonrpc.read_text(reading.object_of(request.params).get("processHandle"))
            self._processes.add(handle or "")
        elif rule.route is Route.FOLLOW or rule.begins:
            result = reading.result(text)
            named = result.reviewThreadId or (result.thread.id if result.thread else None)
            if rule.route is Route.FOLLOW and named is not None:
                followed = self.follows.setdefault(named, Followed())
                followed.loaded_with = followed.loaded_with or request.params
            self._begun(named or request.thread, result.turn, text)
        elif request.method == UNSUBSCRIBE:
            self._forget(request.thread or "")
        elif request.method in (WATCH, UNWATCH):
            id = reading.object_of(request.params).get("watchId", b"")
            self.watches.pop(id, None)
            if request.method == WATCH:
                self.watches[id] = request.params

    def _begun(self, thread: str | None, turn: Turn | None, text: bytes) -> None:
        """Note a running turn that an answer names.

        Its ``turn/started`` comes only after the answer.
        """
        if thread is None or turn is None or turn.status != "inProgress":
            return
        if thread not in self.running:
            result = reading.object_of(reading.object_of(text).get("result"))
            as_text = result.get("turn", b"{}")
            self.running[thread] = Running(turn.id, started_turn(thread, as_text), self.cursor)

    # ── the connection is lost ────────────────────────────────────────────────────────────────

    def lost(self, reason: str, *, retryable: bool = True) -> Lines:
        """Return the lines that the client gets at once: an error for every request in flight.

        ``initialize`` is kept if it had no answer yet, and sent again on the next connection.
        Processes that the client spawned are reported as exited.
        """
        lines: Lines = []
        for id, waiting in list(self.in_flight.items()):
            kept = []
            for request in waiting:
                if request.method == INITIALIZE and self.hello is None:
                    kept.append(request)  # sent again, and answered then
                    continue
                text = f"{reason} before it answered `{request.method}`"
                error_data = {
                    "generation": self.life.generation if self.life else 0,
                    "retryable": retryable and request_rule(request.method).reads,
                }
                lines.append(jsonrpc.error(id, jsonrpc.APP_SERVER_GONE, text, error_data))
            self.in_flight[id] = kept
        self.in_flight = {id: kept for id, kept in self.in_flight.items() if kept}
        for handle in sorted(self._processes):
            lines += self._notify(EXITED, _PROCESS_GONE | {"processHandle": handle})
        self._processes.clear()
        return lines

    # ── what has ended meanwhile ──────────────────────────────────────────────────────────────

    def resolve(self, id: bytes, offered: Offered) -> Lines:
        """Return the lines that take an offered server request from the client."""
        del self.offered[id]
        return self._notify(RESOLVED, {"threadId": offered.thread, "requestId": msgspec.Raw(id)})

    def end(self, thread: str, completed: Lines) -> Lines:
        """Return the lines that end the thread's turn; ``completed`` is its ``turn/completed``."""
        self.running.pop(thread, None)
        idle = self._notify(STATUS, {"threadId": thread, "status": {"type": "idle"}})
        return idle + ([] if "turn/completed" in self._opted_out else completed)

    def lose(self, thread: str, unix_time: float) -> Lines:
        """Return the lines that tell the client of a thread that can't be loaded again."""
        # Requests are resolved and the turn ended before the thread is closed.
        lines: Lines = []
        for id, offered in list(self.offered.items()):
            if offered.thread == thread:
                lines += self.resolve(id, offered)
        if thread in self.running:
            lines += self.end(thread, self.running[thread].interrupted(unix_time))
        self._forget(thread)
        status = {"threadId": thread, "status": {"type": "notLoaded"}}
        return [
            *lines,
            *self._notify(STATUS, status),
            *self._notify("thread/closed", {"threadId": thread}),
        ]

    def _notify(self, method: str, params: Mapping[str, object]) -> Lines:
        return [] if method in self._opted_out else [jsonrpc.notification(method, params)]


_PROCESS_GONE: dict[str, object] = {
    "exitCode": -1,
    "stdout": "",
    "stdoutCapReached": False,
    "stderr": "the broker that ran this process has ended, or has cut this client off",
    "stderrCapReached": False,
}


def _waiting(message: ClientMessage, line: bytes) -> Waiting:
    """Return what is remembered of a request: only what is needed, as some hold whole pictures."""
    method, rule = message.method, request_rule(message.method)
    params = message.params if rule.route is Route.FOLLOW or method in _OF_PARAMS else b""
    names_thread = rule.begins or method == UNSUBSCRIBE
    thread = reading.thread_in(message.params) if names_thread else None
    return Waiting(method, thread, params, line if method == INITIALIZE else b"")


_OF_PARAMS = frozenset({WATCH, UNWATCH, SPAWN})
