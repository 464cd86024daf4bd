"""Reads the messages of clients, which aren't trusted.

A client's message must be one JSON object that the app-server can't read differently from the
broker (no doubled keys, none of the keys by which its parser reads one value as another). Nor may
the app-server drop it in silence (its parser refuses deep nesting and ids past 64 bits). And it has
a bounded structure (``structure``), since a step of the loop can't be interrupted.

``request_params`` reads nearly all requests in fewer steps, and the params of all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import msgspec

from mux.core.protocol.envelope import jsonrpc, structure, text_limits
from mux.core.protocol.envelope.jsonrpc import (
    ABSENT,
    INVALID_REQUEST,
    NO_ID,
    PARSE_ERROR,
    BadMessageError,
    ClientMessage,
    Kind,
)
from mux.core.protocol.envelope.structure import Rough

MAX_ID = 2**63 - 1
MIN_ID = -(2**63)
"""Ids are signed 64-bit integers natively; a larger one would be dropped without an answer."""

_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_KEY = re.compile(rb'[ \t\r\n]*"[^"\\]*(?:\\.[^"\\]*)*"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_SEPARATOR = re.compile(rb"[ \t\r\n]*([,}])")
_TRACE_TEXTS = ("traceparent", "tracestate")
_PRIVATE = "$serde_json::private::"
"""Begins the keys that mean something to the app-server's parser (serde_json), at any depth. The
parser reads ``{"$serde_json::private::RawValue": "[1]"}`` as ``[1]``, so params could be hidden in
a text from all who judge them. No field of the protocol begins like this."""

_PRIVATE_BEGINS = b"$serde_json::"
_SPELT_BY_ESCAPES = re.compile(rb"\\u00(?:24|3[aA]|5[fF]|6[0-9a-fA-F]|7[0-9aA])")
"""Matches an escape of a character of such a key. It is rare: no writer of JSON must escape
these."""


def _as_many_as_any(_: str) -> int:
    return structure.MAX_ELEMENTS


def read_client(
    text: bytes, most: Callable[[str], int] = _as_many_as_any, rough: Rough | None = None
) -> ClientMessage:
    """Read one message of a client. Raises ``BadMessageError``, whose text says what is wrong.

    ``most`` returns how many elements a message with this method may have. The method of an answer
    is empty. ``rough``: the text's, if it was counted already.
    """
    rough = rough or structure.rough(text)
    signs = None if rough.is_small else _refuse_too_many(text, most)
    fields = _read_fields(text)
    id = _read_id(fields)
    if (method_text := fields.get("method")) is not None:
        try:
            method = msgspec.json.decode(method_text, type=str)
        except msgspec.DecodeError:
            raise BadMessageError(
                INVALID_REQUEST, "`method` must be a string", id or NO_ID
            ) from None
        if len(method) > text_limits.LONGEST_NAME:
            raise BadMessageError(
                INVALID_REQUEST, f"`method` is {text_limits.TOO_LONG}", id or NO_ID
            )
        kind: Kind = "notification" if id is None else "request"
    else:
        method = ""
        if id is None:
            raise BadMessageError(
                INVALID_REQUEST, "expected an object with `method`, or `id` and answer"
            )
        if ("result" in fields) == ("error" in fields):
            raise BadMessageError(
                INVALID_REQUEST, "expected exactly one of `method`, `result` and `error`", id
            )
        kind = "response" if "result" in fields else "error"
    if (trace := fields.get("trace", b"null"))[:1] != b"n":
        _refuse_odd_trace(trace, id or NO_ID)
    if not rough.is_shallow:
        signs = structure.signs(text) if signs is None else signs
        if signs is None or structure.depth(signs) > structure.MAX_DEPTH:
            reason = f"nested deeper than {structure.MAX_DEPTH} levels"
            raise BadMessageError(INVALID_REQUEST, reason, id or NO_ID)
    if b"$" in text or b"\\" in text:  # without these no key can be a private one
        refuse_private_keys(text, id or NO_ID)
    return ClientMessage(kind, NO_ID if id is None else id, method, fields)


def _refuse_odd_trace(text: bytes, id: bytes) -> None:
    """Refuse a `trace` with which the app-server would drop a request in silence."""
    if text[:1] != b"{":
        raise BadMessageError(INVALID_REQUEST, "`trace` must be an object", id)
    raws = _fields_decoder.decode(text)
    refuse_members(raws, "`trace`", id)
    odd = [each for each in _TRACE_TEXTS if bytes(raws.get(each, b"null"))[:1] not in b'"n']
    if odd or not each_key_once(text, raws):
        what = f"`trace.{odd[0]}` must be a string" if odd else "a key of `trace` stands twice"
        raise BadMessageError(INVALID_REQUEST, what, id)


def _refuse_too_many(text: bytes, most: Callable[[str], int]) -> bytes:
    """Refuse a message with too many elements before it is decoded; else return its signs."""
    envelope = _read_envelope(text)
    method = _text(bytes(envelope.method))
    allowed = most(method)
    signs = structure.signs(text, allowed)
    if signs is not None and structure.elements(signs) <= allowed:
        return signs
    id = bytes(envelope.id)
    known = (id[:1] == b'"' and len(id) <= text_limits.LONGEST_ID) or _INTEGER.fullmatch(id)
    named = f"`{method}`" if method and text_limits.is_short(method) else "a message"
    reason = f"{named} with more than {allowed} members and list elements"
    raise BadMessageError(INVALID_REQUEST, reason, id if known else NO_ID)


def _text(value: bytes) -> str:
    try:
        return jsonrpc.read_text(value) or ""
    except msgspec.DecodeError:
        return ""


def _read_fields(text: bytes) -> dict[str, bytes]:
    try:
        raws = _fields_decoder.decode(text)
    except msgspec.ValidationError:
        raise BadMessageError(
            INVALID_REQUEST, "expected one JSON object a message (batches are not supported)"
        ) from None
    except RecursionError:
        reason = f"nested deeper than {structure.MAX_DEPTH} levels"
        raise BadMessageError(PARSE_ERROR, reason) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessageError(PARSE_ERROR, f"not JSON: {error}") from None
    refuse_members(raws, "a message", NO_ID)
    fields = {name: bytes(raw) for name, raw in raws.items()}
    if not each_key_once(text, fields):
        raise BadMessageError(INVALID_REQUEST, "a top-level key stands twice")
    return fields


def each_key_once(text: bytes, fields: Mapping[str, bytes | msgspec.Raw]) -> bool:
    """Return whether no key stands twice in an object. ``fields`` is what it was decoded to."""
    # If the text without spaces is as long as its parts, the decoder left nothing out.
    parts = sum(map(len, fields)) + sum(map(len, fields.values()))
    if fields and len(text) == parts + 4 * len(fields) + 1:
        return True
    # A key has one colon: if none is left over, no key's first value was left out. (A key that
    # holds a colon itself is looked at more closely.)
    values = [bytes(value) for value in fields.values()]
    if (
        len(text) >= structure.LONG
    ):  # to walk along it takes a fifth of the time that counting takes
        return _each_key_in_place(text, values)
    colons = len(values) + sum([value.count(b":") for value in values])
    return text.count(b":") == colons or _each_key_in_place(text, values)


def _each_key_in_place(text: bytes, values: list[bytes]) -> bool:
    # The decoder keeps a doubled key's first place and last value, so walking the text along the
    # fields stumbles at the first value that isn't the one kept, or has keys left at the end.
    at = text.index(b"{") + 1
    separator = b","
    for value in values:
        key = _KEY.match(text, at)
        if key is None or separator != b"," or not text.startswith(value, key.end()):
            return False
        behind = _SEPARATOR.match(text, key.end() + len(value))
        if behind is None:
            return False
        separator, at = behind[1], behind.end()
    return separator == b"}" or not values


def _read_id(fields: dict[str, bytes]) -> bytes | None:
    """Return the id's JSON text; None for a message without an id."""
    text = fields.get("id")
    if text is None:
        return text
    if text[:1] == b'"':
        if len(text) > text_limits.LONGEST_ID:
            raise BadMessageError(
                INVALID_REQUEST, f"`id` is longer than {text_limits.LONGEST_ID} bytes of JSON"
            )
        return text
    if _INTEGER.fullmatch(text) and len(text) <= len(str(MIN_ID)) and MIN_ID <= int(text) <= MAX_ID:
        return text
    raise BadMessageError(INVALID_REQUEST, "`id` must be a string or a 64-bit integer")


