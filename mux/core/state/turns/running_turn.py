"""The turn that runs on a thread, with all that it has streamed so far, for clients that join late.

Natively the text that an item streamed before a client joined is nowhere to be had: not in the
snapshot, not later. Here each running item is stored with all that it streamed, the deltas of one
stream joined. A joiner gets its snapshot and then an ``introduction``: for each running item
``item/started`` and its stream, as if the client had been there. Completed items of the turn go
into the snapshot itself (``up_to_date``), under the ids that everybody else has seen; natively they
stand there under others. Events that happened while the snapshot was on its way are put into it
too.

``threads`` passes on each notification of a thread. An item is stored until the turn is completed;
an item that goes on after that (a command in the background), until the item is.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import msgspec

from mux.core.policy.principal import Owner
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ABSENT, ItemParams
from mux.core.protocol.envelope.rope import Rope
from mux.core.protocol.journal_entry import is_delta
from mux.core.protocol.threads.turn_messages import ended_by_death, started_turn
from mux.core.state.turns.delta_stream import DeltaStream

LATEST_OF_TURN = frozenset({"turn/plan/updated", "turn/diff/updated"})
"""Notifications of a turn of which the latest replaces all before it."""

REPLACED_IN_ITEM = frozenset({"item/fileChange/patchUpdated"})
"""Notifications of an item of which the latest replaces all before it."""


OUTLIVES_ITS_TURN = frozenset({"commandExecution"})
"""Types of items that may go on when their turn is over: a command in the background. An item of
another type that isn't complete by then never will be, like a message that a steer cut short."""


@attrs.define(eq=False, repr=False)
class RunningItem:
    """An item of a turn."""

    started: bytes
    turn: str
    type: str
    parts: list[DeltaStream | tuple[str, bytes]] = attrs.field(factory=list)
    completed: bytes | None = None
    """The item's final JSON, once it has one."""

    def introduction(self) -> Iterator[tuple[str, bytes | Rope]]:
        """Yield the messages that bring a joiner to where everybody is."""
        yield "item/started", self.started
        for part in self.parts:
            if isinstance(part, DeltaStream):
                yield part.method, part.line()
            else:
                yield part

    def stream(self, method: str, params: ItemParams, line: bytes) -> DeltaStream:
        """Return the stream that a delta continues or begins."""
        last = self.parts[-1] if self.parts else None
        if not (isinstance(last, DeltaStream) and last.takes(method, params)):
            last = DeltaStream(method, params.index, line)
            self.parts.append(last)
        return last

    def streamed(self, method: str, params: ItemParams, line: bytes) -> None:
        """Store a notification of this item."""
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
    """The turn and the items that run on one thread."""

    turn: str | None = None
    """The running turn's id."""
    also: str | None = None
    """The second id of a review. ``turn/started`` and snapshots name a review by ``turn``; the
    answer that began it, its items, and ``turn/completed`` name it by this one."""
    over: tuple[str, ...] = ()
    """The ids of the turn that ended last."""
    since: int = 0
    """No running item began before this seq."""
    started: bytes = b""
    """The turn's first line, ``turn/started``."""
    announced: bool = False
    """True if that line has come. Until then it is made of the answer to ``turn/start``."""
    actor: Owner | None = None
    """The client that began the turn, if a client did."""
    ended: tuple[str, dict[str, bytes]] | None = None
    """Id and fields of the last turn, if a client waited for a snapshot when that turn ended."""
    items: dict[str, RunningItem] = attrs.field(factory=dict)
    latest: dict[str, bytes] = attrs.field(factory=dict)
    """The latest lines of the methods in ``LATEST_OF_TURN``."""

    def begin(self, thread: str, turn: bytes, actor: Owner | None) -> None:
        """Begin a turn by the answer to ``turn/start``, which comes before the turn's first line.

        A turn that has ended already isn't begun again: an answer may come late, if its request
        joined a running turn.
        """
        line = started_turn(thread, turn)
        begun = turn_id(line)
        if self.turn is None and begun is not None and begun not in self.over:
            self.turn, self.started, self.announced, self.actor = begun, line, False, actor
            self.also = None

    def apply(self, method: str, params: ItemParams, line: bytes) -> None:
        """Update turn and items from a notification of this thread."""
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
        """Return whether this turn runs, or is the one that ended last."""
        return turn in (self.turn, self.also, *self.over)

    def _begun(self, line: bytes) -> None:
        started, root = turn_id(line), _root_turn_id(line)
        also = root if root is not None and root != started and self._knows(root) else None
        if self.turn not in (started, also):
            self.actor = None
        self.turn, self.also, self.started, self.announced = started, also, line, True

    def _knows(self, turn: str) -> bool:
        """Return whether an item, or the answer that began a turn, has named this turn here."""
        return turn == self.turn or any(item.turn == turn for item in self.items.values())

    def _ended(self, turn: str | None) -> None:
        both = (self.turn, self.also)
        ended = both if turn in both else (turn,)
        self.over = tuple(id for id in ended if id is not None)
        self.turn = self.also = self.actor = None

    def _completed(self, line: bytes) -> None:
        of, final = _read_item(line), _item(line)
        if of is not None and final is not None:
            item = self.items.setdefault(of.item.id, RunningItem(line, of.turnId, of.item.type))
            item.completed = final
            item.parts.clear()

    def forget(self) -> None:
        """Forget turn and items: the app-server that ran them is gone."""
        self.turn = self.also = self.actor = None
        self.items.clear()
        self.latest.clear()

    def introduction(self) -> Iterator[tuple[str, bytes | Rope]]:
        """Yield every running item and the latest of the turn, for a joiner after its snapshot."""
        for item in self.items.values():
            if item.completed is None:
                yield from item.introduction()
        yield from self.latest.items()

    def shown(self) -> dict[str, bytes]:
        """Return the running turn's fields as a snapshot has them, with its completed items."""
        return _turn_in(self.started) | self._completed_items()

    def shown_ended(self, line: bytes) -> dict[str, bytes]:
        """Return the same for a turn that ends by ``line``, its ``turn/completed``."""
        return _turn_in(line) | self._completed_items()

    def known(self) -> dict[str, dict[str, bytes]]:
        """Return turns that changed while the snapshot was on its way: their fields, by id."""
        known = dict([self.ended]) if self.ended is not None else {}
        if self.turn is not None and self.announced:
            known[self.turn] = self.shown()
        return known

    def outlived(self) -> dict[str, bytes]:
        """Return the final JSON of items that went on after their turn, by id."""
        return {
            id: item.completed
            for id, item in self.items.items()
            if item.completed is not None and item.turn not in (self.turn, self.also)
        }

    def homes(self) -> set[str]:
        """Return the turns of the items that ``outlived`` has."""
        outlived = self.outlived()
        return {item.turn for id, item in self.items.items() if id in outlived}

    def _completed_items(self) -> dict[str, bytes]:
        mine = [item for item in self.items.values() if item.turn in (self.turn, self.also)]
        completed = [item.completed for item in mine if item.completed is not None]
        return {"items": b"[" + b",".join(completed) + b"]", "itemsView": b'"full"'}

    def interrupted(self, unix_time: float) -> list[bytes]:
        """Return ``turn/completed`` for a turn whose app-server died, in the native shape.

        There is a line for each id of the turn that a client may wait for.
        """
        return ended_by_death(self.started, self.also, unix_time)


