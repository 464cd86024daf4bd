"""Says, on the stdio bridge's next connection, what brings its client back after a loss.

1. It shakes hands with the client's own ``initialize``.
2. It has the client's threads loaded as they were (``thread/resume`` with the params and settings
   they were loaded with).
3. It reads on from the client's place in the journal (``mux/replay``). Where that can't be done, it
   continues with what happens from now on.

The answers to these requests of the bridge's own end here. Like ``resume``, whose state it goes by,
it does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ABSENT
from mux.core.protocol.methods import notification_rule, server_request_rule
from mux.core.protocol.rules import OfferTo
from mux.core.protocol.threads import thread_settings
from mux.stdio import messages as reading
from mux.stdio.messages import Message, Params, Replayed
from mux.stdio.resume import INITIALIZE, WATCH, Lines, Offered, ResumeState

RESUME, TURNS = "thread/resume", "thread/turns/list"
REPLAY, FENCE = "mux/replay", "mux/presence/read"


class ReturnError(Exception):
    """The broker is there again, but refuses this client; the text says why."""


Then: TypeAlias = Callable[[bytes, bool], Lines]
"""Called with the answer to one of the bridge's own requests, and whether that is an error."""


class ClientSession:
    """A client's session over all its connections: ``state``, and what is said to resume it.

    ``numbers``: see ``ResumeState``.
    """

    def __init__(self, *, numbers: bool) -> None:
        self.state = ResumeState(numbers=numbers)
        self.live = True
        """The client's lines may go to the broker."""
        self.to_broker: Lines = []
        """Lines of the bridge's own that are owed to the broker."""
        self._now = 0.0
        self._ended_before = 0
        """Everything up to this number ended with the last broker; 0: nothing did."""
        self._loading = 0
        """The number of threads that are still being loaded again."""
        self._deaf = False
        """Messages of followed threads are dropped now, because the replay brings them in order."""
        self._again: set[bytes] = set()
        """Ids of the server requests that this connection has offered."""
        self._own: dict[bytes, Then] = {}
        """The handlers of the answers to the bridge's own requests, by id."""
        self._asked = 0

    # ── while a connection lasts ──────────────────────────────────────────────────────────────

    def from_broker(self, text: bytes) -> Lines:
        """Return what the client gets for a message: itself, nothing, or other lines before it."""
        message = reading.read(text)
        if message is None:
            return [text]
        if self.state.adds:
            text = reading.without_numbers(text)
        if message.method is None:
            own = self._own.pop(bytes(message.id), None)
            if own is not None:
                return own(text, message.error is not ABSENT)
            return self.state.answered(text, message)
        if not self._deaf:
            self.state.cursor = max(self.state.cursor, message.seq, message.cursor)
        # What ended with the last broker is ended before the first message of its successor.
        before = self._endings() if message.seq > self._ended_before > 0 else []
        return before + self._passed_on(text, message, message.method)

    def _passed_on(self, text: bytes, message: Message, method: str) -> Lines:
        params = message.params or Params()
        thread = params.threadId
        if self._deaf and thread in self.state.follows and self._is_replayed(method, message.id):
            return []  # the replay brings it, in its place
        if message.id is not ABSENT:
            return self._was_offered(text, bytes(message.id), thread or "")
        if not self.live and notification_rule(method).greets:
            return []  # the client has been greeted before
        self.state.notified(text, message, method, params)
        return [text]

    def _is_replayed(self, method: str, id: msgspec.Raw) -> bool:
        # A request offered to one client only isn't replayed, whichever client that was.
        return id is ABSENT or server_request_rule(method).offer_to is OfferTo.FOLLOWERS

    def _was_offered(self, text: bytes, id: bytes, thread: str) -> Lines:
        self._again.add(id)
        if not self.live and id in self.state.offered:
            return []  # still unanswered, and the client has it already
        self.state.offered[id] = Offered(thread, self.state.cursor)
        return [text]

    def lost(self, reason: str, *, retryable: bool = True) -> Lines:
        """Return the lines that the client gets at once for a connection that was lost."""
        self._own.clear()
        self.to_broker.clear()
        self.live = False
        return self.state.lost(reason, retryable=retryable)

    # ── the next connection ───────────────────────────────────────────────────────────────────

    def back(self, unix_time: float) -> None:
        """Start on another connection: put what the bridge must send first into ``to_broker``."""
        self._now = unix_time
        self._again.clear()
        if self.state.hello is not None:
            self._ask(
                INITIALIZE, msgspec.Raw(self.state.hello.get("params", b"{}")), self._welcomed
            )
            return
        waiting = [request.line for all in self.state.in_flight.values() for request in all]
        self.to_broker += waiting  # only `initialize` can be waiting
        if self.state.initialized:
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
            raise ReturnError(f"it refuses this client: {reading.shown_error(text)}")
        before, self.state.life = self.state.life, reading.life(text)
        # ``initialized`` goes before all other requests, as the handshake demands.
        if self.state.initialized:
            self.to_broker.append(_INITIALIZED)
        for params in self.state.watches.values():
            self._ask(WATCH, msgspec.Raw(params), _nothing)
        now = self.state.life
        if before is not None and now is not None and before.epoch == now.epoch:
            self._ended_before = now.began if now.began != before.began else 0
            self._deaf = True
            self._load_all()
        else:
            self.state.cursor = now.seq if now else 0
            self._take_snapshots()
        return []

    def _load_all(self) -> None:
        """Have the threads loaded as they were, then read on.

        The app-server ignores ``thread/resume``'s settings for a thread that is loaded already.
        """
        self._loading = len(self.state.follows)
        for thread in self.state.follows:
            self._ask(RESUME, self._to_load(thread), self._for(thread, self._loaded))
        if not self.state.follows:
            self._deaf = False
            self._ask_whether_through(self._caught_up)

    def _to_load(self, thread: str) -> dict[str, object]:
        followed = self.state.follows[thread]
        fields = thread_settings.to_load(followed.loaded_with, followed.settings)
        params = {name: msgspec.Raw(text) for name, text in fields.items()}
        return {**params, "threadId": thread, "excludeTurns": True}

    def _for(self, thread: str, then: Callable[[str, bytes, bool], Lines]) -> Then:
        return lambda text, failed: then(thread, text, failed)

    def _loaded(self, thread: str, _text: bytes, failed: bool) -> Lines:
        self._loading -= 1
        settings = self.state.follows[thread].settings
        if settings and not failed:
            self._ask(thread_settings.UPDATE, thread_settings.to_update(thread, settings), _nothing)
        if self._loading == 0:
            self._read_on()
        return []

    def _read_on(self) -> None:
        """Once the threads are loaded, continue from the client's place in the journal."""
        assert self.state.life is not None
        after = {"epoch": self.state.life.epoch, "seq": self.state.cursor}
        named = {"after": after, "threadIds": list(self.state.follows)}
        self._ask(REPLAY, named, self._replayed)

    def _replayed(self, text: bytes, failed: bool) -> Lines:
        self._deaf = False
        replayed = Replayed(complete=False) if failed else reading.replayed(text)
        if not replayed.complete:
            self._take_snapshots()
            return []
        # The fence goes to the broker after the replay; its answer marks the replay's end.
        self._ask_whether_through(self._caught_up)
        lines: Lines = []
        for thread in replayed.missing:
            lines += self.state.lose(thread, self._now)
        return lines

    def _ask_whether_through(self, then: Then) -> None:
        """Send a request whose answer comes after all that the broker owes before it."""
        self._ask(FENCE if self.state.life else "thread/loaded/list", {}, then)

    def _caught_up(self, _text: bytes, _failed: bool) -> Lines:
        lines = self._endings() if self._ended_before else []
        self._go_live()
        return lines

    def _go_live(self) -> None:
        # The broker ignores a late answer, so sending one again does no harm.
        self.to_broker += [each.answer for each in self.state.offered.values() if each.answer]
        self._ended_before = 0
        self.live = True

    def _endings(self) -> Lines:
        """End for the client what ended with the last broker; the journal doesn't hold it."""
        until, self._ended_before = self._ended_before, 0
        lines: Lines = []
        for id, offered in list(self.state.offered.items()):
            if offered.since <= until:
                lines += self.state.resolve(id, offered)
        for thread, running in list(self.state.running.items()):
            if running.since <= until:
                lines += self.state.end(thread, running.interrupted(self._now))
        return lines

    # ── where the journal can't help ──────────────────────────────────────────────────────────

    def _take_snapshots(self) -> None:
        """Follow the threads from now on, and find out which of the running turns still run."""
        self._ended_before = 0
        for thread in self.state.follows:
            self._ask(RESUME, self._to_load(thread), self._for(thread, self._resumed))
            if thread in self.state.running:
                params = {"threadId": thread, "limit": 2}  # a review is listed under both its ids
                self._ask(TURNS, params, self._for(thread, self._latest))
        self._ask_whether_through(self._followed_again)

    def _resumed(self, thread: str, _text: bytes, failed: bool) -> Lines:
        return self.state.lose(thread, self._now) if failed else []

    def _latest(self, thread: str, text: bytes, failed: bool) -> Lines:
        """End the turn that ran, unless the thread's latest turns show that it still runs."""
        running = self.state.running.get(thread)
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
            return self.state.end(thread, [jsonrpc.notification("turn/completed", params)])
        return self.state.end(thread, running.interrupted(self._now))

    def _followed_again(self, _text: bytes, _failed: bool) -> Lines:
        lines: Lines = []
        for id, offered in list(self.state.offered.items()):
            if id not in self._again:
                lines += self.state.resolve(id, offered)
        self._go_live()
        return lines


_INITIALIZED = b'{"method":"initialized"}'


def _nothing(_text: bytes, _failed: bool) -> Lines:
    return []
