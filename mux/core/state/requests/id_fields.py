"""Ids that belong to one client, recognised by the names of their fields.

For each method THE TABLE lists the fields that hold such an id. It lists nothing for a codex newer
than the table; there the name decides: a field called like the id of a request, a watch, a process,
a search or a stream is taken for one. Upstream such an id is written as that of its client. A
message that comes down with one goes to that client alone, under its own id; to nobody if the id is
nobody's. A row of the table may except a field (``server_ids``).

In methods that are in the table only the fields of the params are judged by name; in others, those
below, too.

Used by ``client_requests`` (up), ``notifications`` and ``server_requests`` (down).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Collection, Mapping

import msgspec

from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.rules import RequestRule
from mux.core.state.requests.request import Request
from mux.core.state.requests.scoped_ids import IdClaim

LONGEST_NAME = 64
"""Characters: a schema's names are shorter, and names that were judged are remembered."""

REMEMBERED_NAMES = 4_096
"""Several times as many as a schema has."""


class Kind(enum.Enum):
    """The things that an id may stand for."""

    REQUEST = "request"
    """Another request of the same client, by its JSON-RPC id."""
    OWN = "own"
    """A watch, process, search or stream that the client has named."""


_ID = re.compile(rb'".*"|-?[0-9]{1,19}', re.DOTALL)
_REQUEST = re.compile(r"(?:.*R|r)equestIds?")
_OWN = re.compile(
    r"(?:.*(?:[wW]atch|[pP]rocess|[sS]ession|[sS]earch|[sS]ubscription|[sS]tream)Ids?)"
    r"|(?:.*[hH]andles?)|(?:.*(?:[cC]ancellation|[pP]rogress)Tokens?)"
)


def kind_of(name: str) -> Kind | None:
    """Return what the value of a field with this name stands for; None for no id of a client's."""
    if len(name) > LONGEST_NAME:
        return None
    if _REQUEST.fullmatch(name):
        return Kind.REQUEST
    return Kind.OWN if _OWN.fullmatch(name) else None


def any_in(names: Collection[str]) -> bool:
    """Return whether any of these names may be that of a field with a client's id."""
    if _harmless.issuperset(names):  # nearly always: the names of one codex are a few hundred
        return False
    others = [name for name in names if kind_of(name) is None and len(name) <= LONGEST_NAME]
    if len(_harmless) + len(others) <= REMEMBERED_NAMES:
        _harmless.update(others)
    return any(map(kind_of, names))


_harmless: set[str] = set()
"""Names that were judged and hold no id. A name's judgement never changes."""


Translate = Callable[[Kind, bytes], bytes]
"""Takes an id, as JSON text, which is neither null nor a list; returns the text to write in its
place."""


def translated(text: bytes, translate: Translate) -> bytes:
    """Return a JSON value with every id in it, at any depth, translated."""
    if text[:1] == b"{":
        fields = jsonrpc.read_fields(text) or {}
        anew = {name: _field(name, value, translate) for name, value in fields.items()}
        return text if anew == fields else jsonrpc.write(anew)
    if text[:1] == b"[":
        values = [bytes(each) for each in _list_decoder.decode(text)]
        others = [translated(each, translate) for each in values]
        return text if others == values else b"[" + b",".join(others) + b"]"
    return text


def _field(name: str, value: bytes, translate: Translate) -> bytes:
    kind = kind_of(name)
    return translated(value, translate) if kind is None else id_in(kind, value, translate)


def id_in(kind: Kind, value: bytes, translate: Translate) -> bytes:
    """Return the translated value of a field that holds an id, or several.

    If the value is an object, its own fields are translated.
    """
    if value[:1] == b"[":
        ids = [id_in(kind, bytes(each), translate) for each in _list_decoder.decode(value)]
        return b"[" + b",".join(ids) + b"]"
    if value[:1] == b"{":
        return translated(value, translate)
    return value if value == b"null" else translate(kind, value)


# ── up ────────────────────────────────────────────────────────────────────────────────────────────


def request_id(client: ClientId, value: bytes, requests: list[Request]) -> bytes | IdClaim:
    """Return the id of one of the client's ``requests`` as it stands upstream.

    An id that is none of the client's requests becomes one that no request upstream has, returned
    as a claim: the app-server answers as it does for an unknown id. A value that can be no id is
    returned as it is, for the app-server to refuse.
    """
    if not _ID.fullmatch(value):
        return value
    id = _plainly(value)
    for request in reversed(requests):
        if _plainly(request.origin) == id:
            return request.wire_text
    return IdClaim("", str(id), f"{client}:{id}", "")


