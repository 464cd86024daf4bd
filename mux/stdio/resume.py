"""The stdio bridge's memory of its client, from which a lost connection is resumed.

A pure state machine over the lines of both sides; it does no I/O.

While the connection lasts, lines pass unchanged but for one thing. To the client's ``initialize``
a relay's declaration is added, so that the broker numbers its messages (``protocol.md``, "For
clients that know the broker"); the numbers are taken off again.

When the connection is lost, requests in flight are answered with an error. On the next connection
the bridge

1. shakes hands with the client's own ``initialize``;
2. has the client's threads loaded as they were (``thread/resume`` with the params and settings they
   were loaded with);
3. reads on from the client's place in the journal (``mux/replay``). Where that can't be done, it
   continues with what happens from now on.

Turns and server requests that ended with the broker are ended for the client, as the broker does it
when its app-server dies. The answers to the bridge's own requests end here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

import msgspec

from mux.core.protocol import jsonrpc, thread_settings
from mux.core.protocol.jsonrpc import ABSENT, BadMessageError, ClientMessage
from mux.core.protocol.methods import (
    OfferTo,
    Route,
    notification_rule,
    request_rule,
    server_request_rule,
)
from mux.core.protocol.turn_messages import ended_by_death, started_turn
from mux.stdio import messages as reading
from mux.stdio.messages import EXTENSION, Life, Message, Params, Replayed, Turn

WATCH, UNWATCH = "fs/watch", "fs/unwatch"
SPAWN, EXITED = "process/spawn", "process/exited"
INITIALIZE, RESUME, TURNS = "initialize", "thread/resume", "thread/turns/list"
UNSUBSCRIBE: Final = "thread/unsubscribe"
REPLAY, FENCE = "mux/replay", "mux/presence/read"
STATUS, RESOLVED = "thread/status/changed", "serverRequest/resolved"


Lines: TypeAlias = list[bytes]


class ReturnError(Exception):
    """The broker is there again, but refuses this client; the text says why."""


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

    ``core.protocol.thread_settings`` makes the params from these.
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


Then: TypeAlias = Callable[[bytes, bool], Lines]
"""Called with the answer to one of the bridge's own requests, and whether that is an error."""


