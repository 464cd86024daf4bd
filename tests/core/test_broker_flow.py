"""Stories of flow: what is in flight, what waits, what is asked again, what is given up."""

from __future__ import annotations

import pytest

from mux.core.state.app_server import AppServerState
from mux.core.state.state import NEVER
from tests.core.lives import next_life, shared
from tests.core.stories import DELTA, Json, Peer, Story

OVERLOADED: Json = {"code": -32001, "message": "Server overloaded; retry later."}


def overload(story: Story, asked: Json) -> None:
    story.fails(asked, OVERLOADED["code"], OVERLOADED["message"])


def pipelines(peer: Peer, count: int, method: str = "thread/list") -> list[int]:
    return [peer.asks(method, {"n": at}) for at in range(count)]


def test_at_most_the_cap_is_in_flight_and_everything_is_answered_once() -> None:
    story = Story.begun(burst=32)
    peers = [story.peer(str(at)) for at in range(4)]
    asked = {peer.id: pipelines(peer, 250) for peer in peers}
    most = 0
    waiting = story.written()
    while waiting:
        most = max(most, len(waiting))
        story.answers(waiting.pop(0))
        waiting += story.written()
    assert most == story.limits.in_flight == 64
    for peer in peers:
        assert [each["id"] for each in peer.heard()] == asked[peer.id]


def test_a_burst_of_a_thousand_leaves_the_others_quick() -> None:
    story = Story.begun()
    burst, other = story.peer("burst"), story.peer("other")
    ids = pipelines(burst, 1000)
    waiting = story.written()
    assert len(waiting) == story.limits.burst
    for time in range(50):
        other.asks("model/list", id="mine")
        waiting += story.written()
        at = next(at for at, each in enumerate(waiting) if each["method"] == "model/list")
        assert at <= (1 if time else story.limits.burst)
        for asked in waiting[: at + 1]:
            story.answers(asked)
        waiting = waiting[at + 1 :] + story.written()
        assert other.only()["id"] == "mine"
    while waiting:
        story.answers(waiting.pop(0))
        waiting += story.written()
    assert [each["id"] for each in burst.heard()] == ids


def test_what_takes_long_is_joined_by_more_in_time() -> None:
    story = Story.begun()
    pipelines(story.peer("patient"), 100)
    sent = len(story.written())
    while sent < story.limits.in_flight_per_client:
        story.waits(story.limits.burst_seconds)
        more = len(story.written())
        assert more == story.limits.burst
        sent += more
    story.waits(1.0)
    assert story.written() == []


def test_a_clients_own_order_is_kept() -> None:
    story = Story.begun(in_flight=3, in_flight_per_client=2)
    peers = [story.peer(name) for name in "abc"]
    for peer in peers:
        pipelines(peer, 20)
    sent: dict[str, list[int]] = {}
    waiting = story.written()
    while waiting:
        asked = waiting.pop()
        sent.setdefault(str(asked["id"]), [])
        story.answers(asked, {"n": asked["params"]["n"]})
        waiting += story.written()
    for peer in peers:
        assert sorted(each["result"]["n"] for each in peer.heard()) == list(range(20))


def test_past_its_queue_a_client_is_told_that_the_server_is_overloaded() -> None:
    story = Story.begun(queued_per_client=10, in_flight_per_client=2)
    a, b = story.peer("a"), story.peer("b")
    ids = pipelines(a, 15)
    refused = a.heard()
    assert [each["id"] for each in refused] == ids[12:]
    assert all(each["error"] == OVERLOADED for each in refused)
    b.asks("x/y", id="fine")
    waiting = story.written()
    while waiting:
        story.answers(waiting.pop(0))
        waiting += story.written()
    assert [each["id"] for each in a.heard()] == ids[:12]
    assert b.only()["id"] == "fine"


def test_a_queue_is_bounded_in_bytes_too_but_takes_one_message_of_any_size() -> None:
    story = Story.begun(queued_bytes_per_client=1000, in_flight_per_client=1)
    a = story.peer()
    a.asks("x/y")
    a.asks("x/y", {"big": "x" * 5000}, id="big")
    assert a.heard() == []
    a.asks("x/y", {}, id="small")
    assert a.only()["id"] == "small"
    story.answers(story.only())
    assert len(story.only()["params"]["big"]) == 5000


def test_what_waits_for_something_outside_takes_no_slot() -> None:
    story = Story.begun(in_flight=2, in_flight_per_client=2)
    a = story.peer()
    for _ in range(20):
        a.asks("command/exec", {"command": ["sleep"]})
    assert len(story.written("command/exec")) == 20
    pipelines(a, 5)
    assert len(story.written("thread/list")) == 2


def test_what_waits_is_bounded_per_client() -> None:
    story = Story.begun(waiting_per_client=3)
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        for _ in range(5):
            peer.asks("mcpServer/tool/call")
    assert len(story.written()) == 6
    assert [each["error"] for each in a.heard()] == [OVERLOADED] * 2
    assert len(b.heard()) == 2


