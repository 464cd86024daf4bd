"""Takes the app-server's answers back to the clients that asked.

A request is looked up by its wire id. What its answer begins or ends is applied by the features, in
an order that clients see: what belongs before the answer, the answer, what follows from it.

Used by ``notifications`` for each answer, and by ``broker`` when time has passed.
"""

from __future__ import annotations

import msgspec

from mux.core.audit import audit_events
from mux.core.commands import KillUpstream
from mux.core.features.inbox import inbox_cards
from mux.core.features.requests import turn_interrupts
from mux.core.features.requests.deduplication import REVERT
from mux.core.features.requests.turn_interrupts import INTERRUPT
from mux.core.features.turns.shared_titles import LOADED
from mux.core.part import Part
from mux.core.policy import configuration_view
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import UpstreamMessage
from mux.core.protocol.envelope.long_line import LongLine, read_snapshot
from mux.core.protocol.envelope.rope import Rope
from mux.core.protocol.rules import Route
from mux.core.state.clients.client import Client
from mux.core.state.requests import scoped_ids
from mux.core.state.requests.request import Request
from mux.core.state.requests.scheduler import BROKER, QUEUE
from mux.core.state.threads.long_snapshot import LongAnswer
from mux.core.wiring import Features


class ResponseRouter(Part):
    """Routes answers, and applies what follows from them."""

    parts: Features

    def answered(self, line: bytes, message: UpstreamMessage) -> None:
        """Handle one answer of the app-server."""
        id = bytes(message.id)
        request = self.parts.state.scheduler.upstream.get(int(id)) if id.isdigit() else None
        failed = message.error is not jsonrpc.ABSENT
        if request is None:
            text = "answer to a request that isn't known"
            self.parts.state.log("warning", text, id=id.decode(errors="replace")[:40])
        elif not (failed and self.parts.client_requests.asks_again(request, bytes(message.error))):
            if _concerns_its_asker_alone(request):
                self._pass_on(request, line, failed=failed)
            elif not (failed and self.parts.local_resumes.begins(request, line)):
                self._settle(request, line, failed=failed)
            self.parts.client_requests.pump()

    def settle_lost(self, request: Request, line: bytes, failed: bool) -> None:
        """Settle a request whose own answer was lost with an earlier broker."""
        self._settle(request, line, failed=failed)

    def answered_long(self, line: LongLine) -> bool:
        """Handle a long answer; return False if it must be read whole.

        A result passes in its pieces. Of one that a client follows a thread by, only the outline is
        read.
        """
        wire = line.answers
        request = self.parts.state.scheduler.upstream.get(wire) if wire is not None else None
        if request is None or not _passes(request):
            return False
        snapshot = None
        if request.rule.route is Route.FOLLOW:
            snapshot = read_snapshot(line)
            if snapshot is None:
                return False
        outline = snapshot.outline if snapshot is not None else line.outline()
        self._settle(request, outline, failed=False, long=LongAnswer(line, snapshot))
        self.parts.client_requests.pump()
        return True

    def _settle(
        self, request: Request, line: bytes, *, failed: bool, long: LongAnswer | None = None
    ) -> None:
        """Apply what the answer changes, and send it to the client that asked.

        ``long``: the answer itself, if ``line`` is only its outline.
        """
        # Its slot is free first: whatever follows may submit another request.
        self.parts.client_requests.answered(request)
        audit_events.record_answer(self.parts.state, request, line, failed=failed)
        if request.client is None and self._settle_own(request, line, failed=failed):
            return
        if not failed and not request.expired:
            self.parts.subscriptions.will_repeat(request)
        client = None
        if not request.expired:  # else the client got an error already, and joins nothing more
            self.parts.client_requests.joins(request, -1)
            client = self.parts.state.clients.get(request.client or 0)
        # Everything up to `state.answer` happens before the client reads the answer. The client
        # becomes a follower now, so no notification is lost between the answer and the next line.
        line = self._settle_claim(request, client, line, failed=failed)
        if request.rule.begins:
            self.parts.shared_titles.answered(request, line, failed=failed)
        elif not failed and _is_shown_in_part(request):
            line = self._as_client_may_see(client, request, line)
        named: dict[str, bool] = {}
        if request.rule.route is Route.FOLLOW and not failed:
            self.parts.notice_triggers.joined(line)
            self.parts.inbox_changes.joined(line)
            named = self.parts.subscriptions.before_answer(request, client, line)
            line, long = self.parts.subscriptions.up_to_date(named, request, line, long)
        # Before `subscriptions.begun`, which notes the turn: afterwards each turn has run before.
        steered = (
            request.rule.begins and not failed and self.parts.turn_queueing.steered(request, line)
        )
        if client is not None:
            if request.notifies_steered and not failed:
                line = _with_steered(line, steered=steered)
            answer = _with_id(request, line, long)
            self.parts.state.answer(client.id, answer, request.method)
        # From here on everything comes behind the answer. Repeats of the request get the answer
        # after the one that was sent first.
        self.parts.deprecation_notices.remember(request)
        self.parts.deduplicator.settled(request, line)
        if request.method == INTERRUPT and not failed:
            turn_interrupts.done(self.parts.state, request)
        elif request.method == REVERT and not failed:
            self.parts.deduplicator.reverted(request)
        if request.rule.begins and not failed:
            self.parts.subscriptions.begun(request, line)
            self.parts.inbox_changes.touch(request.thread)
        if request.account == QUEUE and not request.expired:
            self.parts.turn_queueing.settled(request, line, failed=failed, steered=steered)
        # Last: a newcomer knows the thread from the answer. Only then can it make sense of the
        # running items and the pending approvals that it is sent now.
        self.parts.subscriptions.after_answer(client, named)

    def _pass_on(self, request: Request, line: bytes, *, failed: bool) -> None:
        """Pass an answer on that changes nothing here: the part of ``_settle`` that it needs."""
        self.parts.client_requests.answered(request)
        client = self.parts.state.clients.get(request.client or 0)
        if client is not None:
            if not failed and _is_shown_in_part(request):
                line = self._as_client_may_see(client, request, line)
            answer = jsonrpc.with_id(line, request.wire_text, request.origin)
            self.parts.state.answer(client.id, answer, request.method)
        self.parts.deprecation_notices.remember(request)

    def _as_client_may_see(self, client: Client | None, request: Request, line: bytes) -> bytes:
        """Return the answer without what its client may not see, or what is made of it instead."""
        if request.inbox is not None:
            return self.parts.inbox.answered(client, request, line)
        if request.method == inbox_cards.LIMITS_READ:
            self.parts.inbox.cards.limits_read(line)
        elif request.method == inbox_cards.READ_STATE_UPDATE:
            self.parts.inbox_changes.touch(
                self.parts.inbox.cards.read_state_updated(request.line, line)
            )
        elif request.method == LOADED:
            return self.parts.shared_titles.unlisted(client, line)
        if request.method == configuration_view.READ and not _may_see_all(client):
            return configuration_view.shown(line)
        return line

    def _settle_own(self, request: Request, line: bytes, *, failed: bool) -> bool:
        """Give an answer to the feature that waits for it. Return False if none does."""
        if request.method == "initialize":
            self.parts.handshakes.upstream_initialized(line)
            return True
        if self.parts.local_resumes.has_made(request):
            answer = self.parts.local_resumes.answered(request, line)
            # Both may be given up in one moment: then its asker has had the error for that.
            if answer is not None and answer[0].wire in self.parts.state.scheduler.upstream:
                waited, line, failed = answer
                self._settle(waited, line, failed=failed)
            return True
        return (
            self.parts.recovery.resumed(request, failed=failed)
            or self.parts.handover.answered(request, line, failed=failed)
            or self.parts.replays.loaded(request, failed=failed)
            or self.parts.clearance.answered(request, line, failed=failed)
            or self.parts.subscriptions.loaded(request, failed=failed)
        )

    def _settle_claim(
        self, request: Request, client: Client | None, line: bytes, *, failed: bool
    ) -> bytes:
        """Return the answer with the client's own ids, and release the id that the request claimed.

        The id stays claimed if what it stands for goes on.
        """
        if request.claim is not None:
            if client is not None:
                self._settle_hold(request, request.claim, client.id, failed=failed)
            if failed:
                line = scoped_ids.in_origin_terms(line, request.claim.wire, request.claim.origin)
        for named in request.named:  # ids found by their fields' names may be in a result, too
            line = scoped_ids.in_origin_terms(line, named.wire, named.origin)
        return line

    def _settle_hold(
        self, request: Request, claim: scoped_ids.IdClaim, client: ClientId, *, failed: bool
    ) -> None:
        own_id = request.rule.own_id
        if failed or request.method == "command/exec":  # never began, or has ended
            self.parts.state.scoped_ids.release(client, claim)
        elif own_id is not None and own_id.ends:
            self.parts.state.scoped_ids.end(client, claim)
        else:
            self.parts.state.scoped_ids.begun(client, claim)

    # ── answers that don't come ───────────────────────────────────────────────────────────────

    def settle_overdue(self) -> None:
        """Retry what was put off for overload, and give up what has waited too long."""
        for request in self.parts.client_requests.retry():
            self._settle(request, _NOBODY_WANTS_IT, failed=True)
        for request in self.parts.client_requests.expire():
            self._own_expired(request)

    def _own_expired(self, request: Request) -> None:
        """Give up a request of the broker's own that was left unanswered for too long."""
        if request.method == "initialize":
            seconds = self.parts.state.limits.request_deadline
            self.parts.state.out.append(
                KillUpstream(f"no answer to `initialize` within {seconds:g} s")
            )
        elif request.account == QUEUE:
            self.parts.turn_queueing.settled(request, b"{}", failed=True, steered=False)
        else:
            self._settle_own(request, b"", failed=True)