class ResumeState:
    """The state of one client, over all its connections.

    ``numbers`` has the broker number its messages, without which nothing can be replayed.
    """

    def __init__(self, *, numbers: bool) -> None:
        self.live = True
        """The client's lines may go to the broker."""
        self.to_broker: Lines = []
        """Lines of the bridge's own that are owed to the broker."""
        self.in_flight: dict[bytes, list[Waiting]] = {}
        """The client's requests without an answer, by id; a client may use an id twice."""
        self._adds = numbers
        """The relay's declaration is added to ``initialize``, and numbers are taken off."""
        self._hello: dict[str, bytes] | None = None
        """The fields of the client's own ``initialize``, once it was answered."""
        self._initialized = False
        self._opted_out: frozenset[str] = frozenset()
        self._life: Life | None = None
        self._now = 0.0
        self._cursor = 0
        """The client's place in the journal: the greatest number it has seen."""
        self._ended_before = 0
        """Everything up to this number ended with the last broker; 0: nothing did."""
        self._follows: dict[str, Followed] = {}
        self._loading = 0
        """The number of threads that are still being loaded again."""
        self._deaf = False
        """Messages of followed threads are dropped now, because the replay brings them in order."""
        self._running: dict[str, Running] = {}
        self._offered: dict[bytes, Offered] = {}
        self._again: set[bytes] = set()
        """Ids of the server requests that this connection has offered."""
        self._watches: dict[bytes, bytes] = {}
        self._processes: set[str] = set()
        self._own: dict[bytes, Then] = {}
        """The handlers of the answers to the bridge's own requests, by id."""
        self._asked = 0

    # ── the client's lines ────────────────────────────────────────────────────────────────────

    @property
    def shakes_hands(self) -> bool:
        """True while the client's first ``initialize`` has no answer."""
        return self._hello is None and any(
            asked.method == INITIALIZE for all in self.in_flight.values() for asked in all
        )

    def from_client(self, line: bytes) -> bytes:
        """Return the line to pass on.

        A line that is no message passes too: the broker says what is wrong with it.
        """
        try:
            message = jsonrpc.read_client(line)
        except BadMessageError:
            return line
        if message.kind == "request":
            if message.method == INITIALIZE and self._hello is None:
                line = self._declared(message.fields)
            self.in_flight.setdefault(message.id, []).append(_asked(message, line))
        elif message.kind == "notification":
            self._initialized |= message.method == "initialized"
        elif message.id in self._offered:
            self._offered[message.id] = self._offered[message.id]._replace(answer=line)
        return line

    def _declared(self, fields: dict[str, bytes]) -> bytes:
        """Return ``initialize`` with the relay's declaration, unless the client has its own."""
        params = jsonrpc.read_fields(fields.get("params", b"")) or {}
        capabilities = reading.object_of(params.get("capabilities"))
        extensions = reading.object_of(capabilities.get("extensions"))
        self._opted_out = reading.texts(capabilities.get("optOutNotificationMethods"))
        if EXTENSION in extensions:
            self._adds = False  # the client knows the broker itself: it gets all that it declared
        if self._adds and params:
            extensions[EXTENSION] = b'{"version":1,"relay":true}'
            capabilities["extensions"] = jsonrpc.write(extensions)
            params["capabilities"] = jsonrpc.write(capabilities)
            fields = fields | {"params": jsonrpc.write(params)}
        return jsonrpc.write(fields)

    # ── the broker's messages ─────────────────────────────────────────────────────────────────

    def from_broker(self, text: bytes) -> Lines:
        """Return what the client gets for a message: itself, nothing, or other lines before it."""
        message = reading.read(text)
        if message is None:
            return [text]
        if self._adds:
            text = reading.without_numbers(text)
        if message.method is None:
            return self._answered(text, message)
        if not self._deaf:
            self._cursor = max(self._cursor, message.seq, message.cursor)
        # What ended with the last broker is ended before the first message of its successor.
        before = self._endings() if message.seq > self._ended_before > 0 else []
        return before + self._told(text, message, message.method)

    def _told(self, text: bytes, message: Message, method: str) -> Lines:
        params = message.params or Params()
        thread = params.threadId
        if self._deaf and thread in self._follows and self._is_replayed(method, message.id):
            return []  # the replay brings it, in its place
        if message.id is not ABSENT:
            return self._was_offered(text, bytes(message.id), thread or "")
        if method == RESOLVED:
            self._offered.pop(bytes(params.requestId), None)
        elif method == EXITED:
            self._processes.discard(params.processHandle or "")
        elif not self.live and notification_rule(method).greets:
            return []  # the client has been greeted before
        elif thread is not None:
            self._note(text, method, thread, params)
            if message.seq:
                self._follows.setdefault(thread, Followed())
            if method in ("thread/closed", "thread/deleted"):
                self._forget(thread)
        return [text]

    def _is_replayed(self, method: str, id: msgspec.Raw) -> bool:
        # A request offered to one client only isn't replayed, whichever client that was.
        return id is ABSENT or server_request_rule(method).offer_to is OfferTo.FOLLOWERS

    def _was_offered(self, text: bytes, id: bytes, thread: str) -> Lines:
        self._again.add(id)
        if not self.live and id in self._offered:
            return []  # still unanswered, and the client has it already
        self._offered[id] = Offered(thread, self._cursor)
        return [text]

    def _note(self, text: bytes, method: str, thread: str, params: Params) -> None:
        if method == "turn/started" and params.turn is not None:
            before, turn = self._running.get(thread), params.turn
            begun = before.turn if before is not None else None
            also = begun if begun == turn.rootTurnId != turn.id else None
            self._running[thread] = Running(turn.id, text, self._cursor, also)
        elif method == "turn/completed":
            self._running.pop(thread, None)
        elif method == thread_settings.UPDATED and thread in self._follows:
            self._follows[thread].settings = thread_settings.read_updated(text)

    def _forget(self, thread: str) -> None:
        self._follows.pop(thread, None)
        self._running.pop(thread, None)

    def _answered(self, text: bytes, message: Message) -> Lines:
        id, failed = bytes(message.id), message.error is not ABSENT
        own = self._own.pop(id, None)
        if own is not None:
            return own(text, failed)
        asked = self._no_longer_in_flight(id)
        if asked is None or failed:
            return [text]
        if asked.method == INITIALIZE:
            self._hello = jsonrpc.read_fields(asked.line)
            self._life = reading.life(text)
            self._cursor = self._life.seq if self._life else 0
            return [reading.without_life(text) if self._adds else text]
        self._learn(asked, text)
        return [text]

    def _no_longer_in_flight(self, id: bytes) -> Waiting | None:
        waiting = self.in_flight.get(id)
        if not waiting:
            return None
        asked = waiting.pop(0)
        if not waiting:
            del self.in_flight[id]
        return asked

    def _learn(self, asked: Waiting, text: bytes) -> None:
        """Update the state from a request that succeeded."""
        rule = request_rule(asked.method)
        if asked.method == SPAWN:
            handle = jsonrpc.read_text(reading.object_of(asked.params).get("processHandle"))
            self._processes.add(handle or "")
        elif rule.route is Route.FOLLOW or rule.begins:
            result = reading.result(text)
            named = result.reviewThreadId or (result.thread.id if result.thread else None)
            if rule.route is Route.FOLLOW and named is not None:
                followed = self._follows.setdefault(named, Followed())
                followed.loaded_with = followed.loaded_with or asked.params
            self._begun(named or asked.thread, result.turn, text)
        elif asked.method == UNSUBSCRIBE:
            self._forget(asked.thread or "")
        elif asked.method in (WATCH, UNWATCH):
            id = reading.object_of(asked.params).get("watchId", b"")
            self._watches.pop(id, None)
            if asked.method == WATCH:
                self._watches[id] = asked.params

    def _begun(self, thread: str | None, turn: Turn | None, text: bytes) -> None:
        """Note a running turn that an answer names.

        Its ``turn/started`` comes only after the answer.
        """
        if thread is None or turn is None or turn.status != "inProgress":
            return
        if thread not in self._running:
            result = reading.object_of(reading.object_of(text).get("result"))
            as_text = result.get("turn", b"{}")
            self._running[thread] = Running(turn.id, started_turn(thread, as_text), self._cursor)

    # ── the connection is lost ────────────────────────────────────────────────────────────────

    def lost(self, reason: str, *, retryable: bool = True) -> Lines:
        """Return the lines that the client gets at once: an error for every request in flight.

        ``initialize`` is kept if it had no answer yet, and sent again on the next connection.
        Processes that the client spawned are reported as exited.
        """
        self._own.clear()
        self.to_broker.clear()
        self.live = False
        lines: Lines = []
        for id, waiting in list(self.in_flight.items()):
            kept = []
            for asked in waiting:
                if asked.method == INITIALIZE and self._hello is None:
                    kept.append(asked)  # sent again, and answered then
                    continue
                text = f"{reason} before it answered `{asked.method}`"
                told = {
                    "generation": self._life.generation if self._life else 0,
                    "retryable": retryable and request_rule(asked.method).reads,
                }
                lines.append(jsonrpc.error(id, jsonrpc.APP_SERVER_GONE, text, told))
            self.in_flight[id] = kept
        self.in_flight = {id: kept for id, kept in self.in_flight.items() if kept}
        for handle in sorted(self._processes):
            lines += self._say(EXITED, _PROCESS_GONE | {"processHandle": handle})
        self._processes.clear()
        return lines

    # ── the next connection ───────────────────────────────────────────────────────────────────

    def back(self, unix_time: float) -> None:
        """Start on another connection: put what the bridge must send first into ``to_broker``."""
        self._now = unix_time
        self._again.clear()
        if self._hello is not None:
            self._ask(INITIALIZE, msgspec.Raw(self._hello.get("params", b"{}")), self._welcomed)
            return
        waiting = [asked.line for all in self.in_flight.values() for asked in all]
        self.to_broker += waiting  # only `initialize` can be waiting
        if self._initialized:
            self.to_broker.append(_INITIALIZED)
        self.live = True

    def _ask(self, method: str, params: object, then: Then) -> None:
        self._asked += 1
        id = f"appmux-stdio-{self._asked}"
        line = {"id": id, "method": method, "params": params}
        self.to_broker.append(msgspec.json.encode(line))
        self._own[msgspec.json.encode(id)] = then

    def _welcomed(self, text: bytes, failed: bool) -> Lines:
        if failed:
            raise ReturnError(f"it answered `initialize` with {reading.shown_error(text)}")
        before, self._life = self._life, reading.life(text)
        # ``initialized`` goes before all other requests, as the handshake demands.
        if self._initialized:
            self.to_broker.append(_INITIALIZED)
        for params in self._watches.values():
            self._ask(WATCH, msgspec.Raw(params), _nothing)
        now = self._life
        if before is not None and now is not None and before.epoch == now.epoch:
            self._ended_before = now.began if now.began != before.began else 0
            self._deaf = True
            self._load_all()
        else:
            self._cursor = now.seq if now else 0
            self._take_snapshots()
        return []

    def _load_all(self) -> None:
        """Have the threads loaded as they were, then read on.

        The app-server ignores ``thread/resume``'s settings for a thread that is loaded already.
        """
        self._loading = len(self._follows)
        for thread in self._follows:
            self._ask(RESUME, self._to_load(thread), self._for(thread, self._loaded))
        if not self._follows:
            self._deaf = False
            self._ask_whether_through(self._caught_up)

    def _to_load(self, thread: str) -> dict[str, object]:
        followed = self._follows[thread]
        asked = thread_settings.to_load(followed.loaded_with, followed.settings)
        params = {name: msgspec.Raw(text) for name, text in asked.items()}
        return {**params, "threadId": thread, "excludeTurns": True}

    def _for(self, thread: str, then: Callable[[str, bytes, bool], Lines]) -> Then:
        return lambda text, failed: then(thread, text, failed)

    def _loaded(self, thread: str, _text: bytes, failed: bool) -> Lines:
        self._loading -= 1
        settings = self._follows[thread].settings
        if settings and not failed:
            self._ask(thread_settings.UPDATE, thread_settings.to_update(thread, settings), _nothing)
        if self._loading == 0:
            self._read_on()
        return []

    def _read_on(self) -> None:
        """Once the threads are loaded, continue from the client's place in the journal."""
        assert self._life is not None
        after = {"epoch": self._life.epoch, "seq": self._cursor}
        named = {"after": after, "threadIds": list(self._follows)}
        self._ask(REPLAY, named, self._replayed)

    def _replayed(self, text: bytes, failed: bool) -> Lines:
        self._deaf = False
        told = Replayed(complete=False) if failed else reading.replayed(text)
        if not told.complete:
            self._take_snapshots()
            return []
        # The fence goes to the broker after the replay; its answer marks the replay's end.
        self._ask_whether_through(self._caught_up)
        lines: Lines = []
        for thread in told.missing:
            lines += self._lose(thread)
        return lines

    def _ask_whether_through(self, then: Then) -> None:
        """Send a request whose answer comes after all that the broker owes before it."""
        self._ask(FENCE if self._life else "thread/loaded/list", {}, then)

    def _caught_up(self, _text: bytes, _failed: bool) -> Lines:
        lines = self._endings() if self._ended_before else []
        self._go_live()
        return lines

    def _go_live(self) -> None:
        # The broker ignores a late answer, so sending one again does no harm.
        self.to_broker += [each.answer for each in self._offered.values() if each.answer]
        self._ended_before = 0
        self.live = True

    def _endings(self) -> Lines:
        """End for the client what ended with the last broker; the journal doesn't hold it."""
        until, self._ended_before = self._ended_before, 0
        lines: Lines = []
        for id, offered in list(self._offered.items()):
            if offered.since <= until:
                lines += self._resolve(id, offered)
        for thread, running in list(self._running.items()):
            if running.since <= until:
                lines += self._end(thread, running.interrupted(self._now))
        return lines

    def _resolve(self, id: bytes, offered: Offered) -> Lines:
        del self._offered[id]
        return self._say(RESOLVED, {"threadId": offered.thread, "requestId": msgspec.Raw(id)})

    def _end(self, thread: str, completed: Lines) -> Lines:
        self._running.pop(thread, None)
        idle = self._say(STATUS, {"threadId": thread, "status": {"type": "idle"}})
        return idle + ([] if "turn/completed" in self._opted_out else completed)

    def _lose(self, thread: str) -> Lines:
        """Return the lines that tell the client of a thread that can't be loaded again."""
        # Requests are resolved and the turn ended before the thread is closed.
        lines: Lines = []
        for id, offered in list(self._offered.items()):
            if offered.thread == thread:
                lines += self._resolve(id, offered)
        if thread in self._running:
            lines += self._end(thread, self._running[thread].interrupted(self._now))
        self._forget(thread)
        status = {"threadId": thread, "status": {"type": "notLoaded"}}
        return [
            *lines,
            *self._say(STATUS, status),
            *self._say("thread/closed", {"threadId": thread}),
        ]

    def _say(self, method: str, params: Mapping[str, object]) -> Lines:
        return [] if method in self._opted_out else [jsonrpc.notification(method, params)]

    # ── where the journal can't help ──────────────────────────────────────────────────────────

    def _take_snapshots(self) -> None:
        """Follow the threads from now on, and find out which of the running turns still run."""
        self._ended_before = 0
        for thread in self._follows:
            self._ask(RESUME, self._to_load(thread), self._for(thread, self._resumed))
            if thread in self._running:
                params = {"threadId": thread, "limit": 2}  # a review is listed under both its ids
                self._ask(TURNS, params, self._for(thread, self._latest))
        self._ask_whether_through(self._followed_again)

    def _resumed(self, thread: str, _text: bytes, failed: bool) -> Lines:
        return self._lose(thread) if failed else []

    def _latest(self, thread: str, text: bytes, failed: bool) -> Lines:
        """End the turn that ran, unless the thread's latest turns show that it still runs."""
        running = self._running.get(thread)
        if running is None:
            return []
        listed = list(reading.turns(text)) if not failed else []
        # A review that has ended is also listed under the id by which it began, as if it still ran.
        listed.sort(key=lambda each: each[0].status == "inProgress")
        for turn, raw in listed:
            if turn.id not in (running.turn, running.also):
                continue
            if turn.status == "inProgress":
                return []
            params = {"threadId": thread, "turn": raw}
            return self._end(thread, [jsonrpc.notification("turn/completed", params)])
        return self._end(thread, running.interrupted(self._now))

    def _followed_again(self, _text: bytes, _failed: bool) -> Lines:
        lines: Lines = []
        for id, offered in list(self._offered.items()):
            if id not in self._again:
                lines += self._resolve(id, offered)
        self._go_live()
        return lines


_INITIALIZED = b'{"method":"initialized"}'

_PROCESS_GONE: dict[str, object] = {
    "exitCode": -1,
    "stdout": "",
    "stdoutCapReached": False,
    "stderr": "the broker that ran this process has ended, or has cut this client off",
    "stderrCapReached": False,
}


def _asked(message: ClientMessage, line: bytes) -> Waiting:
    """Return what is remembered of a request: only what is needed, as some hold whole pictures."""
    method, rule = message.method, request_rule(message.method)
    params = message.params if rule.route is Route.FOLLOW or method in _OF_PARAMS else b""
    names_thread = rule.begins or method == UNSUBSCRIBE
    thread = reading.thread_in(message.params) if names_thread else None
    return Waiting(method, thread, params, line if method == INITIALIZE else b"")


_OF_PARAMS = frozenset({WATCH, UNWATCH, SPAWN})


def _nothing(_text: bytes, _failed: bool) -> Lines:
    return []
