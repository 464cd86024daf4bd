"""What a client is owed: one that reads slowly is asked less for, and never cut for its answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.paced import AWARE, PacedStory
from tests.core.stories import Json, Peer

LIMITS = {"catch_up_bytes": 100, "answers_bytes": 1_000, "pinned_bytes": 2_000}
READ = "fs/readFile"
FULL = "x" * 3_000
SOME = "x" * 600


def begun() -> tuple[PacedStory, Peer]:
    story = PacedStory.with_disk(**LIMITS)
    return story, story.peer("phone")


def answers(story: PacedStory, peer: Peer, asked: Json, text: str) -> None:
    """The app-server answers; what is long fills the client's outbox."""
    story.answers(asked, {"text": text})
    if len(text) > LIMITS["catch_up_bytes"] and not story.is_behind(peer):
        story.lags(peer)


def test_large_answers_are_asked_for_one_at_a_time_each_when_the_last_is_written() -> None:
    story, phone = begun()
    ids = [phone.asks(READ) for _ in range(4)]
    for id in ids:
        answers(story, phone, story.only(READ), FULL)
        assert phone.heard()[0]["id"] == id
        assert not story.written(), "the next, before this one is written"
        story.drains(phone)
    assert (phone.closed, phone.is_read) == ([], True)


def test_a_large_answer_that_fits_is_followed_by_the_next_without_a_lag() -> None:
    story, phone = begun()
    for _ in range(2):
        phone.asks(READ)
    story.answers(story.only(READ), {"text": FULL})
    assert story.drains(phone)
    assert story.only(READ)


def test_which_answers_may_be_large_goes_by_what_is_asked() -> None:
    story, phone = begun()
    for method, params in (
        ("thread/resume", {"threadId": "t"}),
        ("thread/resume", {"threadId": "t", "excludeTurns": True}),
        ("thread/read", {"threadId": "t"}),
        ("thread/read", {"threadId": "t", "includeTurns": True}),
        ("thread/fork", {"threadId": "t"}),
        (READ, {"path": "/x"}),
    ):
        phone.asks("fs/getMetadata")
        phone.asks(method, params)
    story.waits(1)  # more than a burst
    assert [each["method"] for each in story.written()][1::2] == [
        "thread/resume",
        "thread/resume",
        "thread/read",
    ]


def test_beside_a_large_answer_on_its_way_what_is_short_is_asked_and_heard() -> None:
    story, phone = begun()
    phone.asks(READ)
    answers(story, phone, story.only(READ), FULL)
    phone.asks("turn/interrupt", {"threadId": "t", "turnId": "u"})
    assert story.only("turn/interrupt")
    assert phone.is_read


def test_another_clients_requests_go_on() -> None:
    story, phone = begun()
    desk = story.peer("desk")
    for _ in range(2):
        phone.asks(READ)
    answers(story, phone, story.only(READ), FULL)
    desk.asks(READ)
    assert story.only(READ)


def test_many_answers_that_wait_stop_the_asking_and_the_reading_until_they_are_written() -> None:
    story, phone = begun()
    story.lags(phone)
    ids = [phone.asks("thread/items/list") for _ in range(12)]
    under_way = story.written()
    assert len(under_way) == 4, "a burst"
    while phone.is_read:
        answers(story, phone, under_way.pop(0), SOME)
        under_way += story.written()
    for each in under_way:
        answers(story, phone, each, SOME)
    story.waits(1)
    assert not story.written(), "more is asked for than waits"
    assert phone.inbox == []
    for _ in ids:
        story.settles()
        for each in story.written():
            answers(story, phone, each, SOME)
        story.waits(0.1)
    assert [each["id"] for each in phone.heard()] == ids
    assert (phone.closed, phone.is_read) == ([], True)


def test_a_queue_that_fills_behind_a_large_answer_stops_the_reading_and_nothing_is_refused() -> (
    None
):
    story = PacedStory.with_disk(**LIMITS, queued_per_client=20)
    phone = story.peer("phone")
    ids: list[object] = []
    for _ in range(3):
        while phone.is_read:
            ids.append(phone.asks(READ if len(ids) % 3 == 0 else "thread/items/list"))
            assert len(ids) < 100
        answered = 0
        while phone.id in story.broker.state.unread:
            story.settles()
            for each in story.written():
                answers(story, phone, each, FULL if each["method"] == READ else "short")
                answered += 1
            story.waits(0.1)
        assert answered
    for _ in ids:
        for each in story.written():
            answers(story, phone, each, "short")
        story.settles()
        story.waits(0.1)
    heard = phone.heard()
    assert [each["id"] for each in heard] == ids
    assert all("result" in each for each in heard)


