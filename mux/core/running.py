"""What runs on a thread, as it has streamed so far: what a late joiner is given.

Natively the text that an item streamed before a joiner came is nowhere to be had: not in the
snapshot, not later. Here each running item is kept with all that it streamed, the deltas of one
stream joined. A joiner gets, after its snapshot, an ``introduction``: for each running item
``item/started`` and what it streamed, as if it had been there. Items of the turn that are complete
go into the snapshot itself (``with_completed``), under the ids that everybody else has seen;
natively they stand there under others, and one that completes while the snapshot is made is
missing.

Heard from: ``threads``, each notification of a thread. Kept until the turn is completed; an item
that goes on after that (a command in the background), until it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import msgspec

from mux.core import jsonrpc
from mux.core.journal import is_delta, with_delta
from mux.core.jsonrpc import ABSENT, ItemParams

JOINED_AT = 512
"""Pieces of a stream are joined when there are this many: each costs more than its text."""

LATEST_OF_TURN = frozenset({"turn/plan/updated", "turn/diff/updated"})
"""Notifications of a turn of which the last one says all."""

REPLACED_IN_ITEM = frozenset({"item/fileChange/patchUpdated"})
"""Notifications of an item of which the last one says all."""


@attrs.define(eq=False)
class Stream:
    """Consecutive deltas of one stream of one item, e.g. its text, or one part of its summary."""

    method: str
    index: int | None
    first: bytes
    pieces: list[bytes] = attrs.field(factory=list)

    def takes(self, method: str, params: ItemParams) -> bool:
        """Whether a delta goes on with this stream."""
        return method == self.method and params.index == self.index

    def add(self, delta: bytes) -> None:
        """Take in a delta: a JSON string, of which the inside is kept."""
        self.pieces.append(delta[1:-1])
        if len(self.pieces) >= JOINED_AT:
            self.pieces = [b"".join(self.pieces)]

    def line(self) -> bytes:
        """One delta that carries everything."""
        return with_delta(self.first, b'"' + b"".join(self.pieces) + b'"')


@attrs.define(eq=False)
class Item:
    """One item of a running turn. ``completed``: its final JSON, once it has one."""

    started: bytes
    parts: list[Stream | tuple[str, bytes]] = attrs.field(factory=list)
    completed: bytes | None = None

    def introduction(self) -> Iterator[tuple[str, bytes]]:
        """The messages that bring a newcomer to where everybody is."""
        yield "item/started", self.started
        for part in self.parts:
            if isinstance(part, Stream):
                yield part.method, part.line()
            else:
                yield part

    def streamed(self, method: str, params: ItemParams, line: bytes) -> None:
        """Keep a notification of this item."""
        if is_delta(method) and params.delta is not ABSENT:
            last = self.parts[-1] if self.parts else None
            if not (isinstance(last, Stream) and last.takes(method, params)):
                last = Stream(method, params.index, line)
                self.parts.append(last)
            last.add(bytes(params.delta))
            return
        if method in REPLACED_IN_ITEM:
            self.parts = [
                part for part in self.parts if isinstance(part, Stream) or part[0] != method
            ]
        self.parts.append((method, line))


@attrs.define(eq=False)
class Running:
    """What runs on one thread. ``turn``: the running turn's id; ``started``: its first line."""

    turn: str | None = None
    started: bytes = b""
    items: dict[str, Item] = attrs.field(factory=dict)
    latest: dict[str, bytes] = attrs.field(factory=dict)

    def begin(self, thread: str, turn: bytes) -> None:
        """A turn begins: so says the answer to ``turn/start``, before the first line does."""
        params = {"threadId": thread, "turn": msgspec.Raw(turn)}
        self.started = jsonrpc.notification("turn/started", params)
        self.turn = _turn_id(self.started)

    def note(self, method: str, params: ItemParams, line: bytes) -> None:
        """Keep what a notification of this thread says of it."""
        if params.itemId is not None:
            item = self.items.get(params.itemId)
            if item is not None and item.completed is None:
                item.streamed(method, params, line)
        elif method == "item/started":
            if (id := _item_id(line)) is not None:
                self.items[id] = Item(line)
        elif method == "item/completed":
            self._completed(line)
        elif method == "turn/started":
            self.turn, self.started = _turn_id(line), line
        elif method == "turn/completed":
            self.turn = None
            self.latest.clear()
            self.items = {id: item for id, item in self.items.items() if item.completed is None}
        elif method in LATEST_OF_TURN:
            self.latest[method] = line

    def _completed(self, line: bytes) -> None:
        id, final = _item_id(line), _item(line)
        if id is not None and final is not None:
            item = self.items.setdefault(id, Item(line))
            item.completed = final
            item.parts.clear()

    def forget(self) -> None:
        """The app-server that ran it is gone."""
        self.turn = None
        self.items.clear()
        self.latest.clear()

    def introduction(self) -> Iterator[tuple[str, bytes]]:
        """For a joiner, after its snapshot: every running item, and the latest of the turn."""
        for item in self.items.values():
            if item.completed is None:
                yield from item.introduction()
        yield from self.latest.items()

    def completed_items(self) -> list[bytes]:
        """The JSON of the items that are complete, in the order in which they started."""
        return [item.completed for item in self.items.values() if item.completed is not None]

    def interrupted(self, unix_time: float) -> bytes:
        """``turn/completed`` for a turn whose app-server died, in the shape of the native one."""
        fields = jsonrpc.read_fields(self.started) or {}
        params = jsonrpc.read_fields(fields.get("params", b"{}")) or {}
        turn = jsonrpc.read_fields(params.get("turn", b"{}")) or {}
        turn["status"] = b'"interrupted"'
        turn["completedAt"] = b"%d" % int(unix_time)
        began = turn.get("startedAt", b"null")
        if began.isdigit():
            turn["durationMs"] = b"%d" % max(0, int(unix_time - int(began)) * 1000)
        params["turn"] = jsonrpc.write(turn)
        fields |= {"method": b'"turn/completed"', "params": jsonrpc.write(params)}
        if "emittedAtMs" in fields:
            fields["emittedAtMs"] = b"%d" % int(unix_time * 1000)
        return jsonrpc.write(fields)


