"""What runs on a thread, as it has streamed so far: what a late joiner is given.

Natively the text that an item streamed before a joiner came is nowhere to be had: not in the
snapshot, not later. Here each running item is kept with all that it streamed, the deltas of one
stream joined. A joiner gets, after its snapshot, an ``introduction``: for each running item
``item/started`` and what it streamed, as if it had been there. Items of the turn that are complete
go into the snapshot itself (``up_to_date``), under the ids that everybody else has seen; natively
they stand there under others. What happened while the snapshot was on its way is put into it too.

Heard from: ``threads``, each notification of a thread. Kept until the turn is completed; an item
that goes on after that (a command in the background), until it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import msgspec

from mux.core.policy.principal import Owner
from mux.core.protocol import jsonrpc
from mux.core.protocol.journal_entry import is_delta, with_delta
from mux.core.protocol.jsonrpc import ABSENT, ItemParams
from mux.core.protocol.turn_messages import ended_by_death, started_turn

LATEST_OF_TURN = frozenset({"turn/plan/updated", "turn/diff/updated"})
"""Notifications of a turn of which the last one says all."""

REPLACED_IN_ITEM = frozenset({"item/fileChange/patchUpdated"})
"""Notifications of an item of which the last one says all."""


OUTLIVES_ITS_TURN = frozenset({"commandExecution"})
"""Items that may go on when their turn is over: a command in the background. What else isn't
complete by then never will be, like a message that somebody's steering cut short."""


@attrs.define(eq=False, repr=False)
class DeltaStream:
    """Consecutive deltas of one stream of one item, e.g. its text, or one part of its summary."""

    method: str
    index: int | None
    first: bytes
    text: bytearray = attrs.field(factory=bytearray)

    def takes(self, method: str, params: ItemParams) -> bool:
        """Whether a delta goes on with this stream."""
        return method == self.method and params.index == self.index

    def add(self, delta: bytes) -> None:
        """Take in a delta: a JSON string, of which the inside is kept; what is none is left out."""
        if delta.startswith(b'"'):
            self.text += delta[1:-1]

    def line(self) -> bytes:
        """One delta that carries everything."""
        return with_delta(self.first, b'"' + self.text + b'"')


@attrs.define(eq=False, repr=False)
class RunningItem:
    """One item. ``completed``: its final JSON, once it has one."""

    started: bytes
    turn: str
    type: str
    parts: list[DeltaStream | tuple[str, bytes]] = attrs.field(factory=list)
    completed: bytes | None = None

    def introduction(self) -> Iterator[tuple[str, bytes]]:
        """The messages that bring a newcomer to where everybody is."""
        yield "item/started", self.started
        for part in self.parts:
            if isinstance(part, DeltaStream):
                yield part.method, part.line()
            else:
                yield part

    def stream(self, method: str, params: ItemParams, line: bytes) -> DeltaStream:
        """The stream that a delta goes on with, or begins."""
        last = self.parts[-1] if self.parts else None
        if not (isinstance(last, DeltaStream) and last.takes(method, params)):
            last = DeltaStream(method, params.index, line)
            self.parts.append(last)
        return last

    def streamed(self, method: str, params: ItemParams, line: bytes) -> None:
        """Keep a notification of this item."""
        if is_delta(method) and params.delta is not ABSENT:
            self.stream(method, params, line).add(bytes(params.delta))
            return
        if method in REPLACED_IN_ITEM:
            self.parts = [
                part for part in self.parts if isinstance(part, DeltaStream) or part[0] != method
            ]
        self.parts.append((method, line))


