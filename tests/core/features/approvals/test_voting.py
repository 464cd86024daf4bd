"""Stories of approvals under policies: who decides, what the others are told, who is asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.events import AnsweredByNotice, DeviceAccessEnded
from mux.core.features.approvals.voting import CHANGED, REFUSED
from mux.core.policy.approval_policy import Policies, PolicyName, Rule
from mux.core.policy.principal import Principal
from mux.core.state.state import NEVER
from tests.core.stories import APPROVAL, LOCAL, QUESTION, Json, Peer, Story, offered

ACCEPT, DECLINE = {"decision": "accept"}, {"decision": "decline"}
SESSION = {"decision": "acceptForSession"}
AWARE: Json = {"extensions": {"appmux": {"version": 1}}}
PHONE = Principal("phone", "device", device="d1")
ADA, BOB = Principal("ada", "jwt"), Principal("bob", "jwt")


def begun(policy: PolicyName = "first", **settings: Any) -> Story:
    return Story.under(Policies(policy, **settings), probe_interval=NEVER)


def follows(story: Story, *peers: Peer) -> None:
    for peer in peers:
        story.follows(peer)
        peer.heard()
    story.written()


def starts_turn(story: Story, peer: Peer, id: str = "t-turn") -> None:
    """The client starts a turn."""
    peer.asks("turn/start", {"threadId": "t", "input": []})
    turn = {"id": id, "status": "inProgress", "items": []}
    story.answers(story.only("turn/start"), {"turn": turn})
    story.begins_turn("t", id)
    for each in story.peers.values():
        each.heard()
    story.records.clear()


def raised(story: Story, command: str = "rm x", id: int = 5, **params: Any) -> int:
    """An approval; the id under which it is offered."""
    story.asks(id, APPROVAL, threadId="t", turnId="t-turn", command=command, **params)
    pending = list(story.broker.state.pending_requests.pending())
    return pending[-1].id


def listed(story: Story) -> Json:
    """The one approval that waits, as it is listed."""
    asker = story.attach()
    asker.asks("mux/approvals/list")
    (one,) = asker.only()["result"]["approvals"]
    asker.leaves()
    return dict(one)


def reason(peer: Peer) -> str:
    """What the one prompt that it was given says."""
    return str(peer.only(APPROVAL)["params"]["reason"])


def kinds(story: Story) -> list[str]:
    found = [each.kind for each in story.records if each.kind.startswith(("approval", "answer"))]
    story.records.clear()
    return found


# ── first ─────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_policy_nothing_is_told_that_is_not_native() -> None:
    story = begun()
    a, b = story.peer("a"), story.peer("b", **AWARE)
    follows(story, a, b)
    id = raised(story)
    assert a.heard_methods() == b.heard_methods() == [APPROVAL]
    shown = listed(story)
    assert (shown["policy"], shown["waitsFor"]) == ("first", "anyone who may approve")
    a.answers(id, ACCEPT)
    assert story.only() == {"id": 5, "result": ACCEPT}
    assert a.heard() == b.heard() == []


# ── owner ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_owner_decides_at_once_and_another_after_the_delay() -> None:
    story = begun("owner", owner_delay=30.0)
    desk, sdk = story.peer("desk"), story.peer("sdk")
    follows(story, desk, sdk)
    starts_turn(story, desk)
    id = raised(story, reason="because")
    assert desk.only() == (offer := sdk.only())
    assert offer["params"]["reason"] == (
        "because [appmux: desk, which began the turn, answers first; a yes of others counts 30 s"
        " after the question; a no counts at once]"
    )
    assert listed(story)["params"]["reason"] == "because"
    sdk.answers(id, ACCEPT)
    assert story.written() == []
    again = sdk.only()
    assert again["id"] == id
    assert "nothing is decided; it waits for desk (local)" in again["params"]["reason"]
    sdk.answers(id, ACCEPT)  # as a program does, for ever
    assert sdk.heard() == []
    shown = listed(story)
    assert shown["policy"] == "owner"
    assert "desk (local), which began the turn; for 30 s more" in shown["waitsFor"]
    (vote,) = shown["votes"]
    assert (vote["name"], vote["decision"], vote["counts"]) == ("sdk", "accept", False)
    story.waits(29.9)
    assert story.written() == []
    story.waits(0.2)
    assert story.only() == {"id": 5, "result": ACCEPT}
    assert kinds(story) == ["approval/raised", "approval/voted", "approval/answered"]
    story.resolves(5)
    for peer in (desk, sdk):
        assert peer.only()["params"]["requestId"] == id


def test_what_the_owner_says_counts_whatever_others_have_said() -> None:
    story = begun("owner")
    desk, sdk = story.peer("desk"), story.peer("sdk")
    follows(story, desk, sdk)
    starts_turn(story, desk)
    id = raised(story)
    sdk.answers(id, SESSION)
    desk.answers(id, ACCEPT)
    assert story.only() == {"id": 5, "result": ACCEPT}
    story.waits(100.0)
    assert story.written() == []


def test_the_owner_come_back_is_the_owner() -> None:
    story = begun("owner")
    phone, sdk = story.peer("phone", ADA), story.peer("sdk", BOB)
    follows(story, phone, sdk)
    starts_turn(story, phone)
    phone.leaves()
    again = story.peer("phone", ADA)
    follows(story, again)
    id = raised(story)
    sdk.answers(id, ACCEPT)
    assert story.written() == []
    again.answers(id, ACCEPT)
    assert story.only() == {"id": 5, "result": ACCEPT}


def test_an_owner_that_left_is_not_waited_for() -> None:
    story = begun("owner")
    phone, desk = story.peer("phone", ADA), story.peer("desk")
    follows(story, phone, desk)
    starts_turn(story, phone)
    phone.leaves()
    id = raised(story)
    assert desk.heard_methods() == [APPROVAL]
    desk.answers(id, ACCEPT)
    assert story.only() == {"id": 5, "result": ACCEPT}


def test_an_owner_that_leaves_does_not_leave_the_word_to_what_was_said_before() -> None:
    story = begun("owner", owner_delay=30.0)
    phone, sdk, desk = story.peer("phone", ADA), story.peer("sdk", BOB), story.peer("desk")
    follows(story, phone, sdk, desk)
    starts_turn(story, phone)
    id = raised(story)
    sdk.answers(id, ACCEPT)
    phone.leaves()
    assert story.written() == []
    assert listed(story)["votes"][0]["counts"] is False
    desk.answers(id, SESSION)
    assert story.only() == {"id": 5, "result": SESSION}


@pytest.mark.parametrize("who", ["nobody", "an observer"])
def test_an_owner_that_cannot_say_yes_is_not_waited_for(who: str) -> None:
    story = begun("owner")
    scopes = frozenset({"observe", "drive"})
    driver = story.peer("driver", Principal("ada", "jwt", scopes=scopes))  # type: ignore[arg-type]
    desk = story.peer("desk")
    follows(story, driver, desk)
    if who == "nobody":
        story.begins_turn()
    else:
        starts_turn(story, driver)
    desk.heard()
    desk.answers(raised(story), ACCEPT)
    assert story.only() == {"id": 5, "result": ACCEPT}


def test_the_next_turn_has_its_own_owner() -> None:
    story = begun("owner")
    desk, phone = story.peer("desk"), story.peer("phone", ADA)
    follows(story, desk, phone)
    starts_turn(story, desk)
    story.ends_turn()
    starts_turn(story, phone, "next")
    id = raised(story)
    desk.answers(id, ACCEPT)
    assert story.written() == []
    phone.answers(id, ACCEPT)
    assert story.only() == {"id": 5, "result": ACCEPT}


@pytest.mark.parametrize("attached", [True, False])
def test_the_owners_lock_screen_is_the_owner(attached: bool) -> None:
    story = begun("owner")
    phone, desk = story.peer("phone", PHONE), story.peer("desk")
    follows(story, phone, desk)
    starts_turn(story, phone)
    id = raised(story)
    if not attached:
        phone.leaves()
    story.tell(AnsweredByNotice(id, PHONE, "1.2.3.4:5", yes=True))
    assert story.only() == {"id": 5, "result": ACCEPT}


def test_anothers_lock_screen_waits_like_any_other() -> None:
    story = begun("owner")
    desk = story.peer("desk")
    follows(story, desk)
    starts_turn(story, desk)
    id = raised(story)
    story.tell(AnsweredByNotice(id, PHONE, "1.2.3.4:5", yes=True))
    assert story.judged[-1].outcome == "counted"
    assert story.written() == []
    story.tell(AnsweredByNotice(id, PHONE, "1.2.3.4:5", yes=False))
    assert story.written()[0]["result"] == DECLINE


def test_who_steers_a_turn_does_not_own_it() -> None:
    story = begun("owner")
    desk, phone = story.peer("desk"), story.peer("phone", ADA)
    follows(story, desk, phone)
    starts_turn(story, desk)
    phone.asks("turn/start", {"threadId": "t", "input": []})
    turn = {"id": "t-turn", "status": "inProgress", "items": []}
    story.answers(story.only("turn/start"), {"turn": turn})
    id = raised(story)
    phone.answers(id, ACCEPT)
    assert story.written() == []
    desk.answers(id, ACCEPT)
    assert story.only() == {"id": 5, "result": ACCEPT}


def test_a_sub_agents_approval_is_its_parents_owners() -> None:
    story = begun("owner")
    desk, sdk = story.peer("desk"), story.peer("sdk")
    follows(story, desk, sdk)
    starts_turn(story, desk)
    item = {"id": "i", "type": "collabAgentToolCall", "receiverThreadIds": ["child"]}
    story.notifies("turn/started", {"threadId": "child", "turn": {"id": "c"}})
    story.asks(8, APPROVAL, threadId="child", turnId="c", command="ls")
    story.notifies("item/completed", {"threadId": "t", "turnId": "t-turn", "item": item})
    id = next(each["id"] for each in sdk.heard(APPROVAL))
    sdk.answers(id, ACCEPT)
    assert story.written() == []
    desk.answers(id, ACCEPT)
    assert story.only() == {"id": 8, "result": ACCEPT}


# ── local ─────────────────────────────────────────────────────────────────────────────────────────


def test_only_a_client_on_this_host_may_say_yes() -> None:
    story = begun("local")
    desk, phone = story.peer("desk", local=True), story.peer("phone", ADA)
    follows(story, desk, phone)
    id = raised(story)
    assert reason(desk) == reason(phone)
    phone.answers(id, ACCEPT)
    assert story.written() == []
    refused, again = phone.heard()
    assert (refused["method"], refused["params"]["needs"]) == (REFUSED, "local")
    assert "your yes doesn't count" in again["params"]["reason"]
    phone.answers(id, ACCEPT)
    assert phone.only()["method"] == REFUSED
    assert kinds(story) == ["approval/raised", "answer/refused", "answer/refused"]
    desk.answers(id, ACCEPT)
    assert story.only() == {"id": 5, "result": ACCEPT}


@pytest.mark.parametrize(
    ("who", "how"), [(ADA, True), (Principal("phone", "device", device="d1"), False)]
)
def test_one_that_may_sit_at_the_host_is_told_how_its_yes_would_count(
    who: Principal, how: bool
) -> None:
    """A device is elsewhere, whatever is listened at."""
    story = begun("local")
    desk, other = story.peer("desk", local=True), story.peer("other", who)
    follows(story, desk, other)
    id = raised(story)
    reason(other)
    other.answers(id, ACCEPT)
    refused, again = other.heard()
    for text in (refused["params"]["why"], again["params"]["reason"]):
        assert ("`ws+local://` in `listen`" in text) is how


def test_with_nobody_on_this_host_it_waits_and_the_list_says_why() -> None:
    story = begun("local")
    phone = story.peer("phone", ADA)
    follows(story, phone)
    id = raised(story)
    assert listed(story)["waitsFor"] == ("a client on this host: none that may approve is attached")
    phone.heard()
    phone.asks("mux/approvals/answer", {"id": id, "result": ACCEPT})
    assert "only a client on this host" in phone.only()["error"]["message"]
    phone.refuses(id)
    assert story.written() == []  # it abstains, and nobody was asked who could have said yes
    desk = story.attach(local=True)
    desk.asks("mux/approvals/answer", {"id": id, "result": ACCEPT})
    assert desk.only()["result"]["decided"] is True
    assert story.only() == {"id": 5, "result": ACCEPT}


# ── quorum ────────────────────────────────────────────────────────────────────────────────────────


def test_one_principal_with_three_clients_counts_once() -> None:
    story = begun("quorum")
    peers = [story.peer(name) for name in ("desk", "sdk", "editor")]
    follows(story, *peers)
    id = raised(story)
    for peer in peers:
        peer.answers(id, ACCEPT)
    assert story.written() == []
    waits = "a yes of 2 principals, 1 so far (only 1 could be: somebody else has to come)"
    assert listed(story)["waitsFor"] == waits
    assert [vote["name"] for vote in listed(story)["votes"]] == ["editor"]
    ada = story.peer("phone", ADA)
    story.follows(ada)
    assert "1 so far" in reason(ada)
    ada.answers(id, ACCEPT)
    assert story.written()[-1] == {"id": 5, "result": ACCEPT}


def test_a_vote_stays_when_its_client_leaves_and_goes_when_its_access_does() -> None:
    story = begun("quorum")
    ada, desk = story.peer("phone", ADA), story.peer("desk")
    follows(story, ada, desk)
    first = raised(story)
    ada.answers(first, ACCEPT)
    ada.leaves()
    desk.answers(first, ACCEPT)
    assert story.only() == {"id": 5, "result": ACCEPT}
    ada = story.peer("phone", PHONE)
    follows(story, ada)
    second = raised(story, id=6)
    ada.answers(second, ACCEPT)
    ada.leaves()
    story.tell(DeviceAccessEnded("d1"))
    desk.answers(second, ACCEPT)
    assert story.written() == []


def test_those_who_say_yes_to_different_things_agree_on_the_least() -> None:
    story = begun("quorum")
    ada, desk = story.peer("phone", ADA, **AWARE), story.peer("desk", **AWARE)
    follows(story, ada, desk)
    id = raised(story)
    assert [each["method"] for each in ada.heard()] == [APPROVAL, CHANGED]
    desk.heard()
    ada.answers(id, SESSION)
    told = desk.only(CHANGED)["params"]
    assert (told["id"], told["policy"], told["waitsFor"]) == (
        id, "quorum of 2", "a yes of 2 principals, 1 so far",
    )  # fmt: skip
    assert told["votes"][0]["decision"] == "acceptForSession"
    assert ada.only(CHANGED)["params"] == told
    desk.asks("mux/approvals/answer", {"id": id, "result": ACCEPT})
    assert story.only() == {"id": 5, "result": ACCEPT}


def test_an_answer_by_name_that_does_not_decide_is_told_so() -> None:
    story = begun("quorum")
    desk = story.peer("desk")
    follows(story, desk)
    id = raised(story)
    desk.heard()
    desk.asks("mux/approvals/answer", {"id": id, "result": ACCEPT})
    answer = desk.only()
    assert answer["result"]["decided"] is False
    assert "1 so far" in answer["result"]["waitsFor"]


def test_one_that_abstains_does_not_undo_a_vote() -> None:
    story = begun("quorum")
    ada, desk = story.peer("phone", ADA), story.peer("desk")
    follows(story, ada, desk)
    id = raised(story)
    ada.answers(id, ACCEPT)
    ada.leaves()
    desk.refuses(id)
    assert story.written() == []


def test_a_question_takes_one_answer() -> None:
    story = begun("quorum")
    desk = story.peer("desk")
    follows(story, desk)
    story.asks(3, QUESTION, threadId="t", questions=[])
    desk.answers(offered(desk)["id"], {"answers": {}})
    assert story.only() == {"id": 3, "result": {"answers": {}}}


# ── every policy ──────────────────────────────────────────────────────────────────────────────────


def test_a_policy_is_chosen_by_command_and_kept() -> None:
    story = begun(rules=(Rule("quorum", command="git push"),))
    desk = story.peer("desk")
    follows(story, desk)
    id = raised(story, "/bin/bash -lc 'cd x && git push'")
    desk.answers(id, ACCEPT)
    assert story.written() == []
    other = raised(story, "git status", id=6)
    desk.answers(other, ACCEPT)
    assert story.only() == {"id": 6, "result": ACCEPT}


def test_the_command_of_its_item_counts_where_the_request_names_none() -> None:
    story = begun(rules=(Rule("quorum", command="git push"),))
    desk = story.peer("desk")
    follows(story, desk)
    item = {"id": "i", "type": "commandExecution", "command": "git push"}
    story.notifies("item/started", {"threadId": "t", "turnId": "t-turn", "item": item})
    story.asks(5, APPROVAL, threadId="t", itemId="i", command=None)
    assert listed(story)["policy"] == "quorum of 2"


def test_the_audit_says_which_policy_decided_and_who_voted() -> None:
    story = begun("quorum")
    ada, desk = story.peer("phone", ADA), story.peer("desk")
    follows(story, ada, desk)
    story.records.clear()
    id = raised(story)
    ada.answers(id, SESSION)
    desk.answers(id, ACCEPT)
    raised_, voted, answered = (each.fields for each in story.records)
    assert raised_["policy"] == voted["policy"] == answered["policy"] == "quorum of 2"
    assert (voted["by"]["name"], voted["decision"]) == ("phone", "acceptForSession")  # type: ignore[index]
    votes = [(vote["by"]["principal"], vote["decision"]) for vote in answered["votes"]]  # type: ignore[attr-defined]
    assert votes == [("ada", "acceptForSession"), ("local", "accept")]
    assert (answered["by"]["name"], answered["decision"]) == ("desk", "accept")  # type: ignore[index]


PRINCIPALS = [LOCAL, Principal("anonymous", "open"), ADA, BOB, Principal("eve", "jwt")]


@given(
    st.sampled_from(["first", "owner", "local", "quorum"]),
    st.integers(2, 4),
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.sampled_from(["yes", "session", "no", "error", "leave", "wait", "by name"]),
        ),
        max_size=8,
    ),
)
def test_never_decided_by_fewer_than_the_policy_demands(
    policy: PolicyName, quorum: int, acts: list[tuple[int, str]]
) -> None:
    """A no decides at once; a yes only with all that the policy asks for; all hear the end once."""
    story = begun(policy, quorum=quorum, owner_delay=30.0)
    peers = [story.peer(f"c{n}", each, local=n < 2) for n, each in enumerate(PRINCIPALS)]
    follows(story, *peers)
    starts_turn(story, peers[2])
    id, since = raised(story), story.now
    said_yes: set[int] = set()
    gone: set[int] = set()
    said = {"yes": ACCEPT, "session": SESSION, "by name": ACCEPT, "no": DECLINE}
    for who, act in acts:
        if act == "wait":
            story.waits(31.0)
        elif who in gone:
            continue
        elif act == "leave":
            peers[who].leaves()
            gone.add(who)
        elif act == "error":
            peers[who].refuses(id)
        elif act == "by name":
            peers[who].asks("mux/approvals/answer", {"id": id, "result": ACCEPT})
        else:
            peers[who].answers(id, said[act])
        said_yes |= {who} if act in ("yes", "session", "by name") else set()
        written = story.written()
        if act == "no" and who not in gone:
            assert written == [{"id": 5, "result": DECLINE}]
            break
        if written:
            (answer,) = written
            if "result" in answer:
                _check(policy, quorum, said_yes, gone, story.now - since)
            break
    story.resolves(5)
    for n, peer in enumerate(peers):
        if n not in gone:
            ends = [each for each in peer.heard() if each.get("method") == "serverRequest/resolved"]
            assert [each["params"]["requestId"] for each in ends] == [id]


def _check(policy: str, quorum: int, said_yes: set[int], gone: set[int], seconds: float) -> None:
    assert said_yes
    if policy == "owner":
        assert 2 in said_yes or 2 in gone or seconds >= 30.0
    elif policy == "local":
        assert said_yes & {0, 1}
    elif policy == "quorum":
        voters = {min(who, 1) if who < 2 else who for who in said_yes}
        assert len({0 if who == 1 else who for who in voters}) >= quorum
