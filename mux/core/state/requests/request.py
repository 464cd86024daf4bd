"""Requests on their way upstream: wire id, asker, the asker's own id, and start.

A ``Request`` is made when a client (or the broker itself) asks, waits in ``scheduler`` for its
turn, and is forgotten at its one answer. Its client may leave before that. The answer then reaches
nobody, but what the request began upstream is still ended (``Broker`` checks ``client is None``).
"""

from __future__ import annotations

import msgspec

from mux.core.extension.inbox import InboxParams
from mux.core.policy.principal import ClientId, Owner
from mux.core.protocol.rules import RequestRule
from mux.core.state.requests.scoped_ids import IdClaim
from mux.core.state.requests.sent_messages import MessageKey


class Recorded(msgspec.Struct, frozen=True):
    """The part that all audit records about a request have in common."""

    topic: str
    """``turn`` or ``admin``."""
    fields: dict[str, object]


class Request(msgspec.Struct, eq=False):
    """A request. Moments are on the broker's clock."""

    wire: int
    method: str
    rule: RequestRule
    client: ClientId | None
    """The asker; None for the broker's own requests and for those whose asker left."""
    account: ClientId
    """The client (or stand-in for one) whose slot it takes in ``scheduler``."""
    origin: bytes
    """The asker's id for it, as JSON text."""
    line: bytes
    """The message that is written upstream."""
    since: float
    thread: str | None = None
    claim: IdClaim | None = None
    named: tuple[IdClaim, ...] = ()
    """Ids of its client that it names, recognised by the names of their fields (see
    ``id_fields``)."""
    actor: Owner | None = None
    """The client that asked for what begins a turn; it may have left when the turn begins."""
    params: bytes = b""
    upstream_since: float = 0.0
    """When it went upstream."""
    deadline: float = float("inf")
    """When it is given up, set when it goes upstream. The deadline is infinite for a request that
    waits for something outside, and for one that loads a thread for a client."""
    has_slot: bool = True
    """True if it counts among its client's requests in flight."""
    overdue: bool = False
    """True if a planned restart waits for it no longer; its client may still wait."""
    attempts: int = 0
    expired: bool = False
    unwanted: bool = False
    """True if its client has unsubscribed, before the answer, from the thread that it joins."""
    notifies_steered: bool = False
    """True if the answer says if the turn became a steer."""
    noticed: bool = False
    """True if it has been taken for the cause of a notice that names no request."""
    history_field: str = ""
    """The param by which it asks for all turns of a thread along with it; empty if it doesn't."""
    large: bool = False
    """True if its answer may be of any size (see ``scheduler``)."""
    inbox: InboxParams | None = None
    """The page of the inbox that is made of its answer, if one is."""
    sent: MessageKey | None = None
    """Its key in ``sent_messages``, if it carries a message id."""
    recorded: Recorded | None = None
    """The basis of its audit records; set and, at the end, cleared by ``audit_events``."""

    @property
    def runs_alone(self) -> bool:
        """Return whether it is carried out even if its client left before it went upstream.

        As natively, a turn is. A thing that would end with its client isn't begun, and a request
        that only reads isn't sent.
        """
        return self.rule.begins and self.claim is None

    @property
    def wire_text(self) -> bytes:
        """Return the wire id as it stands in the app-server's answer."""
        return b"%d" % self.wire
