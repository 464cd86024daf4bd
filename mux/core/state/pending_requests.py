"""Server requests that await an answer: approvals, questions, tool calls.

    OFFERED ──a valid answer──▶ ANSWERED ──serverRequest/resolved──▶ forgotten
       ├──all that were offered it abstained──▶ ANSWERED (an error went upstream)
       └──serverRequest/resolved (an interrupt, say)──▶ forgotten

For ``item/tool/call`` the app-server never says ``resolved``: it is forgotten when answered, or
with its turn.

*Offered* to those who may answer, under an id of the broker's own: the app-server counts its ids
from 0 in each life, and an answer meant for a dead one must not reach the next. The first valid
answer wins and goes upstream, once; where a policy asks for more (see ``approval_policy``), the
answer that fulfils it. An error or a malformed result is that client's abstaining: it neither
decides nor ends anything, unless nobody is left who could decide otherwise. A client that leaves
has not abstained, so with nobody attached a server request simply waits.

``answered`` is kept until the app-server says ``resolved``, because a resume in between makes it
send the request again, with the same id; such a repetition is recognised and offered to nobody.

Heard from: ``broker``, which turns verdicts into commands.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import attrs

from mux.core.policy.approval_policy import Ballot, Policy
from mux.core.policy.principal import ClientId
from mux.core.protocol.methods import ServerRequestRule

RESOLVED = "serverRequest/resolved"
"""The notification by which the app-server says that a request of its is over."""

LONGEST_ID = 19
"""Digits: they fit into 64 bits."""

REMEMBERED_RESOLVED = 1024
"""Upstream ids kept after their end, to recognise a repetition that was under way."""


@attrs.define(eq=False, repr=False)
class ServerRequest:
    """One request of the app-server. ``upstream``: its id there, as JSON text.

    ``needs``: the capability that a client must have declared to be offered it. ``turn``: the one
    that it belongs to, if it says so. ``ballot``: its policy, and the votes so far.
    ``offer`` is the app-server's message under our id. ``asked_again``: who was given it once more
    when its yes didn't decide. ``offered``: who has been given it and is still attached.
    ``journaled``: whether it has been published, if to nobody. ``present`` and ``next_ones``: who
    is asked now and then, for a request put to one after another.
    """

    id: int
    upstream: bytes
    method: str
    thread: str | None
    rule: ServerRequestRule
    offer: bytes
    since: float
    needs: str = ""
    turn: str | None = None
    ballot: Ballot = attrs.field(factory=lambda: Ballot(Policy(), 0.0))
    asked_again: set[ClientId] = attrs.field(factory=set)
    offered: dict[ClientId, None] = attrs.field(factory=dict)
    abstained: set[ClientId] = attrs.field(factory=set)
    journaled: bool = False
    answered: bool = False
    answered_by: ClientId | None = None
    by_notice: str = ""
    present: ClientId | None = None
    next_ones: list[ClientId] = attrs.field(factory=list)
    deadline: float = float("inf")


@attrs.define(eq=False, repr=False)
class PendingRequests:
    """The server requests of one app-server life. ``first_id``: see ``Broker``.

    ``changes`` counts those that came, were answered or went, and of who was offered them.
    """

    next_id: int
    changes: int = 0
    _by_id: dict[int, ServerRequest] = attrs.field(factory=dict)
    _by_upstream: dict[bytes, ServerRequest] = attrs.field(factory=dict)
    _resolved: OrderedDict[bytes, None] = attrs.field(factory=OrderedDict)

    def is_repetition(self, upstream: bytes) -> bool:
        """Whether the app-server has sent this request before."""
        return upstream in self._by_upstream or upstream in self._resolved

    def take_id(self) -> int:
        """A new id of the broker's own."""
        self.next_id += 1
        return self.next_id

    def add(self, request: ServerRequest) -> None:
        self._by_id[request.id] = request
        self._by_upstream[request.upstream] = request
        self.changes += 1

    def offered_to(self, client: ClientId, id: bytes) -> ServerRequest | None:
        """The unanswered request that this client answers under ``id`` (JSON text).

        None for everything that an answer must not touch: unknown ids, those never offered to this
        client, those answered already.
        """
        request = self._by_id.get(int(id)) if id[:1] != b'"' else None
        if request is None or request.answered or client not in request.offered:
            return None
        return request

    def get(self, id: bytes) -> ServerRequest | None:
        """The one under this id of ours (JSON text), whoever was offered it."""
        return self._by_id.get(int(id)) if id.isdigit() and len(id) <= LONGEST_ID else None

    def resolve(self, upstream: bytes) -> ServerRequest | None:
        """The app-server is done with it; None if it isn't known."""
        request = self._by_upstream.pop(upstream, None)
        if request is None:
            return None
        del self._by_id[request.id]
        self.changes += 1
        self._resolved[upstream] = None
        if len(self._resolved) > REMEMBERED_RESOLVED:
            self._resolved.popitem(last=False)
        return request

    def pending(self, thread: str | None = None) -> Iterator[ServerRequest]:
        """Those not resolved yet, oldest first; of one thread, or of all."""
        for request in self._by_id.values():
            if thread is None or request.thread == thread:
                yield request

    def has_pending(self, thread: str) -> bool:
        return next(self.pending(thread), None) is not None

    def clear(self) -> list[ServerRequest]:
        """The app-server is gone, and its requests with it."""
        lost = list(self._by_id.values())
        self.changes += 1
        self._by_id.clear()
        self._by_upstream.clear()
        self._resolved.clear()
        return lost

    def next_moment(self, now: float) -> float:
        """The earliest deadline of a request put to one client after another, or of an owner."""
        moments = (
            request.deadline
            if request.answered
            else min(request.deadline, request.ballot.next_moment(now))
            for request in self._by_id.values()
        )
        return min(moments, default=float("inf"))
