"""Title threads: each TUI has a title made for every new thread that it follows; one is enough.

When the first turn of a thread without a name begins, whoever began it, every TUI on it starts an
ephemeral thread (``threadSource`` ``thread_title``), has one turn run there whose input is a fixed
text and the person's words, whose output is ``{"title"}``, and unsubscribes; the one that is first
sets the name. It waits 30 s for the turn. (Codex 0.163 and 0.169.)

Such a thread is let through, as it costs nothing; but it is ``private``: shown to its followers
alone (and in ``mux/status``, and recorded: nobody hides by it what they run). Of turns with the
same params, asked by clients that follow a thread together, one runs. The others wait here until
that turn is over, and are then sent what they would have been sent: its answer and notifications,
with ids of their own. If the turn doesn't succeed, the next of them runs. A request of another
shape passes untouched.

``notifications`` and ``Broker`` send the ``ReplayedMessage`` messages; ``client_requests`` gets
what runs after all.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec

from mux.core.features.lifecycle.recovery import Recovery
from mux.core.features.requests.client_requests import ClientRequests
from mux.core.part import Part
from mux.core.protocol.envelope import jsonrpc
from mux.core.state.clients.client import Client
from mux.core.state.requests.request import Request
from mux.core.state.state import NEVER, State
from mux.core.state.threads.threads import Thread
from mux.core.state.turns.title_turns import TitleTurn

LONGEST_WAIT = 25.0
"""Seconds until a request that waits for another's title runs after all: a TUI waits 30 s for its
own."""

MOST_WAITING = 64
"""Clients that wait for one title: nobody has more TUIs on one thread."""

TITLE = b'"thread_title"'

LOADED = "thread/loaded/list"

_RENAMED = frozenset({"id", "threadId", "turnId", "itemId", "rootTurnId"})
"""The fields with ids that differ from outcome to outcome."""


class ReplayedMessage(msgspec.Struct, frozen=True):
    """A message of an outcome that is sent again."""

    line: bytes
    answers: Request | None = None
    """The request that the message answers; None for a notification."""


class SharedTitles(Part):
    """The turns of title threads."""

    state: State
    client_requests: ClientRequests
    recovery: Recovery

    # ── private threads ───────────────────────────────────────────────────────────────────────

    def private(self, thread: str | None, method: str, line: bytes) -> str | None:
        """Return the private thread that a notification for everybody is of; None for others."""
        if method == "thread/started" and TITLE in line:
            thread = _started_for_title(line)
            if thread is not None:
                self.state.threads.get(thread).private = True
            return thread
        known = self.state.threads.known.get(thread or "")
        return thread if known is not None and known.private else None

    def unlisted(self, client: Client | None, line: bytes) -> bytes:
        """Return the answer to ``thread/loaded/list`` without other clients' private threads."""
        try:
            listed = _loaded_decoder.decode(line).result.data
        except msgspec.DecodeError:
            return line
        own = client.follows if client is not None else {}
        known = self.state.threads.known
        shown = [id for id in listed if id in own or id not in known or not known[id].private]
        if len(shown) == len(listed):
            return line
        fields = jsonrpc.read_fields(line) or {}
        result = jsonrpc.read_fields(fields["result"]) or {}
        result["data"] = msgspec.json.encode(shown)
        return jsonrpc.write(fields | {"result": jsonrpc.write(result)})

    # ── requests for a turn ───────────────────────────────────────────────────────────────────

    def replay_for(
        self, client: Client, request: Request, params: bytes
    ) -> list[ReplayedMessage] | None:
        """Return what to send instead of running a private thread's turn; None: let it run.

        An empty list means: wait; the outcome is sent when the other turn ends.
        """
        thread = self.state.threads.known.get(request.thread or "")
        shared = _canonical(params) if request.method == "turn/start" else None
        if thread is None or shared is None or not _is_new(client, thread):
            return None
        turns, followed = self.state.title_turns, self._followed(client)
        turn = turns.find(shared, followed, self.state.now)
        if turn is None:
            turns.begin(TitleTurn(shared, thread.id, request.wire, followed, self.state.now))
            while (oldest := turns.forget_oldest()) is not None:
                self._run(oldest.waiting)
            return None
        if turn.finished is not None:
            return _outcome_for(turn, request)
        if len(turn.waiting) >= MOST_WAITING:
            return None
        turn.waiting.append(request)
        self.state.wake_at(request.since + LONGEST_WAIT)
        return []

    def _followed(self, client: Client) -> frozenset[str]:
        return frozenset(self.state.threads.shown_follows(client))

    # ── a running turn ────────────────────────────────────────────────────────────────────────

    def answered(self, request: Request, line: bytes, *, failed: bool) -> None:
        """Handle the app-server's answer to a request that begins a turn."""
        turn = self.state.title_turns.running.get(request.thread or "")
        if turn is None or turn.wire != request.wire:
            return
        if failed:
            self._failed(turn)
        else:
            turn.messages.append((True, line))

    def observe(self, thread: str, method: str, line: bytes) -> list[ReplayedMessage]:
        """Apply a notification of a running title turn; returns what waiting clients are sent."""
        turn = self.state.title_turns.running[thread]
        turn.messages.append((False, line))
        if method == "turn/completed":
            if not (_is_completed(line) and turn.has_answer):
                self._failed(turn)
                return []
            waiting = self.state.title_turns.finish(turn, self.state.now)
            return [message for request in waiting for message in _outcome_for(turn, request)]
        if turn.is_too_long:
            self._failed(turn)
        return []

    def _failed(self, turn: TitleTurn) -> None:
        """Give up a turn that has no outcome to share: the next one runs."""
        self.state.title_turns.running.pop(turn.thread, None)
        self._run(turn.waiting)

    def _run(self, waiting: list[Request]) -> None:
        """Run the first of these requests, and have the others wait for it."""
        for at, request in enumerate(waiting):
            thread = self.state.threads.known.get(request.thread or "")
            client = self.state.clients.get(request.client or 0)
            if thread is None:
                self.client_requests.lost(request, "its thread has been closed")
            elif client is not None:
                params = (jsonrpc.read_fields(request.line) or {}).get("params", b"")
                shared, followed = _canonical(params) or b"", self._followed(client)
                turn = TitleTurn(shared, thread.id, request.wire, followed, self.state.now)
                turn.waiting = waiting[at + 1 :]
                self.state.title_turns.begin(turn)
                if not self.recovery.holds(request, thread):
                    self.client_requests.submit(request)
                return

    # ── the end of waiting ────────────────────────────────────────────────────────────────────

    def unfollowed(self, client: Client, thread: str | None) -> None:
        """Fail the client's requests that wait for a thread from which it has unsubscribed."""
        turns = self.state.title_turns
        if not turns.running:
            return
        for request in turns.remove_waiting(
            lambda each: each.client == client.id and each.thread == thread
        ):
            self.client_requests.drop(request)
            text = "the thread was unsubscribed from before the turn began"
            self.state.error(client.id, request.origin, jsonrpc.INVALID_REQUEST, text)

    def client_left(self, client: Client) -> None:
        """Drop the waiting requests of a client that left."""
        for request in self.state.title_turns.remove_waiting(lambda each: each.client == client.id):
            self.client_requests.drop(request)

    def upstream_gone(self) -> None:
        """Fail all that waits: the app-server has ended, and all private threads with it."""
        waiting = self.state.title_turns.remove_waiting(lambda _each: True)
        self.state.title_turns.running.clear()
        for request in waiting:
            self.client_requests.lost(request, "the app-server ended before the turn began")

    def on_timer(self) -> float:
        """Run requests that have waited long enough; returns when the next is due."""
        turns, since = self.state.title_turns, self.state.now - LONGEST_WAIT
        for request in turns.remove_waiting(lambda each: each.since <= since):
            self._run([request])
        first = turns.first_wait()
        return NEVER if first is None else first + LONGEST_WAIT


