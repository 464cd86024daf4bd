"""Answers of people to approvals: which answer decides, and what clients are sent until one does.

Every answer to an approval comes through ``take``, whichever way it reached the broker. The rules
of a policy stand in ``approval_policy``; here they are applied to the clients attached. Where a
policy wants more than the first yes, the ``reason`` in the prompt says so. A client whose answer
doesn't decide is notified. If it knows the broker, that is by ``mux/approvals/changed`` (and
``mux/refused``); otherwise by the same request once more, with a text in its reason. The request is
resolved for all clients when it is decided.
"""

from __future__ import annotations

import msgspec

from mux.core.audit import audit_approvals, audit_events
from mux.core.features.clients.attention import Attention
from mux.core.part import Part
from mux.core.policy import consent
from mux.core.policy.approval_policy import Vote, Voter, voter
from mux.core.policy.principal import ClientId
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.rules import OfferTo
from mux.core.state.clients.client import Client, ClientState
from mux.core.state.requests.pending_requests import ServerRequest
from mux.core.state.state import State

AT_ONCE = 0.3
"""Seconds: a yes that comes sooner after the offer is a machine's."""

CHANGED = "mux/approvals/changed"
"""Notifies what an approval with a policy other than ``first`` waits for, and who has voted."""

REFUSED = "mux/refused"
"""Notifies a client that its answer to a server request didn't count, and why."""

HAVE_REASONS = frozenset(
    {
        "item/commandExecution/requestApproval",
        "item/fileChange/requestApproval",
        "item/permissions/requestApproval",
        "execCommandApproval",
        "applyPatchApproval",
    }
)
"""The server requests whose params have a ``reason`` for a person to read."""

ONLY_LOCAL = "only a client on this host may allow this"

HOW_LOCAL = (
    "; that is one at the unix socket, or at a loopback listener that is `ws+local://` in `listen`"
)
"""Added for a client that came over TCP and may sit at the host: a proxy there could be in
between."""


