"""Whose turn it is: fairness, bounds, back-off and deadlines, without anybody else."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core.limits import Limits
from mux.core.protocol.rules import RequestRule
from mux.core.state.requests.company import COMPANY_SECONDS
from mux.core.state.requests.request import Request
from mux.core.state.requests.scheduler import BROKER, DEPARTED, RequestScheduler

PLAIN, WAITS, LOADS = RequestRule(), RequestRule(waits=True), RequestRule(loads=True)


def request(
    wire: int,
    client: int,
    *,
    waits: bool = False,
    loads: bool = False,
    size: int = 1,
    since: float = 0.0,
) -> Request:
    return Request(
        wire=wire,
        method="x/y",
        rule=WAITS if waits else LOADS if loads else PLAIN,
        client=client if client > 0 else None,
        account=client,
        origin=b"1",
        line=b"x" * size,
        since=since,
    )


def flow(**limits: float) -> RequestScheduler:
    return RequestScheduler(Limits(**limits))  # type: ignore[arg-type]


def wires(of: RequestScheduler, now: float = 0.0, only: int | None = None) -> list[int]:
    return [each.wire for each in of.due(now, only=only)]


def test_clients_take_turns() -> None:
    turns = flow(in_flight=100, burst=100)
    for wire in range(1, 7):
        assert turns.submit(request(wire, client=1))
    for wire in range(11, 13):
        assert turns.submit(request(wire, client=2))
    assert turns.submit(request(21, client=3))
    assert wires(turns) == [1, 11, 21, 2, 12, 3, 4, 5, 6]
    assert wires(turns) == []


def test_a_client_sends_a_burst_and_more_as_it_is_answered_or_takes_long() -> None:
    bursts = flow(burst=2, burst_seconds=0.5, in_flight_per_client=5)
    for wire in range(10):
        bursts.submit(request(wire, client=1))
    bursts.submit(request(20, client=2, since=-COMPANY_SECONDS))
    first, other, _second = list(bursts.due(0.0))
    assert (first.wire, other.wire) == (0, 20)
    assert bursts.next_moment() == bursts.held_until == 0.5
    assert wires(bursts, 0.4) == []
    bursts.answered(first)
    assert wires(bursts, 0.4) == [2]
    assert wires(bursts, 0.5) == [3]  # the second is under way for long
    assert wires(bursts, 0.9) == [4]
    assert wires(bursts, 1.0) == [5]  # five are in flight now, the client's share
    assert wires(bursts, 9.0) == []
    assert bursts.held_until == float("inf")


def test_one_that_floods_sends_one_by_one_while_another_asks() -> None:
    bursts = flow(burst=2, burst_seconds=0.1)
    for wire in range(10):
        bursts.submit(request(wire, client=1))
    bursts.submit(request(20, client=2))
    sent = list(bursts.due(0.0))
    assert [each.wire for each in sent] == [0, 20]
    bursts.answered(sent[1])
    assert wires(bursts, 0.04) == []
    bursts.answered(sent[0])
    assert wires(bursts, 0.04) == [1]
    assert wires(bursts, 0.08) == []
    assert wires(bursts, 0.09) == [2]  # half of what a burst may take
    alone = COMPANY_SECONDS + 0.01
    assert wires(bursts, alone) == [3, 4]
    bursts.submit(request(21, client=2, since=alone))
    assert wires(bursts, alone) == [21]
    assert wires(bursts, alone + 0.05) == [5]


def test_nobody_is_waited_for_who_has_left() -> None:
    bursts = flow(burst=1)
    for wire in range(3):
        bursts.submit(request(wire, client=1))
    (sent,) = bursts.due(0.0)
    assert bursts.next_moment() == bursts.limits.burst_seconds
    bursts.leave(1)
    bursts.answered(sent)
    assert bursts.next_moment() == float("inf")


def test_a_short_pipeline_is_sent_at_once_whoever_asks() -> None:
    bursts = flow(burst=2)
    bursts.submit(request(20, client=2))
    for wire in range(3):
        bursts.submit(request(wire, client=1))
    assert wires(bursts) == [20, 0, 1]


def test_the_broker_and_what_the_departed_began_are_not_held() -> None:
    bursts = flow(burst=1)
    for wire, account in enumerate((BROKER, BROKER, DEPARTED, DEPARTED)):
        bursts.submit(request(wire, client=account))
    assert len(wires(bursts)) == 4


def test_the_cap_holds_over_all_and_per_client() -> None:
    capped = flow(in_flight=3, in_flight_per_client=2)
    for wire in range(5):
        capped.submit(request(wire, client=1))
        capped.submit(request(10 + wire, client=2))
    sent = list(capped.due(0))
    assert [each.wire for each in sent] == [0, 10, 1]
    assert (capped.in_flight, capped.queued) == (3, 7)
    capped.answered(sent[0])
    assert wires(capped) == [11]
    capped.answered(sent[2])
    assert wires(capped) == [2]


def test_a_slot_goes_to_whoever_can_use_it() -> None:
    capped = flow(in_flight=10, in_flight_per_client=1)
    capped.submit(request(1, client=1))
    capped.submit(request(2, client=1))
    capped.submit(request(3, client=2))
    assert wires(capped) == [1, 3]


def test_only_the_brokers_own_goes_during_the_handshake() -> None:
    starting = flow()
    starting.submit(request(1, client=1))
    starting.submit(request(2, client=BROKER))
    assert wires(starting, only=BROKER) == [2]
    assert wires(starting) == [1]


def test_what_waits_takes_no_slot_and_has_no_deadline() -> None:
    waiting = flow(in_flight=1, waiting_per_client=2)
    first, second = request(1, 1, waits=True), request(2, 1, waits=True)
    assert waiting.submit(first)
    assert waiting.submit(second)
    assert wires(waiting) == [1, 2]
    assert waiting.in_flight == 0
    assert not waiting.submit(request(3, 1, waits=True))
    assert waiting.submit(request(4, 2, waits=True))
    assert waiting.submit(request(5, 1))
    assert wires(waiting) == [4, 5]
    assert first.deadline == float("inf")
    assert next(iter(waiting.expire(1e9))).wire == 5
    waiting.answered(first)
    assert waiting.submit(request(6, 1, waits=True))


def test_a_clients_order_is_kept_behind_what_waits() -> None:
    mixed = flow(waiting_per_client=1, in_flight=10)
    mixed.submit(request(1, 1))
    mixed.submit(request(2, 1, waits=True))
    mixed.submit(request(3, 1))
    assert wires(mixed) == [1, 2, 3]


@pytest.mark.parametrize(
    ("limits", "taken"),
    [({"queued_per_client": 3}, 3), ({"queued_bytes_per_client": 25}, 3)],
)
def test_a_queue_is_bounded(limits: dict[str, float], taken: int) -> None:
    bounded = flow(in_flight_per_client=1, **limits)
    assert bounded.submit(request(0, 1, size=10))
    assert wires(bounded) == [0]
    asked = [bounded.submit(request(wire, 1, size=10)) for wire in range(1, 6)]
    assert asked == [True] * taken + [False] * (5 - taken)
    assert bounded.submit(request(9, 2, size=10))


def test_overload_is_met_with_doubling_waits_up_to_an_end() -> None:
    overloaded = flow(overload_first_wait=1.0, overload_retries=3)
    (asked,) = [request(1, 1)]
    overloaded.submit(asked)
    assert wires(overloaded) == [1]
    now, ats = 0.0, []
    while (at := overloaded.retry(asked, now)) is not None:
        ats.append(at - now)
        assert overloaded.next_moment() == at
        assert list(overloaded.retries(at - 0.01)) == []
        assert list(overloaded.retries(at)) == [asked]
        now = at
    assert ats == [1.0, 2.0, 4.0]
    assert overloaded.in_flight == 1
    overloaded.answered(asked)
    assert overloaded.in_flight == 0


def test_a_deadline_frees_the_slot_once() -> None:
    late = flow(in_flight=1, request_deadline=10.0)
    first, second = request(1, 1), request(2, 1)
    late.submit(first)
    late.submit(second)
    assert wires(late, now=5.0) == [1]
    assert late.next_moment() == 15.0
    assert list(late.expire(14.9)) == []
    assert list(late.expire(15.0)) == [first]
    assert list(late.expire(99.0)) == []
    assert first.expired
    assert wires(late, now=20.0) == [2]
    late.answered(first)  # too late to free a second slot
    assert late.in_flight == 1


def test_what_loads_a_thread_gives_its_clients_slot_back_and_is_given_up_by_nobody() -> None:
    slow = flow(in_flight=2, in_flight_per_client=1, loading_slot=3.0, request_deadline=10.0)
    for wire in (1, 2):
        slow.submit(request(wire, client=wire, loads=wire == 1))
    assert wires(slow, now=5.0) == [1, 2]
    slow.submit(request(3, client=1))
    slow.answered(slow.upstream[2])
    assert slow.next_moment() == 8.0
    slow.give_back(7.9)
    assert wires(slow, now=7.9) == []
    slow.give_back(8.0)
    assert wires(slow, now=8.0) == [3]
    assert (slow.in_flight, slow.busy) == (2, True)
    slow.answered(slow.upstream[3])
    assert slow.next_moment() == 15.0
    slow.give_back(15.0)
    assert list(slow.expire(99.0)) == []
    assert (slow.in_flight, slow.busy, slow.next_moment()) == (1, False, float("inf"))
    slow.answered(slow.upstream[1])
    assert (slow.in_flight, slow.loading, slow.upstream, slow._lines) == (0, 0, {}, {})


def test_whatever_loads_is_forgotten_with_the_app_server() -> None:
    lost = flow(loading=1, loading_slot=3.0)
    for wire in (1, 2):
        lost.submit(request(wire, client=wire, loads=True))
    assert wires(lost) == [1]
    lost.give_back(5.0)
    assert [each.wire for each in lost.lose()] == [1]
    assert wires(lost, now=6.0) == [2]
    assert (lost.in_flight, lost.loading) == (1, 1)


def test_who_leaves_takes_its_queue_along_and_keeps_its_slots_until_the_answers() -> None:
    left = flow(in_flight=4, in_flight_per_client=2)
    for wire in range(4):
        left.submit(request(wire, client=1))
    left.submit(request(9, client=1, waits=True))
    sent = list(left.due(0))
    queued = left.leave(1)
    assert [each.wire for each in queued] == [2, 3, 9]
    assert all(each.client is None and each.account == DEPARTED for each in sent)
    assert left.in_flight == 2
    for each in sent:
        left.answered(each)
    assert (left.in_flight, left.queued, left.upstream) == (0, 0, {})
    assert left.leave(1) == []


def test_what_dies_with_the_app_server_and_what_stays() -> None:
    lost = flow(in_flight_per_client=1)
    for wire in (1, 2):
        lost.submit(request(wire, client=1))
        lost.submit(request(10 + wire, client=BROKER))
    assert sorted(wires(lost)) == [1, 11]
    assert [each.wire for each in lost.lose()] == [1, 11]
    assert (lost.in_flight, lost.upstream) == (0, {})
    assert wires(lost) == [2]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["submit", "submit", "submit", "waits", "loads", "loads", "answer", "overload", "leave"]
        ),
        st.integers(1, 3),
        st.sampled_from([0.0, 0.1, 3.0, 20.0]),
    ),
    max_size=60,
)


@given(STEPS)
def test_every_request_is_given_out_at_most_once_and_freed(
    steps: list[tuple[str, int, float]],
) -> None:
    limits = Limits(
        in_flight=3, in_flight_per_client=2, waiting_per_client=2, queued_per_client=4,
        request_deadline=15.0, loading=2, loading_slot=5.0,
    )  # fmt: skip
    any_flow = RequestScheduler(limits)
    now, given_out, taken = 0.0, Counter[int](), set[int]()
    upstream: deque[Request] = deque()
    owner: dict[int, int] = {}

    def look() -> None:
        any_flow.give_back(now)
        for each in any_flow.expire(now):
            assert each.deadline <= now
        list(any_flow.retries(now))
        for each in any_flow.due(now):
            given_out[each.wire] += 1
            upstream.append(each)
        alive = [each for each in upstream if not each.expired]
        slots = [each for each in alive if not each.rule.waits]
        assert any_flow.in_flight == len(slots) <= limits.in_flight
        mine = [each for each in slots if each.has_slot]
        loading = [each for each in slots if each.rule.loads]
        assert any_flow.loading == len(loading) <= limits.loading
        assert all(each.has_slot is (each.upstream_since + 5.0 > now) for each in loading)
        per_client = Counter(each.account for each in mine if each.account != DEPARTED)
        assert all(count <= limits.in_flight_per_client for count in per_client.values())
        if any_flow.queued and len(slots) < limits.in_flight:
            # A free slot beside a queue: only if all that queue have their share or wait.
            heads = [line.queue[0] for line in any_flow._lines.values() if line.queue]
            for head in heads:
                if head.rule.loads and len(loading) == limits.loading:
                    continue
                waiting = [each for each in alive if each.rule.waits]
                used = waiting if head.rule.waits else mine
                share = limits.waiting_per_client if head.rule.waits else 2
                assert len([each for each in used if each.account == head.account]) == share

    for wire, (what, client, pause) in enumerate(steps):
        now += pause
        if what in ("submit", "waits", "loads"):
            asked = request(wire, client, waits=what == "waits", loads=what == "loads")
            owner[wire] = client
            if any_flow.submit(asked):
                taken.add(wire)
        elif what == "answer" and upstream:
            any_flow.answered(upstream.popleft())
        elif what == "overload" and upstream and not upstream[0].expired:
            any_flow.retry(upstream[0], now)
        elif what == "leave":
            taken -= {each.wire for each in any_flow.leave(client)}
        look()
    while upstream:
        any_flow.answered(upstream.popleft())
        look()
    assert set(given_out) == taken
    assert set(given_out.values()) <= {1}
    assert (any_flow.in_flight, any_flow.queued, any_flow.upstream) == (0, 0, {})
    assert not any_flow._lines
    assert any_flow.next_moment() == float("inf") or any_flow._retries


def test_a_request_goes_at_once_until_its_client_has_sent_a_burst() -> None:
    quick = flow(burst=2, in_flight_per_client=5)
    assert [quick.send_at_once(request(wire, client=1), 0.0) for wire in range(3)] == [
        True, True, False,
    ]  # fmt: skip
    assert set(quick.upstream) == {0, 1}
    assert quick.upstream[1].deadline == quick.limits.request_deadline
    assert quick.send_at_once(request(9, client=2), 0.0)  # another's burst is its own
    assert quick.in_flight == 3


@pytest.mark.parametrize("limit", ["in_flight", "in_flight_per_client"])
def test_a_request_goes_at_once_only_into_a_free_slot(limit: str) -> None:
    quick = flow(**{"burst": 100, limit: 1})
    assert quick.send_at_once(request(1, client=1), 0.0)
    assert not quick.send_at_once(request(2, client=1), 0.0)
    quick.answered(quick.upstream[1])
    assert quick.send_at_once(request(3, client=1), 0.0)


def test_a_request_doesnt_go_at_once_past_one_that_waits() -> None:
    quick = flow()
    quick.submit(request(1, client=1))
    assert not quick.send_at_once(request(2, client=1), 0.0)
    assert not quick.send_at_once(request(3, client=2), 0.0)


def test_a_request_with_bounds_of_its_own_doesnt_go_at_once() -> None:
    quick, large = flow(), request(3, client=1)
    large.large = True
    for special in (request(1, client=1, waits=True), request(2, client=1, loads=True), large):
        assert not quick.send_at_once(special, 0.0)
    quick.held.add(2)
    assert not quick.send_at_once(request(4, client=2), 0.0)
    assert not quick.upstream
