"""Keeps the threads' cards (``state.cards``) and the account's limits by what the app-server tells.

Used by ``inbox``; and by ``inbox_changes``, for notifications of the methods in ``HEARD`` and
answers that name a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from mux.core.extension.inbox import Ended, TurnEnd
from mux.core.features.notices import notice_sources
from mux.core.part import Part
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.journal_entry import Entry
from mux.core.protocol.threads.thread_messages import Status
from mux.core.state.state import State
from mux.core.state.threads.cards import NULL, Card, Cards, SavedCard, one_line
from mux.core.state.threads.last_line import final_line, last_line

_ENDS: Final[frozenset[TurnEnd]] = frozenset({"completed", "failed", "interrupted"})

Fields = dict[str, msgspec.Raw]


class InboxCards(Part):
    """All cards, the threads that run, and the account's limits."""

    state: State
    cards: Cards = msgspec.field(default_factory=Cards)
    running: dict[str, None] = msgspec.field(default_factory=dict)
    """Threads whose turn runs."""
    limits: dict[str, Fields] = msgspec.field(default_factory=dict)
    """The account's limits by id. Updates are sparse: a null says nothing new."""
    limits_version: int = 0
    """Counts the changes of ``limits``."""

    def observe(self, method: str, thread: str | None, line: bytes) -> str | None:
        """Apply a notification of a method in ``HEARD``; return the thread that it is of.

        Called before anything else handles it.
        """
        if method == _STARTED:
            return self.joined(line)
        if method == _LIMITS:
            self._limits_notified(line)
        elif method == _ACCOUNT:
            self._account_changed()
        elif thread is not None:
            _OF_A_CARD[method](self, self.cards.get(thread), line)
        return thread

    def joined(self, line: bytes) -> str | None:
        """Record the thread that an answer or ``thread/started`` describes; return its id."""
        try:
            read = _thread_decoder.decode(line)
        except msgspec.DecodeError:
            return None
        holder = read.params or read.result
        if holder is None or holder.thread is None:
            return None
        self.cards.get(holder.thread.id).introduce(holder.thread)
        return holder.thread.id

    def remember(self, entries: Iterable[Entry]) -> set[str]:
        """Apply the last events of an earlier life; return the threads of which they are.

        What this life has told of a thread already is newer, and stays.
        """
        past: dict[str, Card] = {}
        for entry in entries:
            if entry.thread is None or entry.method not in _REMEMBERED:
                continue
            card = past.setdefault(entry.thread, Card(entry.thread))
            params = _params(entry.message)
            if entry.method == "item/completed":
                line = final_line(bytes(params.item))
                card.line = line if line is not None and line.of == "agent" else card.line
            elif entry.method == "thread/tokenUsage/updated":
                self._usage(card, entry.message)
            elif params.turn is not None and params.turn.status in _ENDS:
                card.ended = Ended(params.turn.id, params.turn.status)
        for id, old in past.items():
            card = self.cards.get(id)
            card.line, card.ended = card.line or old.line, card.ended or old.ended
            card.usage = old.usage if card.usage == NULL else card.usage
        return set(past)

    def app_server_gone(self) -> None:
        """Note that the app-server has ended, and every turn with it."""
        for id in self.running:
            record = self.state.threads.known.get(id)
            if record is not None and record.running.turn is not None:
                card = self.cards.get(id)
                card.line = last_line(record.running) or card.line
                card.ended = Ended(record.running.turn, "interrupted")
        self.running.clear()
        self.cards.unload()

    # ── notifications ─────────────────────────────────────────────────────────────────────────

    def _renamed(self, card: Card, line: bytes) -> None:
        card.title = one_line(notice_sources.new_name(line) or "")

    def _status(self, card: Card, line: bytes) -> None:
        status = _params(line).status
        card.status = status.type if status is not None else card.status

    def _closed(self, card: Card, _: bytes) -> None:
        card.status = "notLoaded"
        self.running.pop(card.id, None)

    def _archived(self, card: Card, _: bytes) -> None:
        card.archived = True
        self.running.pop(card.id, None)

    def _unarchived(self, card: Card, _: bytes) -> None:
        card.archived = False

    def _deleted(self, card: Card, _: bytes) -> None:
        self.cards.forget(card.id)
        self.running.pop(card.id, None)

    def _read_state(self, card: Card, line: bytes) -> None:
        card.read_state = bytes(_params(line).readState)

    def _usage(self, card: Card, line: bytes) -> None:
        card.usage = bytes(_params(line).tokenUsage)

    def _turn_began(self, card: Card, line: bytes) -> None:
        card.since = self.state.now
        turn = _params(line).turn
        card.worked(turn.startedAt if turn is not None else None)
        self.running[card.id] = None
        if len(self.running) > self.cards.most:
            del self.running[next(iter(self.running))]

    def _turn_ended(self, card: Card, line: bytes) -> None:
        self.running.pop(card.id, None)
        card.since = None
        record, turn = self.state.threads.known.get(card.id), _params(line).turn
        if record is not None:
            card.line = last_line(record.running) or card.line
        if turn is not None:
            card.worked(turn.completedAt)
            if turn.status in _ENDS:
                card.ended = Ended(turn.id, turn.status)

    def _item_completed(self, card: Card, line: bytes) -> None:
        """Record the user's first words: the app-server doesn't tell a new thread's preview."""
        if not card.preview and _USER in line:
            last = final_line(bytes(_params(line).item))
            card.preview = last.text if last is not None else ""

    def _limits_notified(self, line: bytes) -> None:
        try:
            limit = _limits_decoder.decode(line).params.rateLimits
        except msgspec.DecodeError:
            return
        self._limit_changed(limit)

    def _limit_changed(self, limit: Fields) -> None:
        name = jsonrpc.read_text(bytes(limit.get("limitId", NULL))) or ""
        before = self.limits.get(name, {})
        news = {field: value for field, value in limit.items() if bytes(value) != NULL}
        after = limit | before | news
        if after != before and (name in self.limits or len(self.limits) < MOST_LIMITS):
            self.limits[name] = after
            self.limits_version += 1

    def limits_read(self, line: bytes) -> None:
        """Record the limits that the app-server gave a client which asked."""
        try:
            read = _limits_read_decoder.decode(line).result
        except msgspec.DecodeError:
            return
        for limit in (read.rateLimitsByLimitId or {"": read.rateLimits}).values():
            self._limit_changed(limit)

    def read_state_updated(self, asked: bytes, line: bytes) -> str | None:
        """Take the answer to a request that marked a thread; return the thread's id.

        The app-server tells it to those who follow the thread: of one that nobody follows this is
        all that is heard.
        """
        try:
            thread = _marking_decoder.decode(asked).params.threadId
            state = _read_state_decoder.decode(line).result.readState
        except msgspec.DecodeError:
            return None
        self.cards.get(thread).read_state = bytes(state)
        return thread

    def _account_changed(self) -> None:
        if self.limits:
            self.limits.clear()  # they were another's, perhaps
            self.limits_version += 1