class Voting(Part):
    """Votes on approvals, and the texts about them."""

    state: State
    attention: Attention
    _waiting: dict[int, ServerRequest] = msgspec.field(default_factory=dict)
    """The requests with a machine's vote that waits while a person looks, by id."""

    def cast(self, request: ServerRequest, client: Client, result: bytes) -> bytes | None:
        """Count a valid answer of a client that may approve.

        Returns the result that decides, which needn't be the one given; None while nothing does.
        """
        ballot, now = request.ballot, self.state.now
        machine = self._waits_for_person(request, client)
        if consent.is_no(request.method, result) or (ballot.policy.is_first and not machine):
            return result
        early = self._waits_for_owner(request) and not self._is_owner(request, client)
        vote = Vote(result, now, early, client.id, audit_events.actor_of(client), machine)
        if vote.repeats(ballot.votes.get(voter(client.principal))):
            return None  # a program may repeat it for ever; the audit log needn't record that
        ballot.cast(client.principal, vote)
        self.state.durable.touch("request", str(request.id))
        decided = ballot.decided(request.method, request.offer, now)
        if decided is None:
            waits_for = self.waits_for(request)
            audit_approvals.voted(self.state, request, client, result, waits_for, machine=machine)
            self.state.wake_at(ballot.next_moment(now))
            if machine:
                self._waiting[request.id] = request
            self.notify(request)
        return decided

    def able(self, request: ServerRequest) -> set[ClientId]:
        """Return the clients that were offered a request and may say yes; observers don't count."""
        clients, local = self.state.clients, request.ballot.policy.local
        if request.rule.offer_to is not OfferTo.FOLLOWERS:
            return set(request.offered)
        return {
            id
            for id in request.offered
            if request.rule.scope in clients[id].principal.scopes
            and (clients[id].local or not local)
        }

    # ── machines ──────────────────────────────────────────────────────────────────────────────

    def _waits_for_person(self, request: ServerRequest, client: Client) -> bool:
        """Return whether the client's answer is a machine's, and a person looks who may decide."""
        policies = self.state.policies
        if not policies.machines_wait or not self.is_a_machines(request, client):
            return False
        look = self.attention.at_request(request, besides=client.id)
        if look is not None:
            request.ballot.watched_until = look[1]
        return look is not None

    def is_a_machines(self, request: ServerRequest, client: Client) -> bool:
        """Return whether an answer that the client gives now is a program's own.

        No person reads and answers so soon. A device that answers from a notice is a person's.
        """
        if client.info is not None and client.info.name in self.state.policies.machines:
            return True
        shown = request.shown_at.get(client.id)
        return shown is not None and self.state.now - shown < AT_ONCE

    @property
    def waits(self) -> bool:
        """Return whether a machine's vote waits while a person looks."""
        return bool(self._waiting)

    def unwatched(self) -> list[ServerRequest]:
        """Return the requests at which no person looks any more, so that machines' votes count."""
        left = []
        for request in list(self._waiting.values()):
            voters = {vote.client for vote in request.ballot.votes.values() if vote.machine}
            pending = self.state.pending_requests.get(b"%d" % request.id)
            if request.answered or not voters or pending is None:
                del self._waiting[request.id]
                continue
            besides = voters.pop() if len(voters) == 1 else None
            look = self.attention.at_request(request, besides)
            request.ballot.watched_until = look[1] if look is not None else 0.0
            if look is None:
                del self._waiting[request.id]
                left.append(request)
            else:
                self.state.wake_at(look[1])
        return left

    def refuses(self, request: ServerRequest, client: Client, result: bytes) -> str | None:
        """Return why this client's answer can't count at all, now or later; None if it can."""
        distant = request.ballot.policy.local and not client.local
        if not distant or consent.is_no(request.method, result):
            return None
        return ONLY_LOCAL if client.principal.device else ONLY_LOCAL + HOW_LOCAL

    def due(self, request: ServerRequest) -> tuple[bytes, ClientId | None] | None:
        """Return what early votes have decided by now, and by whose answer."""
        ballot = request.ballot
        if request.answered or not ballot.votes:
            return None
        decided = ballot.decided(request.method, request.offer, self.state.now)
        if decided is None:
            return None
        return decided, list(ballot.counting(self.state.now).values())[-1].client

    def device_ended(self, request: ServerRequest, device: str) -> None:
        """Remove the vote of a device whose access has ended."""
        if request.ballot.votes.pop(("device", device), None) is not None:
            self.state.durable.touch("request", str(request.id))
            self.notify(request)

    def _waits_for_owner(self, request: ServerRequest) -> bool:
        """Return whether votes of clients other than the owner don't count yet."""
        ballot = request.ballot
        if not ballot.policy.owner or self.state.now >= ballot.opens:
            return False
        return any(self._is_owner(request, each) for each in self._may_approve())

    def _is_owner(self, request: ServerRequest, client: Client) -> bool:
        """Return whether the client is the one that began the turn, or that one come back."""
        owner = request.ballot.owner
        if owner is None:
            return False
        if client.id not in self.state.clients:  # the owner's device, from its lock screen
            return client.principal.identity == owner.principal.identity
        if owner.client in self.state.clients:
            return client.id == owner.client
        return client.resembles(owner.program, owner.principal)

    # ── texts ─────────────────────────────────────────────────────────────────────────────────

    def waits_for(self, request: ServerRequest) -> str:
        """Return what an approval waits for, as a text for people."""
        ballot, policy = request.ballot, request.ballot.policy
        conditions = []
        if self._waits_for_owner(request) and ballot.owner is not None:
            who = f"{ballot.owner.program} ({ballot.owner.principal.name}), which began the turn"
            conditions.append(f"{who}; for {ballot.opens - self.state.now:.0f} s more it alone")
        if self.state.now < ballot.watched_until and ballot.has_machines:
            look = self.attention.at_request(request)
            who = f", at {look[0].info.name}" if look is not None and look[0].info else ""
            conditions.append(
                f"the person who looks at it{who}; a program's own yes counts after them"
            )
        approvers = [each for each in self._may_approve() if each.local or not policy.local]
        if policy.local:
            none = "" if approvers else ": none that may approve is attached"
            conditions.append(f"a client on this host{none}")
        if policy.quorum > 1:
            conditions.append(self._quorum(request, {voter(each.principal) for each in approvers}))
        return "; ".join(conditions) or "anyone who may approve"

    def _quorum(self, request: ServerRequest, approvers: set[Voter]) -> str:
        votes, quorum = request.ballot.votes, request.ballot.policy.quorum
        if len(votes) >= quorum:
            return f"{quorum} principals that let the same thing happen: those so far don't agree"
        few = approvers | votes.keys()
        text = f"a yes of {quorum} principals, {len(votes)} so far"
        if len(few) < quorum:
            text += f" (only {len(few)} could be: somebody else has to come)"
        return text

    def _may_approve(self) -> list[Client]:
        return [
            each
            for each in self.state.clients.values()
            if each.state is ClientState.READY and "approve" in each.principal.scopes
        ]

    def to_json(self, request: ServerRequest) -> dict[str, object]:
        """Return a request's policy and votes, and what it waits for, for clients and operators."""
        ballot = request.ballot
        counting = ballot.counting(self.state.now)
        return {
            "policy": str(ballot.policy),
            "waitsFor": self.waits_for(request),
            "votes": [
                {
                    "client": vote.client,
                    "name": vote.actor["name"],
                    "principal": vote.actor["principal"],
                    "decision": audit_approvals.decision(vote.result),
                    "ageSeconds": round(self.state.now - vote.at, 3),
                    "counts": who in counting,
                    "machine": vote.machine,
                }
                for who, vote in ballot.votes.items()
            ],
        }

    # ── notifying ─────────────────────────────────────────────────────────────────────────────

    def notify(self, request: ServerRequest, to: tuple[ClientId, ...] | None = None) -> None:
        """Notify clients that were offered a request, and know the broker, what it waits for."""
        if request.ballot.policy.is_first and not request.ballot.votes:
            return
        params = {"id": request.id, "threadId": request.thread, **self.to_json(request)}
        message = jsonrpc.notification(CHANGED, params)
        for id in request.offered if to is None else to:
            client = self.state.clients[id]
            if client.knows_extension and CHANGED not in client.opted_out:
                self.state.send(id, message, CHANGED)

    def in_the_prompt(self, request: ServerRequest) -> bytes:
        """Return the offer with a ``reason`` that says what a yes takes; unchanged under ``first``.

        Every client shows the reason with the request; the TUI keeps warnings out of sight.
        """
        policy, owner, conditions = request.ballot.policy, request.ballot.owner, []
        if self._waits_for_owner(request) and owner is not None:
            conditions.append(
                f"{owner.program}, which began the turn, answers first; a yes of others counts"
                f" {policy.owner_delay:.0f} s after the question"
            )
        if policy.local:
            conditions.append(ONLY_LOCAL)
        if policy.quorum > 1:
            approvers = {voter(each.principal) for each in self._may_approve()}
            conditions.append(f"it takes {self._quorum(request, approvers)}")
        return _with_reason(
            request, f"{'; '.join(conditions)}; a no counts at once" if conditions else ""
        )

    def ask_again(self, request: ServerRequest, client: Client, text: str) -> None:
        """Send a request again to a client whose yes didn't decide: its prompt is gone.

        Only once: a program that answers by itself would go on for ever.
        """
        knows = client.knows_extension or client.id in request.asked_again
        if not knows and client.id in request.offered:
            request.asked_again.add(client.id)
            self.state.send(client.id, _with_reason(request, text), request.method)

    def kept(self, request: ServerRequest) -> str:
        """Return the text for a client whose yes doesn't decide yet."""
        return f"your yes is kept, but nothing is decided; it waits for {self.waits_for(request)}"

    def notify_refused(
        self, request: ServerRequest, client: Client, needs: str, reason: str
    ) -> None:
        """Notify the client that its answer does not count, and which scope it would need."""
        has = sorted(client.principal.scopes)
        params = {"requestId": request.id, "needs": needs, "has": has, "why": reason}
        self.state.send(client.id, jsonrpc.notification(REFUSED, params), REFUSED)
        self.state.log("warning", "answer refused", client=client.id, method=request.method)
        audit_approvals.answer_refused(self.state, request, client, needs)


def _with_reason(request: ServerRequest, text: str) -> bytes:
    """Return the offer with a text of the broker's in its reason, after the app-server's own."""
    if not text or request.method not in HAVE_REASONS:
        return request.offer
    fields = jsonrpc.read_fields(request.offer) or {}
    params = jsonrpc.read_fields(fields.get("params", b"")) or {}
    reason = jsonrpc.read_text(params.get("reason"))
    text_with_reason = f"{reason} [appmux: {text}]" if reason else f"[appmux: {text}]"
    rewritten = jsonrpc.write(params | {"reason": msgspec.json.encode(text_with_reason)})
    return jsonrpc.write(fields | {"params": rewritten})
