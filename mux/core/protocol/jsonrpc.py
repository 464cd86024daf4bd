"""The JSON-RPC envelope: read it, rewrite its id, leave everything else as the bytes that came.

``ClientMessage`` is a message of a client, ``UpstreamMessage`` one of the app-server. ``result`` is
never read here, and ``params`` only as far as routing needs it.

The two sides get different care. The app-server is trusted to write JSON, and its lines are the hot
path: one pass of msgspec into a struct that skips all it doesn't name. A client is not trusted. Its
message must be one JSON object that the app-server can't read differently from the broker (no
doubled keys, none of the keys by which its parser reads one value as another). Nor may the
app-server drop it in silence (its parser refuses deep nesting and ids past 64 bits). And no line
end may reach the app-server's stdin, where it would begin a second message.

Ids stay the bytes of their JSON text. So ``1`` and ``"1"`` differ, as they must, and it can't
matter that in Python ``1 == True == 1.0``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NoReturn

import msgspec

from mux.core.protocol import text_limits

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

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603
OVERLOADED = -32001
"""The app-server's own code for overload; the broker uses it in the same meaning."""

FORBIDDEN = -32003
"""The principal lacks the scope that the request needs."""

APP_SERVER_GONE = -32010
DEADLINE_PASSED = -32011
BUSY = -32012
"""A turn runs on the thread, and the client asked not to join it."""
QUEUE_FULL = -32013
"""As many turns wait for the thread as may."""

NO_ID = b"null"

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
_KEYS = {
    name: msgspec.json.encode(name) + b":"
    for name in ("id", "method", "params", "result", "error", "trace")
}
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NOT_SIGNS = bytes(set(range(256)) - set(b'[]{},"'))
_LINE_ENDS_AS_SPACES = bytes.maketrans(b"\r\n", b"  ")


class BadMessageError(Exception):
    """A client's message that can't be passed on.

    ``id`` is the id of the error answer, as JSON text.
    """

    def __init__(self, code: int, text: str, id: bytes = NO_ID) -> None:
        super().__init__(text)
        self.code = code
        self.id = id


Kind = Literal["request", "notification", "response", "error"]


class ClientMessage(msgspec.Struct, frozen=True):
    """A client's message: its kind, and every top-level field as the bytes that came."""

    kind: Kind
    id: bytes
    """JSON text of the id; ``NO_ID`` for a notification."""
    method: str
    """Empty for an answer."""
    fields: dict[str, bytes]
    """Every top-level field, as JSON text."""
    named: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)
    """The fields of the params, once ``request_params`` has read them."""
    thread: str | None = None
    """The thread that the params name, once they were read; None for an id that is too long."""
    came: bytes | None = None
    """The params as they came, if the broker has replaced them."""
    commas: int = 0
    """The commas in the message: no fewer than it has members and list elements."""
    tail: bytes = b""
    """For a message that was written as ``request_params.read_plain`` wants it: all that stands
    behind its id. Empty for others, and once its params have been replaced."""

    @property
    def params(self) -> bytes:
        """The JSON text of ``params``; ``null`` if the message has none."""
        return self.fields.get("params", b"null")

    def with_params(self, params: bytes, came: bytes | None = None) -> ClientMessage:
        """Return the message with other params, as JSON text.

        ``came``: the params as they came, where the new ones are the broker's.
        """
        fields = self.fields | {"params": params}
        came = came or self.came
        return msgspec.structs.replace(self, fields=fields, came=came, tail=b"")

    def text(self, name: str) -> str | None:
        """Return a field of the params; None if it isn't there, or no text."""
        raw = self.named.get(name)
        return None if raw is None else read_text(bytes(raw))


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


ABSENT = msgspec.Raw(b"")
"""Stands for a field that isn't there; compare by identity. (None in a union defeats ``Raw``.)"""


