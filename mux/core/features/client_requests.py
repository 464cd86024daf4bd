"""Requests going up, and their answers coming down to whoever asked.

The way of a request: ``ask`` rewrites what is the client's own in it (its id, ids of its things),
``scheduler`` lets it wait for its turn, ``pump`` sends it. Its answer is looked up by wire id in
``broker``, and ``settle``\\ d there. Overload is met by asking again, silence by an error.

Heard from: ``broker`` and its other parts (``ask_for_broker``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import attrs
import msgspec

from mux.core import audit_events
from mux.core.features.deduplication import Deduplicator
from mux.core.features.turn_interrupts import INTERRUPT, is_late
from mux.core.policy.principal import ClientId
from mux.core.policy.scopes import SCOPES
from mux.core.protocol import jsonrpc
from mux.core.protocol.jsonrpc import ClientMessage
from mux.core.protocol.methods import RequestRule, Route, request_rule
from mux.core.state import id_fields
from mux.core.state.app_server import AppServerState
from mux.core.state.client import Client
from mux.core.state.request import Request
from mux.core.state.scheduler import BROKER, DEPARTED, QUEUE
from mux.core.state.scoped_ids import IdClaim
from mux.core.state.state import State
from mux.core.state.turn_queues import QueuedTurn

UNSUBSCRIBE = "thread/unsubscribe"
TURN_START = "turn/start"

ANSWERED_LATELY = 32
"""Requests: a notice that comes behind its answer is a few lines behind it."""

REMEMBERED_BYTES = 64 * 1024
"""Of each of these: a picture that somebody sent needn't stay until 32 others are answered. What is
looked for in them, how a thread was asked for, is short."""


@attrs.define(eq=False, repr=False)
class ClientRequests:
    """Requests of clients and of the broker itself.

    ``answered_lately``: the latest that may still be the cause of something. ``here``: those whose
    turn has come and which are dealt with here (``replay``). ``_wire``: the last wire id given.
    """

    state: State
    deduplicator: Deduplicator
    answered_lately: deque[Request] = attrs.field(factory=lambda: deque(maxlen=ANSWERED_LATELY))
    here: list[Request] = attrs.field(factory=list)
    _wire: int = 0

    def ask(self, client: Client, message: ClientMessage, rule: RequestRule) -> None:
        """A client's request, all the way."""
        self.submit(self.request(client, message, rule))

    def request(self, client: Client, message: ClientMessage, rule: RequestRule) -> Request:
        """A client's request as it goes upstream: with its id, and ids of its things, rewritten.

        Raises ``BadMessageError`` for an id that is too long to be kept.
        """
        state = self.state
        params, claim = message.params, None
        named: tuple[IdClaim, ...] = ()
        if rule.own_id is not None:
            params, claim = state.scoped_ids.rewrite(client.id, rule.own_id, params)
        unseen = message.method not in SCOPES
        if unseen or rule.names_request or id_fields.any_in(message.named):
            params, own, named = self._in_wire_terms(client.id, rule, params, deeply=unseen)
            claim = claim or own
        self._wire += 1
        fields = message.fields | {"id": b"%d" % self._wire}
        if "params" in fields:
            fields["params"] = params
        request = Request(
            wire=self._wire,
            method=message.method,
            rule=rule,
            client=client.id,
            account=client.id,
            origin=message.id,
            line=jsonrpc.write(fields),
            since=state.now,
            claim=claim,
            named=named,
        )
        if rule.route in (Route.FOLLOW, Route.UNFOLLOW) or rule.begins:
            request.thread = message.thread
        if rule.route is Route.FOLLOW:
            request.params = params
        if rule.begins:
            request.by = client.owner()
        request.large = rule.large or asks_for_history(request)
        return request

    def submit(self, request: Request) -> None:
        """Queue it; or refuse it, its client's queue being full."""
        if self.state.scheduler.submit(request):
            self.joins(request, 1)
            self.state.wake_at(self.state.now + self.state.limits.coming_up)
            self.pump()
            if self.state.scheduler.is_to_be_slowed(request.account):
                self.state.stop_reading(request.account)
        else:
            self.refuse(request)

    def refuse(self, request: Request) -> None:
        """Too much is queued already: answer as the app-server does."""
        self.drop(request)
        if request.client is not None:
            text = "Server overloaded; retry later."
            self.state.error(request.client, request.origin, jsonrpc.OVERLOADED, text)

    def drop(self, request: Request) -> None:
        """It won't be answered from upstream: what it began here is undone."""
        if request.claim is not None and request.client is not None:
            self.state.scoped_ids.release(request.client, request.claim)
        self.deduplicator.settled(request, _NEVER_SENT)
        audit_events.lost(self.state, request)

    def remember(self, request: Request) -> None:
        """It has been answered, and may still be the cause of something, if not of ours."""
        if request.account == BROKER:
            return
        if len(request.line) > REMEMBERED_BYTES:
            request = attrs.evolve(request, line=b"", params=b"")
        self.answered_lately.append(request)

    def _in_wire_terms(
        self, client: ClientId, rule: RequestRule, params: bytes, *, deeply: bool
    ) -> tuple[bytes, IdClaim | None, tuple[IdClaim, ...]]:
        """``params`` with the ids of the client's own, told by their names; the first thing that
        they name; and all the ids that stand otherwise upstream.

        ``deeply``: nobody has looked at the method yet, so below the params' own fields, too.
        """
        claims: list[IdClaim] = []
        named: list[IdClaim] = []

        def in_wire_terms(kind: id_fields.Kind, value: bytes) -> bytes:
            if kind is id_fields.Kind.REQUEST:
                id = id_fields.request_id(client, value, self.state.scheduler.of(client))
                if isinstance(id, bytes):
                    return id
            else:
                id = id_fields.own_id(client, value)
                claims.append(id)
            named.append(id)
            return msgspec.json.encode(id.wire)

        fields = jsonrpc.read_fields(params) or {}
        anew: dict[str, bytes] = {}
        for name, value in fields.items():
            kind = None if rule.accounts_for(name) else id_fields.kind_of(name)
            if kind is not None:
                anew[name] = id_fields.id_in(kind, value, in_wire_terms)
            elif deeply and not rule.accounts_for(name):
                anew[name] = id_fields.translated(value, in_wire_terms)
        if all(fields[name] == value for name, value in anew.items()):
            return params, None, ()
        others = tuple(dict.fromkeys(named))
        return jsonrpc.write(fields | anew), next(iter(claims), None), others

    def load(self, thread: str, settings: dict[str, bytes]) -> Request:
        """Have the app-server load a thread for us; ``settings`` as JSON texts."""
        kept = {name: msgspec.Raw(text) for name, text in settings.items()}
        params = {**kept, "threadId": thread, "excludeTurns": True}
        return self.ask_for_broker("thread/resume", params)

    def give_back(self, thread: str) -> Request:
        """Give the subscription to a thread back, unless somebody wants it before that is sent."""
        return self.ask_for_broker(UNSUBSCRIBE, {"threadId": thread}, thread=thread)

    def ask_for_broker(
        self,
        method: str,
        params: object,
        rule: RequestRule | None = None,
        thread: str | None = None,
        claim: IdClaim | None = None,
    ) -> Request:
        """Ask something of the broker's own."""
        self._wire += 1
        request = Request(
            wire=self._wire,
            method=method,
            rule=rule or request_rule(method),
            client=None,
            account=BROKER,
            origin=b"",
            line=jsonrpc.request(self._wire, method, params),
            since=self.state.now,
            thread=thread,
            claim=claim,
        )
        self.state.scheduler.submit(request)
        self.pump()
        return request

    def queued_turn(self, thread: str, turn: QueuedTurn) -> Request:
        """The ``turn/start`` of a turn whose time has come, to be submitted."""
        self._wire += 1
        request = Request(
            wire=self._wire,
            method=TURN_START,
            rule=request_rule(TURN_START),
            client=None,
            account=QUEUE,
            origin=b"",
            line=jsonrpc.request(self._wire, TURN_START, msgspec.Raw(turn.params)),
            since=self.state.now,
            thread=thread,
            by=turn.owner,
        )
        audit_events.dequeued(self.state, request, turn)
        return request

    def joins(self, request: Request, change: int) -> None:
        """Count requests under way that will follow a thread, or run it: it isn't let go then."""
        if request.thread is None:
            return
        if request.rule.route is Route.FOLLOW:
            self.state.threads.joining[request.thread] += change
        if request.rule.begins:
            self.state.threads.beginning[request.thread] += change
        if change < 0:
            self.state.release_candidates.add(request.thread)

    def askers_of_old_ways(self, notice: bytes) -> set[ClientId]:
        """Who gets the notice that a way of asking is an old one: it names no request.

        The oldest in flight that may have caused it and hasn't had one: its method begins the
        notice, or it asks for a thread's whole history by the field that the notice names. Else one
        that was answered a moment ago, since the notice may come behind the answer; else all that
        have a request in flight.
        """
        flying = [each for each in self.state.scheduler.upstream.values() if each.client]
        for request in (*flying, *self.answered_lately):
            begins = b'"summary":"%s ' % request.method.encode() in notice
            if not request.noticed and (begins or asks_for_history(request, notice)):
                request.noticed = True
                return {request.account}
        return {each.account for each in flying}

    def pump(self) -> None:
        """Send upstream what may go now."""
        state = self.state
        if not (state.scheduler.anybody_waits and state.appserver.runs):
            return
        ready = state.appserver.state is AppServerState.READY
        for request in state.scheduler.due(state.now, only=None if ready else BROKER):
            if request.rule.route is Route.REPLAY:
                state.scheduler.answered(request)
                self.here.append(request)
            elif not self._overtaken(request):
                state.forward(request.line, request.method)
                state.wake_at(request.deadline)
                if request.rule.loads:
                    state.wake_at(state.now + state.limits.loading_slot)
        state.wake_at(state.scheduler.held_until)

    def _overtaken(self, request: Request) -> bool:
        """Whether what happened since it was made leaves no sense in sending it.

        It would take from somebody a thread that nobody had then; begin again, for a client that
        has left, what was its own; or interrupt a turn that is over.
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
            thread.subscribed = True  # it never was given back
        self.state.release_candidates.add(request.thread)
        self.state.scheduler.answered(request)
        return True

    # ── answers that aren't the answer ────────────────────────────────────────────────────────

    def asks_again(self, request: Request, error: bytes) -> bool:
        """Whether the request was refused for overload and will be sent again."""
        if _code(error) != jsonrpc.OVERLOADED or request.expired:
            return False
        at = self.state.scheduler.retry(request, self.state.now)
        if at is None:
            return False
        self.state.log("debug", "overloaded, sent again later", method=request.method)
        self.state.wake_at(at)
        return True

    def retry(self) -> Iterator[Request]:
        """Send again what waited long enough; yields those that nobody wants any more."""
        for request in self.state.scheduler.retries(self.state.now):
            if request.account == DEPARTED:
                yield request
            elif not self._overtaken(request):
                self.state.forward(request.line, request.method)

    def expire(self) -> list[Request]:
        """Answer those that waited too long with an error; returns those of no client."""
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
        """The app-server, or what it was to become, is gone with it."""
        self.drop(request)
        if not request.expired:  # one that expired has had its error
            self.joins(request, -1)
            self.fail(request, jsonrpc.APP_SERVER_GONE, text)

    def fail(self, request: Request, code: int, text: str) -> None:
        """Answer a client's request with an error of ours, saying whether to ask again is safe."""
        if request.client is not None:
            generation = self.state.appserver.generation
            told = {"generation": generation, "retryable": request.rule.reads}
            self.state.error(request.client, request.origin, code, text, told)


_NEVER_SENT = (
    b'{"error":{"code":-32010,"message":"it was lost with the app-server; send it again"}}'
)


_TURNS_BY = {
    "thread/resume": "excludeTurns",
    "thread/fork": "excludeTurns",
    "thread/read": "includeTurns",
}
"""The field by which all turns of a thread are asked for, or not."""


class _ErrorCode(msgspec.Struct):
    code: int


def asks_for_history(request: Request, notice: bytes | None = None) -> bool:
    """Whether it asks for all turns of a thread along with the thread.

    With a ``notice``: and does so by the field that this names.
    """
    field = _TURNS_BY.get(request.method)
    if field is None or not (notice is None or field.encode() in notice):
        return False
    line = jsonrpc.read_fields(request.line) or {}
    params = jsonrpc.read_fields(line.get("params", b"null")) or {}
    return (params.get(field) == b"true") is (field == "includeTurns")


def _code(error: bytes) -> int | None:
    try:
        return _code_decoder.decode(error).code
    except msgspec.DecodeError:
        return None


_code_decoder = msgspec.json.Decoder(_ErrorCode)
