"""A rate: a burst at once, then so many a second, and for how long that has been so."""

from __future__ import annotations

import pytest

from mux.downstream.rate_limit import Rate


def test_a_burst_costs_nothing_and_more_has_to_wait_for_its_place() -> None:
    rate = Rate(per_second=10, burst=5)
    assert rate.count(5, now=100.0) == 0
    assert rate.count(1, now=100.0) == pytest.approx(0.1)
    assert rate.count(1, now=100.1) == pytest.approx(0.1)
    assert rate.count(3, now=100.2) == pytest.approx(0.3)
    assert rate.count(1, now=101.0) == 0


def test_it_fills_up_to_the_burst_and_no_further() -> None:
    rate = Rate(per_second=10, burst=5)
    assert rate.count(5, now=0.0) == 0
    assert rate.count(5, now=1000.0) == 0
    assert rate.count(1, now=1000.0) > 0


def test_what_goes_on_at_the_rate_is_over_it_until_it_rests() -> None:
    rate = Rate(per_second=10, burst=10)
    assert rate.over_for(0.0) == 0
    now = 0.0
    while now < 8:
        now += max(0.05, rate.count(1, now))
    assert rate.over_for(now) == pytest.approx(now - 0.95, abs=0.2)
    rate.count(1, now + 1.2)  # more than half of it has come back
    assert rate.over_for(now + 1.2) == 0
