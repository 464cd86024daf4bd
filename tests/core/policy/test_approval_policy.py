"""Which policy holds for an approval, and which votes decide under it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.policy import consent
from mux.core.policy.approval_policy import QUESTION, Ballot, Policies, Policy, Rule, Vote, voter
from mux.core.policy.command_match import LONGEST
from mux.core.policy.principal import Principal
from tests.core.stories import APPROVAL, dumps

FILES = "item/fileChange/requestApproval"
PERMISSIONS = "item/permissions/requestApproval"
ELICITATION = "mcpServer/elicitation/request"
OFFER = dumps({"method": APPROVAL, "id": 1, "params": {"threadId": "t"}})


# ── the policy ────────────────────────────────────────────────────────────────────────────────────

RULES = Policies(
    rules=(
        Rule("first", command="git status"),
        Rule("quorum", command="git", quorum=3),
        Rule("local", method="item/fileChange/*"),
        Rule("local", command="rm"),
        Rule("owner", method=APPROVAL, command="make"),
    ),
    owner_delay=9.0,
)


@pytest.mark.parametrize(
    ("method", "command", "named"),
    [
        (APPROVAL, "ls", "first"),
        (APPROVAL, None, "first"),
        (APPROVAL, "", "first"),
        (APPROVAL, "git status -s", "first"),
        (APPROVAL, "git push", "quorum of 3"),
        (APPROVAL, "git status; git push", "quorum of 3"),
        (APPROVAL, "git push && rm -rf x", "local and quorum of 3"),
        (APPROVAL, "make && rm x", "owner and local"),
        ("execCommandApproval", "make", "first"),
        (FILES, None, "local"),
        (APPROVAL, "x" * (LONGEST + 1), "owner and local and quorum of 3"),
        (FILES, "x" * (LONGEST + 1), "local and quorum of 3"),
    ],
)
def test_the_first_rule_that_fits_holds_for_each_part(
    method: str, command: str | None, named: str
) -> None:
    assert str(RULES.of(method, command)) == named


def test_a_laxer_rule_covers_only_what_it_names() -> None:
    strict = Policies("quorum", 2, rules=(Rule("first", command="ls"),))
    assert strict.of(APPROVAL, "ls -l").is_first
    for command in ("ls; rm x", "ls $(rm x)", "ls > /etc/passwd", "ls | sh", "rm x"):
        assert strict.of(APPROVAL, command).quorum == 2, command


def test_a_question_takes_no_quorum() -> None:
    assert Policies("quorum", 2).of(QUESTION, None).is_first
    assert str(Policies("owner").of(QUESTION, None)) == "owner"


policies = st.builds(
    Policy, st.booleans(), st.booleans(), st.integers(1, 4), st.sampled_from([0.0, 5.0])
)


@given(policies, policies, policies)
def test_joined_policies_are_no_laxer_than_any(a: Policy, b: Policy, c: Policy) -> None:
    both = a.joined(b)
    for each in (a, b):
        assert both.joined(each) == both
    assert a.joined(b) == b.joined(a)
    assert a.joined(b.joined(c)) == both.joined(c)


@given(policies, policies)
def test_joined_policies_ask_for_all_that_either_asks_for(a: Policy, b: Policy) -> None:
    both = a.joined(b)
    assert (both.owner, both.local) == (a.owner or b.owner, a.local or b.local)
    assert both.quorum == max(a.quorum, b.quorum)
    assert both.owner_delay == max(a.owner_delay, b.owner_delay)


def test_only_where_the_owner_is_waited_for_there_is_a_delay() -> None:
    assert RULES.of(APPROVAL, "make") == Policy(owner=True, owner_delay=9.0)
    assert RULES.of(APPROVAL, "make && rm x") == Policy(owner=True, local=True, owner_delay=9.0)
    assert RULES.of(APPROVAL, "ls") == Policy()
    assert RULES.of(FILES, None) == Policy(local=True)
    assert RULES.of(APPROVAL, "git push") == Policy(quorum=3)
    assert Policies("owner").of(APPROVAL, None) == Policy(owner=True, owner_delay=60.0)


# ── what answers let happen ───────────────────────────────────────────────────────────────────────


def answer(**fields: Any) -> bytes:
    return dumps(fields)


@pytest.mark.parametrize(
    ("method", "result", "no"),
    [
        (APPROVAL, answer(decision="accept"), False),
        (APPROVAL, answer(decision="decline"), True),
        (APPROVAL, answer(decision="cancel"), True),
        (APPROVAL, answer(decision={"acceptWithExecpolicyAmendment": {}}), False),
        (
            APPROVAL,
            answer(
                decision={
                    "applyNetworkPolicyAmendment": {
                        "network_policy_amendment": {"action": "deny", "host": "x"}
                    }
                }
            ),
            True,
        ),
        ("execCommandApproval", answer(decision={"denied": {"rejection": "no"}}), True),
        ("execCommandApproval", answer(decision="abort"), True),
        ("execCommandApproval", answer(decision="approved"), False),
        (PERMISSIONS, answer(permissions={}), True),
        (PERMISSIONS, answer(permissions={"network": None}), True),
        (PERMISSIONS, answer(permissions={"network": {"enabled": True}}), False),
        (ELICITATION, answer(action="cancel"), True),
        (ELICITATION, answer(action="accept", content={}), False),
        ("item/made/up", answer(any="object"), False),
    ],
)
def test_what_lets_nothing_happen_is_a_no(method: str, result: bytes, no: bool) -> None:
    assert consent.is_no(method, result) is no


ONCE, SESSION = answer(decision="accept"), answer(decision="acceptForSession")
AMEND = answer(decision={"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["ls"]}})


def agreed(*results: bytes, method: str = APPROVAL, wanted: int = 2, offer: bytes = OFFER) -> Any:
    found = consent.agreed(method, offer, list(enumerate(results)), wanted)
    return None if found is None else json.loads(found)


def test_a_quorum_agrees_on_the_most_that_all_of_it_include() -> None:
    assert agreed(ONCE) is None
    assert agreed(ONCE, ONCE) == {"decision": "accept"}
    assert agreed(SESSION, SESSION) == {"decision": "acceptForSession"}
    assert agreed(SESSION, ONCE) == agreed(SESSION, AMEND) == {"decision": "accept"}
    assert agreed(AMEND, ONCE, AMEND) == json.loads(AMEND)
    assert agreed(ONCE, SESSION, SESSION, wanted=3) == {"decision": "accept"}
    assert agreed(SESSION, ONCE, wanted=1) == {"decision": "acceptForSession"}


def test_plain_consent_is_not_made_up_where_it_is_not_offered() -> None:
    params = {"availableDecisions": ["acceptForSession", "decline"]}
    offer = dumps({"method": APPROVAL, "id": 1, "params": params})
    assert agreed(SESSION, AMEND, offer=offer) is None
    assert agreed(SESSION, SESSION, offer=offer) == {"decision": "acceptForSession"}


def test_of_permissions_the_smaller_grant_is_agreed_on() -> None:
    net, more = {"network": {"enabled": True}}, {"fileSystem": {"read": ["/a"]}}
    both = answer(permissions=net | more, scope="session")
    one = answer(permissions=net)
    assert agreed(both, one, method=PERMISSIONS) == {"permissions": net}
    assert agreed(answer(permissions=more), one, method=PERMISSIONS) is None
    longer = answer(permissions=net, scope="session")
    assert agreed(longer, both, method=PERMISSIONS) == json.loads(longer)


def test_what_cannot_be_compared_agrees_if_it_is_equal() -> None:
    a, b = answer(action="accept", content={"n": 1}), answer(action="accept", content={"n": 2})
    assert agreed(a, b, method=ELICITATION) is None
    assert agreed(a, b, b, method=ELICITATION) == json.loads(b)


yes = st.sampled_from([ONCE, SESSION, AMEND])


@given(st.lists(yes, max_size=6), st.integers(1, 4))
def test_nothing_is_agreed_on_that_too_few_included(results: list[bytes], wanted: int) -> None:
    found = agreed(*results, wanted=wanted)
    assert (found is None) == (len(results) < wanted)
    if found is not None:
        include = [each for each in results if found in ({"decision": "accept"}, json.loads(each))]
        assert len(include) >= wanted


# ── votes ─────────────────────────────────────────────────────────────────────────────────────────


def vote(result: bytes = ONCE, at: float = 0.0, *, early: bool = False) -> Vote:
    return Vote(result, at, early, 1, {})


def test_one_principal_has_one_vote_the_last() -> None:
    ballot = Ballot(Policy(quorum=2), 0.0)
    ada = Principal("ada", "jwt")
    ballot.cast(ada, vote())
    ballot.cast(ada, vote(SESSION))
    assert ballot.decided(APPROVAL, OFFER, 1.0) is None
    ballot.cast(Principal("bob", "jwt"), vote(SESSION))
    assert ballot.decided(APPROVAL, OFFER, 1.0) == SESSION


def test_a_vote_given_again_is_the_last_one_given() -> None:
    ballot = Ballot(Policy(quorum=3), 0.0)
    ada, bob = Principal("ada", "jwt"), Principal("bob", "jwt")
    for principal in (ada, bob, ada):
        ballot.cast(principal, vote())
    assert list(ballot.votes) == [voter(bob), voter(ada)]


def test_the_same_said_later_is_a_repetition() -> None:
    assert vote(at=5.0).repeats(vote(at=1.0))
    assert not vote(at=5.0).repeats(None)
    assert not vote(SESSION).repeats(vote())
    assert not vote(early=True).repeats(vote())
    assert not Vote(ONCE, 0.0, False, 2, {}).repeats(vote())


def test_who_is_on_this_host_without_proof_is_one_with_its_owner() -> None:
    assert voter(Principal("local", "local-user")) == voter(Principal("anonymous", "open"))
    assert voter(Principal("x", "jwt")) != voter(Principal("x", "device", device="d"))
    renamed = Principal("y", "device", device="d")
    assert voter(Principal("x", "device", device="d")) == voter(renamed)


def test_an_early_vote_counts_when_the_delay_is_over() -> None:
    ballot = Ballot(Policy(owner=True, owner_delay=60.0), 100.0)
    assert ballot.next_moment(100.0) == float("inf")
    ballot.cast(Principal("bob", "jwt"), vote(early=True))
    assert ballot.decided(APPROVAL, OFFER, 159.9) is None
    assert ballot.next_moment(110.0) == 160.0
    assert ballot.decided(APPROVAL, OFFER, 160.0) == ONCE
    assert ballot.next_moment(160.0) == float("inf")


def test_a_machines_vote_waits_while_a_person_looks() -> None:
    """And nobody else's: what that person says counts at once."""
    machine = Vote(ONCE, 0.0, False, 2, {}, machine=True)
    ballot = Ballot(Policy(), 100.0, watched_until=160.0)
    ballot.cast(Principal("program", "device"), machine)
    assert (ballot.decided(APPROVAL, OFFER, 159.9), ballot.next_moment(159.9)) == (None, 160.0)
    # At that moment it counts, and there is no further one to wait for.
    assert ballot.decided(APPROVAL, OFFER, 160.0) == ONCE
    assert ballot.next_moment(160.0) == float("inf")
    ballot.cast(Principal("ada", "jwt"), vote(SESSION))
    assert list(ballot.counting(110.0)) == [voter(Principal("ada", "jwt"))]
    assert ballot.decided(APPROVAL, OFFER, 110.0) == SESSION


def test_no_moment_is_waited_for_where_no_machine_has_voted() -> None:
    ballot = Ballot(Policy(), 100.0, watched_until=160.0)
    ballot.cast(Principal("ada", "jwt"), vote())
    assert ballot.next_moment(110.0) == float("inf")
