"""What one client may send at once, and what it may send only so often."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mux.core.extension.following import MOST_THREADS
from mux.core.features.subscriptions.replay import LOADING_AT_ONCE
from mux.core.policy.principal import Principal
from mux.core.protocol.envelope import jsonrpc
from mux.core.protocol.envelope.structure import OPENED_ELEMENTS
from tests.core.paced import AWARE, EPOCH, PacedStory
from tests.core.stories import Json, Story

PART: Json = {"type": "text", "text": "one, two"}


def turn(parts: int) -> Json:
    return {"threadId": "t", "input": [PART] * parts}


# ── how much at once ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("turn/start", turn(5_000)),
        ("mux/replay", {"after": {"epoch": "", "seq": 0}, "threadIds": ["t"] * 5_000}),
        ("mux/push/register", {"names": [1] * 5_000}),
        ("initialize", {"clientInfo": {}, "capabilities": {"x": ["y"] * 5_000}}),
    ],
)
def test_what_is_read_here_has_few_parts(method: str, params: Json) -> None:
    story = Story.begun()
    peer = story.peer(**AWARE)
    id = peer.asks(method, params)
    error = peer.only()
    assert (error["id"], error["error"]["code"]) == (id, jsonrpc.INVALID_REQUEST)
    assert f"more than {OPENED_ELEMENTS}" in error["error"]["message"]
    assert not story.written()


def test_a_turn_of_many_parts_and_what_only_passes_may_have_more() -> None:
    story = Story.begun()
    peer = story.peer()
    peer.asks("turn/start", turn(600))
    peer.asks("thread/inject_items", {"threadId": "t", "items": [PART] * 20_000})
    assert [len(each["params"].get("items", ())) for each in story.written()] == [0, 20_000]


def test_a_replay_names_so_many_threads_and_has_them_loaded_a_few_at_a_time() -> None:
    story = PacedStory.with_disk()
    peer = story.peer("phone", **AWARE)
    after = {"epoch": EPOCH, "seq": 0}
    names = [f"t{n}" for n in range(MOST_THREADS)]
    peer.asks("mux/replay", {"after": after, "threadIds": [*names, "more"]}, id="too many")
    assert "length <= 1000" in peer.only()["error"]["message"]
    peer.asks("mux/replay", {"after": after, "threadIds": names}, id="replay")
    loaded = 0
    while asked := story.written("thread/resume"):
        assert len(asked) <= LOADING_AT_ONCE
        for each in asked:
            loaded += 1
            if loaded % 2:
                story.answers(each, {"thread": {"id": each["params"]["threadId"]}})
            else:
                story.fails(each)
    result = peer.heard()[0]["result"]
    assert loaded == MOST_THREADS
    assert len(result["threads"]) == len(result["missing"]) == MOST_THREADS / 2


def test_of_a_replay_whose_client_has_left_nothing_more_is_loaded() -> None:
    story = PacedStory.with_disk()
    peer = story.peer("phone", **AWARE)
    names = [f"t{n}" for n in range(20)]
    peer.asks("mux/replay", {"after": {"epoch": EPOCH, "seq": 0}, "threadIds": names})
    asked = story.written("thread/resume")
    peer.leaves()
    for each in asked:
        story.answers(each, {"thread": {"id": each["params"]["threadId"]}})
    assert not story.written("thread/resume")
    assert not any(story.broker.state.threads.joining.values())


# ── how often ─────────────────────────────────────────────────────────────────────────────────


def test_what_asks_for_nothing_or_is_refused_is_charged() -> None:
    story = Story.begun()
    watcher = Principal("guest", "device", scopes=frozenset({"observe"}))
    peer, early = story.peer(principal=watcher), story.attach()
    sent: list[Callable[[], object]] = [
        lambda: peer.says("{}"),
        lambda: peer.says("no JSON"),
        peer.says_binary,
        lambda: peer.asks("turn/start", turn(5_000)),
        lambda: peer.asks("turn/start", turn(1)),
        lambda: peer.notifies("initialized"),
        lambda: peer.notifies("what/ever"),
        lambda: peer.answers(12345, {}),
    ]
    for number, say in enumerate(sent, 1):
        say()
        assert peer.charged == number
    early.asks("thread/list")
    assert early.charged == 1


def test_a_request_that_may_be_asked_is_free_and_so_is_one_that_finds_the_queue_full() -> None:
    story = Story.begun(queued_per_client=3)
    peer = story.peer()
    for _ in range(40):
        peer.asks("thread/list")
    story.notifies("what/ever")
    assert jsonrpc.OVERLOADED in [each.get("error", {}).get("code") for each in peer.heard()]
    assert peer.charged == 0
