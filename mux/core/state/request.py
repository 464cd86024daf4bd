"""Requests on their way upstream: the wire id, who asked, under which id, and since when.

A ``Request`` is made when a client (or the broker itself) asks, waits in ``scheduler`` for its
turn, and is forgotten at its one answer. Its client may leave before that; the answer then reaches
nobody, but what it began upstream is still ended (``broker`` looks at ``client is None``).
"""

from __future__ import annotations

import attrs
import msgspec

from mux.core.policy.principal import ClientId, Owner
from mux.core.protocol.methods import RequestRule
from mux.core.state.scoped_ids import IdClaim


class Recorded(msgspec.Struct, frozen=True):
    """What every audit record about a request says of it. ``topic``: ``turn`` or ``admin``."""

    topic: str
    fields: dict[str, object]


@attrs.define(eq=False, repr=False)
class Request:
    """One request. ``origin`` is the asker's id as JSON text, ``line`` what is written upstream.

    ``client`` is None for the broker's own requests and for those whose asker left; ``account`` is
    whom its slot is counted for in ``flow``.
    ``named``: the ids of its client that it names, told by what their fields are called.
    ``noticed``: it has been taken for the cause of a notice that names no request.
    ``notifies_steered``: its asker is told whether its turn became a steer.
    ``by``: who asked for what begins a turn; it may have left when that begins.
    ``unwanted``: its client has unsubscribed from what it joins, before the answer.
    ``large``: its answer may be of any size (see ``flow``).
    ``sent``: see ``sent.Sent``. ``recorded``: see ``audit_events``, which clears it at the end.
    ``upstream_since`` and ``deadline`` are on the broker's clock, set when it goes upstream; the
    deadline is infinite for one that waits, or loads a thread for a client. ``has_slot``: it counts
    among its client's; ``overdue``: it is waited for no longer, but by its client.
    """

    wire: int
    method: str
    rule: RequestRule
    client: ClientId | None
    account: ClientId
    origin: bytes
    line: bytes
    since: float
    thread: str | None = None
    claim: IdClaim | None = None
    named: tuple[IdClaim, ...] = ()
    by: Owner | None = None
    params: bytes = b""
    upstream_since: float = 0.0
    deadline: float = float("inf")
    has_slot: bool = True
    overdue: bool = False
    attempts: int = 0
    expired: bool = False
    unwanted: bool = False
    notifies_steered: bool = False
    noticed: bool = False
    large: bool = False
    sent: tuple[tuple[str, str], str, str] | None = None
    recorded: Recorded | None = None

    @property
    def runs_alone(self) -> bool:
        """Whether it is still done when its client has left before it went upstream, as natively.

        A turn is; what would end with its client isn't begun, what only reads isn't asked.
        """
        return self.rule.begins and self.claim is None

    @property
    def wire_text(self) -> bytes:
        """The wire id as it stands in the app-server's answer."""
        return b"%d" % self.wire