def up_to_date(result: bytes, running: RunningTurn, status: bytes | None, *, turns: bool) -> bytes:
    """Return a ``thread/resume`` result with the status and latest turns that the broker knows.

    ``thread.turns`` and ``initialTurnsPage.data`` are updated. ``turns``: whether all turns were
    asked for (no ``excludeTurns``), so that a turn that began meanwhile has to be among them.
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
            if status is not None and is_thread and type_of(inner["status"]) != type_of(status):
                inner["status"] = status
            fields[holder] = jsonrpc.write(inner)
    return jsonrpc.write(fields)


def _with_known(turns: bytes, running: RunningTurn, *, complete: bool) -> bytes:
    each = _objects(turns)
    missing, outlived = running.known(), running.outlived()
    for turn in each:
        bring_up_to_date(turn, running, missing, outlived)
    if complete:
        each += missing.values()
    return b"[" + b",".join(jsonrpc.write(turn) for turn in each) + b"]"


def bring_up_to_date(
    turn: dict[str, bytes],
    running: RunningTurn,
    missing: dict[str, dict[str, bytes]],
    outlived: dict[str, bytes],
) -> set[str]:
    """Update the fields of one turn of a snapshot by what is ``known`` and what ``outlived``.

    The turn is taken out of ``missing``, the known ones. Returns the items that were replaced.
    """
    replaced: set[str] = set()
    if outlived and "items" in turn:
        items = _objects(turn["items"])
        replaced = outlived.keys() & {_id(item) for item in items}
        texts = [outlived.get(_id(item)) or jsonrpc.write(item) for item in items]
        turn["items"] = b"[" + b",".join(texts) + b"]"
    newer = missing.pop(_id(turn), None)
    if newer is not None and turn.get("itemsView") == b'"full"':
        turn.update(newer)
    elif newer is not None:  # the asker wanted turns without their items
        turn.update({name: newer[name] for name in newer.keys() - {"items", "itemsView"}})
    elif turn.get("status") == b'"inProgress"' and running.turn not in (None, _id(turn)):
        # This turn ended with its app-server. While another turn runs, the next app-server
        # doesn't say so.
        turn["status"] = b'"interrupted"'
    return replaced


def _objects(array: bytes) -> list[dict[str, bytes]]:
    try:
        return [jsonrpc.read_fields(bytes(raw)) or {} for raw in _list_decoder.decode(array)]
    except msgspec.DecodeError:
        return []  # no array: there is nothing to update


def _id(fields: dict[str, bytes]) -> str:
    return jsonrpc.read_text(fields.get("id")) or ""


def type_of(status: bytes | None) -> bytes | None:
    """Return the type in a thread's status, as JSON text."""
    return (jsonrpc.read_fields(status or b"{}") or {}).get("type")


def _turn_in(line: bytes) -> dict[str, bytes]:
    """Return the fields of the turn that a ``turn/started`` or ``turn/completed`` names."""
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
    """Return the id of the turn that a ``turn/started`` or ``turn/completed`` names."""
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