def test_what_waits_has_no_deadline() -> None:
    story = Story.begun(probe_interval=NEVER)
    a = story.peer()
    for method in ("command/exec", "mcpServer/tool/call"):
        a.asks(method, {"command": []})
    first, second = story.written()
    story.waits(24 * 3600)
    assert a.heard() == []
    story.answers(first)
    story.answers(second)
    assert len(a.heard()) == 2


# ── overload ──────────────────────────────────────────────────────────────────────────────────────


def test_an_overloaded_request_is_sent_again_with_back_off() -> None:
    story = Story.begun(probe_interval=NEVER)
    a = story.peer()
    id = a.asks("x/y", {"n": 1})
    first = story.only()
    pauses = []
    for _ in range(story.limits.overload_retries):
        overload(story, first)
        assert story.written() == []
        before = story.now
        while not (again := story.written()):
            story.waits(0.001)
        assert again == [first]
        pauses.append(story.now - before)
    assert a.heard() == []
    assert pauses == pytest.approx(
        [story.limits.overload_first_wait * 2**n for n in range(len(pauses))], abs=0.002
    )
    overload(story, first)
    assert a.only() == {"id": id, "error": OVERLOADED}
    story.waits(1000)
    assert story.written() == []


def test_an_overloaded_request_that_succeeds_at_last_is_answered_once() -> None:
    story = Story.begun()
    a = story.peer()
    id = a.asks("x/y")
    asked = story.only()
    overload(story, asked)
    story.waits(1)
    story.answers(story.only(), {"at": "last"})
    assert a.only() == {"id": id, "result": {"at": "last"}}
    story.answers(asked)
    assert a.heard() == []


def test_an_overloaded_request_keeps_its_slot() -> None:
    story = Story.begun(in_flight=1, in_flight_per_client=1)
    a = story.peer()
    pipelines(a, 2)
    overload(story, story.only())
    assert story.written() == []
    story.waits(1)
    story.answers(story.only())
    assert story.only()["params"] == {"n": 1}


def test_an_overloaded_request_whose_asker_left_is_not_sent_again() -> None:
    story = Story.begun(in_flight=1)
    a, b = story.peer("a"), story.peer("b")
    a.asks("x/y")
    b.asks("x/z")
    overload(story, story.only())
    a.leaves()
    assert story.written() == []
    story.waits(1)
    assert [each["method"] for each in story.written()] == ["x/z"]


def test_other_errors_are_not_asked_again() -> None:
    story = Story.begun()
    a = story.peer()
    for code in (-32600, -32603, -32000, 1):
        a.asks("x/y")
        story.fails(story.only(), code)
        assert a.only()["error"]["code"] == code
    a.asks("x/y")
    id = story.only()["id"]
    story.says(f'{{"error":"strange","id":{id}}}')
    assert a.only()["error"] == "strange"


# ── deadlines ─────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_that_never_comes_becomes_an_error_after_a_deadline() -> None:
    story = Story.begun()
    a = story.peer()
    id = a.asks("thread/list")
    asked = story.only()
    story.waits(story.limits.request_deadline - 0.1)
    assert a.heard() == []
    story.waits(0.2)
    answer = a.only()
    assert answer["id"] == id
    assert answer["error"]["code"] == -32011
    assert "thread/list" in answer["error"]["message"]
    assert answer["error"]["data"] == {"generation": 1, "retryable": True}
    story.answers(asked, {"too": "late"})
    assert a.heard() == []


@pytest.mark.parametrize(("method", "retryable"), [("thread/read", True), ("turn/start", False)])
def test_the_error_says_whether_asking_again_is_safe(method: str, retryable: bool) -> None:
    story = Story.begun()
    a = story.peer()
    a.asks(method, {"threadId": "t"})
    story.waits(story.limits.request_deadline)
    assert a.only()["error"]["data"]["retryable"] is retryable


def test_a_request_that_expired_makes_room() -> None:
    story = Story.begun(in_flight=1)
    a = story.peer()
    ids = pipelines(a, 2)
    first = story.only()
    story.waits(story.limits.request_deadline)
    (second,) = story.written("thread/list")
    assert second["params"] == {"n": 1}
    story.answers(first)
    story.answers(second)
    assert [each["id"] for each in a.heard()] == ids


def test_the_deadline_counts_from_the_sending() -> None:
    story = Story.begun(in_flight=1, probe_interval=NEVER)
    a = story.peer()
    pipelines(a, 2)
    story.waits(100)
    story.answers(story.only())
    a.heard()
    story.waits(100)
    assert a.heard() == []
    story.answers(story.only(), {"in": "time"})
    assert a.only()["result"] == {"in": "time"}


