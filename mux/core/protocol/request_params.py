"""The params of a client's request, in the one reading that broker and app-server share.

The app-server takes more than it writes. A thread's id may be spelt as any UUID may (in upper case,
without hyphens, in braces, as ``urn:uuid:…``). A list may stand for an object, its values in an
order that no schema tells. If a key stands twice, its last value counts, whatever the first was.
The broker decides by what it reads. So before it judges, routes or stores anything by such params,
they become what the app-server itself would write, or are refused:

* a UUID in ``threadId`` (or among ``threadIds``) is spelt as the app-server spells it;
* a key that stands twice stands once, with its last value;
* a list for the object is refused.

What the app-server itself refuses (an id that is no text, params that are no object) passes as it
came, and the app-server says so. No other id has two spellings: the app-server compares ids of
turns, and ids that clients choose, as text. (Tried on 0.163.0 and 0.171.0.)

Used by ``client_messages``, once for each request.
"""

from __future__ import annotations

import itertools
import re
from typing import Annotated

import msgspec

from mux.core.protocol import client_message, jsonrpc, text_limits
from mux.core.protocol.jsonrpc import INVALID_REQUEST, BadMessageError, ClientMessage, Kind

THREAD = "threadId"
THREADS = "threadIds"
"""``THREAD`` and ``THREADS`` are the only fields with UUIDs that the broker reads; ``THREADS`` is
of its own extension."""

_OWN_SPELLING = re.compile(rb'"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"')
_HYPHENATED = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_SPELLINGS = re.compile(
    rf"[0-9a-fA-F]{{32}}|{_HYPHENATED}|\{{{_HYPHENATED}\}}|urn:uuid:{_HYPHENATED}"
)
"""All spellings that the app-server takes for a UUID."""

_GROUPS = (0, 8, 12, 16, 20, 32)
"""Positions where the groups of a UUID's digits begin and end."""


_PlainId = (
    Annotated[int, msgspec.Meta(ge=client_message.MIN_ID, le=client_message.MAX_ID)]
    | Annotated[str, msgspec.Meta(max_length=text_limits.LONGEST_ID // 8)]
)
"""An id that is within all limits, whatever its characters take in JSON."""


class _PlainRequest(msgspec.Struct):
    """The three fields that nearly all requests have, and no others."""

    id: _PlainId
    method: text_limits.Name
    params: dict[str, msgspec.Raw]


def read_plain(text: bytes) -> ClientMessage | None:
    """Read a request that is written as the app-server's own clients write theirs; else None.

    It does what ``client_message.read_client`` and ``canonical`` do one after the other, for a text
    that needs none of their care: ``id``, ``method`` and an object ``params`` in this order, no
    space or escape around them, a thread's id in its own spelling. A request is recognized by being
    written again from what was read: if the text begins with its id and method, and is as long as
    these and the params' parts are, nothing else stands in it, and nothing twice.
    """
    commas = text.count(b",")
    if (
        commas > client_message.FEW_ELEMENTS
        or text[:6] != b'{"id":'
        or text.count(b"[") + text.count(b"{") > client_message.MAX_DEPTH
        or b"\n" in text
        or b"\r" in text
    ):
        return None
    try:
        read = _plain_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    id, params = read.id, read.params
    id_text = b"%d" % id if type(id) is int else b'"%b"' % str(id).encode()
    method_text = b'"%b"' % read.method.encode()
    head = b'{"id":%b,"method":%b,"params":' % (id_text, method_text)
    # Of params each member takes its parts and four more: two quotes, a colon, and a comma or, the
    # last one, a brace. The other brace is counted here, with that of the whole.
    parts = len("".join(params)) + len(b"".join(params.values())) + 4 * len(params)
    size = len(head) + (parts + 2 if params else 3)
    named = params.get(THREAD)
    if (
        len(text) != size
        or not text.startswith(head)
        or (named is not None and not _OWN_SPELLING.fullmatch(named))
        or THREADS in params
    ):
        return None
    if b"$" in text or b"\\" in text:  # without these no key can be a private one
        client_message.refuse_private_keys(text, id_text)
    thread = None if named is None else bytes(named)[1:-1].decode()
    fields = {"id": id_text, "method": method_text, "params": text[len(head) : -1]}
    tail = text[6 + len(id_text) :]
    kind: Kind = "request"
    return ClientMessage(kind, id_text, read.method, fields, params, thread, None, commas, tail)


def canonical(message: ClientMessage) -> ClientMessage:
    """Return the request with its params in the app-server's own terms.

    Raises ``BadMessageError`` for params that can be read in more than one way.
    """
    text = message.fields.get("params", b"null")
    if text[:1] == b"[":
        reason = "`params` must be an object; a list in its place isn't taken here"
        raise BadMessageError(INVALID_REQUEST, reason, message.id)
    if text[:1] != b"{":
        return message
    raws = _decoder.decode(text)
    thread: str | None = None
    spelt: dict[str, bytes] = {}
    if (named := raws.get(THREAD)) is not None:
        id = bytes(named)
        if _OWN_SPELLING.fullmatch(id):
            thread = id[1:-1].decode()
        else:
            thread, spelt = _thread(id)
    if THREADS in raws:
        spelt |= _threads(bytes(raws[THREADS]))
    fields = message.fields
    if spelt or not client_message.each_key_once(text, raws):
        params = jsonrpc.write({name: bytes(raw) for name, raw in raws.items()} | spelt)
        fields = fields | {"params": params}
        raws |= {name: msgspec.Raw(value) for name, value in spelt.items()}
    return ClientMessage(
        message.kind, message.id, message.method, fields, raws, thread, commas=message.commas
    )


def _thread(text: bytes) -> tuple[str | None, dict[str, bytes]]:
    """Return the thread that a field's value names, and the field if it must be spelt otherwise."""
    own = _id(text)
    thread = jsonrpc.read_text(own)
    if thread is not None and not text_limits.is_short(thread):
        thread = None
    return thread, {} if own == text else {THREAD: own}


def _threads(text: bytes) -> dict[str, bytes]:
    """Return the field that names several threads, if it must be spelt otherwise."""
    if text[:1] != b"[":
        return {}
    ids = [bytes(each) for each in _list_decoder.decode(text)]
    owns = [_id(each) for each in ids]
    return {} if owns == ids else {THREADS: b"[" + b",".join(owns) + b"]"}


def _id(text: bytes) -> bytes:
    """Return a thread's id as the app-server spells it, as JSON text; anything else unchanged."""
    read = jsonrpc.read_text(text)
    return text if read is None else msgspec.json.encode(thread_id(read))


def thread_id(text: str) -> str:
    """Return the id as the app-server spells it.

    A text that the app-server takes for no UUID is returned unchanged.
    """
    if not _SPELLINGS.fullmatch(text):
        return text
    digits = text.removeprefix("urn:uuid:").strip("{}").replace("-", "").lower()
    return "-".join(digits[a:b] for a, b in itertools.pairwise(_GROUPS))


_plain_decoder = msgspec.json.Decoder(_PlainRequest)
_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
