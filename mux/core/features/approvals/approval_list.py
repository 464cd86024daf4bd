"""``mux/approvals/list``: the approvals and questions that wait for a person's answer."""

from __future__ import annotations

import msgspec

from mux.core.extension.approvals import ListParams
from mux.core.features.approvals.approval_items import item_about, params_of
from mux.core.features.approvals.approval_view import root_of, view
from mux.core.features.approvals.voting import Voting
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.rules import OfferTo
from mux.core.state.clients.client import Client
from mux.core.state.requests.pending_requests import ServerRequest
from mux.core.state.state import State


def list_for(state: State, voting: Voting, client: Client, message: ClientMessage) -> None:
    """Answer the request with what waits, oldest first; or with the one that it names."""
    try:
        params = _params_decoder.decode(message.params) or ListParams()
    except msgspec.DecodeError as wrong:
        text = f"`{message.method}`: {wrong}"
        state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
        return
    waiting = [
        _shown(state, voting, request)
        for request in state.pending_requests.pending()
        if request.rule.offer_to is OfferTo.FOLLOWERS
        and not request.answered
        and request.rule.is_for(client.principal.scopes)
        and params.id in (None, request.id)
    ]
    answer = jsonrpc.result(message.id, {"approvals": waiting})
    state.answer(client.id, answer, message.method)


def _shown(state: State, voting: Voting, request: ServerRequest) -> dict[str, object]:
    clients = state.clients
    judged, root = view(state, request, diffs=True), root_of(state, request.thread)
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
        "title": root.name if root is not None else "",
        "directory": root.directory if root is not None else "",
        "rootThreadId": root.id if root is not None else request.thread,
        "turnId": judged.turn,
        "itemId": judged.item,
        "reason": judged.reason,
        "command": judged.command,
        "cwd": judged.cwd,
        "files": judged.files,
        "risks": judged.risks,
        "choices": judged.choices,
        "text": judged.text,
    }


_params_decoder = msgspec.json.Decoder(ListParams | None)
