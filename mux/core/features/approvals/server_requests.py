"""Server requests going down, and the answers to them going up.

The rules stand in ``pending_requests``; here they are carried out, with ``voting`` where a person
answers and ``resolutions`` where a request ends. Which clients are offered a request depends on its
row in THE TABLE: all followers of its thread, the client that registered the tool, or one client
after another.

Used by ``NotificationRouter`` and ``Broker``; by ``subscriptions``, when a client joins or leaves a
thread; and by ``handover``.
"""

from __future__ import annotations

import shlex

import msgspec

from mux.core.audit import audit_approvals, audit_events
from mux.core.features.approvals import outcomes
from mux.core.features.approvals.approval_items import item_about, params_in
from mux.core.features.approvals.resolutions import Resolutions
from mux.core.features.approvals.voting import Voting
from mux.core.part import Part
from mux.core.policy.approval_policy import Ballot, Vote
from mux.core.policy.principal import ClientId, Owner
from mux.core.protocol.answers import fault
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.jsonrpc import ClientMessage, UpstreamMessage
from mux.core.protocol.experimental import without_hidden
from mux.core.protocol.methods import SERVER_REQUESTS, server_request_rule
from mux.core.protocol.rules import OfferTo
from mux.core.state.clients.backlog import NOT_NUMBERED
from mux.core.state.clients.client import Client
from mux.core.state.durable import SavedServerRequest
from mux.core.state.requests import id_fields, tool_owners
from mux.core.state.requests.pending_requests import ServerRequest
from mux.core.state.state import NEVER, State

LATE = "answer/late"
"""Counts answers to requests that are over, or were answered before."""


