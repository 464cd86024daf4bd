"""Ids that belong to one client: watches, processes, searches, event streams.

Natively each connection has its own; behind the broker all clients share one connection. So an id
``w1`` of client 3 is written upstream as ``3:w1``, and read back by its first colon. Nothing has to
be remembered for that. The things that each client has running are remembered, to end them when the
client leaves.

The table of such ids stands in ``methods``.
"""

from __future__ import annotations

import msgspec

from mux.core.part import Part
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc, text_limits
from mux.core.protocol.envelope.jsonrpc import BadMessageError
from mux.core.protocol.rules import OwnId
from mux.core.state.durable import Durable

NEVER_A_CLIENTS_OWN = "~"
"""Begins the ids that the broker makes up for a ``command/exec`` that came without one."""


class IdClaim(msgspec.Struct, frozen=True):
    """A thing of a client's that a request names."""

    field: str
    """The field of the params that holds the id."""
    origin: str
    """The client's own id."""
    wire: str
    """Its id upstream."""
    ended_by: str
    """The method that ends the thing."""
    params: bytes = b""
    """The params that begin the thing, as they go upstream."""
    holds: bool = False
    """True if the request begins the thing, which is the client's until it is released."""
    runs: bool = False
    """True if the app-server has confirmed that the thing runs."""
    number: int = 0
    """Tells one holding of an id from the next. A request that ends a holding has the number of
    that one."""


class ScopedIds(Part):
    """The things that each client has running, by client and by wire id.

    There may be several holdings of one id: a thing that is ended and begun again at once is held
    twice until the answers come. The last holding is the one that counts.
    """

    durable: Durable = msgspec.field(default_factory=Durable)
    _running: dict[ClientId, dict[tuple[str, str], list[IdClaim]]] = msgspec.field(
        default_factory=dict
    )
    _made_up: int = 0
    _numbers: int = 0
    _ending: set[int] = msgspec.field(default_factory=set)

    def rewrite(
        self, client: ClientId, own_id: OwnId, params: bytes
    ) -> tuple[bytes, IdClaim | None]:
        """Return ``params`` with the client's id turned into the wire's, and a claim on the thing.

        Params of another shape come back unchanged: the app-server's error tells what is wrong.
        Raises ``BadMessageError`` for an id that is too long to be stored.
        """
        fields = jsonrpc.read_fields(params)
        origin = jsonrpc.read_text(fields.get(own_id.field)) if fields is not None else None
        if fields is not None and own_id.made_up and _may_be_named(fields, own_id.field):
            self._made_up += 1
            origin = f"{NEVER_A_CLIENTS_OWN}{self._made_up}"
        if fields is None or origin is None:
            return params, None
        if not text_limits.is_short(origin):
            text = f"`{own_id.field}` is {text_limits.TOO_LONG}"
            raise BadMessageError(jsonrpc.INVALID_REQUEST, text)
        wire = f"{client}:{origin}"
        fields[own_id.field] = msgspec.json.encode(wire)
        params = jsonrpc.write(fields)
        claim = IdClaim(own_id.field, origin, wire, own_id.ended_by, params)
        return params, self._hold(client, own_id, claim)

    def _hold(self, client: ClientId, own_id: OwnId, claim: IdClaim) -> IdClaim:
        holdings = self._holdings(client, claim)
        held = holdings[-1] if holdings else None
        if own_id.begins and (held is None or held.number in self._ending):
            # The app-server refuses a second start under a running id, so that one holds nothing.
            self._numbers += 1
            claim = msgspec.structs.replace(claim, holds=True, number=self._numbers)
            holdings = [*holdings, claim]
            self._running.setdefault(client, {})[claim.field, claim.wire] = holdings
            self.durable.touch("claim", _key(claim.field, claim.wire))
        elif own_id.ends and held is not None:
            claim = msgspec.structs.replace(claim, number=held.number)
            self._ending.add(held.number)
        return claim

    def begun(self, client: ClientId, claim: IdClaim) -> None:
        """Mark a thing as running: the app-server has begun it."""
        holdings = self._holdings(client, claim)
        for place, held in enumerate(holdings):
            if claim.holds and held.number == claim.number:
                holdings[place] = msgspec.structs.replace(held, runs=True)

    def release(self, client: ClientId, claim: IdClaim) -> None:
        """Undo a claim: its thing never began or has ended by itself, or wasn't ended as asked."""
        if claim.holds:
            self.end(client, claim)
        else:
            self._ending.discard(claim.number)

    def end(self, client: ClientId, claim: IdClaim) -> None:
        """Remove the holding that the claim's request has ended."""
        self._ending.discard(claim.number)
        left = [held for held in self._holdings(client, claim) if held.number != claim.number]
        if left:
            self._running[client][claim.field, claim.wire] = left
        else:
            self.ended(client, claim.field, claim.origin)

    def is_held(self, claim: IdClaim) -> bool:
        """Return whether the claimed thing is still its client's."""
        client = int(claim.wire.partition(":")[0])
        return any(held.number == claim.number for held in self._holdings(client, claim))

    def _holdings(self, client: ClientId, claim: IdClaim) -> list[IdClaim]:
        return self._running.get(client, {}).get((claim.field, claim.wire), [])

    def ended(self, client: ClientId, field: str, origin: str) -> None:
        """Forget a thing that has ended by itself, by the app-server's word."""
        self._running.get(client, {}).pop((field, f"{client}:{origin}"), None)
        self.durable.touch("claim", _key(field, f"{client}:{origin}"))

    def held_as(self, key: str) -> IdClaim | None:
        """Return the holding that is saved under this key; None if it has ended."""
        field, _, wire = key.partition("/")
        client = wire.partition(":")[0]
        holdings = self._running.get(int(client), {}).get((field, wire), [])
        return holdings[-1] if holdings else None

    def running(self) -> list[tuple[ClientId, IdClaim]]:
        """Return all that runs, with its client."""
        return [
            (client, holdings[-1])
            for client, mine in self._running.items()
            for holdings in mine.values()
            if holdings[-1].runs
        ]

    def leave(self, client: ClientId) -> list[IdClaim]:
        """Forget the client; returns what it left running."""
        mine = self._running.pop(client, {})
        for field, wire in mine:
            self.durable.touch("claim", _key(field, wire))
        self._ending -= {held.number for holdings in mine.values() for held in holdings}
        return [holdings[-1] for holdings in mine.values()]


