"""What is counted for the metrics: whatever is recorded, and late answers."""

from __future__ import annotations

from mux.core.audit.audit_events import REFUSALS_RECORDED
from mux.core.features.approvals.server_requests import LATE
from mux.core.policy.principal import Principal
from tests.core.stories import Story

WATCHER = Principal("ann", "device", scopes=frozenset({"observe"}))
MORE = 7


def test_a_late_answer_is_counted_and_so_is_the_one_that_counts() -> None:
    story = Story.begun()
    first, second = story.peer(), story.peer()
    for peer in (first, second):
        story.follows(peer)
    story.asks(0)
    asked = first.only("item/commandExecution/requestApproval")["id"]
    first.answers(asked, {"decision": "accept"})
    second.answers(asked, {"decision": "decline"})
    counts = story.broker.state.counts
    assert counts["approval/raised"] == counts["approval/answered"] == counts[LATE] == 1


def test_every_refusal_of_a_flood_is_counted_in_the_end() -> None:
    story = Story.begun()
    peer = story.attach(WATCHER)
    peer.initializes("watcher")
    counts = story.broker.state.counts
    for _ in range(REFUSALS_RECORDED + MORE):
        peer.asks("thread/start", {})
    assert counts["request/refused"] == REFUSALS_RECORDED
    peer.leaves()
    assert counts["request/refused"] == REFUSALS_RECORDED + MORE
