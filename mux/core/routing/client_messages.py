"""Routes what clients say.

A message is a request, a notification, or the answer to a server request. A request passes what may
stand against it, one after the other: its params' one reading, its scope, the directories that it
names, the experimental gate. Then THE TABLE (``protocol.methods``) says what it means: a feature
answers it, a shell does, or it goes up to the app-server.

Used by ``broker``, for every message of a client.
"""

from __future__ import annotations

from functools import partial

from mux.core.audit import audit_events
from mux.core.commands import AnswerOutside, RenewBroker
from mux.core.features.approvals import approval_list
from mux.core.features.clients.attention import FOCUS
from mux.core.features.requests.deduplication import SENDS
from mux.core.policy.principal import ClientId
from mux.core.policy.scopes import NEED_NOTHING, SCOPES, needed
from mux.core.protocol.envelope import client_message, jsonrpc, structure
from mux.core.protocol.envelope.jsonrpc import BadMessageError, ClientMessage
from mux.core.protocol.envelope.request_params import canonical, read_plain
from mux.core.protocol.methods import most_elements, request_rule
from mux.core.protocol.rules import RequestRule, Route
from mux.core.protocol.scope import Scope
from mux.core.protocol.threads import overrides
from mux.core.routing.notifications import NotificationRouter
from mux.core.state.app_server import AppServerState
from mux.core.state.clients.client import Client, ClientState
from mux.core.wiring import Features

_ANSWERED_HERE = frozenset(
    {
        Route.PRESENCE,
        Route.FOCUS,
        Route.APPROVALS,
        Route.ANSWER,
        Route.QUEUE,
        Route.INBOX,
        Route.DIGEST,
        Route.FILES,
    }
)
"""Routes of requests that the broker answers itself, so they need no handshake."""

_AS_IT_IS = RequestRule()


def _read(client: Client, text: bytes) -> ClientMessage:
    rough = structure.rough(text)
    if (plain := read_plain(text, rough)) is not None:
        return plain
    most = partial(most_elements, client.principal.scopes)
    message = client_message.read_client(text, most, rough)
    judged = message.kind == "request" or message.method == FOCUS
    return canonical(message) if judged else message


