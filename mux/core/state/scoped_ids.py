"""Ids that belong to one client: watches, processes, searches, event streams.

Natively each connection has its own; behind the broker all clients share one connection. So an id
``w1`` of client 3 is written upstream as ``3:w1``, and read back by its first colon. Nothing has to
be remembered for that. What is remembered is what each client has running, to end it when the
client leaves.

Heard from: ``broker``. The table of such ids stands in ``methods``.
"""

from __future__ import annotations

import attrs
import msgspec

from mux.core.policy.principal import ClientId
from mux.core.protocol import jsonrpc, text_limits
from mux.core.protocol.jsonrpc import BadMessageError
from mux.core.protocol.methods import OwnId

NEVER_A_CLIENTS_OWN = "~"
"""Begins the ids that the broker makes up for a ``command/exec`` that came without one."""


class IdClaim(msgspec.Struct, frozen=True):
    """A thing of a client's that a request names. ``wire``: its id upstream.

    ``holds``: the request begins it, so it is the client's until released; ``runs``: the app-server
    has said so. ``params`` are those that begin it, as they go upstream. ``number``: tells one
    holding of an id from the next; a request that ends one has the number of the one it ends.
    """

    field: str
    origin: str
    wire: str
    ended_by: str
    params: bytes = b""
    holds: bool = False
    runs: bool = False
    number: int = 0


@attrs.define(eq=False, repr=False)
class ScopedIds:
    """What each client has running, by client and by wire id.

    There may be several holdings of one id: what is ended and begun again in one breath is held
    twice until the answers come. The last is the one that counts.
    """

    _running: dict[ClientId, dict[tuple[str, str], list[IdClaim]]] = attrs.field(factory=dict)
    _made_up: int = 0
    _numbers: int = 0
    _ending: set[int] = attrs.field(factory=set)

    def rewrite(
        self, client: ClientId, own_id: OwnId, params: bytes
    ) -> tuple[bytes, IdClaim | None]:
        """``params`` with the client's id turned into the wire's, and what that id names.

        Params of another shape come back as they are: the app-server's error tells what is wrong.
        Raises ``BadMessageError`` for an id that is too long to be kept.
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
            # A second start under a running id is the app-server's to refuse: it holds nothing.
            self._numbers += 1
            claim = msgspec.structs.replace(claim, holds=True, number=self._numbers)
            holdings = [*holdings, claim]
            self._running.setdefault(client, {})[claim.field, claim.wire] = holdings
        elif own_id.ends and held is not None:
            claim = msgspec.structs.replace(claim, number=held.number)
            self._ending.add(held.number)
        return claim

    def begun(self, client: ClientId, claim: IdClaim) -> None:
        """The app-server has begun it."""
        holdings = self._holdings(client, claim)
        for place, held in enumerate(holdings):
            if claim.holds and held.number == claim.number:
                holdings[place] = msgspec.structs.replace(held, runs=True)

    def release(self, client: ClientId, claim: IdClaim) -> None:
        """What it began never began, or has ended by itself; what it was to end wasn't ended."""
        if claim.holds:
            self.end(client, claim)
        else:
            self._ending.discard(claim.number)

    def end(self, client: ClientId, claim: IdClaim) -> None:
        """It has ended what it was to end."""
        self._ending.discard(claim.number)
        left = [held for held in self._holdings(client, claim) if held.number != claim.number]
        if left:
            self._running[client][claim.field, claim.wire] = left
        else:
            self.ended(client, claim.field, claim.origin)

    def is_held(self, claim: IdClaim) -> bool:
        """Whether what it stands for is still its client's."""
        client = int(claim.wire.partition(":")[0])
        return any(held.number == claim.number for held in self._holdings(client, claim))

    def _holdings(self, client: ClientId, claim: IdClaim) -> list[IdClaim]:
        return self._running.get(client, {}).get((claim.field, claim.wire), [])

    def ended(self, client: ClientId, field: str, origin: str) -> None:
        """The app-server says that it has ended by itself."""
        self._running.get(client, {}).pop((field, f"{client}:{origin}"), None)

    def running(self) -> list[tuple[ClientId, IdClaim]]:
        """All that runs, and whose it is."""
        return [
            (client, holdings[-1])
            for client, mine in self._running.items()
            for holdings in mine.values()
            if holdings[-1].runs
        ]

    def leave(self, client: ClientId) -> list[IdClaim]:
        """Forget the client; returns what it left running."""
        mine = self._running.pop(client, {})
        self._ending -= {held.number for holdings in mine.values() for held in holdings}
        return [holdings[-1] for holdings in mine.values()]


def _may_be_named(fields: dict[str, bytes], own: str) -> bool:
    """Whether a command came without an id, and may have one that its client doesn't know."""
    if fields.get(own, b"null") != b"null":
        return False
    # With these the app-server wants an id of the client's, and says so.
    return b"true" not in (
        fields.get(name) for name in ("tty", "streamStdin", "streamStdoutStderr")
    )


def unscope(line: bytes, field: str) -> tuple[ClientId, str, bytes] | None:
    """Read an app-server's notification back: the owner, its own id, and the line in its terms.

    None where the id is none of ours.
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
    """An error answer that quotes the wire id, quoting the client's own instead."""
    return line.replace(_inner(claim_wire), _inner(origin))


def _inner(text: str) -> bytes:
    return msgspec.json.encode(text)[1:-1]
