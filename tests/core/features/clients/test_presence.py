"""Stories of presence: who is told, when, and what the picture shows."""

from __future__ import annotations

from mux.core.features.clients.presence import BYTES_PER_SECOND, INTERVAL, PRESENCE
from mux.core.policy.principal import Principal
from tests.core.paced import AWARE, PacedStory
from tests.core.stories import Json, Peer, Story

DEVICE = Principal("pixel", "device", scopes=frozenset({"observe", "approve"}))
BLIND = Principal("blind", "jwt", scopes=frozenset({"drive"}))


def pictures(peer: Peer) -> list[dict[str, Json]]:
    """What it was told since the last look: the clients by name."""
    heard = peer.heard(PRESENCE)
    return [{each["name"]: each for each in message["params"]["clients"]} for message in heard]


def watched() -> tuple[Story, Peer]:
    """A story with one client that knows the broker, and has seen itself come."""
    story = Story.begun()
    watcher = story.attach()
    watcher.initializes("watcher", **AWARE)
    (alone,) = pictures(watcher)
    assert set(alone) == {"watcher"}
    story.waits(INTERVAL)
    return story, watcher


def test_the_first_picture_comes_after_the_answer_to_initialize() -> None:
    story = Story.begun()
    watcher = story.attach()
    watcher.initializes("watcher", id="hello", **AWARE)
    assert [each.get("id", each.get("method")) for each in watcher.heard()] == ["hello", PRESENCE]


def test_who_comes_and_goes_is_seen_with_what_it_may_do() -> None:
    story, watcher = watched()
    phone = story.peer("phone", DEVICE)
    (now,) = pictures(watcher)
    assert now["phone"] == {
        "id": phone.id,
        "name": "phone",
        "version": "1.2",
        "principal": "pixel",
        "device": "pixel",
        "scopes": ["approve", "observe"],
        "transport": "ws",
        "threads": [],
        "since": 0,
        "lastDrove": None,
    }
    assert "device" not in now["watcher"]
    story.waits(INTERVAL)
    phone.leaves()
    (now,) = pictures(watcher)
    assert set(now) == {"watcher"}


def test_following_and_driving_are_seen() -> None:
    story, watcher = watched()
    desk = story.peer("desk")
    story.waits(INTERVAL)
    story.creates(desk, "t")
    assert pictures(watcher)[-1]["desk"]["threads"] == ["t"]
    story.waits(10)
    desk.asks("turn/start", {"threadId": "t", "input": []})
    assert pictures(watcher)[-1]["desk"]["lastDrove"] == 0
    story.waits(10)
    desk.asks("turn/interrupt", {"threadId": "t", "turnId": "u"})
    story.waits(10)
    assert pictures(watcher)[-1]["desk"]["lastDrove"] == 0
    watcher.asks("mux/presence/read", id="read")
    (asked,) = [each for each in watcher.heard() if each.get("id") == "read"]
    assert [each["lastDrove"] for each in asked["result"]["clients"]] == [None, 10]
    desk.asks("thread/unsubscribe", {"threadId": "t"})
    assert pictures(watcher)[-1]["desk"]["threads"] == []
    desk.asks("thread/list")
    desk.asks("command/exec", {"command": ["ls"]})
    story.waits(1)
    assert pictures(watcher) == []


def test_many_changes_at_once_are_two_pictures() -> None:
    story, watcher = watched()
    for number in range(50):
        story.peer(f"p{number}")
    assert [len(each) for each in pictures(watcher)] == [2]
    story.waits(INTERVAL)
    assert [len(each) for each in pictures(watcher)] == [51]
    story.waits(60)
    assert pictures(watcher) == []


def test_what_is_undone_in_between_is_not_told() -> None:
    story, watcher = watched()
    story.peer("a")
    assert len(pictures(watcher)) == 1
    story.peer("b").leaves()
    story.waits(1)
    assert pictures(watcher) == []


def test_only_those_are_told_that_know_the_broker_may_observe_and_want_it() -> None:
    story, watcher = watched()
    plain = story.peer("plain")
    deaf = story.peer("deaf", optOutNotificationMethods=[PRESENCE], **AWARE)
    blind = story.peer("blind", BLIND, **AWARE)
    attached = story.attach()
    story.waits(1)
    assert set(pictures(watcher)[-1]) == {"watcher", "plain", "deaf", "blind"}
    assert [pictures(each) for each in (plain, deaf, blind, attached)] == [[], [], [], []]
    blind.asks("mux/presence/read")
    assert blind.only()["error"]["code"] == -32003


def test_one_that_left_is_told_nothing_more() -> None:
    story, watcher = watched()
    other = story.attach()
    other.initializes("other", **AWARE)
    story.waits(1)
    other.leaves()
    story.waits(1)
    watcher.heard()
    other.heard()
    story.peer("comer")
    assert [set(each) for each in pictures(watcher)] == [{"watcher", "comer"}]
    assert other.heard() == []


def test_with_many_clients_pictures_come_more_rarely() -> None:
    story = Story.begun()
    peers = [story.attach() for _ in range(300)]
    for number, peer in enumerate(peers):
        peer.initializes(f"peer-{number}", **AWARE)
    story.waits(60)
    assert len(pictures(peers[0])[-1]) == 300
    for peer in peers:
        peer.heard()
    begun, size = story.now, 0
    while story.now < begun + 60:
        driver = peers[0]
        driver.asks("turn/start", {"threadId": "t", "input": []})
        story.waits(0.1)
        size += sum(len(raw) for peer in peers for raw in peer.raw)
        for peer in peers:
            peer.heard()
    assert 0 < size / 60 < 2 * BYTES_PER_SECOND


def test_one_that_is_behind_gets_the_picture_once_it_is_live_again() -> None:
    story = PacedStory.with_disk()
    watcher = story.attach()
    watcher.initializes("watcher", **AWARE)
    story.waits(INTERVAL)
    watcher.heard()
    story.lags(watcher)
    story.peer("desk")
    story.waits(1)
    assert pictures(watcher) == []
    story.settles()
    story.waits(1)
    assert [set(each) for each in pictures(watcher)] == [{"watcher", "desk"}]
