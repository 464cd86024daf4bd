"""``mux/approvals/list``: the approvals and questions that wait for a person's answer.

``server_requests`` and the notices use the helpers, to see what a request is about.
"""

from __future__ import annotations

import msgspec

from mux.core.features.voting import Voting
from mux.core.protocol import jsonrpc
from mux.core.protocol.jsonrpc import ClientMessage
from mux.core.protocol.methods import OfferTo
from mux.core.state.client import Client
from mux.core.state.pending_requests import ServerRequest
from mux.core.state.state import State

LONGEST_ITEM = 256 * 1024
"""Bytes of an item that is listed with its approval: nobody reads more of a change in a list."""


def list_for(state: State, voting: Voting, client: Client, message: ClientMessage) -> None:
    """Answer the request with what waits, oldest first."""
    waiting = [
        _shown(state, voting, request)
        for request in state.pending_requests.pending()
        if request.rule.offer_to is OfferTo.FOLLOWERS
        and not request.answered
        and request.rule.is_for(client.principal.scopes)
    ]
    answer = jsonrpc.result(message.id, {"approvals": waiting})
    state.answer(client.id, answer, message.method)


def _shown(state: State, voting: Voting, request: ServerRequest) -> dict[str, object]:
    clients = state.clients
    return {
        "id": request.id,
        "method": request.method,
        "threadId": request.thread,
        "ageSeconds": round(state.now - request.since, 3),
        "needs": request.needs or None,
        **voting.to_json(request),
        "params": msgspec.Raw(params_of(request)),
        "item": msgspec.Raw(item_about(state, request)),
        "offeredTo": [
            {"id": id, "name": info.name if (info := clients[id].info) is not None else None}
            for id in request.offered
        ],
    }


def item_about(state: State, request: ServerRequest) -> bytes:
    """Return the item that a request is about, as it began: an approval of files doesn't name them.

    ``null`` if there is none, or it is longer than ``LONGEST_ITEM``.
    """
    id = jsonrpc.read_text((jsonrpc.read_fields(params_of(request)) or {}).get("itemId"))
    thread = state.threads.known.get(request.thread or "")
    item = thread.running.items.get(id or "") if thread is not None else None
    if item is None or len(item.started) > LONGEST_ITEM:
        return b"null"
    return (jsonrpc.read_fields(params_in(item.started)) or {}).get("item", b"null")


def params_of(request: ServerRequest) -> bytes:
    """Return a request's params, as JSON text."""
    return params_in(request.offer)


def params_in(line: bytes) -> bytes:
    """Return a message's params, as JSON text."""
    return (jsonrpc.read_fields(line) or {}).get("params", b"null")
