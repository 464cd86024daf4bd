"""The audit records of approvals: that one was asked for, who answered it, and what counted.

    approval/raised                       the app-server wants a person's decision
    approval/voted                        a yes that doesn't decide yet
    approval/answered                     the answer that counted
    approval/abstained  answer/refused    an answer that didn't count
    approval/given-up                     nobody was left who could answer
    approval/resolved  approval/withdrawn it is over: after an answer, or without one

``approval`` names the server request in each. Those that a program answers aren't recorded. The
records of everything else stand in ``audit_events``.
"""

from __future__ import annotations

import msgspec

from mux.core.audit.audit_events import NAME_CHARACTERS, actor_of, content, gets_record
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.rules import OfferTo
from mux.core.state.clients.client import Client
from mux.core.state.requests.pending_requests import ServerRequest
from mux.core.state.state import State


def _is_approval(request: ServerRequest) -> bool:
    """Return whether a person answers the request: answers of programs aren't recorded.

    Such are the results of tools, and tokens.
    """
    return request.rule.offer_to is OfferTo.FOLLOWERS


def _which(request: ServerRequest) -> dict[str, object]:
    return {"approval": request.id, "method": request.method, "thread": request.thread}


def raised(state: State, request: ServerRequest, params: bytes) -> None:
    """Record that the app-server asks for a person's decision."""
    if _is_approval(request):
        named = _read_offer(params)
        fields = {"item": named.itemId, "turn": named.turnId, "asks": named.kind or named.mode}
        fields["policy"] = str(request.ballot.policy)
        state.record("approval/raised", **_which(request), **fields, **content(state, params))


def turn_named(params: bytes) -> str | None:
    """Return the turn that a server request belongs to."""
    return _read_offer(params).turnId


def approved(
    state: State, request: ServerRequest, actor: dict[str, object] | None, result: bytes
) -> None:
    """Record the answer that counts.

    ``actor`` gave it; None where earlier votes have come to count.
    """
    if _is_approval(request):
        fields: dict[str, object] = {
            "decision": decision(result),
            "after": round(state.now - request.since, 3),
            "policy": str(request.ballot.policy),
        }
        votes = request.ballot.votes.values()
        if votes:
            fields["votes"] = [{"by": v.actor, "decision": decision(v.result)} for v in votes]
        answer = content(state, result)
        state.record("approval/answered", by=actor, **_which(request), **fields, **answer)


def voted(
    state: State,
    request: ServerRequest,
    client: Client,
    result: bytes,
    waits_for: str,
    *,
    machine: bool,
) -> None:
    """Record a yes that doesn't decide yet, and what it waits for. ``machine``: a program's own."""
    fields: dict[str, object] = {
        "decision": decision(result), "policy": str(request.ballot.policy), "machine": machine
    }  # fmt: skip
    answer = content(state, result)
    state.record(
        "approval/voted",
        by=actor_of(client),
        **_which(request),
        **fields,
        waitsFor=waits_for,
        **answer,
    )


def abstained(state: State, request: ServerRequest, client: Client, reason: str) -> None:
    """Record an answer that counts as none: an error, or malformed."""
    if _is_approval(request) and client.id not in request.abstained:
        reason = reason[:NAME_CHARACTERS]
        state.record("approval/abstained", by=actor_of(client), **_which(request), why=reason)


def answer_refused(state: State, request: ServerRequest, client: Client, needs: str) -> None:
    """Record an answer of a client whose scopes don't allow it."""
    if gets_record(state, client):
        state.record("answer/refused", by=actor_of(client), **_which(request), needs=needs)


def given_up(state: State, request: ServerRequest, reason: str) -> None:
    """Record that nobody is left who could answer, so the app-server gets an error."""
    if _is_approval(request):
        reason = reason[: 2 * NAME_CHARACTERS]
        state.record("approval/given-up", **_which(request), why=reason)


def over(state: State, request: ServerRequest) -> None:
    """Record that a server request has ended, with an answer or without one."""
    if _is_approval(request):
        kind = "approval/resolved" if request.answered else "approval/withdrawn"
        state.record(kind, **_which(request))


def decision(result: bytes) -> str:
    """Return what an answer decides, in one word of the app-server's own."""
    fields = jsonrpc.read_fields(result) or {}
    for name in ("decision", "action"):
        value = fields.get(name, b"")
        word = jsonrpc.read_text(value) or next(iter(jsonrpc.read_fields(value) or {}), None)
        if word is not None:
            return word[:NAME_CHARACTERS]
    if "permissions" in fields:
        granted = jsonrpc.read_fields(fields["permissions"]) or {}
        given = [name for name, value in granted.items() if value != b"null"]
        return f"grant {', '.join(given)}"[:NAME_CHARACTERS] if given else "grant nothing"
    return "answered"


class _OfferParams(msgspec.Struct):
    itemId: str | None = None
    turnId: str | None = None
    kind: str | None = None
    mode: str | None = None


def _read_offer(params: bytes) -> _OfferParams:
    try:
        return _offer_decoder.decode(params)
    except msgspec.DecodeError:
        return _OfferParams()


_offer_decoder = msgspec.json.Decoder(_OfferParams)
