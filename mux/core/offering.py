"""Server requests going down, and the answers to them going up.

The rules stand in ``approvals``; here they are carried out. To whom a request is offered depends on
its row in THE TABLE: to all followers of its thread, to the client that registered the tool, or to
one client after another.

Heard from: ``broker``; and ``following``, when somebody joins a thread.
"""

from __future__ import annotations

import attrs
import msgspec

from mux.core import jsonrpc, tools
from mux.core.answers import fault
from mux.core.approvals import RESOLVED, ServerRequest
from mux.core.client import Client
from mux.core.events import ClientId
from mux.core.jsonrpc import ClientMessage, UpstreamMessage
from mux.core.methods import Asked, server_request_rule
from mux.core.state import NEVER, State

REFUSED = "mux/refused"
"""Tells a client that its answer to a server request didn't count, and why."""


@attrs.define(eq=False)
class Offering:
    """Offers, answers, resolutions."""

    state: State

    # ── down ──────────────────────────────────────────────────────────────────────────────────

    def asked(self, line: bytes, message: UpstreamMessage) -> None:
        """The app-server asks something."""
        state, upstream, method = self.state, bytes(message.id), message.method or ""
        if state.approvals.is_repetition(upstream):
            return
        rule = server_request_rule(method)
        id = state.approvals.take_id()
        request = ServerRequest(
            id=id,
            upstream=upstream,
            method=method,
            thread=message.thread,
            rule=rule,
            offer=jsonrpc.with_id(line, upstream, b"%d" % id),
            since=state.now,
            needs=rule.needs if _applies(rule.only_if, line) else "",
        )
        state.approvals.add(request)
        if rule.asked is Asked.FOLLOWERS:
            self._offer(request, self._followers(request))
        elif rule.asked is Asked.TOOL_OWNER:
            self._offer_to_tool_owner(request, line)
        else:
            request.next_ones = list(self._followers(request))
            self.offer_to_next(request)

    def _followers(self, request: ServerRequest) -> tuple[ClientId, ...]:
        return self.state.threads.audience(request.thread)

    def offer_pending(self, client: Client, thread: str) -> None:
        """The client has joined the thread: what waits for somebody's word is offered to it."""
        for request in list(self.state.approvals.pending(thread)):
            if request.rule.asked is Asked.FOLLOWERS or not request.offered:
                self._offer(request, (client.id,))

    def _offer(self, request: ServerRequest, recipients: tuple[ClientId, ...]) -> None:
        """Offer it to those that can answer it and haven't been offered it."""
        clients = self.state.clients
        able = tuple(
            id
            for id in recipients
            if id not in request.offered and clients[id].declared(request.needs)
        )
        if request.answered:
            return
        first = not request.journaled
        request.journaled = True
        request.offered.update(dict.fromkeys(able))
        if first:
            self.state.publish_to(able, request.thread, request.method, request.offer)
        else:
            for id in able:
                self.state.send(id, request.offer, request.method)

    def _offer_to_tool_owner(self, request: ServerRequest, line: bytes) -> None:
        call = tools.read_call(line)
        owner = self.state.tools.owner(request.thread, call) if call is not None else None
        if call is None or owner is None:
            # Registered before this broker's life: somebody among the followers may know it.
            self._offer(request, self._followers(request))
            return
        taker = self.state.clients.get(owner.client) or self._stand_in(request, owner)
        if taker is not None:
            self._offer(request, (taker.id,))
        else:
            text = f"The client that provides the tool `{call.tool}` is no longer attached."
            self._answer_for_broker(request, tools.unavailable(text))

    def _stand_in(self, request: ServerRequest, owner: tools.Owner) -> Client | None:
        """A follower that is the same program of the same principal: the owner, come back."""
        for id in self._followers(request):
            if self.state.clients[id].resembles(owner.program, owner.principal):
                return self.state.clients[id]
        return None

    def offer_to_next(self, request: ServerRequest) -> None:
        """Put a request to the next client that can answer it; none left: an error goes up."""
        state = self.state
        while request.next_ones:
            id = request.next_ones.pop(0)
            if id in state.clients and state.clients[id].declared(request.needs):
                request.present = id
                request.deadline = state.now + state.limits.one_client_deadline
                state.arm(request.deadline)
                self._offer(request, (id,))
                return
        self._give_up_on(request, "no attached client could answer it")

    # ── up ────────────────────────────────────────────────────────────────────────────────────

    def client_answered(self, client: Client, message: ClientMessage) -> None:
        """A client answers: the first valid answer wins, and nothing else changes anything."""
        request = self.state.approvals.offered_to(client.id, message.id)
        if request is None:
            # Late, double, unknown: natively ignored, and nothing that the client did wrong.
            self.state.log("debug", "answer that changes nothing", client=client.id)
            return
        if message.kind == "error":
            wrong: str | None = "answered with an error"
        else:
            wrong = fault(request.method, request.offer, message.fields["result"])
        if request.rule.asked is Asked.FOLLOWERS and "approve" not in client.principal.scopes:
            self._refuse(request, client)
        elif wrong is None:
            self._answer(request, client.id, {"result": message.fields["result"]})
        else:
            self._abstains(request, client, wrong)

    def _refuse(self, request: ServerRequest, client: Client) -> None:
        """An answer from one that may not give it is none, and it is told so."""
        params = {
            "requestId": request.id,
            "needs": "approve",
            "has": sorted(client.principal.scopes),
        }
        self.state.send(client.id, jsonrpc.notification(REFUSED, params), REFUSED)
        self.state.log("warning", "answer refused", client=client.id, method=request.method)

    def _answer(
        self, request: ServerRequest, by: ClientId | None, answer: dict[str, bytes]
    ) -> None:
        request.answered, request.answered_by, request.deadline = True, by, NEVER
        line = jsonrpc.write({"id": request.upstream} | answer)
        self.state.forward(line, request.method)
        if request.thread is None or request.rule.asked is Asked.TOOL_OWNER:
            self.state.approvals.resolve(request.upstream)  # of these no `resolved` comes

    def _abstains(self, request: ServerRequest, client: Client, why: str) -> None:
        log = self.state.log
        log("warning", "client abstains", client=client.id, method=request.method, why=why)
        request.abstained.add(client.id)
        if request.rule.asked is Asked.ONE_AFTER_ANOTHER:
            if request.present == client.id:
                self.offer_to_next(request)
        elif request.abstained.issuperset(self._able(request)):
            self._give_up_on(request, f"every client that it was offered to abstained ({why})")

    def _able(self, request: ServerRequest) -> set[ClientId]:
        """Those that were offered it and may answer; who only watches doesn't count."""
        clients = self.state.clients
        if request.rule.asked is not Asked.FOLLOWERS:
            return set(request.offered)
        return {id for id in request.offered if "approve" in clients[id].principal.scopes}

    def _give_up_on(self, request: ServerRequest, why: str) -> None:
        if request.rule.asked is Asked.TOOL_OWNER:
            text = f"The client that provides this tool could not run it: {why}."
            self._answer_for_broker(request, tools.unavailable(text))
            return
        text = f"{request.method}: {why}"
        error = msgspec.json.encode({"code": jsonrpc.INTERNAL_ERROR, "message": text})
        self._answer(request, None, {"error": error})

    def _answer_for_broker(self, request: ServerRequest, value: dict[str, object]) -> None:
        self._answer(request, None, {"result": msgspec.json.encode(value)})

    # ── ends ──────────────────────────────────────────────────────────────────────────────────

    def client_left(self, client: Client) -> None:
        """A person's answer is waited for, whoever leaves; a machine's isn't."""
        for request in list(self.state.approvals.pending()):
            if client.id in request.offered:
                del request.offered[client.id]
                self._asked_one_left(request, client)

    def _asked_one_left(self, request: ServerRequest, client: Client) -> None:
        if request.answered:
            return
        if request.rule.asked is Asked.ONE_AFTER_ANOTHER:
            if request.present == client.id:
                self.offer_to_next(request)
        elif request.rule.asked is Asked.TOOL_OWNER and not request.offered:
            name = client.info.name if client.info is not None else ""
            text = f"The client that provides this tool (`{name}`) left before it answered."
            self._answer_for_broker(request, tools.unavailable(text))

    def resolved(self, line: bytes) -> str | None:
        """The app-server is done with one; returns the thread that it was of."""
        fields = jsonrpc.read_fields(line) or {}
        params = jsonrpc.read_fields(fields.get("params", b"")) or {}
        request = self.state.approvals.resolve(params.get("requestId", b""))
        if request is None:
            return None
        own = jsonrpc.write(params | {"requestId": b"%d" % request.id})
        self._tell_resolved(request, jsonrpc.write(fields | {"params": own}))
        return request.thread

    def _tell_resolved(self, request: ServerRequest, message: bytes) -> None:
        clients = self.state.clients
        told = tuple(id for id in request.offered if RESOLVED not in clients[id].opted_out)
        self.state.publish_to(told, request.thread, RESOLVED, message)

    def resolve_all(self) -> None:
        """The app-server is gone, and its requests with it: nobody is to go on showing them."""
        for request in self.state.approvals.clear():
            if request.thread is not None and request.rule.asked is not Asked.TOOL_OWNER:
                params = {"threadId": request.thread, "requestId": request.id}
                self._tell_resolved(request, jsonrpc.notification(RESOLVED, params))

    def turn_over(self, thread: str) -> None:
        """Tool calls end with their turn: the app-server doesn't say so of each."""
        for request in list(self.state.approvals.pending(thread)):
            if request.rule.asked is Asked.TOOL_OWNER:
                self.state.approvals.resolve(request.upstream)

    def thread_closed(self, thread: str) -> None:
        """Nothing of it can be answered any more."""
        for request in list(self.state.approvals.pending(thread)):
            self.state.approvals.resolve(request.upstream)

    def unfollowed(self, client: Client, thread: str) -> None:
        """Natively it hears no ``resolved`` then; and it may join again and be offered it anew."""
        for request in self.state.approvals.pending(thread):
            if request.rule.asked is Asked.FOLLOWERS:
                request.offered.pop(client.id, None)


def _applies(only_if: tuple[str, str] | None, line: bytes) -> bool:
    if only_if is None:
        return True
    field, value = only_if
    params = jsonrpc.read_fields((jsonrpc.read_fields(line) or {}).get("params", b"")) or {}
    return jsonrpc.read_text(params.get(field)) == value
