"""Reads the messages of clients, which aren't trusted.

A client's message must be one JSON object that the app-server can't read differently from the
broker (no doubled keys, none of the keys by which its parser reads one value as another). Nor may
the app-server drop it in silence (its parser refuses deep nesting and ids past 64 bits). And it has
a bounded number of parts, since a step of the loop can't be interrupted.

``request_params`` reads nearly all requests in fewer steps, and the params of all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

import msgspec

from mux.core.protocol import text_limits
from mux.core.protocol.jsonrpc import (
    ABSENT,
    INVALID_REQUEST,
    NO_ID,
    PARSE_ERROR,
    BadMessageError,
    ClientMessage,
    Kind,
)

MAX_DEPTH = 127
"""Nesting that the app-server's JSON parser (serde_json) takes. Deeper lines it drops silently."""

MAX_ELEMENTS = 65_536
"""Members and list elements of one message, at any depth: a conversation of thousands of items
passes. A step of the loop can't be interrupted, and each element costs some 0.1 µs to read."""

MAX_UNKNOWN = 1024
"""Members and elements outside the fields of JSON-RPC: each of these is looked at alone."""

FEW_ELEMENTS = 1024
"""Up to this many commas, a message passes without a check whether they stand in strings: nearly
all messages have fewer."""

MAX_ID = 2**63 - 1
MIN_ID = -(2**63)
"""Ids are signed 64-bit integers natively; a larger one would be dropped without an answer."""

_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_KEY = re.compile(rb'[ \t\r\n]*"(?:[^"\\]|\\.)*"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*:")
_SEPARATOR = re.compile(rb"[ \t\r\n]*([,}])")
_PRIVATE = "$serde_json::private::"
"""Begins the keys that mean something to the app-server's parser (serde_json), at any depth. The
parser reads ``{"$serde_json::private::RawValue": "[1]"}`` as ``[1]``, so params could be hidden in
a text from all who judge them. No field of the protocol begins like this."""

_PRIVATE_BEGINS = b"$serde_json::"
_SPELT_BY_ESCAPES = re.compile(rb"\\u00(?:24|3[aA]|5[fF]|6[0-9a-fA-F]|7[0-9aA])")
"""Matches an escape of a character of such a key. It is rare: no writer of JSON must escape
these."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACES_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NOT_SIGNS = bytes(set(range(256)) - set(b'[]{},"'))


def read_client(text: bytes) -> ClientMessage:
    """Read one message of a client. Raises ``BadMessageError``, whose text says what is wrong."""
    # Nearly all messages have so few commas that it doesn't matter where those stand.
    commas = text.count(b",")
    if commas > FEW_ELEMENTS:
        _refuse_too_many(text, commas)
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
    if fields.get("trace", b"null")[:1] not in (b"{", b"n"):
        raise BadMessageError(INVALID_REQUEST, "`trace` must be an object", id or NO_ID)
    _refuse_deep(text, id or NO_ID)
    if b"$" in text or b"\\" in text:  # without these no key can be a private one
        refuse_private_keys(text, id or NO_ID)
    return ClientMessage(kind, NO_ID if id is None else id, method, fields, commas=commas)


def _refuse_too_many(text: bytes, commas: int) -> None:
    """Refuse a message with too many elements before it is decoded.

    ``commas`` are all commas of the message; those in strings don't count as elements.
    """
    envelope = _read_envelope(text)
    fields = [bytes(getattr(envelope, name)) for name in _KNOWN]
    if commas > MAX_ELEMENTS and count_elements(text) > MAX_ELEMENTS:
        _refuse_many(f"more than {MAX_ELEMENTS} members and list elements", envelope)
    if commas - sum([field.count(b",") for field in fields]) > MAX_UNKNOWN and (
        count_elements(text) - sum(map(count_elements, fields)) > MAX_UNKNOWN
    ):
        _refuse_many(f"more than {MAX_UNKNOWN} members in unknown fields", envelope)


def count_elements(text: bytes, most: int = MAX_ELEMENTS) -> int:
    """Return the number of commas outside of strings.

    At each level these are one less than its members and elements. Return ``most + 1`` if so many
    strings begin in the text that it must have more than ``most`` elements: then nobody looks where
    the strings end.
    """
    if text.count(b'"') - text.count(b'\\"') > 4 * most + 4:  # four quotes to a member and a comma
        return most + 1
    return _structure(text).count(b",")


def _refuse_many(reason: str, envelope: _Envelope) -> NoReturn:
    id = bytes(envelope.id)
    known = id[:1] == b'"' or _INTEGER.fullmatch(id)
    raise BadMessageError(INVALID_REQUEST, reason, id if known else NO_ID)


def _structure(text: bytes) -> bytes:
    """Return the brackets and commas that stand outside of strings.

    Once escapes are removed, every other piece between quotes is a string. Two quotes in a row are
    dropped: whether they are an empty string, or an end and a beginning, what is inside and outside
    stays the same.
    """
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in text else text
    signs = plain.translate(None, _NOT_SIGNS).replace(b'""', b"")
    return b"".join(signs.split(b'"')[::2])


def _read_fields(text: bytes) -> dict[str, bytes]:
    try:
        raws = _fields_decoder.decode(text)
    except msgspec.ValidationError:
        raise BadMessageError(
            INVALID_REQUEST, "expected one JSON object a message (batches are not supported)"
        ) from None
    except RecursionError:
        raise BadMessageError(PARSE_ERROR, f"nested deeper than {MAX_DEPTH} levels") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessageError(PARSE_ERROR, f"not JSON: {error}") from None
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


def _refuse_deep(text: bytes, id: bytes) -> None:
    # Counting brackets is quick and nearly always enough. They may stand in strings: only if
    # there are many is it worth dropping the strings and then peeling level by level.
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    brackets = _structure(text).translate(_BRACES_AS_BRACKETS, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise BadMessageError(INVALID_REQUEST, f"nested deeper than {MAX_DEPTH} levels", id)


def refuse_private_keys(text: bytes, id: bytes) -> None:
    """Refuse a text with a key that the app-server's parser reads as an instruction."""
    # These searches may find a string's text; only `_keys` tells keys from texts.
    if _PRIVATE_BEGINS in text or (b"\\u00" in text and _SPELT_BY_ESCAPES.search(text)):
        for key in _keys(text):
            if key.startswith(_PRIVATE):
                raise BadMessageError(INVALID_REQUEST, f"no field is called `{key[:40]}`", id)


def _keys(text: bytes) -> Iterator[str]:
    """Yield the keys, at any depth, that may be private ones."""
    for string in _STRING.finditer(text):
        key = string[0]
        if (key.startswith(b'"$') or b"\\u00" in key) and _COLON.match(text, string.end()):
            yield msgspec.json.decode(key, type=str)


class _Envelope(msgspec.Struct):
    """The fields that JSON-RPC has; others are skipped."""

    id: msgspec.Raw = ABSENT
    method: msgspec.Raw = ABSENT
    params: msgspec.Raw = ABSENT
    result: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    trace: msgspec.Raw = ABSENT


_KNOWN = _Envelope.__struct_fields__


def _read_envelope(text: bytes) -> _Envelope:
    """Read the envelope. A text that is no object gives an empty one and is refused later."""
    try:
        return _envelope_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _Envelope()


_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_envelope_decoder = msgspec.json.Decoder(_Envelope)