class ServerRequests(Part):
    """Offers and answers."""

    state: State
    voting: Voting
    resolutions: Resolutions

    # ── down ──────────────────────────────────────────────────────────────────────────────────

    def offer_new(self, line: bytes, message: UpstreamMessage) -> None:
        """Offer a new request of the app-server, unless it is a repetition."""
        state, upstream, method = self.state, bytes(message.id), message.method or ""
        if state.pending_requests.is_repetition(upstream):
            return
        rule = server_request_rule(method, of_thread=message.thread is not None)
        owned = self._owned(method, line)
        if owned is not None:  # the request is for that client alone
            line, rule = owned.line, msgspec.structs.replace(rule, offer_to=OfferTo.ONE_AT_A_TIME)
        id = state.pending_requests.take_id()
        request = ServerRequest(
            id=id,
            upstream=upstream,
            method=method,
            thread=message.thread if owned is None else None,
            rule=rule,
            offer=jsonrpc.with_id(line, upstream, b"%d" % id),
            since=state.now,
            needs=rule.needs if _applies(rule.only_if, line) else "",
            turn=audit_approvals.turn_named(params_in(line)),
        )
        if rule.offer_to is OfferTo.FOLLOWERS:
            policy = state.policies.of(method, self._command(request))
            request.ballot = Ballot(policy, state.now, self._owner(request))
        state.pending_requests.add(request)
        audit_approvals.raised(state, request, params_in(line))
        if rule.offer_to is OfferTo.FOLLOWERS:
            self._offer(request, self._followers(request))
        elif rule.offer_to is OfferTo.TOOL_OWNER:
            self._offer_to_tool_owner(request, line)
        else:
            request.next_ones = self._in_turn(request, owned)
            self.offer_to_next(request)

    def restore(self, saved: SavedServerRequest) -> None:
        """Restore a request that was offered by an earlier broker, under the same id.

        People answer it when they come back. A program that it was for has a moment to.
        """
        state, now = self.state, self.state.now
        rule = server_request_rule(saved.method, of_thread=saved.thread is not None)
        ballot = Ballot(saved.policy, now, saved.owner)
        for vote in saved.votes:
            ballot.votes[vote.voter] = Vote(vote.result, now, vote.early, None, vote.by)
        request = ServerRequest(
            id=saved.id,
            upstream=saved.upstream,
            method=saved.method,
            thread=saved.thread,
            rule=rule,
            offer=saved.offer,
            since=now,
            needs=saved.needs,
            turn=saved.turn,
            ballot=ballot,
            journaled=True,
        )
        if rule.offer_to is not OfferTo.FOLLOWERS:
            request.deadline = now + state.limits.one_client_deadline
            request.awaits_return = True
            state.wake_at(request.deadline)
        state.pending_requests.add(request)

    def _owned(self, method: str, line: bytes) -> id_fields.Owned | None:
        """Return whose a request is by the ids that it names, if its method isn't in the table."""
        if method in SERVER_REQUESTS:
            return None
        return id_fields.owned(line, self.state.scheduler.upstream, deeply=True)

    def _in_turn(self, request: ServerRequest, owned: id_fields.Owned | None) -> list[ClientId]:
        if owned is None:
            return list(self._followers(request))
        return [] if owned.owner is None else [owned.owner]

    def _command(self, request: ServerRequest) -> str | None:
        """Return the command that a request is about, as a shell takes it; None without one."""
        params = params_in(request.offer)
        for holder in (params, item_about(self.state, request)):
            command = (jsonrpc.read_fields(holder) or {}).get("command")
            if command is not None and command != b"null":
                read = msgspec.json.decode(command)
                return shlex.join(map(str, read)) if isinstance(read, list) else str(read)
        return None

    def _owner(self, request: ServerRequest) -> Owner | None:
        """Return the client that began the turn that a request belongs to."""
        thread = self.state.threads.known.get(request.thread or "")
        return None if thread is None else thread.running.actor or thread.spawned_by

    def _followers(self, request: ServerRequest) -> tuple[ClientId, ...]:
        return self.state.threads.audience(request.thread)

    def offer_pending(self, client: Client, thread: str) -> None:
        """Offer a client that has joined the thread the requests that await an answer.

        A client that was offered a request already is sent it once more, under the same id:
        natively every resume does so, and a client that shows one thread at a time relies on it.
        """
        for request in list(self.state.pending_requests.pending(thread)):
            if client.id in request.offered and not request.answered:
                self._show(request, (client.id,), first=False)
            elif request.awaits_return and not self._has_returned(request, client):
                continue
            elif request.rule.offer_to is OfferTo.FOLLOWERS or not request.offered:
                self._offer(request, (client.id,))

    def _has_returned(self, request: ServerRequest, client: Client) -> bool:
        """Return whether this is the client for which an earlier broker kept the request."""
        call = tool_owners.read_call(request.offer)
        owner = self.state.tool_owners.owner(request.thread, call) if call is not None else None
        return owner is None or client.resembles(owner.program, owner.principal)

    def _offer(self, request: ServerRequest, recipients: tuple[ClientId, ...]) -> None:
        """Offer a request to the clients that can answer it and haven't been offered it."""
        clients = self.state.clients
        able = tuple(
            id
            for id in recipients
            if id not in request.offered
            and clients[id].declared(request.needs)
            and request.rule.is_for(clients[id].principal.scopes)
        )
        if request.answered:
            return
        first = not request.journaled
        request.journaled = True
        request.ballot.owner = request.ballot.owner or self._owner(request)
        request.offered.update(dict.fromkeys(able))
        if request.awaits_return and able and request.rule.offer_to is OfferTo.TOOL_OWNER:
            request.awaits_return, request.deadline = False, NEVER
        self.state.pending_requests.changes += 1
        # The request first, then what it waits for: clients know it by its id.
        self._show(request, able, first=first)
        self.voting.notify(request, able)

    def _show(
        self, request: ServerRequest, recipients: tuple[ClientId, ...], *, first: bool
    ) -> None:
        """Send a request to these clients.

        Clients that may not see experimental fields get it without those.
        """
        shown, clients = self.voting.in_the_prompt(request), self.state.clients
        request.shown_at.update(dict.fromkeys(recipients, self.state.now))
        less = without_hidden(request.method, shown)
        reduced = [id for id in recipients if less and not clients[id].capabilities.experimentalApi]
        whole = tuple(id for id in recipients if id not in reduced) if reduced else recipients
        seq = NOT_NUMBERED
        if first:
            seq = self.state.publish_to_some(whole, request.thread, request.method, shown)
        else:
            for id in whole:
                self.state.send(id, shown, request.method)
        for id in reduced:
            self.state.send_numbered(id, less or b"", request.method, seq)

    def _offer_to_tool_owner(self, request: ServerRequest, line: bytes) -> None:
        call = tool_owners.read_call(line)
        owner = self.state.tool_owners.owner(request.thread, call) if call is not None else None
        if call is None or owner is None:
            # The tool was registered before this broker's life: a follower may know it.
            self._offer(request, self._followers(request))
            return
        taker = self.state.clients.get(owner.client) or self._stand_in(request, owner)
        if taker is not None and self._may_answer(request, taker):
            self._offer(request, (taker.id,))
        else:
            text = f"The client that provides the tool `{call.tool}` is no longer attached."
            self._answer_for_broker(request, tool_owners.unavailable(text))

    def _stand_in(self, request: ServerRequest, owner: Owner) -> Client | None:
        """Return a follower that is the same program of the same principal: the returned owner."""
        for id in self._followers(request):
            if self.state.clients[id].resembles(owner.program, owner.principal):
                return self.state.clients[id]
        return None

    def offer_to_next(self, request: ServerRequest) -> None:
        """Offer a request to the next client that can answer it.

        If no client is left, an error goes upstream.
        """
        state = self.state
        if request.awaits_return:
            request.awaits_return = False
            if request.rule.offer_to is OfferTo.ONE_AT_A_TIME:
                request.next_ones = list(self._followers(request))
        while request.next_ones:
            id = request.next_ones.pop(0)
            if id in state.clients and self._may_answer(request, state.clients[id]):
                request.present = id
                request.deadline = state.now + state.limits.one_client_deadline
                state.wake_at(request.deadline)
                self._offer(request, (id,))
                return
        self._give_up_on(request, "no attached client could answer it")

    def _may_answer(self, request: ServerRequest, client: Client) -> bool:
        return client.declared(request.needs) and request.rule.scope in client.principal.scopes

    # ── up ────────────────────────────────────────────────────────────────────────────────────

    def client_answered(self, client: Client, message: ClientMessage) -> None:
        """Handle a client's answer: by its policy it may decide; any other changes nothing."""
        request = self.state.pending_requests.offered_to(client.id, message.id)
        if request is None:
            # Late, double, unknown: natively ignored, and no fault of the client.
            self.state.log("debug", "answer that changes nothing", client=client.id)
            self.state.count(LATE)
            self.state.charge(client.id)
            return
        wrong: str | None = "answered with an error"
        if message.kind == "response":
            wrong = fault(request.method, request.offer, message.fields["result"])
        scope = request.rule.scope
        if scope not in client.principal.scopes:
            self.voting.notify_refused(request, client, scope, f"it needs the scope `{scope}`")
        elif wrong is not None:
            self._abstains(request, client, wrong)
        elif (why_not := self.voting.refuses(request, client, message.fields["result"])) is None:
            self.cast(request, client, message.fields["result"])
            if not request.answered:
                self.voting.ask_again(request, client, self.voting.kept(request))
        else:
            self.voting.notify_refused(request, client, "local", why_not)
            self.voting.ask_again(request, client, f"your yes doesn't count: {why_not}")

    def cast(self, request: ServerRequest, client: Client, result: bytes) -> bool:
        """Cast a valid answer, whichever way it came; returns whether it decides."""
        decided = self.voting.cast(request, client, result)
        if decided is not None:
            audit_approvals.approved(self.state, request, audit_events.actor_of(client), decided)
            request.outcome = outcomes.of_answer(client, decided)
            self._answer(request, client.id, {"result": decided})
        return decided is not None

    def on_timer(self) -> float:
        """Offer on what one was too slow for, count votes that waited; returns the next moment."""
        self.count_machines()  # first: whoever looks may do so for longer than was known
        for request in list(self.state.pending_requests.pending()):
            if request.deadline <= self.state.now:
                self.offer_to_next(request)
            elif (due := self.voting.due(request)) is not None:
                self._decided_later(request, *due)
        return self.state.pending_requests.next_moment(self.state.now)

    def count_machines(self) -> None:
        """Have machines' votes count where no person looks any more."""
        for request in self.voting.unwatched():
            if (due := self.voting.due(request)) is not None:
                self._decided_later(request, *due)

    def _decided_later(
        self, request: ServerRequest, decided: bytes, actor: ClientId | None
    ) -> None:
        audit_approvals.approved(self.state, request, None, decided)
        request.outcome = outcomes.of_votes(request, decided)
        self._answer(request, actor, {"result": decided})

    def _answer(
        self, request: ServerRequest, actor: ClientId | None, answer: dict[str, bytes]
    ) -> None:
        request.answered, request.answered_by, request.deadline = True, actor, NEVER
        self.state.pending_requests.changes += 1
        line = jsonrpc.write({"id": request.upstream} | answer)
        self.state.forward(line, request.method)
        if request.thread is None or request.rule.offer_to is OfferTo.TOOL_OWNER:
            self.resolutions.resolve(request.upstream)  # no `resolved` comes for these

    def _abstains(self, request: ServerRequest, client: Client, reason: str) -> None:
        log = self.state.log
        log("warning", "client abstains", client=client.id, method=request.method, why=reason)
        audit_approvals.abstained(self.state, request, client, reason)
        request.abstained.add(client.id)
        self.state.pending_requests.changes += 1
        if request.rule.offer_to is OfferTo.ONE_AT_A_TIME:
            if request.present == client.id:
                self.offer_to_next(request)
        elif self._all_abstained(request):
            self._give_up_on(request, f"every client that it was offered to abstained ({reason})")

    def _all_abstained(self, request: ServerRequest) -> bool:
        able = self.voting.able(request)
        return bool(able) and not request.ballot.votes and request.abstained.issuperset(able)

    def _give_up_on(self, request: ServerRequest, reason: str) -> None:
        if request.rule.offer_to is OfferTo.TOOL_OWNER:
            text = f"The client that provides this tool could not run it: {reason}."
            self._answer_for_broker(request, tool_owners.unavailable(text))
            return
        audit_approvals.given_up(self.state, request, reason)
        request.outcome = outcomes.ABSTAINED
        text = f"{request.method}: {reason}"
        error = msgspec.json.encode({"code": jsonrpc.INTERNAL_ERROR, "message": text})
        self._answer(request, None, {"error": error})

    def _answer_for_broker(self, request: ServerRequest, value: dict[str, object]) -> None:
        self._answer(request, None, {"result": msgspec.json.encode(value)})

    # ── leaving ───────────────────────────────────────────────────────────────────────────────

    def client_left(self, client: Client) -> None:
        """Withdraw the client's offers. Requests to a person wait on; those to a program don't."""
        for request in list(self.state.pending_requests.pending()):
            request.shown_at.pop(client.id, None)
            if client.id in request.offered:
                del request.offered[client.id]
                self._offered_client_left(request, client)
            if request.ballot.owner is not None and request.ballot.owner.client == client.id:
                self.voting.notify(request)

    def device_ended(self, device: str) -> None:
        """Remove the undecided votes of a device whose access has ended: it was revoked, say."""
        for request in self.state.pending_requests.pending():
            self.voting.device_ended(request, device)

    def _offered_client_left(self, request: ServerRequest, client: Client) -> None:
        if request.answered:
            return
        if request.rule.offer_to is OfferTo.ONE_AT_A_TIME:
            if request.present == client.id:
                self.offer_to_next(request)
        elif request.rule.offer_to is OfferTo.TOOL_OWNER and not request.offered:
            name = client.info.name if client.info is not None else ""
            text = f"The client that provides this tool (`{name}`) left before it answered."
            self._answer_for_broker(request, tool_owners.unavailable(text))

    def unfollowed(self, client: Client, thread: str) -> None:
        """Withdraw the client's offers on a thread that it has left.

        Natively it gets no ``resolved`` then. It may join again and be offered the requests anew.
        """
        for request in self.state.pending_requests.pending(thread):
            if request.rule.offer_to is OfferTo.FOLLOWERS:
                request.offered.pop(client.id, None)
                self.state.pending_requests.changes += 1


def _applies(only_if: tuple[str, str] | None, line: bytes) -> bool:
    if only_if is None:
        return True
    field, value = only_if
    params = jsonrpc.read_fields(params_in(line)) or {}
    return jsonrpc.read_text(params.get(field)) == value