class ItemParams(msgspec.Struct):
    """The params that are read of most messages: the thread to route by, the item and its text."""

    threadId: str | None = None
    itemId: str | None = None
    delta: msgspec.Raw = ABSENT
    summaryIndex: int | None = None
    contentIndex: int | None = None
    conversationId: str | None = None
    """The v1 name of ``threadId``."""

    @property
    def index(self) -> int | None:
        """The number of the delta's stream among an item's streams of one kind."""
        return self.contentIndex if self.summaryIndex is None else self.summaryIndex


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


class UpstreamMessage(msgspec.Struct):
    """A line of the app-server, as far as routing needs it."""

    method: str | None = None
    id: msgspec.Raw = ABSENT
    """Raw JSON text, or ``ABSENT``."""
    params: ItemParams | None = None
    error: msgspec.Raw = ABSENT
    """Raw JSON text, or ``ABSENT``."""

    @property
    def thread(self) -> str | None:
        """The thread that the message belongs to, if any."""
        if self.params is None:
            return None
        return self.params.threadId or self.params.conversationId


class _OpaqueUpstreamMessage(msgspec.Struct):
    method: str | None = None
    id: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


def read_upstream(line: bytes) -> UpstreamMessage | None:
    """Read one line of the app-server; None if it isn't a JSON object at all."""
    try:
        return _upstream_decoder.decode(line)
    except msgspec.ValidationError:
        # Params of an unknown shape (a list, a thread id that isn't a string): the message
        # concerns no thread, but is still passed on.
        try:
            opaque = _opaque_decoder.decode(line)
        except (msgspec.DecodeError, RecursionError):
            return None
        return UpstreamMessage(opaque.method, opaque.id, None, opaque.error)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


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


def with_id(line: bytes, old: bytes, new: bytes) -> bytes:
    """Return the app-server's line with its top-level id ``old`` replaced by ``new``.

    All else stays as it is.
    """
    start = b'{"id":' + old
    if line.startswith(start) and line[len(start) : len(start) + 1] in (b",", b"}"):
        return b'{"id":' + new + line[len(start) :]
    raws = _fields_decoder.decode(line)
    return write({name: new if name == "id" else bytes(raw) for name, raw in raws.items()})


def read_fields(text: bytes) -> dict[str, bytes] | None:
    """Return the fields of a JSON object, each as its JSON text; None if it is no object."""
    try:
        return {name: bytes(raw) for name, raw in _fields_decoder.decode(text).items()}
    except (msgspec.DecodeError, RecursionError):
        return None


def read_text(value: bytes | None) -> str | None:
    """Return a JSON string's value; None if it is no string."""
    return _text_decoder.decode(value) if value and value[:1] == b'"' else None


def write(fields: dict[str, bytes]) -> bytes:
    """Return one JSON object of these fields (JSON texts), on one line."""
    text = b"{" + b",".join([_key(name) + value for name, value in fields.items()]) + b"}"
    if b"\n" in text or b"\r" in text:
        # A raw line end is legal only between tokens, never in a string: a space means the same.
        text = text.translate(_LINE_ENDS_AS_SPACES)
    return text


def _key(name: str) -> bytes:
    return _KEYS.get(name) or msgspec.json.encode(name) + b":"


def request(id: int, method: str, params: object) -> bytes:
    """Return a request of the broker's own."""
    return msgspec.json.encode({"id": id, "method": method, "params": params})


def notification(method: str, params: object) -> bytes:
    """Return a notification of the broker's own."""
    return msgspec.json.encode({"method": method, "params": params})


def result(id: bytes, value: object) -> bytes:
    """Return an answer of the broker's own; ``value`` may be a ``msgspec.Raw``."""
    return write({"id": id, "result": msgspec.json.encode(value)})


def error(id: bytes, code: int, text: str, data: object = None) -> bytes:
    """Return an error answer of the broker's own.

    Its shape is ``{"id", "error": {"code", "message"[, "data"]}}``.
    """
    body: dict[str, object] = {"code": code, "message": text}
    if data is not None:
        body["data"] = data
    return write({"id": id, "error": msgspec.json.encode(body)})


_text_decoder = msgspec.json.Decoder(str)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_upstream_decoder = msgspec.json.Decoder(UpstreamMessage)
_opaque_decoder = msgspec.json.Decoder(_OpaqueUpstreamMessage)
