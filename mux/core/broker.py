"""The broker: a pure function of state. ``Broker.handle(event, now) -> commands``.

Start reading at ``handle``: one short method per event, in the order in which a message meets
them. Everything that is decided, is decided here or in the state it owns:

    client        each client's handshake          appserver   the app-server's
    flow          requests going up                 approvals   server requests going down
    threads       who follows what                  scoped      ids that belong to one client
    tools         who registered which tool         methods     THE TABLE that routes by method

Heard from: ``dispatcher``, the only caller, which carries out the commands in order.
Nothing here awaits, reads a clock, or fails half-way: an event is handled whole.
"""

from __future__ import annotations

import attrs
import msgspec

from mux.core import appserver, jsonrpc, running, scoped, threads, tools
from mux.core import client as clients
from mux.core.answers import fault
from mux.core.approvals import Approvals, ServerRequest
from mux.core.client import Client
from mux.core.commands import Close, Command, Forward, GiveUp, Level, Log, Publish, Report
from mux.core.events import (
    ClientAttached,
    ClientId,
    ClientLeft,
    ClientSent,
    ClientSentBinary,
    Event,
    TimePassed,
    UpstreamExited,
    UpstreamSent,
    UpstreamStarted,
)
from mux.core.flow import BROKER, DEPARTED, Flow
from mux.core.jsonrpc import BadMessageError, ClientMessage, UpstreamMessage
from mux.core.limits import Limits
from mux.core.methods import (
    Asked,
    Audience,
    NotificationRule,
    RequestRule,
    Route,
    notification_rule,
    request_rule,
    server_request_rule,
)
from mux.core.requests import Request
from mux.core.threads import Thread, Threads, threads_named

NEVER = float("inf")

CLOSE_GOING_AWAY = 1001
CLOSE_INTERNAL = 1011

_NOBODYS = RequestRule()
_TURNING_POINTS = frozenset({"item/completed", "turn/completed", "thread/closed", "thread/deleted"})


