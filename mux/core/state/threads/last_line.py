"""The last line of a thread, for lists: what its running or latest turn has said last.

A delta only appends to its item's stream (``running_turn``). The line is read from the end of that
when somebody asks, at most a few times a second, whatever the number of deltas.

Used by ``inbox_cards``, ``inbox_picture`` and ``digest_summary``.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from mux.core.extension.inbox import Line, LineOf
from mux.core.protocol.envelope import jsonrpc
from mux.core.state.turns.delta_stream import DeltaStream
from mux.core.state.turns.running_turn import RunningItem, RunningTurn

LONGEST: Final = 300
"""Characters of a line: no list shows more."""

TAIL_BYTES: Final = 12 * LONGEST + 16
"""Bytes at the end of a stream in which its last line is looked for: of a longer line the end is
shown."""

_OF_STREAM: Final[dict[str, LineOf]] = {
    "item/agentMessage/delta": "agent",
    "item/plan/delta": "agent",
    "item/reasoning/textDelta": "reasoning",
    "item/reasoning/summaryTextDelta": "reasoning",
    "item/commandExecution/outputDelta": "output",
}


def last_line(running: RunningTurn) -> Line | None:
    """Return the last line of what the turn has said; None while it has said nothing."""
    for item in reversed(running.items.values()):
        line = _of_item(item)
        if line is not None:
            return line
    return None


def _of_item(item: RunningItem) -> Line | None:
    if item.completed is None:
        for part in reversed(item.parts):
            if isinstance(part, DeltaStream) and part.method in _OF_STREAM:
                text = tail(part.end(TAIL_BYTES + 1))
                if text:
                    return Line(text, _OF_STREAM[part.method])
    return final_line(item.completed or _item_in(item.started))


def final_line(item: bytes) -> Line | None:
    """Return the line of an item as it stands in ``item/completed``, or in ``item/started``."""
    try:
        read = _decoder.decode(item)
    except msgspec.DecodeError:
        return None
    text: str | None
    of: LineOf
    match read.type:
        case "agentMessage" | "plan":
            text, of = _last(read.text), "agent"
        case "reasoning":
            text, of = _last("\n".join(map(str, read.summary))), "reasoning"
        case "commandExecution":
            text, of = _last(read.command), "command"
        case "fileChange":
            text, of = _files(read.changes), "files"
        case "mcpToolCall":
            text, of = f"{read.server} {read.tool}".strip(), "tool"
        case "userMessage":
            text, of = _last("\n".join(map(_text, read.content))), "user"
        case _:
            return None
    return Line(text, of) if text else None


def tail(escaped: bytes | bytearray) -> str:
    """Return the last line of a text that is given as the inside of a JSON string."""
    end = bytes(escaped[-TAIL_BYTES:])
    if len(end) < len(escaped):
        # A space stands in no escape and in no character of several bytes: behind one it is safe
        # to begin. Where there is none, some start within the longest escape is.
        space = end.find(b" ", 0, TAIL_BYTES // 2)
        starts = [space + 1] if space >= 0 else range(12)
    else:
        starts = [0]
    for start in starts:
        try:
            return _last(msgspec.json.decode(b'"' + end[start:] + b'"', type=str), keep_end=True)
        except msgspec.DecodeError:
            continue
    return ""


def _last(text: str, *, keep_end: bool = False) -> str:
    line = next((each for each in reversed(text[-TAIL_BYTES:].splitlines()) if each.strip()), "")
    line = " ".join(line.split())
    if len(line) <= LONGEST:
        return line
    return f"…{line[1 - LONGEST :]}" if keep_end else f"{line[: LONGEST - 1]}…"


def _files(changes: list[_Change]) -> str:
    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    return f"{changes[0].path}{more}"[:LONGEST] if changes else ""


def _text(part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else ""


def _item_in(started: bytes) -> bytes:
    params = (jsonrpc.read_fields(started) or {}).get("params", b"{}")
    return (jsonrpc.read_fields(params) or {}).get("item", b"{}")


class _Change(msgspec.Struct):
    path: str = ""


class _Item(msgspec.Struct):
    type: str = ""
    text: str = ""
    command: str = ""
    server: str = ""
    tool: str = ""
    summary: list[Any] = []
    changes: list[_Change] = []
    content: list[Any] = []


_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Item)
