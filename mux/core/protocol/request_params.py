"""The params of a client's request, in the one reading that broker and app-server share.

The app-server takes more than it writes. A thread's id may be spelt as any UUID may (in upper case,
without hyphens, in braces, as ``urn:uuid:…``); a list may stand for an object, its values in an
order that no schema tells; of a key that stands twice the last value counts, whatever the first
was. The broker keys on what it reads. So here such params become what the app-server itself would
write, or are refused, before anything is judged by them, routed by them or kept under them:

* a UUID in ``threadId`` (or among ``threadIds``) is spelt as the app-server spells it;
* a key that stands twice stands once, with its last value;
* a list for the object is refused.

What the app-server refuses (an id that is no text, params that are no object) passes as it came,
for the app-server to say so. No other id has two spellings: the app-server compares those of turns,
and those that clients choose, as text. (Tried on 0.163.0 and 0.171.0.)

Heard from: ``broker``, once for each request.
"""

from __future__ import annotations

import itertools
import re

import msgspec

from mux.core.protocol import jsonrpc, text_limits
from mux.core.protocol.jsonrpc import INVALID_REQUEST, BadMessageError, ClientMessage

THREAD = "threadId"
THREADS = "threadIds"
"""The only fields with UUIDs that the broker reads; that of several threads is its own."""

_OWN_SPELLING = re.compile(rb'"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"')
_HYPHENATED = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_SPELLINGS = re.compile(
    rf"[0-9a-fA-F]{{32}}|{_HYPHENATED}|\{{{_HYPHENATED}\}}|urn:uuid:{_HYPHENATED}"
)
"""All that the app-server takes for a UUID."""

_GROUPS = (0, 8, 12, 16, 20, 32)
"""Where the groups of its digits begin and end."""


def canonical(message: ClientMessage) -> ClientMessage:
    """The request with its params in the app-server's own terms.

    Raises ``BadMessageError`` for params that can't be read in one way only.
    """
    text = message.fields.get("params", b"null")
    if text[:1] == b"[":
        reason = "`params` must be an object; a list in its place isn't taken here"
        raise BadMessageError(INVALID_REQUEST, reason, message.id)
    if text[:1] != b"{":
        return message
    raws = _decoder.decode(text)
    thread, spelt = _thread(raws)
    if THREADS in raws:
        spelt |= _threads(bytes(raws[THREADS]))
    fields = message.fields
    if spelt or not jsonrpc.each_key_once(text, raws):
        params = jsonrpc.write({name: bytes(raw) for name, raw in raws.items()} | spelt)
        fields = fields | {"params": params}
        raws |= {name: msgspec.Raw(value) for name, value in spelt.items()}
    return ClientMessage(
        message.kind, message.id, message.method, fields, raws, thread, commas=message.commas
    )


def _thread(raws: dict[str, msgspec.Raw]) -> tuple[str | None, dict[str, bytes]]:
    """The thread that the params name; and the field, where it has to be spelt otherwise."""
    raw = raws.get(THREAD)
    if raw is None:
        return None, {}
    text = bytes(raw)
    if _OWN_SPELLING.fullmatch(text):
        return text[1:-1].decode(), {}
    own = _id(text)
    thread = jsonrpc.read_text(own)
    if thread is not None and not text_limits.is_short(thread):
        thread = None
    return thread, {} if own == text else {THREAD: own}


def _threads(text: bytes) -> dict[str, bytes]:
    """The field that names several, where it has to be spelt otherwise."""
    if text[:1] != b"[":
        return {}
    ids = [bytes(each) for each in _list_decoder.decode(text)]
    owns = [_id(each) for each in ids]
    return {} if owns == ids else {THREADS: b"[" + b",".join(owns) + b"]"}


def _id(text: bytes) -> bytes:
    """A thread's id as the app-server spells it, as JSON text; what is none, as it is."""
    read = jsonrpc.read_text(text)
    return text if read is None else msgspec.json.encode(thread_id(read))


def thread_id(text: str) -> str:
    """The id as the app-server spells it; what the app-server takes for no UUID, as it is."""
    if not _SPELLINGS.fullmatch(text):
        return text
    digits = text.removeprefix("urn:uuid:").strip("{}").replace("-", "").lower()
    return "-".join(digits[a:b] for a, b in itertools.pairwise(_GROUPS))


_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
