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

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import attrs
import msgspec

from mux.core.features.client_requests import ClientRequests
from mux.core.features.recovery import Recovery
from mux.core.protocol import jsonrpc
from mux.core.state.client import Client
from mux.core.state.request import Request
from mux.core.state.state import NEVER, State
from mux.core.state.threads import Thread

TITLED_FOR = 60.0
"""Seconds for which an outcome is reused: all ask within a second of the turn's beginning."""

LONGEST_WAIT = 25.0
"""Seconds until a request that waits for another's title runs after all: a TUI waits 30 s for its
own."""

MOST_KEPT = 64
"""Title turns remembered. With more of them at once, some titles are made twice."""

MOST_WAITING = 64
"""Clients that wait for one title: nobody has more TUIs on one thread."""

LONGEST_OUTCOME = 256 * 1024
"""Bytes of a title turn's answer and notifications, which are some 4 KiB; a longer outcome isn't
stored."""

TITLE = b'"thread_title"'

LOADED = "thread/loaded/list"

_RENAMED = frozenset({"id", "threadId", "turnId", "itemId", "rootTurnId"})
"""The fields with ids that differ from outcome to outcome."""


class ReplayedMessage(msgspec.Struct, frozen=True):
    """A message of an outcome that is sent again."""

    line: bytes
    answers: Request | None = None
    """The request that the message answers; None for a notification."""


@attrs.define(eq=False, repr=False)
class _TitleTurn:
    """A title's turn that runs, or ran."""

    params: bytes
    """Its own params without the thread, in a canonical form."""
    thread: str
    wire: int
    about: frozenset[str]
    """The threads that its asker followed: one of them is to have the title."""
    since: float
    said: list[tuple[bool, bytes]] = attrs.field(factory=list)
    """Its answer (marked True) and its notifications."""
    over: float | None = None
    """When it succeeded."""
    waiting: list[Request] = attrs.field(factory=list)
    """Requests that wait for its outcome."""


