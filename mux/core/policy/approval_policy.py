"""Policies: which answers decide an approval.

    first    the first valid answer of anyone who may approve
    owner    only the client that started the turn; the others' answers count after a delay, and at
             once where that client isn't attached (any more) or may not approve
    local    only answers of clients on this host
    quorum   answers of so many distinct principals that let the same thing happen

Under every policy a no (see ``consent``) of anyone who may approve counts at once. Rules choose the
policy when an approval is raised, and it stays for that approval. The first rule that fits holds. A
rule for a command may fit certainly, certainly not, or possibly. If it fits possibly, its policy is
joined with the one that would hold without it (``joined`` is never laxer than either). So a lax
rule does nothing where it isn't certain to fit, and a strict one holds wherever its words could be
run.

An answer that can't decide yet is a *vote* of its principal. A principal with three clients has one
vote: the last one given. A vote that is given while the owner is waited for counts when the delay
is over, not earlier, even if the owner leaves. A phone in a tunnel must not leave the decision to a
program that says yes to everything.

Used by ``server_requests``. ``Policies`` are the settings ``[approvals]``.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs
import msgspec

from mux.core.part import Part
from mux.core.policy import command_match, consent
from mux.core.policy.notice import RISKS
from mux.core.policy.principal import ClientId, Owner, Principal

PolicyName = Literal["first", "owner", "local", "quorum"]

QUESTION = "item/tool/requestUserInput"
"""No permission, so there is nothing that several could consent to: no quorum is required."""

Voter = tuple[str, str]
"""Identifies one vote, however many clients its principal has."""

_ON_THIS_HOST: Voter = ("local-user", "")


class Policy(msgspec.Struct, frozen=True):
    """Requirements that a yes must meet to decide. The default is ``first``."""

    owner: bool = False
    local: bool = False
    quorum: int = 1
    owner_delay: float = 0.0
    """Seconds after which other answers than the owner's count."""

    @property
    def is_first(self) -> bool:
        """True if the first answer decides, whoever gives it."""
        return not (self.owner or self.local or self.quorum > 1)

    def joined(self, other: Policy) -> Policy:
        """Return the policy that asks for all that either asks for."""
        return Policy(
            self.owner or other.owner,
            self.local or other.local,
            max(self.quorum, other.quorum),
            max(self.owner_delay, other.owner_delay),
        )

    def __str__(self) -> str:
        parts = ["owner"] * self.owner + ["local"] * self.local
        parts += [f"quorum of {self.quorum}"] * (self.quorum > 1)
        return " and ".join(parts) or "first"


def _because(reason: str, default: Any) -> Any:
    return attrs.field(default=default, metadata={"reason": reason})


@attrs.frozen
class Rule:
    """An entry of ``[[approvals.rules]]``: the approvals that it is for, and their policy."""

    policy: PolicyName
    method: str = ""
    """Method of the server request, ``*`` for any characters; empty for any method."""
    command: str = ""
    """Words with which the command begins (see ``command_match``). Empty fits every approval, also
    one without a command."""
    quorum: int = 2

    def fits(self, method: str, command: command_match.Reading | None) -> bool | None:
        """Return whether the rule is for this approval; None if it may be.

        ``command`` is None for an approval without one.
        """
        if self.method and not command_match.word_fits(method, self.method):
            return False
        if not self.command:
            return True
        if command is None:
            return False
        words = tuple(self.command.split())
        if command.is_just(words):
            return True
        return None if command.may_run(words) else False


