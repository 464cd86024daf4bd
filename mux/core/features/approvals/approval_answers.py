"""Answers to approvals that come another way than under the id of an offer.

A client with the scope answers by ``mux/approvals/answer``, whether it was offered the request or
not; a device answers on its lock screen, by a notice. The rules are those for any answer
(``server_requests``). Whoever answers so is told what became of it.

Used by ``client_messages`` and ``broker``.
"""

from __future__ import annotations

import msgspec

from mux.core.audit import audit_approvals
from mux.core.commands import NoticeAnswerJudged
from mux.core.features.approvals.outcomes import BY_NOTICE
from mux.core.features.approvals.server_requests import ServerRequests
from mux.core.part import Part
from mux.core.policy.principal import ClientId, Principal
from mux.core.protocol.answers import fault, plain
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.rules import OfferTo
from mux.core.state.clients.client import Client, ClientInfo
from mux.core.state.requests.pending_requests import ServerRequest
from mux.core.state.state import State


class ApprovalAnswers(Part):
    """Judges the answers, and hands on those that count."""

    state: State
    server_requests: ServerRequests

    def from_client(self, client: Client, message: ClientMessage) -> None:
        """Handle ``mux/approvals/answer`` of a client with the scope, offered the request or not.

        The same rules hold as for other answers. This client also gets a result that says what
        became of its answer.
        """
        fields = jsonrpc.read_fields(message.params) or {}
        request = self.state.pending_requests.get(fields.get("id", b""))
        result = fields.get("result", b"null")
        wrong = self._why_not(client, request, result)
        if request is None or wrong is not None:
            code = jsonrpc.INVALID_REQUEST
            self.state.error(client.id, message.id, code, wrong or "no such approval")
            return
        self.server_requests.cast(request, client, result)
        outcome = {
            "id": request.id,
            "method": request.method,
            "threadId": request.thread,
            "decided": request.answered,
            "waitsFor": None
            if request.answered
            else self.server_requests.voting.waits_for(request),
        }
        self.state.answer(client.id, jsonrpc.result(message.id, outcome), message.method)

    def from_notice(self, id: int, principal: Principal, peer: str, *, yes: bool) -> None:
        """Handle an answer that a device gives on its lock screen, by the rules for any client."""
        state, request = self.state, self.state.pending_requests.get(b"%d" % id)
        if request is None or request.answered:
            state.out.append(NoticeAnswerJudged("over", self._why_over(request)))
            return
        client = _behind_notice(principal, peer, state.now)
        result = msgspec.json.encode(plain(request.method, request.offer, yes=yes))
        wrong = self._why_not(client, request, result)
        if request.rule.scope not in principal.scopes:
            wrong = "this device may not approve"
        if wrong is not None:
            audit_approvals.answer_refused(state, request, client, "approve")
            state.out.append(NoticeAnswerJudged("refused", wrong))
            return
        request.by_notice = principal.name
        decided = self.server_requests.cast(request, client, result)
        waits_for = "" if decided else self.server_requests.voting.waits_for(request)
        state.out.append(NoticeAnswerJudged("decided" if decided else "counted", waits_for))

    def _why_over(self, request: ServerRequest | None) -> str:
        if request is None:
            return "it was withdrawn, or answered a while ago"
        return f"answered already, by {self._named(request.answered_by)}"

    def _why_not(self, client: Client, request: ServerRequest | None, result: bytes) -> str | None:
        """Return why the answer doesn't count; None if it does."""
        if request is None:
            return "no such approval is pending: it was withdrawn, or answered a while ago"
        if request.answered:
            return f"answered already, by {self._named(request.answered_by)}"
        if request.rule.offer_to is not OfferTo.FOLLOWERS:
            return f"`{request.method}` is answered by a program, not by a person"
        if request.rule.scope not in client.principal.scopes:
            return f"it needs the scope `{request.rule.scope}`"
        if not client.declared(request.needs):
            return f"it needs a client that declares the capability `{request.needs}`"
        wrong = fault(request.method, request.offer, result)
        if wrong is not None:
            return f"`result` doesn't answer `{request.method}`: {wrong}"
        return self.server_requests.voting.refuses(request, client, result)

    def _named(self, id: ClientId | None) -> str:
        if id == BY_NOTICE:
            return "a device, from a notice"
        client = self.state.clients.get(id or 0)
        if client is None:
            return "one that has left" if id is not None else "the broker"
        name = client.info.name if client.info is not None else "unnamed"
        return f"{name} ({client.principal.name}, client {client.id})"


def _behind_notice(principal: Principal, peer: str, now: float) -> Client:
    """Return whoever answers by a notice, as a client that isn't attached."""
    client = Client(BY_NOTICE, principal, "notice", peer, since=now)
    client.info = ClientInfo("from a notice", "")
    return client