@attrs.define(eq=False, repr=False)
class SharedTitles:
    """The turns of title threads."""

    state: State
    client_requests: ClientRequests
    recovery: Recovery
    running: dict[str, _TitleTurn] = attrs.field(factory=dict)
    """Title turns whose notifications are collected, by thread."""
    _over: list[_TitleTurn] = attrs.field(factory=list)
    """Title turns that succeeded, the latest last."""

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
        told = jsonrpc.write(result | {"data": msgspec.json.encode(shown)})
        return jsonrpc.write(fields | {"result": told})

    # ── requests for a turn ───────────────────────────────────────────────────────────────────

    def asked(
        self, client: Client, request: Request, params: bytes
    ) -> list[ReplayedMessage] | None:
        """Return what to send instead of running a private thread's turn; None: let it run.

        An empty list means: wait; the outcome is sent when the other turn ends.
        """
        thread = self.state.threads.known.get(request.thread or "")
        wanted = _canonical(params) if request.method == "turn/start" else None
        if thread is None or wanted is None or not _is_new(client, thread):
            return None
        about = frozenset(self.state.threads.shown_follows(client))
        like = self._like(wanted, about)
        if like is None:
            self.running[thread.id] = _TitleTurn(
                wanted, thread.id, request.wire, about, self.state.now
            )
            self._forget_oldest()
            return None
        if like.over is not None:
            return _retold(like, request)
        if len(like.waiting) >= MOST_WAITING:
            return None
        like.waiting.append(request)
        self.state.wake_at(request.since + LONGEST_WAIT)
        return []

    def _like(self, params: bytes, about: frozenset[str]) -> _TitleTurn | None:
        """Find a title turn with the same parameters that runs, or ended less than a minute ago."""
        for turn in (*self.running.values(), *reversed(self._over)):
            recent = turn.over is None or turn.over + TITLED_FOR > self.state.now
            if recent and turn.params == params and turn.about & about:
                return turn
        return None

    def _forget_oldest(self) -> None:
        while len(self._over) > MOST_KEPT:
            del self._over[0]
        while len(self.running) > MOST_KEPT:
            self._run(self.running.pop(next(iter(self.running))).waiting)

    # ── a running turn ────────────────────────────────────────────────────────────────────────

    def answered(self, request: Request, line: bytes, *, failed: bool) -> None:
        """Take the app-server's answer to a request that begins a turn."""
        turn = self.running.get(request.thread or "")
        if turn is None or turn.wire != request.wire:
            return
        if failed:
            self._failed(turn)
        else:
            turn.said.append((True, line))

    def observe(self, thread: str, method: str, line: bytes) -> list[ReplayedMessage]:
        """Take a notification of a thread in ``running``; returns what waiting clients are sent."""
        turn = self.running[thread]
        turn.said.append((False, line))
        if method == "turn/completed":
            if not (_is_completed(line) and any(answers for answers, _ in turn.said)):
                self._failed(turn)
                return []
            del self.running[thread]
            turn.over = self.state.now
            self._over.append(turn)
            waiting, turn.waiting = turn.waiting, []
            return [told for request in waiting for told in _retold(turn, request)]
        if sum(len(each) for _, each in turn.said) > LONGEST_OUTCOME:
            self._failed(turn)
        return []

    def _failed(self, turn: _TitleTurn) -> None:
        """Give up a turn that has no outcome to share: the next one runs."""
        self.running.pop(turn.thread, None)
        self._run(turn.waiting)

    def _run(self, waiting: list[Request]) -> None:
        """Run the first of these requests, and have the others wait for it."""
        for at, request in enumerate(waiting):
            thread = self.state.threads.known.get(request.thread or "")
            client = self.state.clients.get(request.client or 0)
            if thread is None:
                self.client_requests.lost(request, "its thread has been closed")
            elif client is not None:
                wanted = _canonical((jsonrpc.read_fields(request.line) or {}).get("params", b""))
                about = frozenset(self.state.threads.shown_follows(client))
                turn = _TitleTurn(wanted or b"", thread.id, request.wire, about, self.state.now)
                turn.waiting = waiting[at + 1 :]
                self.running[thread.id] = turn
                if not self.recovery.holds(request, thread):
                    self.client_requests.submit(request)
                return

    # ── the end of waiting ────────────────────────────────────────────────────────────────────

    def unfollowed(self, client: Client, thread: str | None) -> None:
        """Fail the client's requests that wait for a thread from which it has unsubscribed."""
        if not self.running:
            return
        for request in self._take(lambda each: each.client == client.id and each.thread == thread):
            self.client_requests.drop(request)
            text = "the thread was unsubscribed from before the turn began"
            self.state.error(client.id, request.origin, jsonrpc.INVALID_REQUEST, text)

    def client_left(self, client: Client) -> None:
        """Drop the waiting requests of a client that left."""
        for request in self._take(lambda each: each.client == client.id):
            self.client_requests.drop(request)

    def upstream_gone(self) -> None:
        """Fail all that waits: the app-server has ended, and all private threads with it."""
        waiting = self._take(lambda _each: True)
        self.running.clear()
        for request in waiting:
            self.client_requests.lost(request, "the app-server ended before the turn began")

    def on_timer(self) -> float:
        """Run requests that have waited long enough; returns when the next is due."""
        since = self.state.now - LONGEST_WAIT
        for request in self._take(lambda each: each.since <= since):
            self._run([request])
        waiting = (each.since for turn in self.running.values() for each in turn.waiting)
        return min(waiting, default=NEVER) + LONGEST_WAIT

    def _take(self, wanted: Callable[[Request], bool]) -> list[Request]:
        """Remove and return waiting requests that are ``wanted``."""
        taken: list[Request] = []
        for turn in self.running.values():
            taken += filter(wanted, turn.waiting)
            turn.waiting = [each for each in turn.waiting if not wanted(each)]
        return taken


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


def _retold(turn: _TitleTurn, request: Request) -> list[ReplayedMessage]:
    """Return the outcome of a turn as that of another request, in the same order."""
    own = request.thread or ""
    names = {turn.thread: own}
    said = [(answers, msgspec.json.decode(line)) for answers, line in turn.said]
    for _, message in said:
        names |= {id: _made_up(own, id) for id in _ids_of_turn(message)}
    retold = []
    for answers, message in said:
        renamed = _renamed(message, names)
        if answers:
            line = jsonrpc.write({"id": request.wire_text, "result": _encoded(renamed["result"])})
            retold.append(ReplayedMessage(line, request))
        else:
            retold.append(ReplayedMessage(_encoded(renamed)))
    return retold


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
    found = value.get(name)
    return found if isinstance(found, dict) else {}


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
