"""The JSON-RPC envelope: read it, rewrite its id, leave everything else as the bytes that came.

``ClientMessage`` is a message of a client, ``UpstreamMessage`` one of the app-server. ``result`` is
never read here, and ``params`` only as far as routing needs it.

The two sides get different care. The app-server is trusted to write JSON, and its lines are the hot
path: one pass of msgspec into a struct that skips all it doesn't name. A client is not trusted
(``client_message``). And no line end may reach the app-server's stdin, where it would begin a
second message.

Ids stay the bytes of their JSON text. So ``1`` and ``"1"`` differ, as they must, and it can't
matter that in Python ``1 == True == 1.0``.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mux.core.protocol.envelope import text_limits

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

_KEYS = {
    name: msgspec.json.encode(name) + b":"
    for name in ("id", "method", "params", "result", "error", "trace")
}
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
    around: tuple[bytes, bytes] | None = None
    """All that stands before the id, and behind it, of a message that may go upstream as it was
    written; None for others, and once the params have been replaced."""

    @property
    def members(self) -> dict[str, msgspec.Raw] | None:
        """The fields of the params that ``request_params`` has read; None if they are no object."""
        return self.named if self.params[:1] == b"{" else None

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
        return msgspec.structs.replace(self, fields=fields, came=came, around=None)

    def text(self, name: str) -> str | None:
        """Return a field of the params; None if it isn't there, or no text."""
        raw = self.named.get(name)
        return None if raw is None else read_text(bytes(raw))

    def name(self, name: str) -> str | None:
        """Return a field of the params; None if it isn't there, or no text, or too long a name."""
        text = self.text(name)
        return text if text is not None and text_limits.is_short(text) else None


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
_upstream_decoder = msgspec.json.Decoder(UpstreamMessage)
_opaque_decoder = msgspec.json.Decoder(_OpaqueUpstreamMessage)
