"""What is a valid answer to a server request: the app-server's own shapes, one table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.protocol.answers import fault
from tests.core.stories import APPROVAL, QUESTION, REFRESH, TOOL_CALL, dumps

FILE_CHANGE = "item/fileChange/requestApproval"
PERMISSIONS = "item/permissions/requestApproval"
ELICITATION = "mcpServer/elicitation/request"
OLD_COMMAND, OLD_PATCH = "execCommandApproval", "applyPatchApproval"

AMENDS_EXEC = {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["git", "push"]}}
AMENDS_NETWORK = {
    "applyNetworkPolicyAmendment": {
        "network_policy_amendment": {"action": "allow", "host": "example.org"}
    }
}

VALID: list[tuple[str, Any]] = [
    *(
        (APPROVAL, {"decision": each})
        for each in ("accept", "acceptForSession", "decline", "cancel")
    ),
    (APPROVAL, {"decision": AMENDS_EXEC}),
    (APPROVAL, {"decision": AMENDS_NETWORK}),
    (APPROVAL, {"decision": "accept", "more": 1}),
    *((FILE_CHANGE, {"decision": each}) for each in ("accept", "acceptForSession", "decline")),
    (PERMISSIONS, {"permissions": {}}),
    (PERMISSIONS, {"permissions": {"network": {"enabled": True}}, "scope": "session"}),
    (QUESTION, {"answers": {}}),
    (QUESTION, {"answers": {"q1": {"answers": ["A", "B"]}}}),
    (ELICITATION, {"action": "accept", "content": {"x": 1}}),
    (ELICITATION, {"action": "decline"}),
    (ELICITATION, {"action": "cancel", "content": None}),
    (TOOL_CALL, {"contentItems": [], "success": False}),
    (TOOL_CALL, {"contentItems": [{"type": "inputText", "text": "x"}], "success": True}),
    (REFRESH, {"accessToken": "x", "chatgptAccountId": "y"}),
    ("attestation/generate", {"token": "x"}),
    ("currentTime/read", {"currentTimeAt": 5}),
    *((OLD_COMMAND, {"decision": each}) for each in ("approved", "abort", "timed_out")),
    (OLD_PATCH, {"decision": "approved_for_session"}),
    ("made/up", {}),
    ("made/up", {"any": ["thing"]}),
]

METHODS = sorted({method for method, _ in VALID})
NO_OBJECTS: list[Any] = [None, [], "accept", 5, True]
MALFORMED: list[tuple[str, Any]] = [
    *((method, wrong) for method in METHODS for wrong in NO_OBJECTS),
    *((method, {}) for method in (APPROVAL, FILE_CHANGE, PERMISSIONS, QUESTION, TOOL_CALL)),
    *((method, {"decision": None}) for method in (APPROVAL, FILE_CHANGE, OLD_COMMAND)),
    *((method, {"decision": "sure"}) for method in (APPROVAL, FILE_CHANGE, OLD_PATCH)),
    *((method, {"decision": ["accept"]}) for method in (APPROVAL, FILE_CHANGE, OLD_PATCH)),
    (APPROVAL, {"decision": {}}),
    (APPROVAL, {"decision": {"accept": {}}}),
    (APPROVAL, {"decision": AMENDS_EXEC | AMENDS_NETWORK}),
    (APPROVAL, {"decision": {"acceptWithExecpolicyAmendment": None}}),
    (APPROVAL, {"decision": {"acceptWithExecpolicyAmendment": {}}}),
    (APPROVAL, {"decision": "approved"}),
    (FILE_CHANGE, {"decision": AMENDS_EXEC}),
    (OLD_COMMAND, {"decision": "accept"}),
    (OLD_COMMAND, {"decision": {}}),
    (PERMISSIONS, {"permissions": []}),
    (PERMISSIONS, {"permissions": {}, "scope": "ever"}),
    (QUESTION, {"answers": []}),
    (QUESTION, {"answers": {"q1": ["A"]}}),
    (ELICITATION, {"action": "maybe"}),
    (TOOL_CALL, {"contentItems": None, "success": True}),
    (TOOL_CALL, {"contentItems": []}),
    (REFRESH, {"accessToken": "x"}),
    ("attestation/generate", {"token": 5}),
    ("currentTime/read", {"currentTimeAt": "now"}),
]


def judge(method: str, answer: object, **params: object) -> str | None:
    asked = {"threadId": "t", "permissions": {"network": {"enabled": True}}}
    offer = dumps({"method": method, "id": 7001, "params": asked | params})
    return fault(method, offer, dumps(answer))


@pytest.mark.parametrize(("method", "answer"), VALID)
def test_valid(method: str, answer: object) -> None:
    assert judge(method, answer) is None


@pytest.mark.parametrize(("method", "answer"), MALFORMED)
def test_malformed(method: str, answer: object) -> None:
    assert judge(method, answer)


@pytest.mark.parametrize("decision", ["later", {"withRule": {"rule": [1, 2]}}, 5, None])
def test_a_decision_that_the_offer_lists_is_valid(decision: object) -> None:
    listed = ["accept", decision]
    assert judge(APPROVAL, {"decision": decision}, availableDecisions=listed) is None
    assert judge(APPROVAL, {"decision": "other"}, availableDecisions=listed)
    assert judge(APPROVAL, {}, availableDecisions=listed)


@pytest.mark.parametrize("listed", [None, [], "accept", {"accept": 1}, 5])
def test_a_list_of_decisions_that_is_none_makes_nothing_valid(listed: object) -> None:
    assert judge(APPROVAL, {"decision": "sure"}, availableDecisions=listed)
    assert judge(APPROVAL, {"decision": "accept"}, availableDecisions=listed) is None


def test_listed_decisions_are_compared_as_values() -> None:
    offer = b'{"method":"m","id":1,"params":{"availableDecisions":[{"a":1, "b":[ "\\u00e9" ]}]}}'
    assert fault(APPROVAL, offer, '{"decision":{"b":["é"],"a":1}}'.encode()) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.sampled_from(METHODS), json_values)
def test_no_answer_at_all_raises(method: str, answer: object) -> None:
    verdict = judge(method, answer)
    if not isinstance(answer, dict):
        assert verdict
    elif method == "made/up":
        assert verdict is None