@pytest.mark.parametrize("down", [False, True])
def test_whose_queue_is_emptied_otherwise_is_read_again(down: bool) -> None:
    story = PacedStory.with_disk(
        **LIMITS, queued_per_client=20, deaths_in_a_minute=0 if down else 5
    )
    phone = story.peer("phone")
    while phone.is_read:
        phone.asks(READ)
    story.exits()
    story.waits(70)
    assert phone.is_read


def test_answers_of_the_brokers_own_stop_the_reading_too() -> None:
    story, phone = begun()
    story.lags(phone)
    count = 0
    while phone.is_read:
        phone.asks("mux/presence/read")
        count += 1
        assert count < 100
    story.settles()
    assert len(phone.heard()) == count
    assert (phone.closed, phone.is_read) == ([], True)


def test_what_waits_outside_is_not_asked_for_either() -> None:
    story, phone = begun()
    story.lags(phone)
    while phone.is_read:
        phone.asks("mux/presence/read")
    phone.asks("mcpServer/tool/call")  # it was on its way
    assert not story.written()
    story.settles()
    assert story.only("mcpServer/tool/call")


def test_output_of_its_own_processes_that_nobody_reads_cuts_it_and_stops_no_reading() -> None:
    story, phone = begun()
    phone.asks("process/spawn", {"processHandle": "p"})
    handle = story.only()["params"]["processHandle"]
    story.lags(phone)
    for _ in range(2):
        story.notifies("process/outputDelta", {"processHandle": handle, "delta": SOME})
        assert (phone.is_read, phone.closed) == (True, [])
    story.notifies("process/outputDelta", {"processHandle": handle, "delta": FULL})
    assert phone.closed == [1013]


def test_who_left_while_it_was_owed_much_leaves_nothing_behind() -> None:
    story, phone = begun()
    for _ in range(3):
        phone.asks(READ)
    answers(story, phone, story.only(READ), FULL)
    phone.leaves()
    flow = story.broker.state.scheduler
    assert (flow.laden, flow.held) == (set(), set())
    again = story.peer("phone")
    again.asks(READ)
    assert story.only(READ)


def test_a_lost_app_server_takes_its_unsent_answer_with_it() -> None:
    story, phone = begun()
    for _ in range(2):
        phone.asks(READ)
    story.exits()
    story.settles()  # the error is longer than what counts as large here
    story.starts(2)
    story.initialized()
    (asked,) = story.written(READ)
    story.answers(asked, {"text": FULL})
    assert [each.get("error", {}).get("code") for each in phone.heard()] == [-32010, None]


STEPS = st.lists(
    st.sampled_from(["large", "short", "own", "answer", "full", "drain", "delta", "wait"]),
    max_size=60,
)


@given(STEPS)
def test_whatever_it_asks_each_is_answered_once_and_it_is_never_cut(steps: list[str]) -> None:
    story = PacedStory.with_disk(**LIMITS)
    phone = story.peer("phone", **AWARE)
    story.follows(phone)
    ids: list[object] = []
    asked: list[Json] = []
    methods = {"large": READ, "short": "thread/items/list", "own": "mux/presence/read"}
    for step in steps:
        asked += story.written()
        if step in methods and phone.is_read:
            ids.append(phone.asks(methods[step]))
        elif step in ("answer", "full") and asked:
            answers(story, phone, asked.pop(0), FULL if step == "full" else "short")
        elif step == "drain":
            story.drains(phone)
        elif step == "delta":
            story.delta()
        elif step == "wait":
            story.waits(0.1)
        assert sum(each["method"] == READ for each in asked) <= 1
    for _ in range(10 * len(steps) + 10):
        asked += story.written()
        if asked:
            answers(story, phone, asked.pop(0), SOME)
        story.settles()
        story.waits(0.1)
    heard = [each["id"] for each in phone.heard() if "id" in each]
    assert sorted(map(str, heard)) == sorted(map(str, ids))
    assert (phone.closed, phone.is_read) == ([], True)
