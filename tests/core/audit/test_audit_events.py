"""Stories of the audit log: what the broker has recorded, of whom, and what it leaves out."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from mux.core.audit import audit_events
from mux.core.audit.audit_approvals import decision
from mux.core.audit.audit_events import REFUSALS_RECORDED, REFUSALS_SECONDS
from mux.core.broker import Broker
from mux.core.events import ClientAccessEnded
from mux.core.policy.principal import Principal
from tests.core.stories import APPROVAL, FIRST_ID, QUESTION, TOOL_CALL, Json, Peer, Story, dumps

WATCHER = Principal("ann", "device", scopes=frozenset({"observe"}))
DRIVER = Principal("bob", "jwt", scopes=frozenset({"observe", "drive"}))


def recorded(story: Story, *kinds: str) -> list[Json]:
    """What was recorded since the last look, of these kinds or all."""
    found = [{"kind": each.kind, **each.fields} for each in story.records]
    story.records.clear()
    json.dumps(found)  # JSON values, all of them
    return [each for each in found if not kinds or each["kind"] in kinds]


def only(story: Story, *kinds: str) -> Json:
    (record,) = recorded(story, *kinds)
    return record


def begun(**limits: float) -> Story:
    story = Story.begun(**limits)
    recorded(story)
    return story


def asks(story: Story, id: int = 5, method: str = APPROVAL, thread: str = "t") -> int:
    """A server request; the id under which it is offered."""
    story.asks(id, method, threadId=thread, itemId="i1", turnId="u1", command="rm -rf secret")
    return story.broker.state.pending_requests.next_id


# ── clients ───────────────────────────────────────────────────────────────────────────────────


def test_a_client_is_there_once_it_is_past_its_handshake() -> None:
    story = begun()
    peer = story.attach(WATCHER)
    assert recorded(story) == []
    peer.initializes("phone")
    came = only(story)
    assert came == {
        "kind": "client/attached",
        "by": {
            "client": peer.id,
            "name": "phone",
            "principal": "ann",
            "kind": "device",
            "from": f"127.0.0.1:{peer.id}",
        },
        "scopes": ["observe"],
        "version": "1.2",
        "transport": "ws",
    }
    story.waits(7)
    peer.leaves()
    assert only(story) == {"kind": "client/left", "by": came["by"], "seconds": 7}


def test_one_that_never_shook_hands_has_not_come_and_not_left() -> None:
    story = begun()
    story.attach().leaves()
    assert recorded(story) == []


def test_why_a_client_was_cut_is_recorded() -> None:
    story = begun()
    peer = story.peer("phone", WATCHER)
    recorded(story)
    story.tell(ClientAccessEnded(peer.id, "revoked"))
    cut = only(story)
    assert (cut["kind"], cut["why"], cut["by"]["principal"]) == ("client/cut", "revoked", "ann")


def test_a_refused_request_is_recorded_with_what_it_needed() -> None:
    story = begun()
    peer = story.peer("phone", WATCHER)
    recorded(story)
    peer.asks("turn/start", {"threadId": "t", "input": []})
    refused = only(story)
    assert (refused["kind"], refused["method"]) == ("request/refused", "turn/start")
    assert refused["needs"] == "drive"
    assert refused["by"]["name"] == "phone"
    assert not story.written()


def flood(peer: Peer, times: int) -> None:
    for number in range(times):
        peer.asks(f"made/up{number}" + "x" * 200)


def test_a_flood_of_refusals_is_counted_and_none_is_forgotten() -> None:
    story = begun()
    peer = story.peer("phone", WATCHER)
    recorded(story)
    flood(peer, 1_000)
    told = recorded(story)
    assert len(told) == REFUSALS_RECORDED
    assert all(len(each["method"]) == audit_events.NAME_CHARACTERS for each in told)
    story.waits(REFUSALS_SECONDS)
    assert only(story)["times"] == 1_000 - REFUSALS_RECORDED
    story.waits(10 * REFUSALS_SECONDS)
    assert recorded(story) == []
    flood(peer, 3)
    assert len(recorded(story)) == 3


def test_a_flood_of_one_that_leaves_is_counted_then() -> None:
    story = begun()
    peer = story.peer("phone", WATCHER)
    flood(peer, REFUSALS_RECORDED + 4)
    recorded(story)
    peer.leaves()
    counted, left = recorded(story)
    assert (counted["times"], left["kind"]) == (4, "client/left")


# ── requests ──────────────────────────────────────────────────────────────────────────────────


def test_a_turn_is_recorded_when_it_is_asked_for_and_when_it_runs() -> None:
    story = begun()
    peer = story.peer("desk")
    story.creates(peer)
    recorded(story)
    params = {"threadId": "t", "input": [{"type": "text", "text": "secret words"}]}
    peer.asks("turn/start", params)
    asked = only(story)
    assert asked["kind"] == "turn/asked"
    assert (asked["method"], asked["thread"], asked["turn"]) == ("turn/start", "t", None)
    assert asked["digest"] == sha256(dumps(params)).hexdigest()
    assert "secret" not in json.dumps(asked)
    story.answers(story.only("turn/start"), {"turn": {"id": "u9", "status": "inProgress"}})
    ran = only(story)
    assert (ran["kind"], ran["turn"], ran["outcome"]) == ("turn/answered", "u9", "done")
    assert (ran["by"], ran["request"]) == (asked["by"], asked["request"])


def test_steering_and_interrupting_are_recorded_with_their_turn() -> None:
    story = begun()
    peer = story.peer("desk")
    peer.asks("turn/steer", {"threadId": "t", "expectedTurnId": "u1", "input": []})
    peer.asks("turn/interrupt", {"threadId": "t", "turnId": "u1"})
    asked = recorded(story, "turn/asked")
    assert [(each["method"], each["turn"]) for each in asked] == [
        ("turn/steer", "u1"),
        ("turn/interrupt", "u1"),
    ]
    steer, _ = story.written()
    story.fails(steer, -32600)
    failed = only(story)
    assert (failed["outcome"], failed["code"]) == ("failed", -32600)


def test_a_turn_whose_asker_left_still_says_whose_it_was() -> None:
    story = begun()
    peer = story.peer("desk")
    peer.asks("turn/start", {"threadId": "t", "input": []})
    asked = story.only("turn/start")
    peer.leaves()
    story.answers(asked, {"turn": {"id": "u9", "status": "inProgress"}})
    assert only(story, "turn/answered")["by"]["name"] == "desk"


def test_a_turn_that_was_lost_with_the_app_server_says_so() -> None:
    story = begun()
    peer = story.peer("desk")
    peer.asks("turn/start", {"threadId": "t", "input": []})
    recorded(story)
    story.exits()
    lost, gone = sorted(recorded(story), key=lambda each: str(each["kind"]), reverse=True)
    assert (lost["kind"], lost["by"]["name"]) == ("turn/lost", "desk")
    assert (gone["kind"], gone["generation"]) == ("appserver/exited", 1)


def test_a_message_sent_twice_is_one_turn() -> None:
    story = begun()
    peer = story.peer("desk")
    for _ in range(2):
        peer.asks("turn/start", {"threadId": "t", "clientUserMessageId": "m", "input": []})
    assert len(recorded(story, "turn/asked")) == 1


@pytest.mark.parametrize(
    ("method", "params", "topic"),
    [
        ("config/value/write", {"keyPath": "x", "value": 1}, "admin/asked"),
        ("command/exec", {"command": ["ls"]}, "admin/asked"),
        ("thread/start", {"sandbox": "danger-full-access"}, "admin/asked"),
        ("made/up", {}, "admin/asked"),
        ("thread/start", {}, None),
        ("thread/list", {}, None),
        ("fs/readFile", {"path": "/x"}, None),
        ("process/writeStdin", {"processHandle": "p", "data": "secret"}, None),
    ],
)
def test_what_needs_admin_is_recorded_unless_it_only_reads(
    method: str, params: Json, topic: str | None
) -> None:
    story = begun()
    peer = story.peer("desk")
    recorded(story)
    peer.asks(method, params)
    assert [each["kind"] for each in recorded(story)] == ([topic] if topic else [])


def test_the_text_is_recorded_only_where_it_is_wanted_and_cut_at_a_bound() -> None:
    story = begun()
    story.broker.state.audit_text = True
    peer = story.peer("desk")
    peer.asks("turn/start", {"threadId": "t", "input": "ä" * audit_events.TEXT_CHARACTERS})
    asked = only(story, "turn/asked")
    assert asked["text"].startswith('{"threadId":"t","input":"ää')
    assert len(asked["text"]) == audit_events.TEXT_CHARACTERS
    wanted = Broker(story.limits, story.introduction, audit_text=True)
    assert wanted.state.audit_text


def test_a_restart_says_who_asked_for_it() -> None:
    story = begun()
    peer = story.peer("desk")
    recorded(story)
    peer.asks("mux/restart", {"now": True})
    asked = only(story)
    assert (asked["kind"], asked["now"], asked["by"]["name"]) == ("restart/asked", True, "desk")


# ── approvals ─────────────────────────────────────────────────────────────────────────────────


def test_an_approval_from_its_question_to_its_end() -> None:
    story = begun()
    desk, phone = story.peer("desk"), story.peer("phone", DRIVER)
    story.follows(desk)
    story.follows(phone)
    recorded(story)
    id = asks(story)
    raised = only(story)
    assert (raised["kind"], raised["approval"], raised["method"]) == (
        "approval/raised",
        id,
        APPROVAL,
    )
    assert (raised["thread"], raised["item"], raised["turn"]) == ("t", "i1", "u1")
    params = dumps({"threadId": "t", "itemId": "i1", "turnId": "u1", "command": "rm -rf secret"})
    assert raised["digest"] == sha256(params).hexdigest()
    assert "secret" not in json.dumps(raised)

    phone.answers(id, {"decision": "accept"})
    refused = only(story)
    assert (refused["kind"], refused["by"]["name"]) == ("answer/refused", "phone")
    desk.answers(id, {"decision": "perhaps"})
    abstained = only(story, "approval/abstained")
    assert abstained["by"]["name"] == "desk"
    assert "perhaps" in abstained["why"]


def test_the_answer_that_counts_is_recorded_and_no_other() -> None:
    story = begun()
    desk, phone = story.peer("desk"), story.peer("phone")
    story.follows(desk)
    story.follows(phone)
    recorded(story)
    id = asks(story)
    story.waits(3)
    phone.answers(id, {"decision": "decline"})
    desk.answers(id, {"decision": "accept"})
    answered = only(story, "approval/answered", "approval/abstained", "answer/refused")
    assert (answered["decision"], answered["by"]["name"]) == ("decline", "phone")
    assert answered["after"] == 3
    assert recorded(story) == []
    story.resolves(5)
    assert only(story)["kind"] == "approval/resolved"


def test_one_that_ends_unanswered_was_withdrawn() -> None:
    story = begun()
    desk = story.peer("desk")
    story.follows(desk)
    id = asks(story)
    recorded(story)
    story.resolves(5)
    assert (only(story)["kind"], id) == ("approval/withdrawn", FIRST_ID + 1)
    asks(story, id=6)
    recorded(story)
    story.exits()
    assert [each["approval"] for each in recorded(story, "approval/withdrawn")] == [FIRST_ID + 2]
    assert not desk.closed


def test_when_nobody_is_left_to_answer_that_is_recorded() -> None:
    story = begun()
    desk = story.peer("desk")
    story.follows(desk)
    id = asks(story)
    desk.refuses(id)
    kinds = [each["kind"] for each in recorded(story) if str(each["kind"]).startswith("approval")]
    assert kinds == ["approval/raised", "approval/abstained", "approval/given-up"]
    story.resolves(5)
    assert only(story)["kind"] == "approval/resolved"


def test_what_a_program_answers_is_no_approval() -> None:
    story = begun()
    desk = story.peer("desk")
    story.follows(desk)
    recorded(story)
    id = asks(story, method=TOOL_CALL)
    desk.answers(id, {"contentItems": [], "success": True})
    assert recorded(story) == []


@pytest.mark.parametrize(
    ("result", "word"),
    [
        ({"decision": "acceptForSession"}, "acceptForSession"),
        ({"decision": {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": []}}},
         "acceptWithExecpolicyAmendment"),
        ({"action": "cancel"}, "cancel"),
        ({"permissions": {"network": {"enabled": True}, "fileSystem": None}}, "grant network"),
        ({"permissions": {}}, "grant nothing"),
        ({"answers": {}}, "answered"),
        ({"decision": 7}, "answered"),
        ([], "answered"),
    ],
)  # fmt: skip
def test_a_decision_in_one_word(result: object, word: str) -> None:
    assert decision(dumps(result)) == word


# ── answering without having been offered it ──────────────────────────────────────────────────


def listed(peer: Peer) -> list[Json]:
    id = peer.asks("mux/approvals/list")
    (answer,) = [each for each in peer.heard() if each.get("id") == id]
    return answer["result"]["approvals"]  # type: ignore[no-any-return]


def gives(peer: Peer, id: int, result: object) -> Json:
    """The answer to ``mux/approvals/answer``."""
    asked = peer.asks("mux/approvals/answer", {"id": id, "result": result})
    (answer,) = [each for each in peer.heard() if each.get("id") == asked]
    return answer


ACCEPT = {"decision": "accept"}


def test_what_waits_is_listed_with_what_it_is_about() -> None:
    story = begun()
    desk, other = story.peer("desk"), story.peer("other", WATCHER)
    story.follows(desk)
    item = {"id": "i1", "type": "fileChange", "changes": [{"path": "/x", "kind": {"type": "add"}}]}
    story.begins_turn()
    story.notifies("item/started", {"threadId": "t", "turnId": "u1", "item": item})
    id = asks(story)
    asks(story, id=6, method=TOOL_CALL)
    story.waits(2)
    (waiting,) = listed(other)
    assert (waiting["id"], waiting["method"], waiting["threadId"]) == (id, APPROVAL, "t")
    assert (waiting["ageSeconds"], waiting["needs"]) == (2, None)
    assert waiting["params"]["command"] == "rm -rf secret"
    assert waiting["item"] == item
    assert waiting["offeredTo"] == [{"id": desk.id, "name": "desk"}]
    desk.answers(id, ACCEPT)
    assert listed(other) == []


def test_one_that_was_not_offered_it_may_answer_by_name_and_the_first_one_wins() -> None:
    story = begun()
    desk, cli = story.peer("desk"), story.attach()
    story.follows(desk)
    id = asks(story)
    story.written()
    recorded(story)
    answer = gives(cli, id, ACCEPT)
    done = {"decided": True, "waitsFor": None}
    assert answer["result"] == {"id": id, "method": APPROVAL, "threadId": "t", **done}
    assert story.only() == {"id": 5, "result": ACCEPT}
    told = only(story)
    assert (told["kind"], told["by"]["principal"]) == ("approval/answered", "local")
    desk.answers(id, {"decision": "decline"})
    assert story.written() == []
    assert "answered already, by unnamed (local" in gives(cli, id, ACCEPT)["error"]["message"]
    story.resolves(5)
    assert "no such approval" in gives(cli, id, ACCEPT)["error"]["message"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"id": 1}, "no such approval"),
        ({"id": "x"}, "no such approval"),
        ({"id": 10**30}, "no such approval"),
        ({"id": -1}, "no such approval"),
        ({"id": None}, "no such approval"),
        ({"result": {"decision": "perhaps"}}, "doesn't answer"),
        ({"result": None}, "doesn't answer"),
    ],
)
def test_an_answer_that_does_not_count_is_told_why(change: Json, why: str) -> None:
    story = begun()
    desk, cli = story.peer("desk"), story.peer("cli")
    story.follows(desk)
    story.written()
    params = {"id": asks(story), "result": ACCEPT} | change
    cli.asks("mux/approvals/answer", params)
    assert why in cli.only()["error"]["message"]
    assert story.written() == []
    assert len(listed(cli)) == 1


def test_it_takes_the_scope_and_the_capability_that_any_answer_takes() -> None:
    story = begun()
    desk, watcher, cli = story.peer("desk"), story.peer("w", WATCHER), story.peer("cli")
    story.follows(desk)
    id = asks(story)
    story.written()
    assert gives(watcher, id, ACCEPT)["error"]["code"] == -32003
    story.asks(6, APPROVAL, threadId="t", kind="humanCommand")
    human = story.broker.state.pending_requests.next_id
    assert listed(cli)[1]["needs"] == "requiredHumanApproval"
    assert "requiredHumanApproval" in gives(cli, human, ACCEPT)["error"]["message"]
    person = story.peer("cli", requiredHumanApproval=True)
    assert "result" in gives(person, human, ACCEPT)
    tool = asks(story, id=7, method=TOOL_CALL)
    story.written()
    assert (
        "by a program"
        in gives(cli, tool, {"contentItems": [], "success": True})["error"]["message"]
    )
    question = asks(story, id=8, method=QUESTION)
    assert "result" in gives(cli, question, {"answers": {}})
    assert WATCHER.scopes == {"observe"}
