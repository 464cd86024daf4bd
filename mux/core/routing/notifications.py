"""Routes the app-server's lines, and publishes its notifications.

A line is a notification, an answer (``responses``) or a server request (``server_requests``). THE
TABLE says who gets a notification. What a notification changes is applied to its thread's state;
then the features that depend on it are called: approvals, queued turns, titles, notices.

Used by ``broker``, for every line.
"""

from __future__ import annotations

from collections.abc import Sequence

from mux.core.audit import audit_events
from mux.core.features.inbox import inbox_cards
from mux.core.features.notices import notice_triggers
from mux.core.features.requests import turn_interrupts
from mux.core.features.subscriptions.subscriptions import USAGE
from mux.core.features.turns.shared_titles import ReplayedMessage
from mux.core.part import Part, later
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ItemParams, UpstreamMessage
from mux.core.protocol.envelope.long_line import LongLine
from mux.core.protocol.methods import PUBLISHED, notification_rule
from mux.core.protocol.rules import Audience, NotificationRule
from mux.core.routing.deltas import DeltaRouter
from mux.core.routing.responses import ResponseRouter
from mux.core.state.requests import id_fields, scoped_ids
from mux.core.state.requests.pending_requests import RESOLVED
from mux.core.wiring import Features

_ENDS_THREAD = frozenset({"thread/archived", "thread/closed", "thread/deleted"})
_OF_A_THREAD = frozenset({Audience.FOLLOWERS, Audience.NAMED})
_TURNING_POINTS = frozenset(
    {
        "turn/started",
        "item/completed",
        "turn/completed",
        "thread/closed",
        "thread/archived",  # unloads it, without a word of that
        "thread/deleted",
    }
)


