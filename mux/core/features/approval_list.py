"""``mux/approvals/list``: the approvals and questions that wait for a person's answer."""

from __future__ import annotations

import msgspec

from mux.core.features.approval_items import item_about, params_of
from mux.core.features.voting import Voting
from mux.core.protocol import jsonrpc
from mux.core.protocol.jsonrpc import ClientMessage
from mux.core.protocol.methods import OfferTo
from mux.core.state.client import Client
from mux.core.state.pending_requests import ServerRequest
from mux.core.state.state import State


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