@attrs.define(eq=False)
class Broker:
    """All shared state of the runtime, and every decision about it.

    ``first_id`` seeds the ids under which server requests are offered. The shell takes it from
    the clock, so that an answer kept by a client over a restart of the broker fits nothing.
    ``wakeup`` is when ``TimePassed`` is wanted, on the clock of ``now``; infinite for never.
    """

    limits: Limits
    introduction: appserver.Introduction
    first_id: int = 0
    wakeup: float = NEVER
    appserver: appserver.AppServer = attrs.field(factory=appserver.AppServer)
    clients: dict[ClientId, Client] = attrs.field(factory=dict)
    flow: Flow = attrs.field(init=False)
    threads: Threads = attrs.field(init=False)
    approvals: Approvals = attrs.field(init=False)
    scoped: scoped.Scoped = attrs.field(factory=scoped.Scoped)
    tools: tools.Tools = attrs.field(factory=tools.Tools)
    _wire: int = 0
    _now: float = 0.0
    _out: list[Command] = attrs.field(factory=list)
    _uninitialized: list[tuple[ClientId, ClientMessage]] = attrs.field(factory=list)
    _early: dict[str, list[tuple[str, bytes]]] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.flow = Flow(self.limits)
        self.threads = Threads(self.clients)
        self.approvals = Approvals(self.first_id)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in one event; returns what to do, in order. ``now``: seconds, never going back."""
        self._now = now
        self._out = out = list[Command]()
        match event:
            case UpstreamSent(line):
                self._upstream_sent(line)
            case ClientSent(client, text):
                self._client_sent(self.clients[client], text)
            case ClientSentBinary(client):
                self._refuse(
                    client, BadMessageError(jsonrpc.INVALID_REQUEST, "binary frame; send text")
                )
            case TimePassed():
                self._time_passed()
            case ClientAttached(client, principal, transport, peer):
                self.clients[client] = Client(client, principal, transport, peer, now)
            case ClientLeft(client):
                self._client_left(self.clients[client])
            case UpstreamStarted(generation):
                self._upstream_started(generation)
            case UpstreamExited(reason):
                self._upstream_exited(reason)
            case _:
                raise TypeError(f"no such event: {event!r}")
        return out

    # ── a client's message ────────────────────────────────────────────────────────────────────

    def _client_sent(self, client: Client, text: bytes) -> None:
        try:
            message = jsonrpc.read_client(text)
        except BadMessageError as bad:
            self._refuse(client.id, bad)
            return
        if message.kind == "request":
            self._client_asked(client, message)
        elif message.kind == "notification":
            self._client_notified(client, message)
        else:
            self._client_answered(client, message)

    def _refuse(self, client: ClientId, bad: BadMessageError) -> None:
        self._log("info", "message refused", client=client, why=str(bad))
        text = str(bad) if bad.code == jsonrpc.PARSE_ERROR else f"Invalid request: {bad}"
        self._error(client, bad.id, bad.code, text)

    def _client_asked(self, client: Client, message: ClientMessage) -> None:
        rule = request_rule(message.method)
        if rule.route is Route.STATUS:
            self._out.append(Report(client.id, message.id))
        elif rule.route is Route.INITIALIZE:
            self._client_initializes(client, message)
        elif client.state is clients.State.ATTACHED:
            self._error(client.id, message.id, jsonrpc.INVALID_REQUEST, "Not initialized")
        elif rule.route is Route.UNFOLLOW:
            self._client_unfollows(client, message, rule)
        else:
            self._ask(client, message, rule)

    def _client_notified(self, client: Client, message: ClientMessage) -> None:
        # `initialized` was said upstream once, by the broker. Others pass, unknown ones too: the
        # app-server ignores what it doesn't know.
        if client.state is clients.State.READY and message.method != "initialized":
            self._out.append(Forward(jsonrpc.write(message.fields), message.method))

    # ── handshake ─────────────────────────────────────────────────────────────────────────────

    def _client_initializes(self, client: Client, message: ClientMessage) -> None:
        if self.appserver.state is not appserver.State.READY:
            self._uninitialized.append((client.id, message))
            return
        try:
            params = msgspec.json.decode(message.params, type=clients.InitializeParams)
        except msgspec.ValidationError:
            # The app-server names what is wrong better than we could, and in its own words.
            self._ask(client, message, _NOBODYS)
            return
        if client.state is clients.State.READY:
            self._error(client.id, message.id, jsonrpc.INVALID_REQUEST, "Already initialized")
            return
        client.initialize(params)
        self.threads.audience_changed()
        self._send(
            client.id,
            jsonrpc.result(message.id, self.appserver.result_for(params.clientInfo)),
            message.method,
        )
        for method, lines in self.appserver.greetings.items():
            if method not in client.opted_out:
                for line in lines:
                    self._send(client.id, line, method)
        self._log(
            "info", "client ready", client=client.id, name=params.clientInfo.name,
            version=params.clientInfo.version, principal=client.principal.name,
        )  # fmt: skip

    def _upstream_started(self, generation: int) -> None:
        self.appserver.begin(generation, self._now)
        self._ask_for_broker("initialize", self.introduction.params())

    def _upstream_initialized(self, line: bytes) -> None:
        if not self.appserver.initialized(line):
            self._out.append(GiveUp("the app-server's answer to `initialize` can't be used"))
            return
        self._out.append(Forward(b'{"method":"initialized"}', "initialized"))
        waiting, self._uninitialized = self._uninitialized, []
        for id, message in waiting:
            if id in self.clients:
                self._client_initializes(self.clients[id], message)
        self._pump()

    # ── requests, going up ────────────────────────────────────────────────────────────────────

    def _ask(self, client: Client, message: ClientMessage, rule: RequestRule) -> None:
        params, claim = message.params, None
        if rule.own_id is not None:
            params, claim = self.scoped.rewrite(client.id, rule.own_id, params)
        if rule.names_request:
            params = self._in_wire_terms(client.id, rule.names_request, params)
        self._wire += 1
        fields = message.fields | {"id": b"%d" % self._wire}
        if "params" in fields:
            fields["params"] = params
        request = Request(
            wire=self._wire, method=message.method, rule=rule, client=client.id, account=client.id,
            origin=message.id, line=jsonrpc.write(fields), since=self._now, claim=claim,
        )  # fmt: skip
        if rule.route is Route.FOLLOW:
            request.params = params
            request.thread = _thread_in(params)
        if not self.flow.submit(request):
            if claim is not None:
                self.scoped.release(client.id, claim)
            self._error(
                client.id, message.id, jsonrpc.OVERLOADED, "Server overloaded; retry later."
            )
            return
        self._joins(request, 1)
        self._pump()

    def _ask_for_broker(self, method: str, params: dict[str, object]) -> None:
        """Ask something of the broker's own; its answer matters only for ``initialize``."""
        self._wire += 1
        self.flow.submit(
            Request(
                wire=self._wire,
                method=method,
                rule=request_rule(method),
                client=None,
                account=BROKER,
                origin=b"",
                line=jsonrpc.request(self._wire, method, params),
                since=self._now,
            )
        )
        self._pump()

    def _in_wire_terms(self, client: ClientId, field: str, params: bytes) -> bytes:
        """``params`` whose ``field`` names a request of the client by its wire id."""
        fields = jsonrpc.read_fields(params) or {}
        for request in self.flow.upstream.values():
            if request.client == client and request.origin == fields.get(field):
                return jsonrpc.write(fields | {field: request.wire_text})
        return params

    def _joins(self, request: Request, change: int) -> None:
        """Count requests under way that will follow a thread: it isn't let go meanwhile."""
        if request.rule.route is Route.FOLLOW and request.thread is not None:
            self.threads.joining[request.thread] += change

    def _pump(self) -> None:
        """Send upstream what may go now."""
        if self.appserver.state is appserver.State.STARTING:
            return
        initializing = self.appserver.state is appserver.State.INITIALIZING
        for request in self.flow.due(self._now, only=BROKER if initializing else None):
            self._out.append(Forward(request.line, request.method))
            self._arm(request.deadline)

    # ── a line of the app-server ──────────────────────────────────────────────────────────────

    def _upstream_sent(self, line: bytes) -> None:
        message = jsonrpc.read_upstream(line)
        if message is None:
            self._log("warning", "app-server wrote a line that is no message", bytes=len(line))
        elif message.id is jsonrpc.ABSENT:
            self._upstream_notified(line, message)
        elif message.method is None:
            self._upstream_answered(line, message)
        else:
            self._upstream_asked(line, message)

    def _upstream_notified(self, line: bytes, message: UpstreamMessage) -> None:
        method, thread = message.method, message.thread
        if method is None:
            return
        if method == "serverRequest/resolved":
            self._upstream_resolved(line)
            return
        rule = notification_rule(method)
        if rule.audience is Audience.FOLLOWERS:
            recipients = self.threads.recipients(thread, method)
            if recipients:
                self._out.append(Publish(line, recipients, method))
            elif thread is not None and not self.threads.get(thread).claimed:
                self._unclaimed(thread, method, line)
        else:
            self._notify_others(line, method, rule)
        if thread is not None and message.params is not None:
            self.threads.note(thread, method, message.params, line)
            if method in _TURNING_POINTS:
                self._note(thread, method, line)

    def _notify_others(self, line: bytes, method: str, rule: NotificationRule) -> None:
        if rule.greets:
            self.appserver.greet(method, line)
        if rule.audience is Audience.OWNER:
            self._notify_owner(line, method, rule.own_id)
            return
        recipients = self.threads.recipients(None, method)
        if rule.audience is Audience.ASKERS:
            askers = {request.client for request in self.flow.upstream.values()}
            recipients = tuple(id for id in recipients if id in askers)
        if recipients:
            self._out.append(Publish(line, recipients, method))

    def _notify_owner(self, line: bytes, method: str, field: str) -> None:
        found = scoped.unscope(line, field)
        if found is None:
            return
        owner, origin, own_line = found
        if method == "process/exited":
            self.scoped.ended(owner, field, origin)
        client = self.clients.get(owner)
        if client is not None and method not in client.opted_out:
            self._send(owner, own_line, method)

    def _unclaimed(self, thread: str, method: str, line: bytes) -> None:
        """A thread that nobody has followed yet: its creator's answer, or its parent's, follows.

        One that runs a turn before that is a sub-agent's of no known parent. It is everybody's, as
        natively every connection is subscribed to it.
        """
        self._early.setdefault(thread, []).append((method, line))
        while sum(map(len, self._early.values())) > self.limits.held_early:
            del self._early[next(iter(self._early))]  # the oldest: whoever made it isn't ours
        if method == "turn/started":
            self._adopt(thread, self.threads.recipients(None, method))

    def _adopt(self, thread: str, followers: tuple[ClientId, ...]) -> None:
        """These clients follow the thread, which no answer of theirs named."""
        self.threads.claim(thread)
        early = self._early.pop(thread, [])
        for id in followers:
            self.threads.follow(self.clients[id], thread)
            self._send_early(self.clients[id], early)
            self._offer_pending(self.clients[id], thread)

    def _send_early(self, client: Client, early: list[tuple[str, bytes]]) -> None:
        for method, line in early:
            if method not in client.opted_out:
                self._send(client.id, line, method)

    def _note(self, thread: str, method: str, line: bytes) -> None:
        if method == "item/completed":
            for child in threads.spawned(line):
                if not self.threads.get(child).claimed:
                    self._adopt(child, tuple(self.threads.get(thread).followers))
        elif method == "turn/completed":
            for request in list(self.approvals.pending(thread)):
                if request.rule.asked is Asked.TOOL_OWNER:
                    self.approvals.resolve(request.upstream)
            self._let_go(self.threads.get(thread))
        elif method in ("thread/closed", "thread/deleted"):
            for request in list(self.approvals.pending(thread)):
                self.approvals.resolve(request.upstream)
            self.threads.close(thread)
            self._early.pop(thread, None)

    # ── answers, coming down ──────────────────────────────────────────────────────────────────

    def _upstream_answered(self, line: bytes, message: UpstreamMessage) -> None:
        id = bytes(message.id)
        request = self.flow.upstream.get(int(id)) if id.isdigit() else None
        failed = message.error is not jsonrpc.ABSENT
        if request is None:
            self._log("warning", "answer to a request that isn't known", id=id.decode()[:40])
        elif not (failed and self._retries(request, bytes(message.error))):
            self._settle(request, line, failed=failed)
            self._pump()

    def _retries(self, request: Request, error: bytes) -> bool:
        """Whether the request was refused for overload and will be sent again."""
        if _code(error) != jsonrpc.OVERLOADED or request.expired:
            return False
        at = self.flow.retry(request, self._now)
        if at is None:
            return False
        self._log("debug", "overloaded, sent again later", method=request.method)
        self._arm(at)
        return True

    def _settle(self, request: Request, line: bytes, *, failed: bool) -> None:
        """A request has its answer: what follows from it, and the answer to its asker."""
        self.flow.answered(request)
        if request.method == "initialize" and request.client is None:
            self._upstream_initialized(line)
            return
        client = None
        if not request.expired:  # one that expired has had its answer, and joins nothing more
            self._joins(request, -1)
            client = self.clients.get(request.client) if request.client is not None else None
        if request.claim is not None and failed:
            line = scoped.in_origin_terms(line, request.claim.wire, request.claim.origin)
        over = failed or request.method == "command/exec"  # never began, or has ended
        if request.claim is not None and client is not None and over:
            self.scoped.release(client.id, request.claim)
        followed = threads_named(line) if request.rule.route is Route.FOLLOW and not failed else []
        for id in followed:
            self._followed(request, client, id)
        if client is not None:
            if request.method == "thread/resume":
                line = self._with_what_completed(line, followed)
            self._send(
                client.id, jsonrpc.with_id(line, request.wire_text, request.origin), request.method
            )
        for id in followed:
            self._joined(client, id)

    def _with_what_completed(self, line: bytes, followed: list[str]) -> bytes:
        """A resume's answer, its running turn as everybody else has seen it."""
        for id in followed:
            current = self.threads.get(id).running
            fields = jsonrpc.read_fields(line)
            if current.turn is not None and fields is not None:
                result = running.with_completed(fields["result"], current)
                line = jsonrpc.write(fields | {"result": result})
        return line

    def _followed(self, request: Request, client: Client | None, id: str) -> None:
        self.threads.claim(id)
        early = self._early.pop(id, [])
        if client is None:
            return
        self.threads.follow(client, id)
        if request.method == "thread/start" and client.info is not None:
            owner = tools.Owner(client.id, client.info.name, client.principal)
            self.tools.register(id, request.params, owner)
        self._send_early(client, early)

    def _joined(self, client: Client | None, id: str) -> None:
        """After the answer: what runs is introduced, what waits is offered."""
        thread = self.threads.get(id)
        if client is None:
            self._let_go(thread)
            return
        for method, line in thread.running.introduction():
            if method not in client.opted_out:
                self._send(client.id, line, method)
        self._offer_pending(client, id)

    def _offer_pending(self, client: Client, thread: str) -> None:
        for request in list(self.approvals.pending(thread)):
            if request.rule.asked is Asked.FOLLOWERS or not request.offered:
                self._offer(request, (client.id,))

    # ── following no more ─────────────────────────────────────────────────────────────────────

    def _client_unfollows(self, client: Client, message: ClientMessage, rule: RequestRule) -> None:
        id = _thread_in(message.params)
        thread = self.threads.known.get(id) if id is not None else None
        if thread is None or not thread.subscribed:
            self._ask(client, message, rule)  # can't take it from anybody; the error is native
            return
        status = "unsubscribed" if client.id in thread.followers else "notSubscribed"
        self.threads.unfollow(client, thread.id)
        for request in self.approvals.pending(thread.id):
            request.offered.pop(client.id, None)  # natively it hears no `resolved`; it may rejoin
        self._send(client.id, jsonrpc.result(message.id, {"status": status}), message.method)
        self._let_go(thread)

    def _let_go(self, thread: Thread) -> None:
        """Give the subscription back once nobody follows and nothing runs or waits."""
        if (
            thread.subscribed
            and not thread.followers
            and not self.threads.joining[thread.id]
            and thread.running.turn is None
            and not self.approvals.has_pending(thread.id)
        ):
            thread.subscribed = False
            self._ask_for_broker("thread/unsubscribe", {"threadId": thread.id})

    def _client_left(self, client: Client) -> None:
        for request in self.flow.leave(client.id):
            self._joins(request, -1)  # never sent
            if request.claim is not None:
                self.scoped.release(client.id, request.claim)
        for claim in self.scoped.leave(client.id):
            self._ask_for_broker(claim.ended_by, {claim.field: claim.wire})
        left = self.threads.leave(client)
        del self.clients[client.id]
        self.threads.audience_changed()
        for server_request in list(self.approvals.pending()):
            if client.id in server_request.offered:
                del server_request.offered[client.id]
                self._asked_one_left(server_request, client)
        for thread in left:
            self._let_go(thread)
        self._pump()
        self._log("info", "client left", client=client.id, name=client.info and client.info.name)

    # ── server requests, going down ───────────────────────────────────────────────────────────

    def _upstream_asked(self, line: bytes, message: UpstreamMessage) -> None:
        upstream, method = bytes(message.id), message.method or ""
        if self.approvals.is_repetition(upstream):
            return
        rule = server_request_rule(method)
        id = self.approvals.take_id()
        request = ServerRequest(
            id=id, upstream=upstream, method=method, thread=message.thread, rule=rule,
            offer=jsonrpc.with_id(line, upstream, b"%d" % id), since=self._now,
            needs=rule.needs if _applies(rule.only_if, line) else "",
        )  # fmt: skip
        self.approvals.add(request)
        if rule.asked is Asked.FOLLOWERS:
            self._offer(request, self.threads.recipients(request.thread, method))
        elif rule.asked is Asked.TOOL_OWNER:
            self._offer_to_tool_owner(request, line)
        else:
            request.next_ones = list(self.threads.recipients(request.thread, method))
            self._offer_to_next(request)

    def _offer(self, request: ServerRequest, recipients: tuple[ClientId, ...]) -> None:
        """Offer it to those that can answer it and haven't been offered it."""
        if request.answered:
            return
        able = tuple(
            id
            for id in recipients
            if id not in request.offered and self.clients[id].declared(request.needs)
        )
        if able:
            request.offered.update(dict.fromkeys(able))
            self._out.append(Publish(request.offer, able, request.method))

    def _offer_to_tool_owner(self, request: ServerRequest, line: bytes) -> None:
        call = tools.read_call(line)
        owner = self.tools.owner(request.thread, call) if call is not None else None
        if call is None or owner is None:
            # Registered before this broker's life: somebody among the followers may know it.
            self._offer(request, self.threads.recipients(request.thread, request.method))
            return
        taker = self.clients.get(owner.client) or next(
            (
                client
                for id in self.threads.recipients(request.thread, request.method)
                if (client := self.clients[id]).resembles(owner.program, owner.principal)
            ),
            None,
        )
        if taker is not None:
            self._offer(request, (taker.id,))
        else:
            text = f"The client that provides the tool `{call.tool}` is no longer attached."
            self._answer_for_broker(request, tools.unavailable(text))

    def _offer_to_next(self, request: ServerRequest) -> None:
        while request.next_ones:
            id = request.next_ones.pop(0)
            if id in self.clients and self.clients[id].declared(request.needs):
                request.deadline = self._now + self.limits.one_client_deadline
                self._arm(request.deadline)
                self._offer(request, (id,))
                return
        self._give_up_on(request, "no attached client could answer it")

    # ── answers to them, going up ─────────────────────────────────────────────────────────────

    def _client_answered(self, client: Client, message: ClientMessage) -> None:
        request = self.approvals.offered_to(client.id, message.id)
        if request is None:
            # Late, double, unknown: natively ignored, and nothing that the client did wrong.
            self._log("debug", "answer that changes nothing", client=client.id)
            return
        if message.kind == "error":
            wrong: str | None = "answered with an error"
        else:
            wrong = fault(request.method, request.offer, message.fields["result"])
        if wrong is None:
            self._answer(request, client.id, {"result": message.fields["result"]})
        else:
            self._abstains(request, client, wrong)

    def _answer(
        self, request: ServerRequest, by: ClientId | None, answer: dict[str, bytes]
    ) -> None:
        request.answered, request.answered_by, request.deadline = True, by, NEVER
        self._out.append(Forward(jsonrpc.write({"id": request.upstream} | answer), request.method))
        if request.thread is None or request.rule.asked is Asked.TOOL_OWNER:
            self.approvals.resolve(request.upstream)  # of these no `resolved` comes

    def _abstains(self, request: ServerRequest, client: Client, why: str) -> None:
        self._log("warning", "client abstains", client=client.id, method=request.method, why=why)
        request.abstained.add(client.id)
        if request.rule.asked is Asked.ONE_AFTER_ANOTHER:
            self._offer_to_next(request)
        elif request.everybody_abstained:
            self._give_up_on(request, f"every client that it was offered to abstained ({why})")

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

    def _asked_one_left(self, request: ServerRequest, client: Client) -> None:
        """One that was offered it has left: a person's answer is waited for, a machine's isn't."""
        if request.answered:
            return
        if request.rule.asked is Asked.ONE_AFTER_ANOTHER:
            self._offer_to_next(request)
        elif request.rule.asked is Asked.TOOL_OWNER and not request.offered:
            name = client.info.name if client.info is not None else ""
            text = f"The client that provides this tool (`{name}`) left before it answered."
            self._answer_for_broker(request, tools.unavailable(text))

    def _upstream_resolved(self, line: bytes) -> None:
        fields = jsonrpc.read_fields(line) or {}
        params = jsonrpc.read_fields(fields.get("params", b"")) or {}
        request = self.approvals.resolve(params.get("requestId", b""))
        if request is None:
            return
        method = "serverRequest/resolved"
        recipients = tuple(id for id in request.offered if method not in self.clients[id].opted_out)
        if recipients:
            own = jsonrpc.write(params | {"requestId": b"%d" % request.id})
            self._out.append(Publish(jsonrpc.write(fields | {"params": own}), recipients, method))
        thread = self.threads.known.get(request.thread or "")
        if thread is not None:
            self._let_go(thread)

    # ── time and ends ─────────────────────────────────────────────────────────────────────────

    def _time_passed(self) -> None:
        for request in self.flow.retries(self._now):
            if request.client is None and request.account == DEPARTED:
                self._settle(request, b"", failed=True)  # nobody wants it done any more
            else:
                self._out.append(Forward(request.line, request.method))
        for request in self.flow.expire(self._now):
            self._expired(request)
        for server_request in list(self.approvals.pending()):
            if server_request.deadline <= self._now:
                self._offer_to_next(server_request)
        self._pump()
        self.wakeup = min(self.flow.next_moment(), self.approvals.next_moment())

    def _arm(self, moment: float) -> None:
        self.wakeup = min(self.wakeup, moment)

    def _expired(self, request: Request) -> None:
        seconds = self.limits.request_deadline
        self._joins(request, -1)
        self._log("warning", "no answer from the app-server in time", method=request.method)
        if request.method == "initialize" and request.client is None:
            self._out.append(GiveUp(f"no answer to `initialize` within {seconds:g} s"))
        elif request.client is not None:
            self._error(
                request.client, request.origin, jsonrpc.DEADLINE_PASSED,
                f"the app-server did not answer `{request.method}` within {seconds:g} s",
                {"retryable": request.rule.reads, "generation": self.appserver.generation},
            )  # fmt: skip

    def _upstream_exited(self, reason: str) -> None:
        data = {"generation": self.appserver.generation}
        self.appserver.end()
        for request in self.flow.clear():
            if request.client is not None:
                self._error(
                    request.client, request.origin, jsonrpc.APP_SERVER_GONE,
                    f"the app-server ended before it answered `{request.method}`",
                    data | {"retryable": request.rule.reads},
                )  # fmt: skip
        self.approvals.clear()
        self._early.clear()
        for id in self.clients:
            self._out.append(Close(id, CLOSE_INTERNAL, f"codex app-server ended: {reason}"[:120]))

    # ── saying it ─────────────────────────────────────────────────────────────────────────────

    def _send(self, client: ClientId, message: bytes, method: str) -> None:
        self._out.append(Publish(message, (client,), method))

    def _error(
        self, client: ClientId, id: bytes, code: int, text: str, data: object = None
    ) -> None:
        self._send(client, jsonrpc.error(id, code, text, data), "error")

    def _log(self, level: Level, event: str, **fields: object) -> None:
        self._out.append(Log(level, event, fields))


class _ThreadParams(msgspec.Struct):
    threadId: str | None = None


class _ErrorCode(msgspec.Struct):
    code: int


def _thread_in(params: bytes) -> str | None:
    try:
        return _thread_decoder.decode(params).threadId
    except msgspec.DecodeError:
        return None


def _code(error: bytes) -> int | None:
    try:
        return _code_decoder.decode(error).code
    except msgspec.DecodeError:
        return None


def _applies(only_if: tuple[str, str] | None, line: bytes) -> bool:
    if only_if is None:
        return True
    field, value = only_if
    params = jsonrpc.read_fields((jsonrpc.read_fields(line) or {}).get("params", b"")) or {}
    return jsonrpc.read_text(params.get(field)) == value


_thread_decoder = msgspec.json.Decoder(_ThreadParams)
_code_decoder = msgspec.json.Decoder(_ErrorCode)