@attrs.define(eq=False, repr=False)
class RunningTurn:
    """What runs on one thread. ``turn``: the running turn's id; ``started``: its first line.

    A review has two ids: ``turn/started`` and snapshots name it by one, and by the other, ``also``,
    the answer that began it, its items, and ``turn/completed``.
    ``over``: the ids of the turn that ended last. ``since``: no item that runs began before this
    seq.
    ``announced``: whether that line has come, or only the answer to ``turn/start`` so far.
    ``by``: the client that began the turn, if one did.
    ``ended``: id and fields of the last turn, if somebody waited for a snapshot when it ended.
    """

    turn: str | None = None
    also: str | None = None
    over: tuple[str, ...] = ()
    since: int = 0
    started: bytes = b""
    announced: bool = False
    by: Owner | None = None
    ended: tuple[str, dict[str, bytes]] | None = None
    items: dict[str, RunningItem] = attrs.field(factory=dict)
    latest: dict[str, bytes] = attrs.field(factory=dict)

    def begin(self, thread: str, turn: bytes, actor: Owner | None) -> None:
        """A turn begins: so says the answer to ``turn/start``, before the first line does.

        Unless it has ended already: an answer may come late, of one that joined a running turn.
        """
        line = started_turn(thread, turn)
        begun = turn_id(line)
        if self.turn is None and begun is not None and begun not in self.over:
            self.turn, self.started, self.announced, self.by = begun, line, False, actor
            self.also = None

    def apply(self, method: str, params: ItemParams, line: bytes) -> None:
        """Keep what a notification of this thread says of it."""
        if params.itemId is not None:
            item = self.items.get(params.itemId)
            if item is not None and item.completed is None:
                item.streamed(method, params, line)
        elif method == "item/started":
            if (of := _read_item(line)) is not None:
                self.items[of.item.id] = RunningItem(line, of.turnId, of.item.type)
        elif method == "item/completed":
            self._completed(line)
        elif method == "turn/started":
            self._begun(line)
        elif method == "turn/completed":
            self._ended(turn_id(line))
            self.latest.clear()
            self.items = {
                id: item
                for id, item in self.items.items()
                if item.completed is None and item.type in OUTLIVES_ITS_TURN
            }
        elif method in LATEST_OF_TURN:
            self.latest[method] = line

    def has_run(self, turn: str) -> bool:
        """Whether this turn runs, or is the one that ended last."""
        return turn in (self.turn, self.also, *self.over)

    def _begun(self, line: bytes) -> None:
        started, root = turn_id(line), _root_turn_id(line)
        also = root if root is not None and root != started and self._knows(root) else None
        if self.turn not in (started, also):
            self.by = None
        self.turn, self.also, self.started, self.announced = started, also, line, True

    def _knows(self, turn: str) -> bool:
        """Whether the answer that began it, or an item, has named this turn on this thread."""
        return turn == self.turn or any(item.turn == turn for item in self.items.values())

    def _ended(self, turn: str | None) -> None:
        both = (self.turn, self.also)
        ended = both if turn in both else (turn,)
        self.over = tuple(id for id in ended if id is not None)
        self.turn = self.also = self.by = None

    def _completed(self, line: bytes) -> None:
        of, final = _read_item(line), _item(line)
        if of is not None and final is not None:
            item = self.items.setdefault(of.item.id, RunningItem(line, of.turnId, of.item.type))
            item.completed = final
            item.parts.clear()

    def forget(self) -> None:
        """The app-server that ran it is gone."""
        self.turn = self.also = self.by = None
        self.items.clear()
        self.latest.clear()

    def introduction(self) -> Iterator[tuple[str, bytes]]:
        """For a joiner, after its snapshot: every running item, and the latest of the turn."""
        for item in self.items.values():
            if item.completed is None:
                yield from item.introduction()
        yield from self.latest.items()

    def shown(self) -> dict[str, bytes]:
        """The fields of the running turn, as a snapshot has them, with its completed items."""
        return _turn_in(self.started) | self._completed_items()

    def shown_ended(self, line: bytes) -> dict[str, bytes]:
        """The same of a turn that ends by ``line``, its ``turn/completed``."""
        return _turn_in(line) | self._completed_items()

    def known(self) -> dict[str, dict[str, bytes]]:
        """The fields of the latest turns, by id, where we know better than a snapshot may."""
        known = dict([self.ended]) if self.ended is not None else {}
        if self.turn is not None and self.announced:
            known[self.turn] = self.shown()
        return known

    def outlived(self) -> dict[str, bytes]:
        """The final JSON of items that went on after their turn, by id."""
        return {
            id: item.completed
            for id, item in self.items.items()
            if item.completed is not None and item.turn not in (self.turn, self.also)
        }

    def _completed_items(self) -> dict[str, bytes]:
        mine = [item for item in self.items.values() if item.turn in (self.turn, self.also)]
        completed = [item.completed for item in mine if item.completed is not None]
        return {"items": b"[" + b",".join(completed) + b"]", "itemsView": b'"full"'}

    def interrupted(self, unix_time: float) -> list[bytes]:
        """``turn/completed`` for a turn whose app-server died, in the shape of the native one.

        Under each id that somebody may wait for.
        """
        return ended_by_death(self.started, self.also, unix_time)


