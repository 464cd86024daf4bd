"""The fields of the broker's messages that the stdio bridge reads: the envelope, and a few answers.

As in ``core.protocol.envelope.jsonrpc``, one pass skips every other field, and never fails for a
shape that this version doesn't know.

Used by ``resume``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ABSENT

EXTENSION: Final = "appmux"
"""The key in ``capabilities.extensions`` and in the answer to ``initialize``."""

_NUMBERS = (b'{"seq":', b'{"cursor":')


class Turn(msgspec.Struct):
    """A turn, as far as it is read."""

    id: str
    status: str = ""
    """``inProgress`` while it runs."""
    rootTurnId: str | None = None
    """Differs from ``id`` only in a review."""


class Params(msgspec.Struct):
    """The params of a notification or a server request, as far as they are read."""

    threadId: str | None = None
    turn: Turn | None = None
    requestId: msgspec.Raw = ABSENT
    processHandle: str | None = None


class Message(msgspec.Struct):
    """A line of the broker, as far as it is read."""

    seq: int = 0
    cursor: int = 0
    method: str | None = None
    id: msgspec.Raw = ABSENT
    params: Params | None = None
    error: msgspec.Raw = ABSENT


class _Thread(msgspec.Struct):
    id: str


class Result(msgspec.Struct):
    """The result of any answer, as far as it is read."""

    thread: _Thread | None = None
    reviewThreadId: str | None = None
    turn: Turn | None = None


class _Answer(msgspec.Struct):
    result: Result | None = None


class Life(msgspec.Struct):
    """A broker's identity and where its journal stands, from the answer to ``initialize``."""

    epoch: str = ""
    seq: int = 0
    began: int = 0
    generation: int = 0


class _Own(msgspec.Struct):
    appmux: Life | None = None


class _Hello(msgspec.Struct):
    result: _Own


class Replayed(msgspec.Struct):
    """The answer to ``mux/replay``."""

    complete: bool
    missing: list[str] = []


class _ReplayAnswer(msgspec.Struct):
    result: Replayed


class _Turns(msgspec.Struct):
    data: list[msgspec.Raw]


class _TurnsAnswer(msgspec.Struct):
    result: _Turns


def read(text: bytes) -> Message | None:
    """Return the message; None if the text isn't a JSON object."""
    try:
        return _message_decoder.decode(text)
    except msgspec.ValidationError:
        # A shape that this version doesn't know: such a message concerns no thread.
        try:
            opaque = _opaque_decoder.decode(text)
        except msgspec.DecodeError:
            return None
        return Message(opaque.seq, opaque.cursor, opaque.method, opaque.id, None, opaque.error)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


class _OpaqueMessage(msgspec.Struct):
    seq: int = 0
    cursor: int = 0
    method: str | None = None
    id: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


def without_numbers(text: bytes) -> bytes:
    """Return the message as it was before the broker numbered it."""
    while text.startswith(_NUMBERS):
        text = b"{" + text[text.index(b",") + 1 :]
    return text


def life(text: bytes) -> Life | None:
    """Read the broker's own part of the answer to ``initialize``; None if it doesn't number."""
    try:
        return _hello_decoder.decode(text).result.appmux
    except msgspec.DecodeError:
        return None


def without_life(text: bytes) -> bytes:
    """Return the answer to ``initialize`` without what only clients that know the broker get."""
    fields = jsonrpc.read_fields(text) or {}
    result = object_of(fields.get("result"))
    if EXTENSION not in result:
        return text
    del result[EXTENSION]
    return jsonrpc.write(fields | {"result": jsonrpc.write(result)})


def result(text: bytes) -> Result:
    """Read an answer's result; an empty ``Result`` if it has another shape."""
    try:
        return _answer_decoder.decode(text).result or Result()
    except msgspec.DecodeError:
        return Result()


def replayed(text: bytes) -> Replayed:
    """Read the answer to ``mux/replay``; not complete if it can't be read."""
    try:
        return _replay_decoder.decode(text).result
    except msgspec.DecodeError:
        return Replayed(complete=False)


def turns(text: bytes) -> Iterable[tuple[Turn, msgspec.Raw]]:
    """Read the answer to ``thread/turns/list``: each turn, also as it came. Empty if unreadable."""
    try:
        raws = _turns_decoder.decode(text).result.data
        return [(_turn_decoder.decode(raw), raw) for raw in raws]
    except msgspec.DecodeError:
        return ()


def thread_in(params: bytes) -> str | None:
    """Return the thread that a request names."""
    return jsonrpc.read_text(object_of(params).get("threadId"))


def object_of(text: bytes | None) -> dict[str, bytes]:
    """Return the fields of a JSON object as their texts; none if it is no object."""
    return jsonrpc.read_fields(text or b"{}") or {}


def texts(text: bytes | None) -> frozenset[str]:
    """Return the strings of a JSON list; none if it is no such list."""
    try:
        return frozenset(msgspec.json.decode(text or b"[]", type=list[str]))
    except msgspec.DecodeError:
        return frozenset()


def shown_error(text: bytes) -> str:
    """Return an error answer's text, which is for people; its code isn't."""
    error = object_of(object_of(text).get("error"))
    return jsonrpc.read_text(error.get("message")) or "without a reason"


_message_decoder = msgspec.json.Decoder(Message)
_opaque_decoder = msgspec.json.Decoder(_OpaqueMessage)
_answer_decoder = msgspec.json.Decoder(_Answer)
_hello_decoder = msgspec.json.Decoder(_Hello)
_replay_decoder = msgspec.json.Decoder(_ReplayAnswer)
_turns_decoder = msgspec.json.Decoder(_TurnsAnswer)
_turn_decoder = msgspec.json.Decoder(Turn)
