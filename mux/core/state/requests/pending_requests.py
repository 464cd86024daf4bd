"""Server requests that await an answer: approvals, questions, tool calls.

    OFFERED ──a valid answer──▶ ANSWERED ──serverRequest/resolved──▶ forgotten
       ├──all that were offered it abstained──▶ ANSWERED (an error went upstream)
       └──serverRequest/resolved (an interrupt, say)──▶ forgotten

For ``item/tool/call`` the app-server never sends ``resolved``: the request is forgotten when it is
answered, or with its turn.

A request is *offered* to the clients that may answer it, under an id of the broker's own: the
app-server counts its ids from 0 in each life, and an answer meant for a dead one must not reach the
next. The first valid answer wins and goes upstream, once. If a policy asks for more (see
``approval_policy``), the answer that fulfils the policy wins. By an error or a malformed result a
client *abstains*: that neither decides nor ends anything, unless nobody is left who could decide
otherwise. A client that leaves has not abstained, so with nobody attached a server request simply
waits.

An answered request is remembered until the app-server sends ``resolved``. A resume in between makes
the app-server send the request again, with the same id; the repetition is recognised and offered to
nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal

import msgspec

from mux.core.extension.approvals import Decider
from mux.core.part import Part
from mux.core.policy.approval_policy import Ballot, Policy
from mux.core.policy.principal import ClientId
from mux.core.protocol.rules import ServerRequestRule
from mux.core.state.durable import Durable

RESOLVED = "serverRequest/resolved"
"""The notification by which the app-server ends one of its own requests."""

LONGEST_ID = 19
"""Digits of an id: they fit into 64 bits."""

REMEMBERED_RESOLVED = 1024
"""Upstream ids remembered after their end, to recognise a repetition that was under way."""


class Outcome(msgspec.Struct, frozen=True):
    """The end of a request that people were asked."""

    decision: str = "withdrawn"
    how: Literal["client", "notice", "votes", "abstained", "withdrawn"] = "withdrawn"
    by: Decider | None = None


class ServerRequest(Part):
    """A request of the app-server."""

    id: int
    """Its id towards clients, given by the broker."""
    upstream: bytes
    """The app-server's id, as JSON text."""
    method: str
    thread: str | None
    rule: ServerRequestRule
    offer: bytes
    """The app-server's message under our id."""
    since: float
    needs: str = ""
    """The capability that a client must have declared to be offered the request."""
    turn: str | None = None
    """The turn that it belongs to, if it names one."""
    ballot: Ballot = msgspec.field(default_factory=lambda: Ballot(Policy(), 0.0))
    """The policy that applies, and the votes so far."""
    shown_at: dict[ClientId, float] = msgspec.field(default_factory=dict)
    """When each client was sent the request last, on the broker's clock."""
    asked_again: set[ClientId] = msgspec.field(default_factory=set)
    """Clients that were sent the request once more, when their yes didn't decide."""
    offered: dict[ClientId, None] = msgspec.field(default_factory=dict)
    """Clients that were offered it and are still attached."""
    abstained: set[ClientId] = msgspec.field(default_factory=set)
    awaits_return: bool = False
    """True if an earlier broker had offered it, and its client may come back."""
    journaled: bool = False
    """True if it has been published, even if to nobody."""
    answered: bool = False
    answered_by: ClientId | None = None
    by_notice: str = ""
    outcome: Outcome = msgspec.field(default_factory=Outcome)
    """What became of it, as clients are told."""
    present: ClientId | None = None
    """For a request that is offered to one client after another: the client that has it now."""
    next_ones: list[ClientId] = msgspec.field(default_factory=list)
    """For such a request: the clients that come after that."""
    deadline: float = float("inf")


class PendingRequests(Part):
    """The server requests of one app-server life."""

    next_id: int
    """The last id given. ``Broker`` sets the first."""
    durable: Durable = msgspec.field(default_factory=Durable)
    changes: int = 0
    """Counts the requests that came, were answered or went, and the changes of who was offered
    them."""
    _by_id: dict[int, ServerRequest] = msgspec.field(default_factory=dict)
    _by_upstream: dict[bytes, ServerRequest] = msgspec.field(default_factory=dict)
    _resolved: OrderedDict[bytes, None] = msgspec.field(default_factory=OrderedDict)

    def is_repetition(self, upstream: bytes) -> bool:
        """Return whether the app-server has sent this request before."""
        return upstream in self._by_upstream or upstream in self._resolved

    def take_id(self) -> int:
        """Return a new id of the broker's own."""
        self.next_id += 1
        return self.next_id

    def add(self, request: ServerRequest) -> None:
        """Register a request that the app-server has made."""
        self._by_id[request.id] = request
        self._by_upstream[request.upstream] = request
        self.durable.touch("request", str(request.id))
        self.changes += 1

    def offered_to(self, client: ClientId, id: bytes) -> ServerRequest | None:
        """Return the unanswered request that this client answers under ``id`` (JSON text).

        None for everything that an answer must not touch: unknown ids, requests never offered to
        this client, requests answered already.
        """
        request = self._by_id.get(int(id)) if id[:1] != b'"' else None
        if request is None or request.answered or client not in request.offered:
            return None
        return request

    def get(self, id: bytes) -> ServerRequest | None:
        """Return the request with this id of ours (JSON text), whoever was offered it."""
        return self._by_id.get(int(id)) if id.isdigit() and len(id) <= LONGEST_ID else None

    def resolve(self, upstream: bytes) -> ServerRequest | None:
        """Remove and return the request that the app-server has ended; None if it isn't known."""
        request = self._by_upstream.pop(upstream, None)
        if request is None:
            return None
        del self._by_id[request.id]
        self.durable.touch("request", str(request.id))
        self.changes += 1
        self._resolved[upstream] = None
        if len(self._resolved) > REMEMBERED_RESOLVED:
            self._resolved.popitem(last=False)
        return request

    def pending(self, thread: str | None = None) -> Iterator[ServerRequest]:
        """Yield the requests not resolved yet, oldest first; of one thread, or of all."""
        for request in self._by_id.values():
            if thread is None or request.thread == thread:
                yield request

    def has_pending(self, thread: str) -> bool:
        """Return whether a request of the thread awaits an answer."""
        return next(self.pending(thread), None) is not None

    def clear(self) -> list[ServerRequest]:
        """Forget all requests, which went with the app-server; returns them."""
        lost = list(self._by_id.values())
        self.changes += 1
        for request in lost:
            self.durable.touch("request", str(request.id))
        self._by_id.clear()
        self._by_upstream.clear()
        self._resolved.clear()
        return lost

    def next_moment(self, now: float) -> float:
        """Return the earliest deadline of a request.

        It ends the time that a single client has to answer, or that an owner has to answer alone.
        """
        moments = (
            request.deadline
            if request.answered
            else min(request.deadline, request.ballot.next_moment(now))
            for request in self._by_id.values()
        )
        return min(moments, default=float("inf"))
