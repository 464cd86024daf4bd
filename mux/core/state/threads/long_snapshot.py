"""A long ``thread/resume`` result, brought up to date without being decoded.

What the broker knows better than the app-server (see ``running_turn``) is put in its place; all
else passes as the pieces that came. The outcome is, byte for byte, what ``running_turn.up_to_date``
would make of the whole.

Used by ``responses`` and ``subscriptions``.
"""

from __future__ import annotations

import msgspec.structs

from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.long_line import LongLine, Snapshot
from mux.core.protocol.envelope.rope import Piece, Rope
from mux.core.state.turns import running_turn
from mux.core.state.turns.running_turn import RunningTurn

Edit = tuple[int, int, list[Piece]]


class LongAnswer(msgspec.Struct, frozen=True, eq=False):
    """A long answer of the app-server, to be passed on in pieces."""

    line: LongLine
    snapshot: Snapshot | None = None
    """The thread's snapshot, if the answer is read as one."""
    edits: tuple[Edit, ...] = ()

    def up_to_date(
        self, running: RunningTurn, status: bytes | None, *, turns: bool
    ) -> LongAnswer | None:
        """Return the answer with the status and the turns that the broker knows.

        None if it must be read whole for that.
        """
        edits = None
        if self.snapshot is not None:
            edits = _edits(self.snapshot, running, status, turns=turns)
        return msgspec.structs.replace(self, edits=tuple(edits)) if edits is not None else None

    def with_id(self, id: bytes) -> Rope:
        """Return the answer under another id."""
        prefix = b'{"id":%d' % (self.line.answers or 0)
        return self.line.rope().edited([(0, len(prefix), [b'{"id":' + id]), *self.edits])

    def whole(self) -> bytes:
        """Return the answer as it came, in one piece."""
        return self.line.rope().whole()


def _edits(
    snapshot: Snapshot, running: RunningTurn, status: bytes | None, *, turns: bool
) -> list[Edit] | None:
    """Return the edits by which a snapshot is up to date.

    ``status`` and ``turns`` as in ``running_turn.up_to_date``. None if the snapshot is of a shape
    by which that can't be done.
    """
    result = jsonrpc.read_fields(snapshot.outline)
    fields = jsonrpc.read_fields(result["result"]) if result is not None else None
    thread = jsonrpc.read_fields(fields["thread"]) if fields is not None else None
    if fields is None or thread is None or fields.get("initialTurnsPage", b"null") != b"null":
        return None
    edits = _turns_edited(snapshot, running, complete=turns)
    if edits is None:
        return None
    if status is not None and running_turn.type_of(thread["status"]) != running_turn.type_of(
        status
    ):
        edits.append((*snapshot.status, [status]))
    return edits


def _turns_edited(snapshot: Snapshot, running: RunningTurn, *, complete: bool) -> list[Edit] | None:
    """Return the edits by which the turns are up to date; None if they can't be found."""
    missing, outlived = running.known(), running.outlived()
    places = _places(snapshot, running, {*missing, *running.homes()})
    if places is None:
        return None
    edits: list[Edit] = []
    replaced: set[str] = set()
    if places or missing or outlived:
        turns = snapshot.last_turns(min(places, default=snapshot.end), missing.keys())
        if turns is None:
            return None
        for turn in turns:
            if turn.start not in places:
                continue
            came = turn.fields["items"]
            of_turn = outlived if turn.items is None else {}  # else too long to look into
            replaced |= running_turn.bring_up_to_date(turn.fields, running, missing, of_turn)
            kept = turn.items if turn.fields["items"] is came else None
            edits.append((turn.start, turn.stop, _written(snapshot, turn.fields, kept)))
    if not outlived.keys() <= replaced:
        return None
    if complete and missing:
        more = [piece for new in missing.values() for piece in (b",", *_written(snapshot, new))]
        edits.append((snapshot.end, snapshot.end, more))
    return edits


def _places(snapshot: Snapshot, running: RunningTurn, ids: set[str]) -> set[int] | None:
    """Return where turns begin that aren't up to date: of these ids, or said to run when one does.

    None if that can't be known.
    """
    marked = snapshot.line.turns
    places = {marked[id] for id in map(str.encode, ids) if id in marked}
    if running.turn is not None:
        if not snapshot.has_status:
            return None
        places |= {snapshot.turn_at(mark) for mark in snapshot.line.running if mark < snapshot.end}
    return places


def _written(
    snapshot: Snapshot, turn: dict[str, bytes], items: tuple[int, int] | None = None
) -> list[Piece]:
    """Return a turn as JSON, with its items as they stand in the snapshot, if it is said where."""
    pieces: list[Piece] = []
    for name, value in turn.items():
        pieces += [b"," if pieces else b"{", msgspec.json.encode(name), b":"]
        pieces += snapshot.rope.views(*items) if items and name == "items" else [value]
    return [*pieces, b"}"]
