"""The core's report on itself, told after a story."""

from __future__ import annotations

from mux.core.reports.status_report import report
from tests.core.stories import APPROVAL, FIRST_ID, Story


def test_before_anything_happened() -> None:
    story = Story()
    told = report(story.broker, story.now)
    assert told["appServer"]["state"] == "starting"
    assert told["appServer"]["version"] == ""
    assert (told["clients"], told["threads"], told["serverRequests"]) == ([], [], [])


def test_the_app_server() -> None:
    story = Story.begun(in_flight_per_client=2)
    a = story.peer()
    for _ in range(5):
        a.asks("thread/list")
    a.asks("thread/list")
    for _ in range(3):
        a2 = story.peer()
        a2.asks("command/exec", {"command": []})
    story.waits(2)
    told = report(story.broker, story.now)["appServer"]
    assert told | {"requestsInFlight": 2, "requestsWaiting": 3, "requestsQueued": 4} == told
    assert (told["version"], told["state"], told["generation"]) == ("0.163.0", "ready", 1)
    assert told["uptimeSeconds"] == 2.0


def test_why_the_app_server_was_started_again() -> None:
    story = Story.begun()
    assert report(story.broker, story.now)["appServer"]["lastEnd"] is None
    story.exits("killed by SIGKILL")
    story.waits(3)
    end = report(story.broker, story.now)["appServer"]["lastEnd"]
    assert end == {"generation": 1, "secondsAgo": 3.0, "reason": "killed by SIGKILL"}


def test_a_request_that_expired_is_not_reported_as_waiting() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("thread/list")
    story.written()
    story.waits(story.limits.request_deadline + 1)
    for probe in story.written():
        story.answers(probe)
    told = report(story.broker, story.now)["appServer"]
    assert (told["requestsInFlight"], told["requestsWaiting"]) == (0, 0)


def test_clients() -> None:
    story = Story.begun()
    a, new = story.peer("a"), story.attach()
    story.follows(a)
    story.waits(1.5)
    first, second = report(story.broker, story.now)["clients"]
    expected = {
        "id": a.id, "state": "ready", "name": "a", "version": "1.2", "principal": "local",
        "principalKind": "local-user", "transport": "ws", "peer": "127.0.0.1:1",
        "sinceSeconds": 1.5, "threads": ["t"], "behind": None,
    }  # fmt: skip
    assert expected.items() <= first.items()
    assert (second["id"], second["state"], second["name"]) == (new.id, "attached", None)


def test_threads_and_server_requests() -> None:
    story = Story.begun()
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        story.follows(peer)
    story.notifies("thread/status/changed", {"threadId": "other", "status": {"type": "idle"}})
    story.notifies("thread/status/changed", {"threadId": "t", "status": {"type": "active"}})
    story.begins_turn()
    story.asks(0, threadId="t")
    b.refuses(FIRST_ID + 1)
    story.waits(3)
    told = report(story.broker, story.now)
    (thread,) = told["threads"]
    assert thread == {
        "id": "t", "title": None, "directory": None, "parent": None, "status": "active",
        "turn": "t-turn", "turnBy": None, "followers": [1, 2], "queued": 0, "held": None,
        "watchedBy": None,
    }  # fmt: skip
    (request,) = told["serverRequests"]
    expected = {
        "id": FIRST_ID + 1, "method": APPROVAL, "thread": "t", "ageSeconds": 3.0,
        "offeredTo": [1, 2], "abstained": [2], "answeredBy": None,
    }  # fmt: skip
    assert expected.items() <= request.items()
    a.answers(FIRST_ID + 1, {"decision": "accept"})
    (request,) = report(story.broker, story.now)["serverRequests"]
    assert request["answeredBy"] == a.id
    story.resolves(0)
    assert report(story.broker, story.now)["serverRequests"] == []