def _plainly(id: bytes) -> str | int:
    """Return a request's id without its spelling: ``"a"`` may be written with escapes."""
    return msgspec.json.decode(id, type=str | int)


def own_id(client: ClientId, value: bytes) -> IdClaim:
    """Return a claim on a thing of the client's, with its id as it stands upstream."""
    text = jsonrpc.read_text(value)
    origin = value.decode() if text is None else text
    return IdClaim("", origin, f"{client}:{origin}", "")


def in_wire_terms(
    client: ClientId, rule: RequestRule, params: bytes, requests: list[Request], *, deeply: bool
) -> tuple[bytes, IdClaim | None, tuple[IdClaim, ...]]:
    """Translate the ids of the client's own, recognised by the names of their fields.

    Returns ``params`` in wire terms, a claim on the first thing that they name, and all ids
    that stand otherwise upstream. ``requests``: all of the client's. ``deeply``: the method
    isn't in the table, so fields below the params' own are translated, too.
    """
    claims: list[IdClaim] = []
    named: list[IdClaim] = []

    def translate(kind: Kind, value: bytes) -> bytes:
        if kind is Kind.REQUEST:
            id = request_id(client, value, requests)
            if isinstance(id, bytes):
                return id
        else:
            id = own_id(client, value)
            claims.append(id)
        named.append(id)
        return msgspec.json.encode(id.wire)

    fields = jsonrpc.read_fields(params) or {}
    anew: dict[str, bytes] = {}
    for name, value in fields.items():
        kind = None if rule.accounts_for(name) else kind_of(name)
        if kind is not None:
            anew[name] = id_in(kind, value, translate)
        elif deeply and not rule.accounts_for(name):
            anew[name] = translated(value, translate)
    if all(fields[name] == value for name, value in anew.items()):
        return params, None, ()
    others = tuple(dict.fromkeys(named))
    return jsonrpc.write(fields | anew), next(iter(claims), None), others


# ── down ──────────────────────────────────────────────────────────────────────────────────────────


class Owned(msgspec.Struct, frozen=True):
    """A message that names ids of a client."""

    owner: ClientId | None
    """The client; None if the ids are nobody's, or several clients'."""
    line: bytes
    """The message in the owner's terms."""


def owned(
    line: bytes,
    upstream: Mapping[int, Request],
    over: Collection[int] = frozenset(),
    *,
    deeply: bool,
) -> Owned | None:
    """Return whose a message of the app-server is by the ids that it names; None if it names none.

    ``upstream``: the requests that wait for their answer, by wire id. ``over``: the ids of requests
    answered a few lines ago; they are nobody's. ``deeply``: the method isn't in the table, so an id
    that we have given counts wherever it stands.
    """
    owners: set[ClientId | None] = set()

    def read_back(kind: Kind, value: bytes) -> bytes:
        owner, origin = _owner(kind, value, upstream)
        owners.add(owner)
        return origin

    def read_back_ours(kind: Kind, value: bytes) -> bytes:
        is_over = kind is Kind.REQUEST and value.isdigit() and int(value) in over
        ours = is_over or _is_ours(kind, value, upstream)
        return read_back(kind, value) if ours else value

    fields = jsonrpc.read_fields(line) or {}
    text = fields.get("params", b"null")
    params = jsonrpc.read_fields(text)
    if params is not None:
        for name, value in params.items():
            if (kind := kind_of(name)) is not None:
                params[name] = id_in(kind, value, read_back)
            elif deeply:
                params[name] = translated(value, read_back_ours)
        text = jsonrpc.write(params) if owners else text
    elif deeply:
        text = translated(text, read_back_ours)
    if not owners:
        return None
    owner = owners.pop() if len(owners) == 1 else None
    return Owned(owner, jsonrpc.write(fields | {"params": text}))


def _owner(
    kind: Kind, value: bytes, upstream: Mapping[int, Request]
) -> tuple[ClientId | None, bytes]:
    if kind is Kind.REQUEST:
        request = upstream.get(int(value)) if value.isdigit() else None
        return (None, value) if request is None else (request.client, request.origin)
    client, colon, origin = (jsonrpc.read_text(value) or "").partition(":")
    if not colon or not (client.isascii() and client.isdecimal()):
        return None, value
    return int(client), msgspec.json.encode(origin)


def _is_ours(kind: Kind, value: bytes, upstream: Mapping[int, Request]) -> bool:
    """Return whether we have given the id.

    Such an id counts even if its client has left, or is the broker.
    """
    if kind is Kind.REQUEST:
        return value.isdigit() and int(value) in upstream
    return _owner(kind, value, upstream)[0] is not None


_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
