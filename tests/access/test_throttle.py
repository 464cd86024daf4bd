"""`mux.access.throttle`: who fails is counted, and waits."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from mux.access import throttle
from mux.access.throttle import FailureCount, LoginThrottle, network


def test_the_pauses_grow_to_a_limit_and_are_forgotten() -> None:
    failed = LoginThrottle()
    pauses = [failed.count("10.0.0.7:1", 100.0).pause for _ in range(12)]
    assert pauses[:6] == [0.0, 0.0, 0.0, 0.1, 0.2, 0.4]
    assert pauses[-1] == throttle.LONGEST_PAUSE
    first = FailureCount(1, 0.0, loud=True)
    assert failed.count("10.0.0.8:1", 100.0) == first
    assert failed.count("10.0.0.7:2", 100.0 + throttle.FORGOTTEN_AFTER) == first
    assert failed.total == 14


def test_however_often_it_failed_a_pause_is_a_number() -> None:
    failed = LoginThrottle()
    pauses = [failed.count("10.0.0.7:1", 0.0).pause for _ in range(2000)]
    assert pauses[-1] == throttle.LONGEST_PAUSE


def test_only_whose_own_failures_are_too_many_is_told_so() -> None:
    """Behind a proxy all have one address."""
    failed = LoginThrottle()
    for _ in range(throttle.TOO_MANY):
        assert not failed.count("127.0.0.1:1", 0.0, "device:ada").too_many
    assert failed.count("127.0.0.1:1", 0.0, "device:ada").too_many
    assert failed.count("10.0.0.8:1", 0.0, "device:ada").too_many  # wherever it is
    assert not failed.count("127.0.0.1:1", 0.0, "device:bob").too_many
    assert not failed.count("127.0.0.1:1", 0.0).too_many
    assert not failed.count("127.0.0.1:1", throttle.FORGOTTEN_AFTER, "device:ada").too_many


def test_who_comes_from_elsewhere_each_time_waits_no_less() -> None:
    failed = LoginThrottle()
    counted = [failed.count(f"10.0.0.{at}:1", 0.0, "device:ada") for at in range(12)]
    assert [each.pause for each in counted[:6]] == [0.0, 0.0, 0.0, 0.1, 0.2, 0.4]
    assert counted[-1].count == 12


def test_the_log_has_few_lines_of_an_address_that_fails_on() -> None:
    failed = LoginThrottle()
    loud = [failed.count("10.0.0.7:1", at / 10).loud for at in range(6000)]  # ten minutes of it
    assert all(loud[: throttle.TOO_MANY])
    assert sum(loud[throttle.TOO_MANY :]) == 9
    assert failed.count("10.0.0.8:1", 0.0).loud
    again = LoginThrottle()
    loud = [again.count("10.0.0.7:1", 0.0, "device:ada").loud for _ in range(throttle.TOO_MANY + 1)]
    assert loud == [True] * throttle.TOO_MANY + [False]
    assert again.count("10.0.0.7:1", throttle.QUIET_SECONDS).loud is True


def test_what_mux_status_shows_of_it() -> None:
    failed = LoginThrottle()
    failed.count("10.0.0.7:1", 0.0)
    failed.count("10.0.0.7:2", 0.0, "device:ada")
    failed.count("unix", 0.0)
    assert failed.status() == {"total": 3, "addresses": {"10.0.0.7": 2, "unix": 1}}


def test_the_table_is_bounded_and_the_oldest_goes_first() -> None:
    failed = LoginThrottle()
    for number in range(throttle.MOST_ADDRESSES + 1):
        failed.count(f"10.0.{number // 256}.{number % 256}:1", 0.0)
        failed.count("10.9.9.9:1", 0.0)
    addresses = failed.status()["addresses"]
    assert len(addresses) == throttle.MOST_ADDRESSES
    assert "10.0.0.0" not in addresses
    assert addresses["10.9.9.9"] == throttle.MOST_ADDRESSES + 1


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("10.0.0.7:5123", "10.0.0.7"),
        ("[fd7a:115c:a1e0:1:2:3:4:5]:5123", "fd7a:115c:a1e0:1::/64"),
        ("[fd7a:115c:a1e0:1::9]:1", "fd7a:115c:a1e0:1::/64"),
        ("[::ffff:10.0.0.7]:5123", "10.0.0.7"),
        ("[fe80::1%eth0]:5", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_what_is_counted_of_an_address(address: str, counted: str) -> None:
    assert network(address) == counted


async def test_few_wait_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """An attacker's connections must not pile up for the sake of their pauses."""
    failed = LoginThrottle()
    for _ in range(10):
        failed.count("10.0.0.7:1", trio.current_time())
    start = trio.current_time()
    waited: list[float] = []

    async def fail() -> None:
        await failed.wait(failed.count("10.0.0.7:1", trio.current_time()))
        waited.append(trio.current_time() - start)

    async with trio.open_nursery() as nursery:
        for _ in range(throttle.MOST_WAITING + 5):
            nursery.start_soon(fail)
    assert waited.count(0.0) == 5
    assert waited.count(throttle.LONGEST_PAUSE) == throttle.MOST_WAITING


async def test_who_has_waited_makes_room_for_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    failed = LoginThrottle()
    for _ in range(10):
        failed.count("10.0.0.7:1", trio.current_time())
    for crowd in (throttle.MOST_WAITING, throttle.MOST_WAITING, throttle.MOST_WAITING + 2):
        waited: list[float] = []

        async def fail(waited: list[float] = waited, began: float = 0.0) -> None:
            began = trio.current_time()
            await failed.wait(failed.count("10.0.0.7:1", began))
            waited.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            for _ in range(crowd):
                nursery.start_soon(fail)
        assert waited.count(0.0) == max(0, crowd - throttle.MOST_WAITING)


def test_it_is_the_time_between_two_failures_that_counts() -> None:
    failed = LoginThrottle()
    late = 1e9
    for number in range(1, throttle.TOO_MANY + 1):
        late += throttle.FORGOTTEN_AFTER - 1
        assert failed.count("10.0.0.7:1", late).count == number
    late += throttle.FORGOTTEN_AFTER - 1
    assert failed.count("10.0.0.7:1", late).count == throttle.TOO_MANY + 1
    assert failed.count("10.0.0.7:1", late + throttle.FORGOTTEN_AFTER).count == 1