class NotificationRouter(Part):
    """Routes the app-server's lines."""

    parts: Features
    responses: ResponseRouter
    _previous: UpstreamMessage | None = None
    """The line before the current one; None for one of a run, which is a delta."""
    deltas: DeltaRouter = later()

    def __post_init__(self) -> None:
        self.deltas = DeltaRouter(self.parts.state)

    def handle(self, line: bytes) -> bool:
        """Handle one line. Return True if it was one more delta, by which nothing else changes."""
        self.parts.state.appserver.last_heard = self.parts.state.now
        message = jsonrpc.read_upstream(line)
        streams = message is not None and self.deltas.handle(line, message)
        if not streams:
            self.deltas.interrupted()
            self._sent(line, message)
        self._previous = message
        return streams

    def handle_long(self, line: LongLine) -> None:
        """Handle one long line: an answer passes in its pieces, if nothing in it must be read.

        Any other is handled whole.
        """
        self.parts.state.appserver.last_heard = self.parts.state.now
        self.deltas.interrupted()
        self._previous = None
        if not self.responses.answered_long(line):
            self.handle(line.rope().whole())

    def handle_run(self, lines: Sequence[bytes | LongLine], at: int) -> int:
        """Handle the lines from ``at`` on that are a run of deltas; return how many these are."""
        handled = self.deltas.handle_run(lines, at)
        if handled:
            self.parts.state.appserver.last_heard = self.parts.state.now
            self._previous = None
        return handled

    def interrupted(self) -> None:
        """Note that another event than a line came."""
        self.deltas.interrupted()

    def _sent(self, line: bytes, message: UpstreamMessage | None) -> None:
        if message is None:
            text = "app-server wrote a line that is no message"
            self.parts.state.log("warning", text, bytes=len(line))
        elif message.method == RESOLVED:
            self._resolved(line)
        elif message.id is jsonrpc.ABSENT:
            self._notified(line, message)
        elif message.method is None:
            self.responses.answered(line, message)
        else:
            self.parts.server_requests.offer_new(line, message)

    def _notified(self, line: bytes, message: UpstreamMessage) -> None:
        method, thread, state = message.method, message.thread, self.parts.state
        if method is None:
            return
        self._observe(method, thread, line)
        rule = notification_rule(method)
        if rule.audience is Audience.NAMED and self._is_owned(method, line, rule):
            return
        if (
            method == USAGE
            and thread is not None
            and self.parts.subscriptions.repeats(thread, line)
        ):
            return
        # Before the line is published, so that clients see approvals end before their thread does.
        if method in _ENDS_THREAD and thread is not None:
            self.parts.resolutions.thread_over(thread, line)
            self.parts.turn_queueing.thread_over(thread)
        if rule.audience is Audience.EVERYBODY:
            private = self.parts.shared_titles.private(thread, method, line)
            if private is not None:
                thread, rule = private, PUBLISHED
        if rule.audience not in _OF_A_THREAD or thread is None:
            self._notify_others(thread, method, line, rule)
        elif state.threads.get(thread).claimed:
            state.publish(thread, method, line)
        else:
            self.parts.subscriptions.unclaimed(thread, method, line)
        # After the line is published: this may change who follows the thread, and what is sent
        # because of the line (withdrawn approvals, queued turns) comes behind it.
        if thread is not None and message.params is not None:
            self._apply(thread, method, message.params, line)
        if thread in state.title_turns.running:  # the copies come behind the original
            self.replay_title(self.parts.shared_titles.observe(thread, method, line))

    def _observe(self, method: str, thread: str | None, line: bytes) -> None:
        """Have it heard by features that go by what no client is sent, too, before all else."""
        if method in notice_triggers.HEARD:
            self.parts.notice_triggers.observe(method, thread, line)
        if method in inbox_cards.HEARD:
            self.parts.inbox_changes.observe(method, thread, line)

    def _notify_others(
        self, thread: str | None, method: str, line: bytes, rule: NotificationRule
    ) -> None:
        if rule.greets:
            self.parts.state.appserver.greet(method, line)
            self.parts.state.durable.touch("app-server", "")
        if rule.audience is Audience.OWNER:
            self._notify_owner(line, method, rule.own_id)
        elif rule.audience is Audience.ASKERS:
            self._notify_these(self.parts.deprecation_notices.recipients(line), method, line)
        elif rule.audience is Audience.WORKING:
            self._notify_these(self._working(), method, line)
        else:
            self.parts.state.publish_to_all(thread, method, line)

    def _notify_these(self, recipients: set[ClientId], method: str, line: bytes) -> None:
        for id in self.parts.state.threads.audience(None):
            if id in recipients and self.parts.state.clients[id].receives(method):
                self.parts.state.send(id, line, method)

    def _working(self) -> set[ClientId]:
        """Return the followers of the thread whose usage was reported in the previous line.

        If there is no such thread, return the followers of all threads that run.
        """
        threads = self.parts.state.threads
        if self._previous is not None and self._previous.method == USAGE:
            return set(threads.audience(self._previous.thread or ""))
        running = [id for id, each in threads.known.items() if each.running.turn is not None]
        return {client for id in running for client in threads.audience(id)}

    def _is_owned(self, method: str, line: bytes, rule: NotificationRule) -> bool:
        """Return whether the notification names ids of one client.

        If so, that client alone gets it, with its own ids.
        """
        state = self.parts.state
        over = frozenset(self.parts.client_requests.wires_lately)
        owned = id_fields.owned(line, state.scheduler.upstream, over, deeply=not rule.names_request)
        if owned is None:
            return False
        client = state.clients.get(owned.owner or 0)
        if client is None:
            state.log("debug", "notification of nobody's", method=method)
        elif method not in client.opted_out:
            state.send(client.id, owned.line, method)
        return True

    def _notify_owner(self, line: bytes, method: str, field: str) -> None:
        own = scoped_ids.unscope(line, field)
        if own is None:
            return
        owner, origin, own_line = own
        if method == "process/exited":
            self.parts.state.scoped_ids.ended(owner, field, origin)
        client = self.parts.state.clients.get(owner)
        if client is not None and method not in client.opted_out:
            self.parts.state.send(owner, own_line, method)

    def _apply(self, thread: str, method: str, params: ItemParams, line: bytes) -> None:
        """Apply to the thread's state what the notification changes."""
        self.parts.state.threads.apply(thread, method, params, line)
        if method == "thread/status/changed":
            # Of a thread without followers the app-server reports a turn's end by this alone.
            self._interrupted(thread)
        if method not in _TURNING_POINTS:
            return
        if method == "turn/started":
            current = self.parts.state.threads.get(thread).running
            if not current.items:
                current.since = self.parts.state.journal.head
        elif method == "item/completed":
            self.parts.subscriptions.spawned(thread, line)
        elif method == "turn/completed":
            running = self.parts.state.threads.get(thread).running
            # Clients have `turn/completed` already. The turn's approvals are withdrawn behind it,
            # before a queued turn can start, which happens at the event's end.
            self.parts.resolutions.turn_over(thread, running.over, line)
            self.parts.turn_queueing.turn_over(thread, line)
            self._interrupted(thread)
            self.parts.state.release_candidates.add(thread)
        else:
            self.parts.subscriptions.thread_closed(thread)

    def _interrupted(self, thread: str) -> None:
        if turn_interrupts.turn_over(self.parts.state, thread):
            self.parts.client_requests.pump()

    def _resolved(self, line: bytes) -> None:
        thread = self.parts.resolutions.resolved(line)
        if thread is not None:
            self.parts.state.release_candidates.add(thread)

    def replay_title(self, outcome: list[ReplayedMessage]) -> None:
        """Send the outcome of another title turn to the requests that share it.

        Clients get it as if the app-server had written it for each of them.
        """
        for replayed in outcome:
            request, client = replayed.answers, None
            if request is None:
                message = jsonrpc.read_upstream(replayed.line)
                if message is not None:
                    self._notified(replayed.line, message)
                continue
            audit_events.record_answer(self.parts.state, request, replayed.line, failed=False)
            client = self.parts.state.clients.get(request.client or 0)
            if client is not None:
                answer = jsonrpc.with_id(replayed.line, request.wire_text, request.origin)
                self.parts.state.answer(client.id, answer, request.method)
            self.parts.subscriptions.begun(request, replayed.line)