def with_completed(result: bytes, running: Running) -> bytes:
    """A ``thread/resume`` result whose running turn shows the completed items that we know.

    ``thread.turns`` and ``initialTurnsPage.data`` are looked through; a result without the turn
    (``excludeTurns``) comes back as it is.
    """
    fields = jsonrpc.read_fields(result)
    if fields is None or running.turn is None:
        return result
    items = b"[" + b",".join(running.completed_items()) + b"]"
    for holder, key in (("thread", "turns"), ("initialTurnsPage", "data")):
        inner = jsonrpc.read_fields(fields.get(holder, b"null"))
        if inner is not None and key in inner:
            inner[key] = _with_items(inner[key], running.turn, items)
            fields[holder] = jsonrpc.write(inner)
    return jsonrpc.write(fields)


def _with_items(turns: bytes, id: str, items: bytes) -> bytes:
    try:
        each = [bytes(raw) for raw in _list_decoder.decode(turns)]
    except msgspec.DecodeError:
        return turns
    for place, text in enumerate(each):
        fields = jsonrpc.read_fields(text) or {}
        if jsonrpc.read_text(fields.get("id")) == id and fields.get("itemsView") == b'"full"':
            each[place] = jsonrpc.write(fields | {"items": items})
    return b"[" + b",".join(each) + b"]"


class _Named(msgspec.Struct):
    id: str


class _ItemOnly(msgspec.Struct):
    item: _Named


class _ItemMessage(msgspec.Struct):
    params: _ItemOnly


class _TurnOnly(msgspec.Struct):
    turn: _Named


class _TurnMessage(msgspec.Struct):
    params: _TurnOnly


def _item_id(line: bytes) -> str | None:
    try:
        return _item_decoder.decode(line).params.item.id
    except msgspec.DecodeError:
        return None


def _turn_id(line: bytes) -> str | None:
    try:
        return _turn_decoder.decode(line).params.turn.id
    except msgspec.DecodeError:
        return None


def _item(line: bytes) -> bytes | None:
    fields = jsonrpc.read_fields(line) or {}
    return (jsonrpc.read_fields(fields.get("params", b"{}")) or {}).get("item")


_item_decoder = msgspec.json.Decoder(_ItemMessage)
_turn_decoder = msgspec.json.Decoder(_TurnMessage)
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