class ClientRouter:
    """Routes the messages of clients."""

    def __init__(self, parts: Features, notifications: NotificationRouter) -> None:
        self.state = parts.state
        self._notifications = notifications
        self._approval_answers = parts.approval_answers
        self._attention = parts.attention
        self._clearance = parts.clearance
        self._client_requests = parts.client_requests
        self._deduplicator = parts.deduplicator
        self._handshakes = parts.handshakes
        self._digests = parts.digests
        self._files = parts.files
        self._inbox = parts.inbox
        self._notice_triggers = parts.notice_triggers
        self._presence = parts.presence
        self._recovery = parts.recovery
        self._queue_requests = parts.queue_requests
        self._replays = parts.replays
        self._server_requests = parts.server_requests
        self._shared_titles = parts.shared_titles
        self._subscriptions = parts.subscriptions
        self._turn_queueing = parts.turn_queueing
        self._clearance.again = self._handshakes.again = self.handle_request

    def handle(self, client: Client, text: bytes) -> None:
        """Handle one message."""
        if client.ended:
            return
        try:
            message = _read(client, text)
        except BadMessageError as bad:
            self.refuse(client.id, bad)
            return
        self._attention.sent(client)
        if message.kind == "request":
            self.handle_request(client, message)
        elif message.kind == "notification":
            self._notified(client, message)
        else:
            self._server_requests.client_answered(client, message)

    def refuse(self, client: ClientId, bad: BadMessageError) -> None:
        """Answer a message that can't be taken with an error."""
        self.state.log("info", "message refused", client=client, why=str(bad))
        text = str(bad) if bad.code == jsonrpc.PARSE_ERROR else f"Invalid request: {bad}"
        self.state.error(client, bad.id, bad.code, text)
        self.state.charge(client)

    def handle_request(self, client: Client, message: ClientMessage) -> None:
        """Handle a request, the first time or after it has waited."""
        if self._clearance.holds_back(client, message):
            return
        scope = self._scope(client, message)
        if scope is None:
            return
        if client.state is ClientState.READY and self._clearance.is_needed(client, message):
            self._clearance.ask(client, message, lambda m: self._cleared(client, m, scope))
        else:
            self._cleared(client, message, scope)

    def _cleared(self, client: Client, message: ClientMessage, scope: Scope) -> None:
        """Route a request that the client may make."""
        rule = request_rule(message.method)
        route = rule.route
        if (route is Route.PLAIN or route is Route.FOLLOW) and client.state is ClientState.READY:
            self._pass_on(client, message, rule, scope)  # as nearly all are
            return
        match route:
            case Route.SERVER:
                served = AnswerOutside(client.id, message.id, message.method, message.params)
                self.state.out.append(served)
            case Route.RESTART:
                self._plan_restart(client, message)
            case route if route in _ANSWERED_HERE:
                self._answer_here(client, message, rule)
            case Route.INITIALIZE:
                if not self._handshakes.initialize(client, message):
                    self._pass_on(client, message, _AS_IT_IS, "observe")
            case _ if client.id in self._handshakes.waiting:
                self._handshakes.wait(client, message)
            case _ if client.state is ClientState.ATTACHED:
                text = "Not initialized"
                self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
                self.state.charge(client.id)
            case Route.UNFOLLOW:
                self._shared_titles.unfollowed(client, message.thread)
                self._replays.unfollowed(client, message.thread or "")
                self._subscriptions.client_unfollows(client, message, rule)
            case Route.REPLAY:
                if not self._is_down(client, message):
                    self._replays.handle(client, message)
            case _:
                self._pass_on(client, message, rule, scope)

    def _plan_restart(self, client: Client, message: ClientMessage) -> None:
        params = jsonrpc.read_fields(message.params) or {}
        now, broker = (params.get(name) == b"true" for name in ("now", "broker"))
        if broker and not self.state.durable.is_enabled:
            text = "this broker has no supervisor, which would start the next one"
            self.state.error(client.id, message.id, jsonrpc.INVALID_REQUEST, text)
            return
        self.state.record("restart/asked", by=audit_events.actor_of(client), now=now, broker=broker)
        if broker:
            self.state.out.append(RenewBroker())
        else:
            self._recovery.plan_restart(client.id, message.id, now=now)

    def _answer_here(self, client: Client, message: ClientMessage, rule: RequestRule) -> None:
        match rule.route:
            case Route.FOCUS:
                self._attention.focused(client, message)
            case Route.APPROVALS:
                approval_list.list_for(self.state, self._server_requests.voting, client, message)
            case Route.ANSWER:
                self._approval_answers.from_client(client, message)
            case Route.QUEUE:
                self._queue_requests.handle(client, message)
            case Route.INBOX:
                self._inbox.handle(client, message)
            case Route.DIGEST:
                self._digests.handle(client, message)
            case Route.FILES:
                self._files.handle(client, message)
            case _:
                picture = jsonrpc.result(message.id, self._presence.read())
                self.state.answer(client.id, picture, message.method)

    def _scope(self, client: Client, message: ClientMessage) -> Scope | None:
        """Return the scope that the request needs; None if the client lacks it and got an error."""
        held = client.principal.scopes
        held_by = partial(self._clearance.held, client, message.method)
        scope, reason = needed(message.method, message.members, held_by)
        if scope in held or message.method in NEED_NOTHING:
            return scope
        has = sorted(held)
        text = f"`{message.method}`{reason} needs the scope `{scope}`; you have: {', '.join(has)}"
        data = {"method": message.method, "needs": scope, "has": has}
        self.state.error(client.id, message.id, jsonrpc.FORBIDDEN, text, data)
        self.state.log("warning", "refused", client=client.id, method=message.method, needs=scope)
        audit_events.refused(self.state, client, message.method, scope)
        self.state.charge(client.id)
        return None

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
        elif not (
            self._is_down(client, message)
            or (message.method in SENDS and self._deduplicator.is_again(client, message))
        ):
            self._send_up(client, message, rule, scope)

    def _is_down(self, client: Client, message: ClientMessage) -> bool:
        """Return whether no app-server runs or is expected soon; then the client gets an error."""
        down = self.state.appserver.state is AppServerState.DOWN
        if down:
            text = self._recovery.down_text()
            self.state.error(client.id, message.id, jsonrpc.APP_SERVER_GONE, text)
        return down

    def _send_up(
        self, client: Client, message: ClientMessage, rule: RequestRule, scope: Scope
    ) -> None:
        """Send a request upstream that nothing stands against, unless a feature answers it here."""
        if client.overrides is not None:
            # Only now: what the broker adds isn't the client's to be judged by.
            values = client.overrides.values
            message = overrides.completed(message, values, client.principal.scopes)
        try:
            message, if_busy = self._turn_queueing.read(client, message)
            request = self._client_requests.request(client, message, rule)
        except BadMessageError as bad:
            self.refuse(client.id, BadMessageError(bad.code, str(bad), message.id))
            return
        if message.method in SENDS:
            request.sent = self._deduplicator.first(client, message)
        thread = self.state.threads.known.get(request.thread or "")
        private = thread is not None and thread.private
        if audit_events.drives(message.method, begins=rule.begins) and not private:
            self._presence.drove(client)
            self._notice_triggers.acted(client, message.method, message.thread)
        if if_busy is not None and self._turn_queueing.takes(client, request, message, if_busy):
            return
        audit_events.record_request(self.state, client, request, message, scope)
        outcome = (
            self._shared_titles.replay_for(client, request, message.params) if private else None
        )
        if outcome is not None:
            self._notifications.replay_title(outcome)
        elif not self._recovery.holds(request, thread):
            self._client_requests.submit(request)

    def _notified(self, client: Client, message: ClientMessage) -> None:
        # The broker sent `initialized` upstream once, and codex knows no other notification of
        # clients. A newer codex may know one, but it has no scope yet, so it goes nowhere.
        self.state.charge(client.id)
        if message.method == FOCUS and SCOPES[FOCUS] in client.principal.scopes:
            self._attention.focused(client, message)
        elif message.method != "initialized":
            method = message.method[: audit_events.NAME_CHARACTERS]
            self.state.log("info", "notification dropped", client=client.id, method=method)
