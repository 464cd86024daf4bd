"""``mux/approvals/decided``: what became of a server request, and by whom.

It is journaled among the thread's messages, right before the request's end, for followers that know
the broker: so who comes back hears it, and ``digest`` can tell it later. What somebody answered to
a question isn't in it.

Used by ``server_requests`` and ``resolutions``.
"""

from __future__ import annotations

from typing import Final

from mux.core.audit import audit_approvals, audit_events
from mux.core.extension.approvals import Decided, Decider
from mux.core.features.approvals.approval_view import View, view
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.rules import OfferTo
from mux.core.state.clients.client import DECIDED, Client
from mux.core.state.requests.pending_requests import Outcome, ServerRequest
from mux.core.state.state import State
from mux.core.state.threads.cards import one_line

BY_NOTICE: Final[ClientId] = 0
"""Stands for no client: the answer came from a lock screen."""

ABSTAINED: Final = Outcome("none", "abstained")


def of_answer(client: Client, result: bytes) -> Outcome:
    """Return the outcome of a client's answer that decides."""
    named = audit_events.actor_of(client)
    name = named["name"] if isinstance(named["name"], str) else None
    if client.id == BY_NOTICE:
        decider = Decider(None, None, client.principal.name)
        return Outcome(audit_approvals.decision(result), "notice", decider)
    decider = Decider(client.id, name, client.principal.name)
    return Outcome(audit_approvals.decision(result), "client", decider)


def of_votes(request: ServerRequest, result: bytes) -> Outcome:
    """Return the outcome of votes that had to wait: by whoever voted last."""
    votes = list(request.ballot.votes.values())
    last = votes[-1] if votes else None
    decider = None
    if last is not None:
        name, principal = last.actor.get("name"), last.actor.get("principal")
        decider = Decider(last.client, name if isinstance(name, str) else None, str(principal))
    return Outcome(audit_approvals.decision(result), "votes", decider)


def notify(state: State, request: ServerRequest) -> None:
    """Notify the followers of the request's thread of what became of it."""
    thread = request.thread
    of_people = request.rule.offer_to is OfferTo.FOLLOWERS
    if thread is None or not (of_people and request.rule.shown):
        return  # it isn't for everybody that follows the thread
    shown, outcome = view(state, request), request.outcome
    decided = Decided(
        id=request.id,
        threadId=thread,
        turnId=shown.turn,
        itemId=shown.item,
        method=request.method,
        about=about(shown),
        decision=outcome.decision,
        by=outcome.by,
        how=outcome.how,
        waitedSeconds=round(state.now - request.since, 3),
    )
    state.publish(thread, DECIDED, jsonrpc.notification(DECIDED, decided))


def about(shown: View) -> str:
    """Return what a request is about, in one line."""
    if shown.command:
        return one_line(shown.command)
    if shown.files:
        more = f" and {len(shown.files) - 1} more" if len(shown.files) > 1 else ""
        return one_line(f"{shown.files[0].path}{more}")
    return one_line(shown.text or shown.reason or "")