def _passes(request: Request) -> bool:
    """Return whether a result of the request passes, and nobody but its client reads it."""
    return not (
        request.account in (BROKER, QUEUE)
        or request.rule.begins
        or request.sent is not None
        or request.named
        or _is_shown_in_part(request)
    )


def _concerns_its_asker_alone(request: Request) -> bool:
    """Return whether the answer, or an error, changes nothing here. Most only read something."""
    return not (
        request.rule.route is not Route.PLAIN
        or request.rule.begins
        or request.client is None
        or request.expired
        or request.claim is not None
        or request.named
        or request.sent is not None
        or request.recorded is not None
        or request.method in _CHANGES_SOMETHING
    )


_CHANGES_SOMETHING = frozenset({INTERRUPT, REVERT})

_SHOWN_IN_PART = frozenset(
    {LOADED, configuration_view.READ, inbox_cards.LIMITS_READ, inbox_cards.READ_STATE_UPDATE}
)


def _is_shown_in_part(request: Request) -> bool:
    """Return whether a client may get less than the answer, or something that is made of it.

    So may a feature here want to read it.
    """
    return request.inbox is not None or request.method in _SHOWN_IN_PART


def _with_id(request: Request, line: bytes, long: LongAnswer | None) -> bytes | Rope:
    """Return the answer under the id that its client chose."""
    if long is not None:
        return long.with_id(request.origin)
    return jsonrpc.with_id(line, request.wire_text, request.origin)


def _may_see_all(client: Client | None) -> bool:
    return client is not None and "admin" in client.principal.scopes


def _with_steered(line: bytes, *, steered: bool) -> bytes:
    """Return the answer to a ``turn/start`` with ``steered`` in it, which natively isn't there."""
    fields = jsonrpc.read_fields(line) or {}
    result = jsonrpc.read_fields(fields.get("result", b"")) or {}
    extra = msgspec.json.encode({"steered": steered})
    return jsonrpc.write(fields | {"result": jsonrpc.write(result | {"appmux": extra})})


_NOBODY_WANTS_IT = b'{"error":{"code":-32001,"message":"its asker left"}}'