def up_to_date(result: bytes, running: RunningTurn, status: bytes | None, *, turns: bool) -> bytes:
    """A ``thread/resume`` result whose status and latest turns are shown as we know them.

    ``thread.turns`` and ``initialTurnsPage.data`` are looked through. ``turns``: whether all were
    asked for (no ``excludeTurns``), so that one that began meanwhile is to be there.
    """
    fields = jsonrpc.read_fields(result)
    if fields is None:
        return result
    for holder, key in (("thread", "turns"), ("initialTurnsPage", "data")):
        inner = jsonrpc.read_fields(fields.get(holder, b"null"))
        if inner is not None and inner.get(key, b"null")[:1] == b"[":
            complete = turns and holder == "thread"
            inner[key] = _with_known(inner[key], running, complete=complete)
            is_thread = "status" in inner  # a page of turns has none
            if status is not None and is_thread and _type(inner["status"]) != _type(status):
                inner["status"] = status
            fields[holder] = jsonrpc.write(inner)
    return jsonrpc.write(fields)


def _with_known(turns: bytes, running: RunningTurn, *, complete: bool) -> bytes:
    each = _objects(turns)
    missing, outlived = running.known(), running.outlived()
    for turn in each:
        if outlived and "items" in turn:
            items = _objects(turn["items"])
            texts = [outlived.get(_id(item)) or jsonrpc.write(item) for item in items]
            turn["items"] = b"[" + b",".join(texts) + b"]"
        newer = missing.pop(_id(turn), None)
        if newer is not None and turn.get("itemsView") == b'"full"':
            turn.update(newer)
        elif newer is not None:  # the asker wanted less of each
            turn.update({name: newer[name] for name in newer.keys() - {"items", "itemsView"}})
        elif turn.get("status") == b'"inProgress"' and running.turn not in (None, _id(turn)):
            # It ended with its app-server; while another runs, the next one doesn't say so.
            turn["status"] = b'"interrupted"'
    if complete:
        each += missing.values()
    return b"[" + b",".join(jsonrpc.write(turn) for turn in each) + b"]"


def _objects(array: bytes) -> list[dict[str, bytes]]:
    try:
        return [jsonrpc.read_fields(bytes(raw)) or {} for raw in _list_decoder.decode(array)]
    except msgspec.DecodeError:
        return []  # no array: nothing that we could bring up to date


def _id(fields: dict[str, bytes]) -> str:
    return jsonrpc.read_text(fields.get("id")) or ""


def _type(status: bytes | None) -> bytes | None:
    return (jsonrpc.read_fields(status or b"{}") or {}).get("type")


def _turn_in(line: bytes) -> dict[str, bytes]:
    """The fields of the turn that a ``turn/started`` or ``turn/completed`` names."""
    fields = jsonrpc.read_fields(line) or {}
    params = jsonrpc.read_fields(fields.get("params", b"{}")) or {}
    return jsonrpc.read_fields(params.get("turn", b"{}")) or {}


class _Named(msgspec.Struct):
    id: str
    rootTurnId: str | None = None


class _Item(msgspec.Struct):
    id: str
    type: str = ""


class _ItemOnly(msgspec.Struct):
    item: _Item
    turnId: str = ""


class _ItemMessage(msgspec.Struct):
    params: _ItemOnly


class _TurnOnly(msgspec.Struct):
    turn: _Named


class _TurnMessage(msgspec.Struct):
    params: _TurnOnly


def _read_item(line: bytes) -> _ItemOnly | None:
    try:
        return _item_decoder.decode(line).params
    except msgspec.DecodeError:
        return None


def turn_id(line: bytes) -> str | None:
    """The id of the turn that a ``turn/started`` or ``turn/completed`` names."""
    try:
        return _turn_decoder.decode(line).params.turn.id
    except msgspec.DecodeError:
        return None


def _root_turn_id(line: bytes) -> str | None:
    try:
        return _turn_decoder.decode(line).params.turn.rootTurnId
    except msgspec.DecodeError:
        return None


def _item(line: bytes) -> bytes | None:
    fields = jsonrpc.read_fields(line) or {}
    return (jsonrpc.read_fields(fields.get("params", b"{}")) or {}).get("item")


_item_decoder = msgspec.json.Decoder(_ItemMessage)
_turn_decoder = msgspec.json.Decoder(_TurnMessage)
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
