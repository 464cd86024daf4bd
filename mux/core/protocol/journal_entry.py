"""An entry of the journal, and how consecutive deltas merge: pure functions on bytes.

Used by the journal in memory, by the one on disk, and by what catches a client up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.rope import Piece, Rope


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A numbered message, as followers of its thread get it."""

    seq: int
    thread: str | None
    """None for a message to everybody."""
    method: str
    message: bytes


MERGEABLE = frozenset(
    {
        "item/agentMessage/delta",
        "item/plan/delta",
        "item/reasoning/textDelta",
        "item/reasoning/summaryTextDelta",
        "item/commandExecution/outputDelta",
        "item/fileChange/outputDelta",
    }
)
"""Notifications whose ``params.delta`` is a piece of text: two of one stream may become one."""


LARGE_DELTA = 2048
"""Bytes from which a delta isn't merged. Less than a tenth of it would be saved, and joining copies
it several times."""


def is_delta(method: str) -> bool:
    """Return whether an entry may be merged with others, and dropped once its item is complete."""
    return method in MERGEABLE


class _DeltaParams(msgspec.Struct, gc=False):
    threadId: str
    itemId: str
    delta: msgspec.Raw
    summaryIndex: int | None = None
    contentIndex: int | None = None


class _Delta(msgspec.Struct, gc=False):
    params: _DeltaParams


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message to a late client in place of several merged entries, or of none."""

    seq: int
    """The seq of the last entry merged."""
    method: str
    message: bytes


def merge(entries: Iterable[Entry], *, in_order: bool = False) -> Iterator[Entry | Message]:
    """Yield entries in order, with the consecutive deltas of each stream merged into one.

    Deltas of a thread are consecutive even with entries of other threads in between. If
    ``in_order``, such entries part them, so that the seqs of the messages only go up.
    """
    open_streams: dict[str | None, _Open] = {}
    for entry in entries:
        key = None if in_order else entry.thread
        open_stream = open_streams.get(key)
        small = entry.method in MERGEABLE and len(entry.message) < LARGE_DELTA
        delta = _read_delta(entry) if small else None
        if delta is None:
            if open_stream is not None:
                yield open_stream.message()
                del open_streams[key]
            yield entry
            continue
        stream = (
            entry.method, entry.thread, delta.itemId, delta.summaryIndex, delta.contentIndex
        )  # fmt: skip
        if open_stream is not None:
            if open_stream.stream == stream:
                open_stream.pieces.append(delta.delta)
                open_stream.last = entry
                continue
            yield open_stream.message()
        open_streams[key] = _Open(stream, entry, delta.delta)
    for unfinished in open_streams.values():
        yield unfinished.message()


class _Open:
    """A stream of deltas that the next entry of its thread may continue."""

    __slots__ = ("first", "last", "pieces", "stream")

    def __init__(self, stream: tuple[object, ...], first: Entry, piece: msgspec.Raw) -> None:
        self.stream, self.first, self.last = stream, first, first
        self.pieces = [piece]

    def message(self) -> Entry | Message:
        """Return one delta that carries all pieces."""
        if len(self.pieces) == 1:
            return self.first
        text = b"".join([bytes(piece)[1:-1] for piece in self.pieces])
        line = with_delta(self.first.message, b'"%b"' % text)
        return Message(self.last.seq, self.first.method, line)


def _read_delta(entry: Entry) -> _DeltaParams | None:
    try:
        params = _delta_decoder.decode(entry.message).params
    except msgspec.DecodeError:
        return None  # a shape that this version doesn't know: the entry passes as it is
    return params if bytes(params.delta).startswith(b'"') else None


def with_delta(line: bytes, delta: bytes) -> bytes:
    """Return a delta's line with another text (a JSON string) in it."""
    fields = jsonrpc.read_fields(line) or {}
    params = jsonrpc.read_fields(fields.get("params", b"{}")) or {}
    return jsonrpc.write(fields | {"params": jsonrpc.write(params | {"delta": delta})})


def with_long_delta(line: bytes, text: Sequence[Piece]) -> Rope:
    """Return a delta's line with a long text in it: the inside of a JSON string, in pieces."""
    before, _, after = with_delta(line, _PLACE).partition(_PLACE[1:-1])
    return Rope([before, *text, after])


def with_seq(message: bytes, seq: int) -> bytes:
    """Return the message with its number in front, as clients that know the extension get it."""
    return b'{"seq":%d,' % seq + message[1:]


def with_cursor(message: bytes, cursor: int) -> bytes:
    """Return the last message of a joining, with the journal's place that its client is at now."""
    return b'{"cursor":%d,' % cursor + message[1:]


_PLACE = b'"\0"'
"""A text that no JSON has."""

_delta_decoder = msgspec.json.Decoder(_Delta)