def refuse_members(fields: Mapping[str, object], what: str, id: bytes) -> None:
    """Refuse an object with too many members, or one whose name is too long: each is looked at."""
    if len(fields) > structure.MAX_MEMBERS:
        reason = f"{what} with more than {structure.MAX_MEMBERS} members"
        raise BadMessageError(INVALID_REQUEST, reason, id)
    if fields and max(map(len, fields)) > text_limits.LONGEST_NAME:
        reason = f"{what} with a member whose name is {text_limits.TOO_LONG}"
        raise BadMessageError(INVALID_REQUEST, reason, id)


def refuse_private_keys(text: bytes, id: bytes) -> None:
    """Refuse a text with a key that the app-server's parser reads as an instruction.

    The text's elements and its depth have been bounded.
    """
    # These searches may find a string's text; only decoding tells keys from texts.
    if _PRIVATE_BEGINS in text or (b"\\u00" in text and _SPELT_BY_ESCAPES.search(text)):
        try:
            decoded = _whole_decoder.decode(text)
        except msgspec.DecodeError as error:
            raise BadMessageError(INVALID_REQUEST, f"it can't be read: {error}", id) from None
        for key in _keys(decoded):
            if key.startswith(_PRIVATE):
                raise BadMessageError(INVALID_REQUEST, f"no field is called `{key[:40]}`", id)


def _keys(value: object) -> Iterator[str]:
    """Yield the keys, at any depth."""
    if isinstance(value, dict):
        yield from value
        value = value.values()
    elif not isinstance(value, list):
        return
    for inner in value:
        if isinstance(inner, dict | list):
            yield from _keys(inner)


class _Envelope(msgspec.Struct):
    """The fields by which a message is refused; others are skipped."""

    id: msgspec.Raw = ABSENT
    method: msgspec.Raw = ABSENT


def _read_envelope(text: bytes) -> _Envelope:
    """Read the envelope. A text that is no object gives an empty one and is refused later."""
    try:
        return _envelope_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _Envelope()


_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_whole_decoder = msgspec.json.Decoder(float_hook=str)
"""Decodes to plain objects. A number's text is kept, as none is too large for the app-server."""