MOST_LIMITS: Final = 64
"""Limits that are kept: an account has a few."""

_REMEMBERED: Final = frozenset({"item/completed", "turn/completed", "thread/tokenUsage/updated"})
_STARTED: Final = "thread/started"
_LIMITS: Final = "account/rateLimits/updated"
_ACCOUNT: Final = "account/updated"
LIMITS_READ: Final = "account/rateLimits/read"
"""The request by which a client asks for the limits."""

READ_STATE_UPDATE: Final = "thread/readState/update"
"""The request by which a client marks a thread as read or unread."""

_USER: Final = b'"userMessage"'

_OF_A_CARD: Final[dict[str, Callable[[InboxCards, Card, bytes], None]]] = {
    "thread/name/updated": InboxCards._renamed,
    "thread/status/changed": InboxCards._status,
    "thread/closed": InboxCards._closed,
    "thread/archived": InboxCards._archived,
    "thread/unarchived": InboxCards._unarchived,
    "thread/deleted": InboxCards._deleted,
    "thread/readState/changed": InboxCards._read_state,
    "thread/tokenUsage/updated": InboxCards._usage,
    "turn/started": InboxCards._turn_began,
    "turn/completed": InboxCards._turn_ended,
    "item/completed": InboxCards._item_completed,
}
HEARD: Final = frozenset({_STARTED, _LIMITS, _ACCOUNT, *_OF_A_CARD})
"""The notifications that cards are made of."""


class _Described(msgspec.Struct):
    thread: SavedCard | None = None


class _Describing(msgspec.Struct):
    params: _Described | None = None
    result: _Described | None = None


class _Turn(msgspec.Struct):
    id: str
    status: str = ""
    startedAt: float | None = None
    completedAt: float | None = None


class _Params(msgspec.Struct):
    status: Status | None = None
    readState: msgspec.Raw = msgspec.Raw(NULL)
    tokenUsage: msgspec.Raw = msgspec.Raw(NULL)
    item: msgspec.Raw = msgspec.Raw(NULL)
    turn: _Turn | None = None


class _Line(msgspec.Struct):
    params: _Params


class _LimitsParams(msgspec.Struct):
    rateLimits: Fields


class _LimitsRead(msgspec.Struct):
    rateLimits: Fields
    rateLimitsByLimitId: dict[str, Fields] | None = None


class _LimitsAnswer(msgspec.Struct):
    result: _LimitsRead


class _Marked(msgspec.Struct):
    threadId: str


class _Marking(msgspec.Struct):
    params: _Marked


class _ReadState(msgspec.Struct):
    readState: msgspec.Raw


class _ReadStateAnswer(msgspec.Struct):
    result: _ReadState


class _LimitsLine(msgspec.Struct):
    params: _LimitsParams


def _params(line: bytes) -> _Params:
    try:
        return _line_decoder.decode(line).params
    except msgspec.DecodeError:
        return _Params()  # of a shape that this version doesn't know


_thread_decoder = msgspec.json.Decoder(_Describing)
_line_decoder = msgspec.json.Decoder(_Line)
_limits_decoder = msgspec.json.Decoder(_LimitsLine)
_marking_decoder = msgspec.json.Decoder(_Marking)
_read_state_decoder = msgspec.json.Decoder(_ReadStateAnswer)
_limits_read_decoder = msgspec.json.Decoder(_LimitsAnswer)
