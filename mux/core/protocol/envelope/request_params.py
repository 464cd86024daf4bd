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

import msgspec

from mux.core.protocol.envelope import client_message, jsonrpc, structure, text_limits
from mux.core.protocol.envelope.jsonrpc import INVALID_REQUEST, BadMessageError, ClientMessage
from mux.core.protocol.envelope.structure import Rough

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


_ID_TEXT = rb'(-?(?:0|[1-9][0-9]{0,17})|"[\w.:/-]{1,64}")'
"""Matches an id within all limits that has one spelling."""

_METHOD_TEXT = rb'"method": ?"([\w/]{1,%d})"' % text_limits.LONGEST_NAME
_PLAIN_HEAD = re.compile(
    rb'\{(?:"jsonrpc": ?"2\.0", ?)?'
    rb'(?:"id": ?%b, ?%b|%b(?:, ?"id": ?%b)?), ?"params": ?(?=\{)'
    % (_ID_TEXT, _METHOD_TEXT, _METHOD_TEXT, _ID_TEXT)
)
_PLAIN_END = re.compile(rb', ?"id": ?%b\}' % _ID_TEXT)
_LONGEST_END = len(b', "id": "') + 64 + len(b'"}')


def read_plain(text: bytes, rough: Rough | None = None) -> ClientMessage | None:
    """Read a request that is written as nearly all programs write theirs; else return None.

    It does what ``client_message.read_client`` and ``canonical`` do one after the other, for a text
    that needs none of their care: ``id``, ``method`` and an object ``params`` in one of the usual
    orders, with ``jsonrpc`` or not, with a space behind colons and commas or not, id and method
    without an escape, a thread's id in its own spelling.
    """
    rough = rough or structure.rough(text)
    head = _PLAIN_HEAD.match(text)
    if head is None or not (rough.is_small and rough.is_shallow) or b"\n" in text or b"\r" in text:
        return None
    id_first, method_behind, method_first, id_behind = head.groups()
    begins, ends, of_id = head.end(), len(text) - 1, head.span(1 if id_first else 4)
    id, method = id_first or id_behind, method_behind or method_first
    if id is None:
        end = _PLAIN_END.fullmatch(text, max(text.rfind(b",", -_LONGEST_END), 0))
        if end is None:
            return None
        id, ends, of_id = end[1], end.start(), end.span(1)
    params = text[begins:ends]
    try:
        named = _decoder.decode(params)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    thread = named.get(THREAD)
    if (
        text[-1:] != b"}"
        or len(named) > structure.MAX_MEMBERS
        or (thread is not None and not _OWN_SPELLING.fullmatch(thread))
        or THREADS in named
        or (named and not client_message.each_key_once(params, named))
    ):
        return None
    if b"$" in text or b"\\" in text:  # without these no key can be a private one
        client_message.refuse_private_keys(text, id)
    return ClientMessage(
        "request",
        id,
        method.decode(),
        {"id": id, "method": b'"%b"' % method, "params": params},
        named,
        None if thread is None else bytes(thread)[1:-1].decode(),
        None,
        (text[: of_id[0]], text[of_id[1] :]),
    )


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
    client_message.refuse_members(raws, "`params`", message.id)
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
    return ClientMessage(message.kind, message.id, message.method, fields, raws, thread)


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


_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