def _key(field: str, wire: str) -> str:
    return f"{field}/{wire}"


def _may_be_named(fields: dict[str, bytes], own: str) -> bool:
    """Return whether a command without an id may get one that its client doesn't know."""
    if fields.get(own, b"null") != b"null":
        return False
    # With these fields the app-server requires an id of the client's, and its error says so.
    return b"true" not in (
        fields.get(name) for name in ("tty", "streamStdin", "streamStdoutStderr")
    )


def unscope(line: bytes, field: str) -> tuple[ClientId, str, bytes] | None:
    """Return the owner, its own id, and a notification of the app-server in the owner's terms.

    None if the id is none of ours.
    """
    fields = jsonrpc.read_fields(line)
    params = jsonrpc.read_fields(fields.get("params", b"null")) if fields is not None else None
    wire = jsonrpc.read_text(params.get(field)) if params is not None else None
    if fields is None or params is None or wire is None:
        return None
    owner, colon, origin = wire.partition(":")
    if not colon or not owner.isdecimal():
        return None
    params[field] = msgspec.json.encode(origin)
    fields["params"] = jsonrpc.write(params)
    return int(owner), origin, jsonrpc.write(fields)


def in_origin_terms(line: bytes, claim_wire: str, origin: str) -> bytes:
    """Return an error answer with the client's own id wherever it quotes the wire id."""
    return line.replace(_inner(claim_wire), _inner(origin))


def _inner(text: str) -> bytes:
    return msgspec.json.encode(text)[1:-1]
