"""Sums up a thread's messages: its turns, files, commands that failed, and what was decided.

No text is judged, and no model asked: what stands in the messages is counted and cut.

Used by ``digest``, which reads the messages from the journal.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from mux.core.extension.approvals import Decided
from mux.core.extension.digest import DigestFile, DigestTurn, FailedCommand
from mux.core.features.history.file_changes import changes_in
from mux.core.part import Part
from mux.core.protocol.journal_entry import Entry
from mux.core.state.clients.client import DECIDED
from mux.core.state.threads.cards import one_line
from mux.core.state.threads.last_line import final_line

MOST: Final = 200
"""Of each kind (turns, files, failed commands, decisions, errors) the latest so many are told."""

LONGEST_COMMAND: Final = 2048
"""Characters of a command that failed."""

_Kept = TypeVar("_Kept")


class Summary(Part):
    """A summary of what happened, from the messages taken in so far."""

    turns: OrderedDict[str, DigestTurn] = msgspec.field(default_factory=OrderedDict)
    files: OrderedDict[str, DigestFile] = msgspec.field(default_factory=OrderedDict)
    failed: list[FailedCommand] = msgspec.field(default_factory=list)
    decisions: list[Decided] = msgspec.field(default_factory=list)
    errors: list[str] = msgspec.field(default_factory=list)
    ran: int = 0
    cut: bool = False
    """True if there was more of a kind than is kept."""

    def add(self, entry: Entry) -> None:
        """Add one message of the thread, in order."""
        try:
            if entry.method == DECIDED:
                self._keep(self.decisions, _decided_decoder.decode(entry.message).params)
            elif (read := _TAKES.get(entry.method)) is not None:
                read(self, _line_decoder.decode(entry.message).params)
        except msgspec.DecodeError:
            return  # of a shape that this version doesn't know

    def _turn(self, id: str) -> DigestTurn:
        turn = self.turns.get(id)
        if turn is None:
            turn = self.turns[id] = DigestTurn(
                id=id, status="inProgress", said="", lastLine="", error=None, seconds=None
            )
            if len(self.turns) > MOST:
                self.turns.popitem(last=False)
                self.cut = True
        return turn

    def _turn_began(self, params: _Params) -> None:
        if params.turn is not None:
            self._turn(params.turn.id)

    def _turn_ended(self, params: _Params) -> None:
        if params.turn is None:
            return
        turn = self._turn(params.turn.id)
        turn.status = params.turn.status or turn.status
        milliseconds = params.turn.durationMs
        turn.seconds = None if milliseconds is None else round(milliseconds / 1000, 3)
        if params.turn.error is not None:
            turn.error = one_line(params.turn.error.message)

    def _item(self, params: _Params) -> None:
        item, turn = params.item, params.turnId or ""
        try:
            read = _item_decoder.decode(item)
        except msgspec.DecodeError:
            return
        line = final_line(bytes(item))
        match read.type:
            case "userMessage" if line is not None:
                digest_turn = self._turn(turn)
                digest_turn.said = digest_turn.said or line.text
            case "agentMessage" if line is not None:
                self._turn(turn).lastLine = line.text
            case "commandExecution" if read.status in ("completed", "failed"):
                self._command(turn, read)
            case "fileChange" if read.status == "completed":
                self._files(bytes(item))

    def _command(self, turn: str, item: _Item) -> None:
        self.ran += 1
        if item.status == "failed" or item.exitCode not in (0, None):
            output = (item.aggregatedOutput or "").rstrip().rpartition("\n")[2]
            failed = FailedCommand(
                turnId=turn,
                command=item.command[:LONGEST_COMMAND],
                cwd=item.cwd,
                exitCode=item.exitCode,
                lastLine=one_line(output),
            )
            self._keep(self.failed, failed)

    def _files(self, item: bytes) -> None:
        for change in changes_in(item, diffs=False):
            before = self.files.pop(change.path, None)
            self.files[change.path] = DigestFile(
                path=change.path,
                kind=change.kind if before is None or change.kind == "delete" else before.kind,
                movedTo=change.movedTo or (before.movedTo if before is not None else None),
                added=change.added + (before.added if before is not None else 0),
                removed=change.removed + (before.removed if before is not None else 0),
                edits=1 + (before.edits if before is not None else 0),
            )
            if len(self.files) > MOST:
                self.files.popitem(last=False)
                self.cut = True

    def _error(self, params: _Params) -> None:
        if params.error is not None and not params.willRetry:
            self._keep(self.errors, one_line(params.error.message))

    def _keep(self, kept: list[_Kept], one: _Kept) -> None:
        kept.append(one)
        if len(kept) > MOST:
            del kept[0]
            self.cut = True


_TAKES: Final[dict[str, Callable[[Summary, _Params], None]]] = {
    "turn/started": Summary._turn_began,
    "turn/completed": Summary._turn_ended,
    "item/completed": Summary._item,
    "error": Summary._error,
}


class _Error(msgspec.Struct):
    message: str = ""


class _Turn(msgspec.Struct):
    id: str
    status: str = ""
    error: _Error | None = None
    durationMs: float | None = None


class _Params(msgspec.Struct):
    turn: _Turn | None = None
    turnId: str | None = None
    item: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None
    willRetry: bool = False


class _Line(msgspec.Struct):
    params: _Params


class _DecidedLine(msgspec.Struct):
    params: Decided


class _Item(msgspec.Struct):
    type: str
    status: str = ""
    command: str = ""
    cwd: str | None = None
    exitCode: int | None = None
    aggregatedOutput: str | None = None


_line_decoder = msgspec.json.Decoder(_Line)
_decided_decoder = msgspec.json.Decoder(_DecidedLine)
_item_decoder = msgspec.json.Decoder(_Item)
