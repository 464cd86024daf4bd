"""The broker: a pure function of state. ``Broker.handle(event, now) -> commands``.

Start reading at ``handle``: one short method per event, in the order in which a message meets them.
THE TABLE (``protocol.methods``) says what a method means; the features carry it out:

    client_requests       requests going up         subscriptions   joining and leaving threads
    server_requests       requests coming down      recovery        the app-server's lives
    deduplication         messages sent twice       replay          clients that come back
    turn_queue            turns that wait           voting          which answer decides
    directory_clearance   where threads may work    presence        who is attached
    local_resume          resumes answered here     attention       who looks at what
    shared_titles         one title for all         notices         what a person is pushed
    inbox                 what needs a person, and all threads

``notifications`` takes in the app-server's notifications, ``responses`` its answers. All of them
share one ``State``, change it only while an event is handled, and write their commands to
``State.out``.

Used by ``dispatcher``, the only caller, which carries out the commands in order. Nothing here
awaits, reads a clock, or fails half-way: an event is handled whole.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mux.core import audit_events
from mux.core.commands import AnswerOutside, Command, KillUpstream, LoadExperimentalSchema
from mux.core.events import (
    AnsweredByNotice,
    AnsweredOutside,
    ClientAccessEnded,
    ClientAttached,
    ClientDrained,
    ClientLags,
    ClientLeft,
    ClientSent,
    ClientSentBinary,
    ClockMoved,
    DeviceAccessEnded,
    DeviceRenamed,
    Event,
    ExperimentalSchemaLoaded,
    JournalExtent,
    JournalRead,
    NoticesRestored,
    RecipientsChanged,
    Resolved,
    TimePassed,
    UpstreamExited,
    UpstreamSent,
    UpstreamStarted,
)
from mux.core.extension.runtime import Welcome
from mux.core.features import approval_list
from mux.core.features.attention import FOCUS
from mux.core.features.voting import Voting
from mux.core.limits import Limits
from mux.core.notifications import NotificationRouter
from mux.core.policy.approval_policy import Policies
from mux.core.policy.notice import Timing
from mux.core.policy.principal import ClientId
from mux.core.policy.scopes import SCOPES, needed
from mux.core.protocol import jsonrpc
from mux.core.protocol.jsonrpc import BadMessageError, ClientMessage
from mux.core.protocol.methods import RequestRule, Route, request_rule
from mux.core.protocol.request_params import canonical
from mux.core.protocol.scope import Scope
from mux.core.protocol.thread_overrides import Held
from mux.core.responses import ResponseRouter
from mux.core.state import client as clients
from mux.core.state.app_server import AppServerState, Introduction
from mux.core.state.backlog import Backlog
from mux.core.state.client import Client
from mux.core.state.journal import Journal
from mux.core.state.pending_requests import PendingRequests
from mux.core.state.scheduler import DEPARTED
from mux.core.state.state import NEVER, State
from mux.core.wiring import Features

EXTENSION_VERSION = 1
"""The version of the extension: what clients that know the broker get beyond the app-server's
protocol."""

_NO_NEWS = frozenset(
    {
        ClientSentBinary, TimePassed, ClientAttached, ClientLags, ClientDrained, JournalRead,
        AnsweredOutside,
        ExperimentalSchemaLoaded, JournalExtent,
    }
)  # fmt: skip
"""Events that change neither who looks at what nor who may be notified, so notices stay as they
are."""

_ANSWERED_HERE = frozenset(
    {Route.PRESENCE, Route.FOCUS, Route.APPROVALS, Route.ANSWER, Route.QUEUE, Route.INBOX}
)
"""Routes of requests that need no handshake, since the broker answers them itself."""

_AS_IT_IS = RequestRule()
_initialize_decoder = msgspec.json.Decoder(clients.InitializeParams)


class Broker:
    """All shared state of the runtime, and every decision about it."""

    def __init__(
        self,
        limits: Limits,
        introduction: Introduction,
        *,
        first_id: int = 0,
        epoch: str = "",
        head: int = 0,
        audit_text: bool = False,
        policies: Policies | None = None,
        timing: Timing | None = None,
        host: str = "",
    ) -> None:
        """Make a broker without clients or app-server.

        ``first_id`` seeds the ids under which server requests are offered. The server takes it from
        the clock, so that an answer that a client held back over a restart of the broker fits no
        request. ``epoch`` and ``head`` describe the journal as the store left it. ``audit_text``:
        see `State`. ``policies`` say whose answer decides an approval; None means the first answer.
        ``timing`` says when a notice is due. ``host`` is the machine's name.
        """
        journal = Journal(epoch, head, limits.journal_memory_bytes)
        approvals = PendingRequests(first_id)
        self.state = State(
            limits,
            introduction,
            journal,
            approvals,
            policies=policies or Policies(),
            audit_text=audit_text,
        )
        parts = Features.wired(self.state, timing or Timing(), str(first_id), host)
        self._settling = ResponseRouter(parts, self._upstream_initialized)
        self._hearing = NotificationRouter(parts, self._settling)
        self.recovery = parts.recovery
        self._sent = parts.deduplicator
        self._readings = parts.local_resumes
        self._asking = parts.client_requests
        self._offering = parts.server_requests
        self._following = parts.subscriptions
        self._replaying = parts.replays
        self._presence = parts.presence
        self._looking = parts.attention
        self._notices = parts.notices
        self._titles = parts.shared_titles
        self._queueing = parts.turn_queueing
        self._inbox = parts.inbox
        self._clearance = parts.clearance
        self._clearance.again = self._client_asked
        self._uninitialized: dict[ClientId, list[ClientMessage]] = {}

    @property
    def voting(self) -> Voting:
        """The part that says what an approval waits for, in words."""
        return self._offering.voting

    @property
    def running_floor(self) -> int:
        """The first seq whose deltas may belong to items that still run."""
        return self.state.threads.running_floor(self.state.journal.head)

    @property
    def next_wakeup(self) -> float:
        """The moment when ``TimePassed`` is due, on the clock of ``now``; infinite for never."""
        return self.state.next_wakeup

    def handle(self, event: Event, now: float) -> list[Command]:  # noqa: PLR0912 (one look each)
        """Handle one event and return the commands to carry out, in order.

        ``now`` is in seconds and never goes back.
        """
        state = self.state
        state.now = now
        out: list[Command] = []
        state.out = out
        if type(event) is UpstreamSent:
            if self._hearing.handle(event.line):
                return out  # one more delta: nothing that is compared below has changed
            if self._notices.needs_refresh:
                self._notices.refresh()
        elif type(event) is ClientSent:
            self._hearing.interrupted()
            self._client_sent(state.clients[event.client], event.text)
            if self._notices.needs_refresh:
                self._notices.refresh()
        else:
            self._hearing.interrupted()
            self._handle_rarer(event)
            if type(event) not in _NO_NEWS or self._notices.needs_refresh:
                self._notices.refresh()
        # What the event made possible, or left to be done, in this order: all that may take up a
        # thread again comes before what releases threads and before a restart. Presence comes
        # last, so clients get one picture for each event.
        if self._queueing.waits:
            self._queueing.refresh()
        if self._clearance.waits:
            self._clearance.refresh()
        if self._asking.here:
            self._replaying.go_on()
        if state.unread:
            state.read_on()
        if state.release_candidates or state.threads.crowded:
            self._following.let_go()
        if self.recovery.restart_asked:
            self.recovery.stop_if_quiet()
        if state.threads.changes != self._presence.seen:
            self._presence.audience_changed()
        if self._inbox.followers:
            self._inbox.refresh()
        return out

    def _handle_rarer(self, event: Event) -> None:
        state = self.state
        match event:
            case ClientSentBinary(client):
                bad = BadMessageError(jsonrpc.INVALID_REQUEST, "binary frame; send text")
                self._refuse(client, bad)
            case TimePassed():
                self._time_passed()
            case ClockMoved(seconds):
                self._clock_moved(seconds)
            case ClientAttached(client):
                state.clients[client] = self._attached(event)
            case ClientLeft(client):
                self._client_left(state.clients[client])
            case (
                ClientAccessEnded(client)
                | DeviceRenamed(client)
                | ClientLags(client)
                | ClientDrained(client)
                | JournalRead(client)
            ):
                if client in state.clients:  # else it left before the event came
                    self._client_told_of(state.clients[client], event)
            case AnsweredOutside(client, message, method):
                state.answer(client, message, method)
            case UpstreamStarted(generation):
                self._upstream_started(generation)
            case UpstreamExited(reason, unix_time):
                generation = state.appserver.generation
                state.record("appserver/exited", generation=generation, why=reason)
                # Before `recovery.exited`, which ends turns and requests: features that must know
                # what ran. After it: those that must know whether another app-server comes.
                self._notices.app_server_ends()
                self._inbox.app_server_gone()
                self._titles.upstream_gone()
                self._queueing.app_server_gone()
                self._readings.upstream_gone()
                self._following.upstream_gone()
                self.recovery.exited(reason, unix_time)
                self._clearance.app_server_gone()
                self._replaying.upstream_gone()
            case _:
                self._learned(event)

    def _learned(self, event: Event) -> None:
        match event:
            case DeviceAccessEnded(device):
                self._offering.device_ended(device)
                self._queueing.device_ended(device)
            case ExperimentalSchemaLoaded(gate):
                self.state.gate = gate
            case JournalExtent(epoch, earliest):
                self.state.journal.kept(epoch, earliest)
            case Resolved(case, places):
                self._clearance.resolved(case, places)
            case RecipientsChanged(recipients):
                self._notices.escalation.set_recipients(recipients)
            case AnsweredByNotice(request, principal, peer, yes):
                self._offering.answered_by_notice(request, principal, peer, yes=yes)
            case NoticesRestored(known, standing):
                self._notices.kept(known, standing)
            case _:
                raise TypeError(f"no such event: {event!r}")

    def _attached(self, event: ClientAttached) -> Client:
        now = self.state.now
        self.state.wake_at(now + event.expires_in)
        who = (event.client, event.principal, event.transport, event.peer)
        return Client(*who, since=now, expires=now + event.expires_in, local=event.local)

    # ── a client's message ────────────────────────────────────────────────────────────────────

    def _client_sent(self, client: Client, text: bytes) -> None:
        if client.ended:
            return
        try:
            message = jsonrpc.read_client(text)
            if message.kind == "request" or message.method == FOCUS:
                message = canonical(message)
        except BadMessageError as bad:
            self._refuse(client.id, bad)
            return
        self._looking.heard(client)
        if message.kind == "request":
            self._client_asked(client, message)
        elif message.kind == "notification":
            self._client_notified(client, message)
        else:
            self._offering.client_answered(client, message)

    def _refuse(self, client: ClientId, bad: BadMessageError) -> None:
        self.state.log("info", "message refused", client=client, why=str(bad))
        text = str(bad) if bad.code == jsonrpc.PARSE_ERROR else f"Invalid request: {bad}"
        self.state.error(client, bad.id, bad.code, text)
        self.state.charge(client)

    def _client_asked(self, client: Client, message: ClientMessage) -> None:
        if message.commas > jsonrpc.FEW_ELEMENTS and self._has_too_many(client, message):
            return
        if self._clearance.holds_back(client, message):
            return
        scope = self._scope(client, message)
        if scope is None:
            return
        if client.state is clients.ClientState.READY and self._clearance.is_needed(client, message):
            self._clearance.ask(client, message, lambda m: self._cleared(client, m, scope))
        else:
            self._cleared(client, message, scope)

    def _has_too_many(self, client: Client, message: ClientMessage) -> bool:
        """Return whether the request is refused for its members and list elements."""
        most = request_rule(message.method).most_elements
        if message.commas <= most or jsonrpc.count_elements(message.params, most) <= most:
            return False
        text = f"`{message.method}` with more than {most} members and elements"
        self._refuse(client.id, BadMessageError(jsonrpc.INVALID_REQUEST, text, message.id))
        return True

    def _cleared(self, client: Client, message: ClientMessage, scope: Scope) -> None:
        """Route a request that the client may make."""
        rule = request_rule(message.method)
        match rule.route:
            case Route.SERVER:
                served = AnswerOutside(client.id, message.id, message.method, message.params)
                self.state.out.append(served)
            case Route.RESTART:
                now = (jsonrpc.read_fields(message.params) or {}).get("now") == b"true"
                self.state.record("restart/asked", by=audit_events.by(client), now=now)
                self.recovery.asked_to_restart(client.id, message.id, now=now)
            case _ if rule.route in _ANSWERED_HERE:
                self._asked_of_broker(client, message, rule)
            case Route.INITIALIZE:
                self._client_initializes(client, message)
            case _ if client.id in self._uninitialized:
                self._wait_for_handshake(client, message)
            case _ if client.state is clients.ClientState.ATTACHED:
                text = "Not initialized"
                self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
                self.state.charge(client.id)
            case Route.UNFOLLOW:
                self._titles.unfollowed(client, message.thread)
                self._replaying.unfollowed(client, message.thread or "")
                self._following.client_unfollows(client, message, rule)
            case Route.REPLAY:
                if not self._is_down(client, message):
                    self._replaying.asked(client, message)
            case _:
                self._pass_on(client, message, rule, scope)

    def _asked_of_broker(self, client: Client, message: ClientMessage, rule: RequestRule) -> None:
        match rule.route:
            case Route.FOCUS:
                self._looking.focused(client, message)
            case Route.APPROVALS:
                approval_list.list_for(self.state, self.voting, client, message)
            case Route.ANSWER:
                self._offering.answered_unasked(client, message)
            case Route.QUEUE:
                self._queueing.asked(client, message)
            case Route.INBOX:
                self._inbox.asked(client, message)
            case _:
                picture = jsonrpc.result(message.id, self._presence.read())
                self.state.answer(client.id, picture, message.method)

    def _scope(self, client: Client, message: ClientMessage) -> Scope | None:
        """Return the scope that the request needs; None if the client lacks it and got an error."""
        held = client.principal.scopes
        scope, reason = needed(message.method, message.params, self._held(client, message.method))
        if scope in held or message.method == "initialize":
            return scope
        has = sorted(held)
        text = f"`{message.method}`{reason} needs the scope `{scope}`; you have: {', '.join(has)}"
        told = {"method": message.method, "needs": scope, "has": has}
        self.state.error(client.id, message.id, jsonrpc.FORBIDDEN, text, told)
        self.state.log("warning", "refused", client=client.id, method=message.method, needs=scope)
        audit_events.refused(self.state, client, message.method, scope)
        self.state.charge(client.id)
        return None

    def _held(self, client: Client, method: str) -> Callable[[str | None], Held]:
        return lambda thread: self._clearance.held(client, method, thread)

    def _experimental(self, client: Client, message: ClientMessage) -> str | None:
        """Return what in the request needs the experimental capability; None if nothing does.

        Clients that declared the capability may use everything.
        """
        if self.state.gate is None or client.capabilities.experimentalApi:
            return None
        return self.state.gate.refuses(message.method, message.params)

    def _pass_on(
        self, client: Client, message: ClientMessage, rule: RequestRule, scope: Scope
    ) -> None:
        if (used := self._experimental(client, message)) is not None:
            text = f"{used} requires experimentalApi capability"
            self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            self.state.charge(client.id)
        elif not (self._is_down(client, message) or self._sent.is_again(client, message)):
            self._go_on(client, message, rule, scope)

    def _is_down(self, client: Client, message: ClientMessage) -> bool:
        """Return whether no app-server runs or is expected soon; then the client gets an error."""
        down = self.state.appserver.state is AppServerState.DOWN
        if down:
            text = self.recovery.down_text()
            self.state.error(client.id, message.id, jsonrpc.APP_SERVER_GONE, text)
        return down

    def _go_on(
        self, client: Client, message: ClientMessage, rule: RequestRule, scope: Scope
    ) -> None:
        """Send a request upstream that nothing stands against, unless a feature answers it here."""
        try:
            message, if_busy = self._queueing.read(client, message)
            request = self._asking.request(client, message, rule)
        except BadMessageError as bad:
            self._refuse(client.id, BadMessageError(bad.code, str(bad), message.id))
            return
        request.sent = self._sent.first(client, message)
        thread = self.state.threads.known.get(request.thread or "")
        private = thread is not None and thread.private
        if audit_events.drives(message.method, begins=rule.begins) and not private:
            self._presence.drove(client)
            self._notices.acted(client, message.method, message.thread)
        if if_busy is not None and self._queueing.takes(client, request, message, if_busy):
            return
        audit_events.asked(self.state, client, request, message, scope)
        told = self._titles.asked(client, request, message.params) if private else None
        if told is not None:
            self._hearing.retell(told)
        elif not self.recovery.holds(request, thread):
            self._asking.submit(request)

    def _client_notified(self, client: Client, message: ClientMessage) -> None:
        # The broker sent `initialized` upstream once, and codex knows no other notification of
        # clients. A newer codex may know one, but it has no scope yet, so it goes nowhere.
        self.state.charge(client.id)
        if message.method == FOCUS and SCOPES[FOCUS] in client.principal.scopes:
            self._looking.focused(client, message)
        elif message.method != "initialized":
            method = message.method[: audit_events.NAME_CHARACTERS]
            self.state.log("info", "notification dropped", client=client.id, method=method)

    # ── handshake ─────────────────────────────────────────────────────────────────────────────

    def _client_initializes(self, client: Client, message: ClientMessage) -> None:
        state = self.state
        if not state.appserver.known:
            self._wait_for_handshake(client, message)
            return
        try:
            params = _initialize_decoder.decode(message.params)
        except msgspec.ValidationError:
            # The app-server names the fault better than the broker could, in its own words.
            self._pass_on(client, message, _AS_IT_IS, "observe")
            return
        if client.state is clients.ClientState.READY:
            text = "Already initialized"
            state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            return
        if (reason := params.refusal()) is not None:
            state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, reason)
            return
        client.initialize(params)
        # The answer to `initialize` goes out before everything else that the client is sent.
        self._presence.came(client)
        self._looking.changes += 1  # a focus declared before the handshake counts from now on
        state.threads.audience_changed()
        state.send(client.id, self._welcome(client, message.id, params), message.method)
        for method, lines in state.appserver.greetings.items():
            if client.hears(method):
                for line in lines:
                    state.send(client.id, line, method)
        named = {"name": params.clientInfo.name, "version": params.clientInfo.version}
        principal = client.principal.name
        state.log("info", "client ready", client=client.id, principal=principal, **named)
        audit_events.attached(state, client)

    def _wait_for_handshake(self, client: Client, message: ClientMessage) -> None:
        """The very first app-server isn't up: its ``initialize``, and what it asked behind that."""
        waiting, limits = self._uninitialized.setdefault(client.id, []), self.state.limits
        size = sum(len(each.params) for each in (*waiting, message))
        if len(waiting) < limits.queued_per_client and size <= limits.queued_bytes_per_client:
            waiting.append(message)
        else:
            text = "Server overloaded; retry later."
            self.state.error(client.id, message.id, jsonrpc.OVERLOADED, text)

    def _welcome(self, client: Client, id: bytes, params: clients.InitializeParams) -> bytes:
        result: dict[str, object] = dict(self.state.appserver.result_for(params.clientInfo))
        if client.wants_seq:
            result["appmux"] = Welcome(
                version=EXTENSION_VERSION,
                epoch=self.state.journal.epoch,
                seq=self.state.journal.head,
                began=self.state.journal.began,
                clientId=client.id,
                generation=self.state.appserver.generation,
            )
        return jsonrpc.result(id, result)

    def _upstream_started(self, generation: int) -> None:
        self.state.appserver.begin(generation, self.state.now)
        self.state.record("appserver/started", generation=generation)
        self.state.out.append(LoadExperimentalSchema())
        self._asking.ask_for_broker("initialize", self.state.introduction.params())

    def _upstream_initialized(self, line: bytes) -> None:
        if not self.state.appserver.initialized(line):
            reason = "the app-server's answer to `initialize` can't be used"
            self.state.out.append(KillUpstream(reason))
            return
        self.state.forward(b'{"method":"initialized"}', "initialized")
        waiting, self._uninitialized = self._uninitialized, {}
        for id, messages in waiting.items():
            for message in messages:
                self._client_asked(self.state.clients[id], message)
        self.recovery.resume()
        self._asking.pump()

    # ── clients that are behind, and those that leave ─────────────────────────────────────────

    def _client_told_of(self, client: Client, event: Event) -> None:
        state = self.state
        match event:
            case ClientAccessEnded(_, reason):
                self._end(client, reason)
            case DeviceRenamed(_, principal):
                client.principal = principal
            case JournalRead(_, entries, until):
                state.fetched(client, entries, until)
            case ClientDrained(_):
                state.drained(client)
                self._asking.pump()
            case _ if client.backlog is None:
                follows = dict.fromkeys(client.follows, 0)
                state.log("info", "client lags, reads on from the journal", client=client.id)
                backlog = Backlog(state.journal.head, follows, wants_seq=client.wants_seq)
                state.fall_behind(client, backlog)

    def _end(self, client: Client, reason: str) -> None:
        self.state.record("client/cut", by=audit_events.by(client), why=reason)
        self.state.end(client, reason)

    def _client_left(self, client: Client) -> None:
        state = self.state
        audit_events.left(state, client)
        asked = [each for each in state.scheduler.upstream.values() if each.client == client.id]
        for request in state.scheduler.leave(client.id):
            self._asking.joins(request, -1)
            if request.runs_alone:
                request.client, request.account = None, DEPARTED
                self._asking.submit(request)
            else:
                self._asking.drop(request)
        self._titles.client_left(client)
        self.recovery.client_left(client)
        self._uninitialized.pop(client.id, None)
        state.unread.discard(client.id)
        for claim in state.scoped_ids.leave(client.id):
            if state.appserver.runs:  # else what the id stands for ended with its app-server
                self._asking.ask_for_broker(claim.ended_by, {claim.field: claim.wire})
        for request in asked:
            if request.rule.cancelled_by:
                self._asking.ask_for_broker(request.rule.cancelled_by, {"requestId": request.wire})
        # `replay` stores what the client follows, so it comes before `subscriptions` forgets that.
        # After `del` the client is unknown: nothing more is sent to it, and the server requests
        # that it was offered go on to the clients that remain.
        self._replaying.client_left(client)
        self._presence.left(client)
        self._inbox.left(client)
        del state.clients[client.id]
        self._clearance.client_left(client.id)
        self._following.client_left(client)
        state.threads.audience_changed()
        self._offering.client_left(client)
        self._asking.pump()
        state.log("info", "client left", client=client.id, name=client.info and client.info.name)

    # ── time ──────────────────────────────────────────────────────────────────────────────────

    def _clock_moved(self, seconds: float) -> None:
        """Bring expiry times in line with the wall clock, by which credentials expire."""
        for client in self.state.clients.values():
            client.expires -= seconds
        self._time_passed()

    def _time_passed(self) -> None:
        state = self.state
        for client in state.clients.values():
            if client.expires <= state.now:
                self._end(client, "what it authenticated with has expired")
        self._settling.on_timer()
        self._offering.on_timer()
        self._asking.pump()
        state.next_wakeup = min(
            state.scheduler.next_moment(),
            min((client.expires for client in state.clients.values()), default=NEVER),
            state.pending_requests.next_moment(state.now),
            self._following.let_go_in_time(),
            self._following.adopt_orphans(),
            self.recovery.on_timer(),
            self._clearance.on_timer(),
            self._titles.on_timer(),
            self._presence.on_timer(),
            self._inbox.on_timer(),
            self._notices.on_timer(),
            audit_events.on_timer(state),
        )
