"""A long line of the app-server: kept in the pieces that it came in, and read in a few places.

A thread's snapshot may be of any size, and nearly all of it is turns that only pass. Decoding it
takes a second for 83 MB and can't be interrupted, so it isn't decoded. A ``LongLine`` is searched
for two marks while it comes, piece by piece. ``read_snapshot`` then finds, near both ends of the
line, where the turns begin and end: without them the answer is a short *outline*, which is read
like any other.

None of this trusts that the app-server writes as it does today. A mark is only where to look. What
is cut out must be, decoded with what surrounds it, what it is taken for; if it isn't, the line is
read whole, the careful way.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Set

import msgspec

from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.rope import Piece, Rope

LONG_BYTES = 256 * 1024
"""Bytes from which a line that is read in pieces is long. A shorter one is decoded and rewritten in
5 ms at most."""

END_BYTES = 256 * 1024
"""Bytes at each end in which turns, or items, begin and end. All that a snapshot has besides turns
is some KiB, but for a thread's preview: the user's first words, of any length."""

WHOLE_TURN_BYTES = 512 * 1024
"""A turn up to this size is decoded with its items, a longer one without them; and of one snapshot
no more than this is decoded."""

_TURN = b'","rootTurnId":'
"""The mark of a turn. Before it stand ``{"id":"`` and the id."""
_RUNS = b',"status":"inProgress"'
"""The mark of a turn, or an item, that runs."""
_TURN_BEGINS = re.compile(rb'\{"id":"([^"\\]{1,64})\Z')
_NEARBY = 128
"""Bytes before a mark that tell what it marks."""
_VIEW = re.compile(rb'\],"itemsView":"[A-Za-z]{1,32}"\Z')
_STATUS = re.compile(rb'\],"itemsView":"[A-Za-z]{1,32}","status":"')

_ANSWER = re.compile(rb'\{"id":([0-9]{1,18}),"result":')
_SNAPSHOT = re.compile(rb'\{"id":[0-9]{1,18},"result":\{"thread":\{')

_TURNS_END = b']},"model":'
"""Ends the turns in the answer to ``thread/resume`` and ``thread/fork``. Its first quote isn't
escaped, so it doesn't stand within a text; nor does it end one, as a name follows."""
_ITEMS_END = b'],"itemsView":'
"""Ends the items of a turn, likewise."""

_OF_TURN = frozenset({"id", "items", "status"})
"""Fields that every turn has."""

_NAME = re.compile(rb'"([A-Za-z]+)":')
_VALUE = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[^,\[\]{}":]+', re.DOTALL)
_NESTING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


class LongLine:
    """A line that is still coming, or complete."""

    def __init__(self, begin: bytes) -> None:
        """Begin with the first piece, which must be long enough to tell what line it is."""
        self.is_snapshot = _SNAPSHOT.match(begin) is not None
        self.turns: dict[bytes, int] = {}
        """Where each turn begins, by id, if the line is a snapshot."""
        self.starts: list[int] = []
        """The same places in order."""
        self.doubled = False
        """True if two turns have one id."""
        self.running: list[int] = []
        """Where turns are said to run."""
        self._pieces: list[Piece] = []
        self._size = 0
        self._before = b""
        self.add(begin)

    def __repr__(self) -> str:
        return f"LongLine({self._size} bytes)"

    def add(self, piece: bytes) -> None:
        """Add what came next, and note the marks in it."""
        if self.is_snapshot:
            self._mark(piece)
        self._pieces.append(piece)
        self._size += len(piece)

    def __len__(self) -> int:
        return self._size

    @property
    def answers(self) -> int | None:
        """Return the id of the request that it answers with a result; None if it is another line.

        Nothing else stands before the result then, so its text can't say it.
        """
        match = _ANSWER.match(self._pieces[0])
        return int(match[1]) if match is not None else None

    def rope(self) -> Rope:
        """Return the line."""
        return Rope(self._pieces)

    def outline(self) -> bytes:
        """Return an answer that names the same thread, if the line names one, and has nothing else.

        The line is an answer.
        """
        head = bytes(self._pieces[0])
        begin = find_value(head, ("result", "thread", "id"))
        end = skip_value(head, begin) if begin is not None else None
        if begin is None or end is None:
            return b'{"result":{}}'
        return b'{"result":{"thread":{"id":' + head[begin:end] + b"}}}"

    def _mark(self, piece: bytes) -> None:
        # What stands before this piece, too: a mark may be cut, and must be told from others'.
        text, base = self._before + piece[:_NEARBY], self._size - len(self._before)
        new = len(self._before)
        for mark, note in ((_TURN, self._turn), (_RUNS, self._run)):
            for at in _places(text, mark, max(0, new - len(mark) + 1), new):
                note(text, at, base)
            for at in _places(piece, mark, 0, len(piece)):
                if at < _NEARBY:
                    note(self._before + piece[: at + len(mark)], at + new, base)
                else:
                    note(piece, at, self._size)
        self._before = piece[-_NEARBY:] if len(piece) >= _NEARBY else text[-_NEARBY:]

    def _turn(self, text: bytes, at: int, base: int) -> None:
        begins = _TURN_BEGINS.search(text[max(0, at - _NEARBY) : at])
        if begins is not None:
            start = base + at - len(begins[0])
            self.doubled = self.doubled or begins[1] in self.turns
            self.turns[begins[1]] = start
            self.starts.append(start)

    def _run(self, text: bytes, at: int, base: int) -> None:
        if _VIEW.search(text[max(0, at - _NEARBY) : at]):
            self.running.append(base + at)


def _places(text: bytes, mark: bytes, start: int, stop: int) -> Iterator[int]:
    """Yield where the mark begins in a text, from ``start`` and before ``stop``."""
    at = text.find(mark, start)
    while at != -1 and at < stop:
        yield at
        at = text.find(mark, at + 1)


class Turn(msgspec.Struct, frozen=True):
    """A turn of a snapshot."""

    start: int
    stop: int
    fields: dict[str, bytes]
    items: tuple[int, int] | None = None
    """Where its items begin and stop, brackets included, if they aren't among the fields."""

    @property
    def id(self) -> str:
        """Return its id."""
        return jsonrpc.read_text(self.fields["id"]) or ""


class Snapshot(msgspec.Struct, frozen=True, eq=False):
    """The answer to a request that follows a thread, with the thread's turns in it."""

    line: LongLine
    rope: Rope
    begin: int
    """Where the first turn begins."""
    end: int
    """Where the array of turns ends: at its bracket."""
    outline: bytes
    """The line without turns."""
    status: tuple[int, int]
    """Where the thread's status stands."""

    @property
    def has_status(self) -> bool:
        """Return whether a turn's status stands where it is looked for."""
        tail = self.rope.text(max(self.begin, self.end - END_BYTES), self.end)
        at = tail.rfind(_ITEMS_END)
        return at >= 0 and _STATUS.match(tail, at) is not None

    def turn_at(self, place: int) -> int:
        """Return where the turn begins, by its mark, that this place is in."""
        starts = self.line.starts
        return starts[bisect_right(starts, place) - 1]

    def last_turns(self, since: int, known: Set[str]) -> list[Turn] | None:
        """Return the turns from the one that begins at ``since`` on, the last one first.

        At least the last one is returned. None if they aren't where the marks are: a text of a
        program's may hold what looks like a turn. A turn that is decoded, and ends where one may
        end, has begun where one may begin. Of a turn that is too long for that it takes an id that
        nobody could know before it began; ``known`` are such ids.
        """
        starts, turns = self.line.starts, list[Turn]()
        if not starts or starts[0] != self.begin:
            return None
        stop, room = self.end, WHOLE_TURN_BYTES
        for start in reversed(starts):
            turn = self._read_turn(start, stop)
            room -= stop - start if turn is not None and turn.items is None else 0
            if turn is None or room < 0:
                return None
            turns.append(turn)
            if start <= since:
                break
            if turn.items is not None and turn.id not in known:
                return None
            stop = start - 1
        return turns

    def _read_turn(self, start: int, stop: int) -> Turn | None:
        """Return the turn that stands there; None if none does, or one of another shape."""
        if stop - start <= WHOLE_TURN_BYTES:
            fields = jsonrpc.read_fields(self.rope.text(start, stop)) or {}
            return Turn(start, stop, fields) if fields.keys() >= _OF_TURN else None
        tail_at = max(start, stop - END_BYTES)
        head, tail = self.rope.text(start, start + END_BYTES), self.rope.text(tail_at, stop)
        items, end = find_value(head, ("items",)), tail.rfind(_ITEMS_END)
        if items is None or end < 0:
            return None
        fields = jsonrpc.read_fields(head[: items + 1] + tail[end:]) or {}
        if fields.get("items") != b"[]" or not fields.keys() >= _OF_TURN:
            return None
        return Turn(start, stop, fields, (start + items, tail_at + end + 1))


def read_snapshot(line: LongLine) -> Snapshot | None:
    """Return the snapshot that the line is; None if it isn't, or is of another shape."""
    if not line.is_snapshot or line.doubled:
        return None
    rope = line.rope()
    head = rope.text(0, END_BYTES)
    turns = find_value(head, ("result", "thread", "turns"))
    status = find_value(head, ("result", "thread", "status"))
    if turns is None or head[turns : turns + 1] != b"[" or status is None or status > turns:
        return None
    tail_at = max(turns + 1, len(rope) - END_BYTES)
    tail = rope.text(tail_at, len(rope))
    end = tail.rfind(_TURNS_END)
    if end < 0:
        return None
    outline = head[: turns + 1] + tail[end:]
    if not _is_outline(outline):
        return None
    stop = skip_value(head, status)
    if stop is None:
        return None
    return Snapshot(line, rope, turns + 1, tail_at + end, outline, (status, stop))


class _Thread(msgspec.Struct):
    turns: list[msgspec.Raw]


class _Result(msgspec.Struct):
    thread: _Thread
    model: str
    cwd: str


class _Outline(msgspec.Struct):
    result: _Result


_outline_decoder = msgspec.json.Decoder(_Outline)


def _is_outline(text: bytes) -> bool:
    try:
        return not _outline_decoder.decode(text).result.thread.turns
    except (msgspec.DecodeError, RecursionError):
        return False


# ── JSON, read from its beginning ─────────────────────────────────────────────────────────────────


def find_value(text: bytes, path: tuple[str, ...]) -> int | None:
    """Return where the value at this path of field names begins, in JSON without blanks.

    The text may be cut off. None if the value isn't there, or isn't reached.
    """
    at = 0
    for name in path:
        if text[at : at + 1] != b"{":
            return None
        at += 1
        while True:
            match = _NAME.match(text, at)
            if match is None:
                return None
            if match[1] == name.encode():
                at = match.end()
                break
            after = skip_value(text, match.end())
            if after is None or text[after : after + 1] != b",":
                return None
            at = after + 1
    return at


def skip_value(text: bytes, at: int) -> int | None:
    """Return where the value that begins here ends; None if it is cut off."""
    if text[at : at + 1] not in (b"{", b"["):
        match = _VALUE.match(text, at)
        return match.end() if match is not None and match.end() < len(text) else None
    depth = 0
    for match in _NESTING.finditer(text, at):
        if match[0] in (b"{", b"["):
            depth += 1
        elif match[0] in (b"}", b"]"):
            depth -= 1
            if not depth:
                return match.end()
    return None