def test_a_late_error_of_overload_does_not_wake_an_expired_request() -> None:
    story = Story.begun(probe_interval=NEVER)
    a = story.peer()
    a.asks("x/y")
    asked = story.only()
    story.waits(story.limits.request_deadline)
    assert len(a.heard()) == 1
    overload(story, asked)
    story.waits(1000)
    assert story.written() == []
    assert a.heard() == []


def test_a_request_that_waits_to_be_sent_again_may_expire() -> None:
    story = Story.begun(overload_first_wait=1000, probe_interval=NEVER)
    a = story.peer()
    a.asks("x/y")
    overload(story, story.only())
    story.waits(story.limits.request_deadline)
    assert a.only()["error"]["code"] == -32011
    story.waits(2000)
    assert story.written() == []


def test_what_was_answered_too_late_follows_nothing() -> None:
    story = Story.begun()
    a = story.peer()
    a.asks("review/start", {"threadId": "t", "delivery": "detached"})
    asked = story.only()
    story.waits(story.limits.request_deadline)
    a.heard()
    story.written()
    story.answers(asked, {"reviewThreadId": "review"})
    assert story.only("thread/unsubscribe")["params"] == {"threadId": "review"}
    story.delta("review")
    assert a.heard() == []


# ── threads that take long to load ────────────────────────────────────────────────────────────────

LOADS = ["thread/start", "thread/fork", "thread/resume"]


@pytest.mark.parametrize("method", LOADS)
def test_a_thread_that_takes_minutes_to_load_is_still_given(method: str) -> None:
    story = Story.begun(probe_interval=NEVER)
    a = story.peer()
    asked = a.asks(method, {"threadId": "t"})
    story.waits(10 * story.limits.request_deadline)
    assert a.heard() == []
    story.answers(story.only(method), {"thread": {"id": "t"}})
    story.delta()
    answer, delta = a.heard()
    assert (answer["id"], delta["method"]) == (asked, DELTA)
    assert story.written() == []


@pytest.mark.parametrize("method", LOADS)
def test_one_that_loads_when_its_asker_has_left_is_let_go(method: str) -> None:
    story = Story.begun(probe_interval=NEVER)
    a = story.peer()
    a.asks(method, {"threadId": "t"})
    asked = story.only(method)
    story.waits(story.limits.loading_slot + 1)
    a.leaves()
    story.waits(story.limits.request_deadline)
    assert story.written() == []
    story.answers(asked, {"thread": {"id": "t"}})
    assert story.only()["params"] == {"threadId": "t"}
    assert story.broker.state.scheduler.in_flight == 1  # the thread/unsubscribe


def test_its_asker_may_ask_on_after_a_while_and_others_at_once() -> None:
    limits = {"in_flight": 4, "in_flight_per_client": 2, "loading": 2, "burst": 9}
    story = Story.begun(probe_interval=NEVER, **limits)
    a, b = story.peer("a"), story.peer("b")
    for _ in range(2):
        a.asks("thread/start")
    a.asks("thread/list", id="behind")
    b.asks("thread/list", id="beside")
    (beside,) = story.written("thread/list")
    story.answers(beside)
    assert b.only()["id"] == "beside"
    story.waits(story.limits.loading_slot - 1)
    assert story.written() == []
    story.waits(2)
    story.answers(story.only("thread/list"))
    assert a.only()["id"] == "behind"


def test_all_that_is_upstream_is_bounded_though_slots_are_given_back() -> None:
    limits = {"in_flight": 5, "in_flight_per_client": 3, "loading": 3, "burst": 9}
    story = Story.begun(probe_interval=NEVER, **limits)
    a, b = story.peer("a"), story.peer("b")
    for peer in (a, b):
        for _ in range(5):
            peer.asks("thread/start")
    starts = story.written("thread/start")
    assert len(starts) == 3
    story.waits(1000)
    assert story.written() == []
    c = story.peer("c")
    for n in range(5):
        c.asks("thread/list", {"n": n})
    assert len(story.written("thread/list")) == 2
    for n, asked in enumerate(starts):
        story.answers(asked, {"thread": {"id": f"t{n}"}})
    sent = [each["method"] for each in story.written()]
    assert sorted(sent) == ["thread/list", "thread/start", "thread/start"]
    assert len(story.broker.state.scheduler.upstream) == 5


def test_what_the_broker_loads_for_itself_has_a_deadline() -> None:
    story = Story.begun(probe_interval=NEVER)
    [a] = shared(story, "a")
    story.exits()
    next_life(story)
    a.heard()
    story.waits(story.limits.request_deadline)
    assert "thread/closed" in [each.get("method") for each in a.heard()]
    assert story.broker.state.appserver.state is AppServerState.READY


def test_who_has_sent_a_burst_wakes_nobody_while_there_is_no_app_server() -> None:
    story = Story.begun(burst=1)
    a = story.peer()
    for _ in range(3):
        a.asks("thread/list")
    story.exits()
    a.asks("thread/list")
    story.waits(0.05)
    assert story.broker.next_wakeup > story.now