@attrs.frozen
class Policies:
    """The settings that say whose answer decides an approval."""

    policy: PolicyName = _because("as natively: whoever answers first", "first")
    quorum: int = _because("how many principals, where the policy is quorum", 2)
    owner_delay: float = _because(
        "time for the owner to see it; then somebody else at the desk may answer", 60.0
    )
    machines: tuple[str, ...] = _because(
        "names of programs that answer by themselves, though they take longer than a machine", ()
    )
    machines_wait: bool = _because(
        "a machine's yes waits while a person looks; false: it decides at once, as natively", True
    )
    never_from_notice: tuple[str, ...] = _because(
        "not approved at a glance: its notice opens the app (see core.risk)", RISKS
    )
    rules: tuple[Rule, ...] = _because("in order, the first that fits; else the policy above", ())

    def of(self, method: str, command: str | None) -> Policy:
        """Return the policy for an approval.

        ``command`` is what the approval would run, as a person reads it.
        """
        policy = self._of(method, command)
        return msgspec.structs.replace(policy, quorum=1) if method == QUESTION else policy

    def _of(self, method: str, command: str | None) -> Policy:
        reading = None if command is None or not self.rules else command_match.read(command)
        policy = self._made(self.policy, self.quorum)
        for rule in reversed(self.rules):
            fits = rule.fits(method, reading)
            if fits is not False:
                made = self._made(rule.policy, rule.quorum)
                policy = made if fits else made.joined(policy)
        return policy

    def _made(self, name: PolicyName, quorum: int) -> Policy:
        delay = self.owner_delay if name == "owner" else 0.0
        return Policy(name == "owner", name == "local", quorum if name == "quorum" else 1, delay)


# ── votes ─────────────────────────────────────────────────────────────────────────────────────────


def voter(principal: Principal) -> Voter:
    """Return whose vote a principal's answer is.

    Everyone who reaches an open listener on loopback can reach the unix socket, and the other way
    round. So these two are one voter.
    """
    if principal.kind in ("local-user", "open"):
        return _ON_THIS_HOST
    return principal.identity


class Vote(msgspec.Struct, frozen=True):
    """An answer that lets something happen."""

    result: bytes
    at: float
    """The moment of the vote, on the broker's clock."""
    early: bool
    """True if the vote was given while the owner was waited for."""
    client: ClientId | None
    actor: dict[str, object]
    """The client that gave the vote, for the audit log (``audit_events.actor_of``)."""
    machine: bool = False
    """True if a program gave it by itself: it doesn't count while a person looks."""

    def repeats(self, before: Vote | None) -> bool:
        """Return whether the same client gave the same answer before."""
        return before is not None and msgspec.structs.replace(before, at=self.at) == self


class Ballot(Part):
    """The policy of one approval, and the votes so far, oldest first."""

    policy: Policy
    since: float
    """The moment when the approval was raised, on the broker's clock."""
    owner: Owner | None = None
    """The client that started the turn; None if no client did, or if that isn't known."""
    votes: dict[Voter, Vote] = msgspec.field(default_factory=dict)
    watched_until: float = 0.0
    """The time until which a person looks who may decide, as far as known; machines' votes wait."""

    @property
    def has_machines(self) -> bool:
        """Return whether a machine's vote is among them."""
        return any(vote.machine for vote in self.votes.values())

    @property
    def opens(self) -> float:
        """The moment from which the others' votes count, should the owner be waited for."""
        return self.since + self.policy.owner_delay

    def cast(self, principal: Principal, vote: Vote) -> None:
        """Add a vote, in place of an earlier one of the same principal."""
        self.votes.pop(voter(principal), None)
        self.votes[voter(principal)] = vote

    def counting(self, now: float) -> dict[Voter, Vote]:
        """Return the votes that count by now."""
        return {
            who: vote
            for who, vote in self.votes.items()
            if not (vote.early and now < self.opens)
            and not (vote.machine and now < self.watched_until)
        }

    def decided(self, method: str, offer: bytes, now: float) -> bytes | None:
        """Return the result on which enough votes agree; None while there is none."""
        answers = [(who, vote.result) for who, vote in self.counting(now).items()]
        return consent.agreed(method, offer, answers, self.policy.quorum)

    def next_moment(self, now: float) -> float:
        """Return when votes that wait may begin to count; infinity if none do."""
        early = now < self.opens and any(vote.early for vote in self.votes.values())
        machines = now < self.watched_until and self.has_machines
        return min(
            self.opens if early else float("inf"), self.watched_until if machines else float("inf")
        )
