"""The rules of the queue, by stories and by all that Hypothesis can think of."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from mux.push import queue as rules
from mux.push.endpoints import Endpoint
from mux.push.message import Push
from mux.push.outcome import Delivered, Failed, Gone, Outcome, Retry
from mux.push.queue import LONGEST_WAIT, Queue, Row
from mux.push.queue_file import FILE, FREE_PAGES, STEP_PAGES, QueueFile
from tests.push.told import NOW, endpoint, push

A = endpoint("ntfy", server="https://a", topic="t")
B = endpoint("webhook", level="opaque")


def states(queue: Queue) -> list[tuple[str, bool]]:
    return [(row.state, row.push.withdraw) for row in queue.rows.values()]


def only(queue: Queue, now: float) -> Row:
    (row,) = queue.ready(now)
    return row


def sent(queue: Queue, now: float, outcome: Outcome = Delivered("ok")) -> Row:  # noqa: B008 (frozen)
    row = only(queue, now)
    queue.begin(row)
    queue.settle(row, outcome, now)
    return row


def test_a_push_is_put_sent_and_its_words_forgotten() -> None:
    queue = Queue(lambda: 1.0)
    row = queue.put(A, push(), NOW)
    assert row.push.body == "rm -r jam/"
    sent(queue, NOW)
    assert (row.state, row.attempts, row.said) == ("sent", 1, "delivered: ok")
    assert row.push == push(title=None, body=None, ticket=None, actions=())
    assert list(queue.ready(NOW)) == []
    assert queue.next_moment(NOW) is None


def test_an_endpoint_gets_no_more_than_its_level() -> None:
    queue = Queue(lambda: 1.0)
    assert queue.put(B, push(), NOW).push.title is None


def test_a_retry_waits_longer_each_time_but_never_for_long() -> None:
    queue = Queue(lambda: 1.0)
    row = queue.put(A, push(expires_at=NOW + 1e6), NOW)
    now, waits = NOW, []
    for _ in range(9):
        sent(queue, now, Retry(None, "refused"))
        waits.append(row.due - now)
        assert not list(queue.ready(row.due - 0.01))
        now = row.due
    assert waits == [2, 4, 8, 16, 32, 64, 120, 120, 120]
    halved = Queue(lambda: 0.0)
    row = halved.put(A, push(), NOW)
    sent(halved, NOW, Retry(None, "refused"))
    assert row.due - NOW == 1


def test_a_service_may_ask_for_more_patience_but_not_for_days() -> None:
    queue = Queue(lambda: 1.0)
    row = queue.put(A, push(expires_at=NOW + 1e6), NOW)
    sent(queue, NOW, Retry(30.0, "429"))
    assert row.due == NOW + 30
    sent(queue, NOW + 30, Retry(1e9, "429"))
    assert row.due == NOW + 30 + 3600


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    queue = Queue(lambda: 1.0)
    queue.put(A, push(), NOW)
    assert list(queue.ready(NOW - 86_400))


def test_what_would_be_tried_after_its_end_is_expired() -> None:
    queue = Queue(lambda: 1.0)
    row = queue.put(A, push(expires_at=NOW + 10), NOW)
    sent(queue, NOW, Retry(60.0, "429"))
    assert (row.state, row.said) == ("expired", "not now: 429 (again in 60 s)")
    row = queue.put(A, push(expires_at=NOW + 10), NOW)
    queue.expire(NOW + 10)
    assert row.state == "expired"


def test_what_is_withdrawn_before_it_was_tried_is_never_sent() -> None:
    queue = Queue(lambda: 1.0)
    queue.put(A, push(), NOW)
    queue.withdraw([A], "thread-a", 0, NOW)
    assert states(queue) == [("withdrawn", False)]


def test_what_was_sent_is_taken_back_once() -> None:
    queue = Queue(lambda: 1.0)
    queue.put(A, push(), NOW)
    sent(queue, NOW)
    for _ in range(3):
        queue.withdraw([A], "thread-a", 0, NOW)
    assert states(queue) == [("sent", False), ("queued", True)]
    assert sent(queue, NOW).push.withdraw
    queue.withdraw([A], "thread-a", 0, NOW)
    assert states(queue) == [("sent", False), ("sent", True)]


def test_what_may_have_been_sent_is_taken_back_too() -> None:
    queue = Queue(lambda: 1.0)
    queue.put(A, push(), NOW)
    sent(queue, NOW, Retry(None, "cut before the answer"))
    queue.withdraw([A], "thread-a", 0, NOW)
    assert states(queue) == [("withdrawn", False), ("queued", True)]


def test_what_is_withdrawn_on_its_way_is_followed_by_its_withdrawal() -> None:
    queue = Queue(lambda: 1.0)
    row = queue.put(A, push(), NOW)
    queue.begin(row)
    queue.withdraw([A], "thread-a", 0, NOW)
    assert not list(queue.ready(NOW)), "one at a time for an endpoint"
    queue.settle(row, Retry(None, "slow"), NOW)
    assert row.state == "withdrawn"
    assert sent(queue, NOW).push.withdraw
    assert not queue.waiting()


def test_a_newer_one_takes_the_place_of_one_that_waits() -> None:
    queue = Queue(lambda: 1.0)
    first = queue.put(A, push(), NOW)
    other = queue.put(A, push(collapse="thread-b"), NOW)
    second = queue.put(A, push(id="p-2"), NOW)
    assert (first.state, other.state, second.state) == ("replaced", "queued", "queued")
    queue.begin(other)
    queue.let_go(other)
    on_its_way = queue.put(A, push(id="p-3", collapse="thread-c"), NOW)
    queue.begin(on_its_way)
    newer = queue.put(A, push(id="p-4", collapse="thread-c"), NOW)
    queue.settle(on_its_way, Retry(None, "slow"), NOW)
    assert (on_its_way.state, newer.state) == ("replaced", "queued")


def test_a_notice_after_a_withdrawal_that_waits_takes_its_place() -> None:
    queue = Queue(lambda: 1.0)
    queue.put(A, push(), NOW)
    sent(queue, NOW)
    queue.withdraw([A], "thread-a", 0, NOW)
    queue.put(A, push(id="p-2"), NOW)
    assert states(queue) == [("sent", False), ("replaced", True), ("queued", False)]
    queue.withdraw([A], "thread-a", 0, NOW)
    assert states(queue)[2:] == [("withdrawn", False), ("queued", True)]


def test_an_endpoint_that_is_gone_gets_nothing_more() -> None:
    queue = Queue(lambda: 1.0)
    queue.put(A, push(), NOW)
    queue.put(A, push(collapse="thread-b"), NOW)
    queue.put(B, push(), NOW)
    row = next(queue.ready(NOW))
    queue.begin(row)
    queue.settle(row, Gone("410"), NOW)
    assert states(queue) == [("given up", False), ("given up", False), ("queued", False)]


def test_a_row_that_fails_is_given_up_and_needs_no_withdrawal() -> None:
    queue = Queue(lambda: 1.0)
    queue.put(A, push(), NOW)
    assert sent(queue, NOW, Failed("400")).state == "given up"
    queue.withdraw([A], "thread-a", 0, NOW)
    assert len(queue.rows) == 1


def test_of_too_many_the_least_goes_first(monkeypatch: Any) -> None:
    monkeypatch.setattr(rules, "MOST_OF_ENDPOINT", 2)
    queue = Queue(lambda: 1.0)
    urgent = queue.put(A, push(collapse="a"), NOW)
    old = queue.put(A, push(collapse="b", urgent=False), NOW)
    queue.put(A, push(collapse="c", urgent=False), NOW)
    assert (old.state, old.said) == ("given up", "more than 2 waited to be sent")
    queue.put(A, push(collapse="d"), NOW)
    queue.put(A, push(collapse="e"), NOW)
    assert [row.push.collapse for row in queue.waiting()] == ["d", "e"]
    assert urgent.state == "given up"


def test_history_is_bounded_and_says_nothing(monkeypatch: Any) -> None:
    monkeypatch.setattr(rules, "MOST_SETTLED", 3)
    queue = Queue(lambda: 1.0)
    for number in range(5):
        queue.put(A, push(id=f"p-{number}"), NOW + number)
        sent(queue, NOW + number)
    queue.expire(NOW + 5)
    assert [row.push.id for row in queue.rows.values()] == ["p-2", "p-3", "p-4"]
    assert len(queue.removed) == 2
    shown = [row.to_json() for row in queue.rows.values()]
    assert "jam" not in str(shown)
    assert "ticket" not in str(shown)
    queue.expire(NOW + rules.SETTLED_SECONDS + 5)
    assert not queue.rows


# -- whatever happens ------------------------------------------------------------------------------


@attrs.define
class World:
    """A queue, the service that it is for, and what a kill would leave of the queue."""

    queue: Queue
    now: float = NOW
    disk: dict[int, Row] = attrs.field(factory=dict)
    on_its_way: dict[int, tuple[Row, Push]] = attrs.field(factory=dict)
    taken: list[tuple[str, Push]] = attrs.field(factory=list)
    wanted: dict[tuple[str, str], Push] = attrs.field(factory=dict)
    numbers: int = 0

    def write(self) -> None:
        for n in self.queue.changed:
            self.disk[n] = attrs.evolve(self.queue.rows[n])
        for n in self.queue.removed:
            self.disk.pop(n, None)
        self.queue.changed, self.queue.removed = set(), set()

    def put(self, where: Endpoint, collapse: str, seconds: int) -> None:
        self.numbers += 1
        told = push(id=f"p-{self.numbers}", collapse=collapse, expires_at=self.now + seconds)
        self.queue.put(where, told, self.now)
        self.wanted[where.id, collapse] = told
        self.write()  # what is lost before that was never raised, as far as the next life knows

    def withdraw(self, where: Endpoint, collapse: str) -> None:
        self.queue.withdraw([where], collapse, 0, self.now)
        self.wanted.pop((where.id, collapse), None)
        self.write()

    def start(self) -> None:
        self.queue.expire(self.now)
        for row in self.queue.ready(self.now):
            told = row.push
            assert told.expires_at > self.now, "sent after its expiry"
            if not told.withdraw:
                wanted = self.wanted[row.endpoint, told.collapse]
                assert wanted.id == told.id, "an old one"
            self.queue.begin(row)
            self.write()
            self.on_its_way[row.n] = (row, told)

    def answer(self, outcome: Outcome, *, arrives: bool) -> None:
        for n, (row, told) in list(self.on_its_way.items())[:1]:
            del self.on_its_way[n]
            if arrives:
                self.taken.append((row.endpoint, told))
            self.queue.settle(row, outcome, self.now)
            self.write()

    def kill(self, *, arrive: bool) -> None:
        """The service may have got what was on its way; the next life reads the disk."""
        if arrive:
            self.taken += [(row.endpoint, told) for row, told in self.on_its_way.values()]
        self.on_its_way = {}
        self.queue = Queue(self.queue.random)
        rows = [attrs.evolve(row, sending=False) for row in self.disk.values()]
        self.queue.adopt(rows, self.now)


STEPS = st.one_of(
    st.tuples(
        st.just("put"), st.sampled_from([A, B]), st.sampled_from("xy"), st.sampled_from([5, 5000])
    ),
    st.tuples(st.just("withdraw"), st.sampled_from([A, B]), st.sampled_from("xy")),
    st.tuples(st.just("start")),
    st.tuples(st.just("delivered")),
    st.tuples(st.just("retry"), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([1, 3, 60])),
    st.tuples(st.just("kill"), st.booleans()),
)


def take(world: World, step: tuple[Any, ...]) -> None:
    match step:
        case ("put", where, collapse, seconds):
            world.put(where, collapse, seconds)
        case ("withdraw", where, collapse):
            world.withdraw(where, collapse)
        case ("start",):
            world.start()
        case ("delivered",):
            world.answer(Delivered("ok"), arrives=True)
        case ("retry", arrives):
            world.answer(Retry(None, "cut"), arrives=arrives)
        case ("pass", seconds):
            world.now += seconds
        case ("kill", arrive):
            world.kill(arrive=arrive)


@given(st.lists(STEPS, max_size=40))
def test_nothing_is_lost_before_its_expiry_or_sent_after_it_or_after_its_withdrawal(
    steps: list[tuple[Any, ...]],
) -> None:
    world = World(Queue(lambda: 0.5))
    for step in steps:
        take(world, step)
    # Then the service is well, longer than any wait for another try.
    for _ in range(3):
        for _ in range(10):
            world.start()
            world.answer(Delivered("ok"), arrives=True)
        world.now += LONGEST_WAIT + 1
    world.start()
    assert not world.queue.waiting()
    for (where, collapse), told in world.wanted.items():
        arrived = {each.id for place, each in world.taken if place == where}
        assert told.id in arrived or told.expires_at < world.now, f"{collapse} was lost"
    shown: dict[tuple[str, str], Push] = {}
    for where, told in world.taken:
        if told.withdraw:
            shown.pop((where, told.collapse), None)
        else:
            shown[where, told.collapse] = told
    assert shown.keys() <= world.wanted.keys(), "what was withdrawn is shown still"


@given(st.lists(STEPS, max_size=40))
def test_one_that_was_answered_is_never_sent_again(steps: list[tuple[Any, ...]]) -> None:
    """A double needs an answer that was never noted: a kill, or a connection that was lost."""
    world = World(Queue(lambda: 0.5))
    for step in steps:
        if step[0] not in ("kill", "retry"):
            take(world, step)
    ids = [(told.id, told.withdraw) for _, told in world.taken]
    assert len(ids) == len(set(ids))


def test_its_file_gives_back_what_it_no_longer_needs(tmp_path: Path) -> None:
    """Counted in pages: 1,000 rows whose words are forgotten, and most of them with time."""
    file = QueueFile(tmp_path / FILE)
    file.load()
    long = [Row(n, "d", "e", "ntfy", push(body="x" * 4_000), NOW, NOW) for n in range(1_000)]
    file.write(long, ())
    pages = _pages(tmp_path)
    assert pages > 1_000
    file.write([attrs.evolve(row, push=push(body=None)) for row in long[:20]], range(20, 1_000))
    writes = 1
    while (fewer := _pages(tmp_path)) < pages:
        assert pages - fewer <= STEP_PAGES + 2  # with pages that only say where others are
        pages, writes = fewer, writes + 1
        file.write(long[:1], ())
    assert pages <= FREE_PAGES + 50
    assert writes <= 1_100 // STEP_PAGES + 2
    assert len(file.load()) == 20
    file.close()


def _pages(tmp_path: Path) -> int:
    connection = sqlite3.connect(tmp_path / FILE)
    try:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])
    finally:
        connection.close()
