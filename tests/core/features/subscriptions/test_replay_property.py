"""Whenever a client that knows the broker is cut off, it ends with each entry once.

A *resident* stays and a *traveller* is cut off at random, with only a part of what it was sent;
it comes back with the cursor that this part gives it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.features.subscriptions.test_replay import STATUS, followed, joins
from tests.core.paced import AWARE, PacedStory
from tests.core.stories import APPROVAL, DELTA, Json, Peer


@attrs.define(eq=False)
class Traveller:
    """One that knows the broker and is cut off now and then; what it had got by then stays."""

    peer: Peer
    kept: list[Json] = attrs.field(factory=list)

    @property
    def cursor(self) -> int:
        return max(
            (max(each.get("seq", 0), each.get("cursor", 0)) for each in self.kept), default=0
        )


ACTIONS = st.one_of(
    st.tuples(st.just("delta"), st.sampled_from("ts")),
    st.tuples(st.just("delta"), st.sampled_from("ts")),
    st.tuples(st.just("status"), st.sampled_from("ts")),
    st.tuples(st.just("ask"), st.sampled_from("ts")),
    st.tuples(st.just("resolve"), st.just("")),
    st.tuples(st.just("lag"), st.just("")),
    st.tuples(st.just("settle"), st.just("")),
    st.tuples(st.just("cut"), st.integers(0, 40)),
)


@settings(max_examples=200)
@given(st.lists(ACTIONS, max_size=50), st.booleans())
def test_whenever_it_is_cut_off_each_entry_reaches_it_once(
    actions: list[tuple[str, Any]], merged: bool
) -> None:
    story, resident = followed("t", "s")
    traveller = Traveller(story.peer("traveller", **AWARE))
    for thread in "ts":
        joins(story, traveller.peer, thread)
    story.settles()
    traveller.kept += traveller.peer.heard()
    pending: dict[int, str] = {}
    for count, (action, detail) in enumerate(actions):
        match action:
            case "delta":
                story.delta(detail, f"<{count}>")
            case "status":
                status = {"type": "active", "activeFlags": [str(count)]}
                story.notifies(STATUS, {"threadId": detail, "status": status})
            case "ask":
                pending[count] = detail
                story.asks(count, APPROVAL, threadId=detail, itemId=str(count))
            case "resolve" if pending:
                id, thread = pending.popitem()
                story.resolves(id, thread)
            case "lag" if not story.is_behind(traveller.peer):
                story.lags(traveller.peer)
            case "settle":
                story.settles()
            case "cut":
                _cut(story, traveller, detail, merged=merged)
    story.settles()
    traveller.kept += traveller.peer.heard()
    told = [each for each in traveller.kept if "seq" in each]
    assert all(earlier["seq"] < later["seq"] for earlier, later in pairwise(told))
    for thread in "ts":
        assert _transcript(told, thread) == _transcript(resident.inbox, thread)


def _cut(story: PacedStory, traveller: Traveller, got: int, *, merged: bool) -> None:
    """It is cut off with only so much of what it was sent, and comes back at once."""
    traveller.kept += traveller.peer.inbox[:got]
    traveller.peer.leaves()
    traveller.peer = story.returns("traveller", traveller.cursor, merged=merged)
    story.loads()


def _transcript(messages: list[Json], thread: str) -> list[object]:
    told: list[object] = []
    for message in messages:
        params = message.get("params", {})
        if params.get("threadId") != thread:
            continue
        if message["method"] == DELTA and told and isinstance(told[-1], str):
            told[-1] += params["delta"]
        elif message["method"] == DELTA:
            told.append(params["delta"])
        else:
            told.append((message["method"], message.get("id"), params))
    return told