def _is_new(client: Client, thread: Thread) -> bool:
    """Return whether the thread is private, the client's, and no turn of it has begun."""
    fresh = thread.unsaved is not None and thread.unsaved.fresh and thread.running.turn is None
    return thread.private and fresh and client.id in thread.followers


# -- reading ---------------------------------------------------------------------------------------


class _Loaded(msgspec.Struct):
    data: list[str]


class _LoadedAnswer(msgspec.Struct):
    result: _Loaded


class _Started(msgspec.Struct):
    id: str
    ephemeral: bool
    threadSource: str | None = None


class _StartedParams(msgspec.Struct):
    thread: _Started


class _StartedNotification(msgspec.Struct):
    params: _StartedParams


class _Turned(msgspec.Struct):
    status: str


class _TurnedParams(msgspec.Struct):
    turn: _Turned


class _TurnedNotification(msgspec.Struct):
    params: _TurnedParams


def _started_for_title(line: bytes) -> str | None:
    """Return the thread in a ``thread/started``, if it was made for a title."""
    try:
        thread = _started_decoder.decode(line).params.thread
    except msgspec.DecodeError:
        return None
    return thread.id if thread.ephemeral and thread.threadSource == "thread_title" else None


def _is_completed(line: bytes) -> bool:
    try:
        return _turned_decoder.decode(line).params.turn.status == "completed"
    except msgspec.DecodeError:
        return False


