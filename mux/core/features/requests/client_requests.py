"""Requests going up, and their answers coming down to whoever asked.

The way of a request: ``ask`` rewrites the ids in it that are the client's own (the request's, and
those of its things), ``scheduler`` lets it wait for its turn, ``pump`` sends it. ``ResponseRouter``
finds the request of an answer by the wire id, and settles it. An overloaded app-server is asked
again; a request that stays unanswered gets an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from mux.core.audit import audit_events
from mux.core.features.requests.deduplication import Deduplicator
from mux.core.features.requests.deprecation_notices import history_field
from mux.core.features.requests.turn_interrupts import INTERRUPT, is_late
from mux.core.part import Part
from mux.core.policy.scopes import SCOPES
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage
from mux.core.protocol.methods import request_rule
from mux.core.protocol.rules import RequestRule, Route
from mux.core.state.app_server import AppServerState
from mux.core.state.clients.client import Client
from mux.core.state.requests import id_fields
from mux.core.state.requests.request import Request
from mux.core.state.requests.scheduler import BROKER, DEPARTED, QUEUE
from mux.core.state.requests.scoped_ids import IdClaim
from mux.core.state.state import State
from mux.core.state.turns.turn_queues import QueuedTurn

UNSUBSCRIBE = "thread/unsubscribe"
TURN_START = "turn/start"

ANSWERED_LATELY = 32
"""Wire ids remembered after their answer: what comes behind an answer is a few lines behind."""

STARTS = frozenset({"thread/start", "thread/fork"})
"""Methods that make a thread, which is there whoever gets the answer."""


class ClientRequests(Part):
    """Requests of clients and of the broker itself."""

    state: State
    deduplicator: Deduplicator
    wires_lately: deque[int] = msgspec.field(default_factory=lambda: deque(maxlen=ANSWERED_LATELY))
    """Wire ids of the requests answered last, the broker's own included: they are nobody's."""
    here: list[Request] = msgspec.field(default_factory=list)
    """Requests whose turn has come and which the broker carries out itself (``replay``)."""

    def ask(self, client: Client, message: ClientMessage, rule: RequestRule) -> None:
        """Rewrite a client's request and submit it."""
        self.submit(self.request(client, message, rule))

    def request(self, client: Client, message: ClientMessage, rule: RequestRule) -> Request:
        """Return a client's request as it goes upstream, with its ids rewritten.

        These are the request's own id, and ids of the client's things. Raises ``BadMessageError``
        for an id that is too long to be stored.
        """
        state = self.state
        params, claim = message.params, None
        named: tuple[IdClaim, ...] = ()
        if rule.own_id is not None:
            params, claim = state.scoped_ids.rewrite(client.id, rule.own_id, params)
        unseen = message.method not in SCOPES
        if unseen or rule.names_request or id_fields.any_in(message.named):
            params, own, named = id_fields.in_wire_terms(
                client.id, rule, params, state.scheduler.of(client.id), deeply=unseen
            )
            claim = claim or own
        wire = self._next_wire()
        if message.around is not None and params is message.params:
            line = b"%b%d%b" % (message.around[0], wire, message.around[1])
        else:
            fields = message.fields | {"id": b"%d" % wire}
            if "params" in fields:
                fields["params"] = params
            line = jsonrpc.write(fields)
        request = Request(
            wire=wire,
            method=message.method,
            rule=rule,
            client=client.id,
            account=client.id,
            origin=message.id,
            line=line,
            since=state.now,
            claim=claim,
            named=named,
        )
        if rule.route in (Route.FOLLOW, Route.UNFOLLOW) or rule.begins:
            request.thread = message.thread
        if rule.route is Route.FOLLOW:
            request.params = params
        if rule.begins:
            request.actor = client.owner()
        request.history_field = history_field(message)
        request.large = rule.large or bool(request.history_field)
        return request

    def _next_wire(self) -> int:
        self.state.last_wire += 1
        self.state.durable.uses_wire(self.state.last_wire)
        return self.state.last_wire

    def number_wires_after(self, wire: int) -> None:
        """Use no wire id up to this one: an earlier broker did."""
        self.state.last_wire = wire
        self.state.durable.uses_wire(wire)

    def restore(self, request: Request) -> None:
        """Restore a request that an earlier broker has sent upstream."""
        self.state.scheduler.restore(request, self.state.now)
        self.joins(request, 1)
        self.state.wake_at(request.deadline)

    def ask_instead(
        self, client: Client, message: ClientMessage, method: str, params: object
    ) -> Request:
        """Return a request that answers a client's, in its turn among that client's others."""
        wire = self._next_wire()
        return Request(
            wire=wire,
            method=method,
            rule=request_rule(method),
            client=client.id,
            account=client.id,
            origin=message.id,
            line=jsonrpc.request(wire, method, params),
            since=self.state.now,
        )

    def submit(self, request: Request) -> None:
        """Send the request, or queue it; refuse it if its client's queue is full."""
        state = self.state
        if state.appserver.state is AppServerState.READY and state.scheduler.send_at_once(
            request, state.now
        ):
            self.joins(request, 1)
            self._send(request)
        elif state.scheduler.submit(request):
            self.joins(request, 1)
            state.wake_at(state.now + state.limits.coming_up)
            self.pump()
            if state.scheduler.is_to_be_slowed(request.account):
                state.stop_reading(request.account)
        else:
            self.refuse(request)

    def refuse(self, request: Request) -> None:
        """Refuse a request in the app-server's words for overload: too much is queued already."""
        self.drop(request)
        if request.client is not None:
            text = "Server overloaded; retry later."
            self.state.error(request.client, request.origin, jsonrpc.OVERLOADED, text)

    def drop(self, request: Request) -> None:
        """Undo what this request reserved; the app-server will not answer it."""
        if request.claim is not None and request.client is not None:
            self.state.scoped_ids.release(request.client, request.claim)
        self.deduplicator.settled(request, _NEVER_SENT)
        audit_events.lost(self.state, request)

    def answered(self, request: Request) -> None:
        """Remove an answered request from those upstream."""
        self.state.scheduler.answered(request)
        if request.rule.begins or request.method in STARTS:
            self.state.durable.touch("wire", str(request.wire))
        self.wires_lately.append(request.wire)

    def load(self, thread: str, settings: dict[str, bytes]) -> Request:
        """Have the app-server load a thread for the broker; ``settings`` as JSON texts."""
        fields = {name: msgspec.Raw(text) for name, text in settings.items()}
        params = {**fields, "threadId": thread, "excludeTurns": True}
        return self.ask_for_broker("thread/resume", params)

    def give_back(self, thread: str) -> Request:
        """Give the subscription to a thread back.

        If a client wants the thread before that is sent, it isn't sent.
        """
        return self.ask_for_broker(UNSUBSCRIBE, {"threadId": thread}, thread=thread)

    def ask_for_broker(
        self,
        method: str,
        params: object,
        rule: RequestRule | None = None,
        thread: str | None = None,
        claim: IdClaim | None = None,
    ) -> Request:
        """Submit a request of the broker's own."""
        wire = self._next_wire()
        request = Request(
            wire=wire,
            method=method,
            rule=rule or request_rule(method),
            client=None,
            account=BROKER,
            origin=b"",
            line=jsonrpc.request(wire, method, params),
            since=self.state.now,
            thread=thread,
            claim=claim,
        )
        self.state.scheduler.submit(request)
        self.pump()
        return request

    def queued_turn(self, thread: str, turn: QueuedTurn) -> Request:
        """Return the ``turn/start`` of a queued turn whose time has come, to be submitted."""
        wire = self._next_wire()
        request = Request(
            wire=wire,
            method=TURN_START,
            rule=request_rule(TURN_START),
            client=None,
            account=QUEUE,
            origin=b"",
            line=jsonrpc.request(wire, TURN_START, msgspec.Raw(turn.params)),
            since=self.state.now,
            thread=thread,
            actor=turn.owner,
        )
        audit_events.dequeued(self.state, request, turn)
        return request

    def joins(self, request: Request, change: int) -> None:
        """Count a request under way that will follow or run its thread, which is held meanwhile.

        ``change`` is 1 when the request is submitted, -1 when it is settled.
        """
        if request.thread is None:
            return
        if request.rule.route is Route.FOLLOW:
            self.state.threads.joining[request.thread] += change
        if request.rule.begins:
            self.state.threads.beginning[request.thread] += change
        if change < 0:
            self.state.release_candidates.add(request.thread)

    def on_timer(self) -> float:
        """Send the requests whose turn it is by now; returns when something is due again."""
        self.pump()
        return self.state.scheduler.next_moment()

    def pump(self) -> None:
        """Send upstream the requests whose turn it is."""
        state = self.state
        if not (state.scheduler.anybody_waits and state.appserver.runs):
            return
        ready = state.appserver.state is AppServerState.READY
        for request in state.scheduler.due(state.now, only=None if ready else BROKER):
            self._send(request)
        state.wake_at(state.scheduler.held_until)

    def _send(self, request: Request) -> None:
        """Send a request whose turn it is upstream, or have it carried out here."""
        state = self.state
        if request.rule.route is Route.REPLAY:
            state.scheduler.answered(request)
            self.here.append(request)
        elif not self._overtaken(request):
            if request.rule.begins or request.method in STARTS:
                state.durable.touch("wire", str(request.wire))
            state.forward(request.line, request.method)
            state.wake_at(request.deadline)
            if request.rule.loads:
                state.wake_at(state.now + state.limits.loading_slot)

    def _overtaken(self, request: Request) -> bool:
        """Return whether a request needn't be sent any more; it has been settled then.

        It would take a thread from somebody, though nobody had it when the request was made; or
        begin a thing again for a client that has left; or interrupt a turn that is over.
        """
        if request.method == INTERRUPT:
            late = is_late(self.state, request)
            if late:
                self.state.scheduler.answered(request)
            return late
        if request.account == BROKER and request.claim is not None:
            gone = not self.state.scoped_ids.is_held(request.claim)
            if gone:
                self.state.scheduler.answered(request)
            return gone
        if request.method != UNSUBSCRIBE or request.thread is None:
            return False
        thread = self.state.threads.known.get(request.thread)
        own = request.account == BROKER
        joining = self.state.threads.joining[request.thread]
        if not joining and (
            thread is None or not (thread.subscribed or (own and self.state.is_held(thread)))
        ):
            return False
        if request.client is not None:
            answer = jsonrpc.result(request.origin, {"status": "notSubscribed"})
            self.state.answer(request.client, answer, request.method)
        elif own and thread is not None:
            thread.subscribed = True  # the subscription was never given back
        self.state.release_candidates.add(request.thread)
        self.state.scheduler.answered(request)
        return True

    # ── overload, deadlines, loss ─────────────────────────────────────────────────────────────

    def asks_again(self, request: Request, error: bytes) -> bool:
        """Return whether the request was refused for overload and will be sent again."""
        if _code(error) != jsonrpc.OVERLOADED or request.expired or not request.line:
            return False
        at = self.state.scheduler.retry(request, self.state.now)
        if at is None:
            return False
        self.state.log("debug", "overloaded, sent again later", method=request.method)
        self.state.wake_at(at)
        return True

    def retry(self) -> Iterator[Request]:
        """Send again the requests that waited long enough; yields those whose client has left."""
        for request in self.state.scheduler.retries(self.state.now):
            if request.account == DEPARTED:
                yield request
            elif not self._overtaken(request):
                self.state.forward(request.line, request.method)

    def expire(self) -> list[Request]:
        """Answer requests past their deadline with an error.

        Returns the expired requests of no client: the broker's own, and queued turns.
        """
        state, seconds = self.state, self.state.limits.request_deadline
        state.scheduler.give_back(state.now)
        expired = list(state.scheduler.expire(state.now))
        for request in expired:
            self.joins(request, -1)
            state.log("warning", "no answer from the app-server in time", method=request.method)
            text = f"the app-server did not answer `{request.method}` within {seconds:g} s"
            self.fail(request, jsonrpc.DEADLINE_PASSED, text)
        return [request for request in expired if request.account in (BROKER, QUEUE)]

    def lost(self, request: Request, text: str) -> None:
        """Fail a request that is lost with the app-server, or with its thread."""
        self.drop(request)
        if not request.expired:  # an expired request has had its error
            self.joins(request, -1)
            self.fail(request, jsonrpc.APP_SERVER_GONE, text)

    def fail(self, request: Request, code: int, text: str) -> None:
        """Answer a client's request with our error, which says whether asking again is safe."""
        if request.client is not None:
            generation = self.state.appserver.generation
            error_data = {"generation": generation, "retryable": request.rule.reads}
            self.state.error(request.client, request.origin, code, text, error_data)


_NEVER_SENT = (
    b'{"error":{"code":-32010,"message":"it was lost with the app-server; send it again"}}'
)


class _ErrorCode(msgspec.Struct):
    code: int


def _code(error: bytes) -> int | None:
    try:
        return _code_decoder.decode(error).code
    except msgspec.DecodeError:
        return None


_code_decoder = msgspec.json.Decoder(_ErrorCode)