def _canonical(params: bytes) -> bytes | None:
    """Return what two title turns must have in common; None if the outcome can't be shared."""
    fields = jsonrpc.read_fields(params) or {}
    if fields.pop("threadId", None) is None or "outputSchema" not in fields:
        return None
    if fields.get("clientUserMessageId", b"null") != b"null":
        return None  # the id names this turn alone
    try:
        values = {name: msgspec.json.decode(value) for name, value in fields.items()}
    except (msgspec.DecodeError, RecursionError):
        return None
    return msgspec.json.encode(values, order="deterministic")


_loaded_decoder = msgspec.json.Decoder(_LoadedAnswer)
_started_decoder = msgspec.json.Decoder(_StartedNotification)
_turned_decoder = msgspec.json.Decoder(_TurnedNotification)


# -- replaying an outcome --------------------------------------------------------------------------


def _outcome_for(turn: TitleTurn, request: Request) -> list[ReplayedMessage]:
    """Return the outcome of a turn as that of another request, in the same order."""
    thread = request.thread or ""
    names = {turn.thread: thread}
    outcome = [(is_answer, msgspec.json.decode(line)) for is_answer, line in turn.messages]
    for _, message in outcome:
        names |= {id: _made_up(thread, id) for id in _ids_of_turn(message)}
    replayed = []
    for is_answer, message in outcome:
        renamed = _renamed(message, names)
        if is_answer:
            line = jsonrpc.write({"id": request.wire_text, "result": _encoded(renamed["result"])})
            replayed.append(ReplayedMessage(line, request))
        else:
            replayed.append(ReplayedMessage(_encoded(renamed)))
    return replayed


def _ids_of_turn(message: dict[str, Any]) -> Iterator[str]:
    """Yield the ids that the app-server made for a turn and its user's message.

    Ids of the model's own items come from the model: they are alike in two threads, natively too.
    """
    part = _part(message, "params") or _part(message, "result")
    turn, item = _part(part, "turn"), _part(part, "item")
    made = turn.get("id"), item.get("id") if item.get("type") == "userMessage" else None
    yield from (id for id in made if isinstance(id, str))


def _part(value: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a field that is an object; an empty one if it has another shape in this version."""
    part = value.get(name)
    return part if isinstance(part, dict) else {}


def _made_up(thread: str, id: str) -> str:
    """Return another id for its place: a UUID of the same moment, which no other thread gets."""
    digest = sha256(f"{thread} {id}".encode()).hexdigest()
    moment = id[:14] if len(id) == _UUID_LENGTH else f"{digest[24:32]}-{digest[32:36]}-"
    return f"{moment}7{digest[:3]}-a{digest[3:6]}-{digest[6:18]}"


_UUID_LENGTH = 36


def _renamed(value: Any, names: dict[str, str], key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _renamed(each, names, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    return names.get(value, value) if key in _RENAMED and isinstance(value, str) else value


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(value)
