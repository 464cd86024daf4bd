"""What the bench calls worse, by given numbers."""

import pytest

from bench.compare import Judgement, Verdict, judge

RATES = [100.0, 90.0, 110.0, 95.0, 105.0]


def judged(before: list[float], after: list[float], *, more_is_better: bool = True) -> Verdict:
    return judge(before, after, more_is_better=more_is_better).verdict


def scaled(values: list[float], by: float) -> list[float]:
    return [value * by for value in values]


def test_of_rates_less_is_worse_and_of_times_more() -> None:
    slower = scaled(RATES, 0.8)
    assert judged(RATES, slower) is Verdict.WORSE
    assert judged(RATES, slower, more_is_better=False) is Verdict.BETTER
    assert judged(slower, RATES) is Verdict.BETTER
    assert judged(slower, RATES, more_is_better=False) is Verdict.WORSE


def test_how_much_and_in_how_many_pairs_is_told() -> None:
    assert judge(RATES, scaled(RATES, 0.75), more_is_better=True) == Judgement(
        -0.25, 5, Verdict.WORSE
    )
    assert judge(RATES, scaled(RATES, 0.75), more_is_better=False) == Judgement(
        0.25, 0, Verdict.BETTER
    )


def test_a_small_difference_is_none_however_steady() -> None:
    assert judged(RATES, scaled(RATES, 0.92)) is Verdict.ALIKE
    assert judged(RATES, scaled(RATES, 1.08)) is Verdict.ALIKE


def test_a_great_difference_is_none_if_a_pair_of_few_disagrees() -> None:
    assert judged(RATES, [60.0, 91.0, 60.0, 60.0, 60.0]) is Verdict.ALIKE
    assert judged(RATES, [160.0, 89.0, 160.0, 160.0, 160.0]) is Verdict.ALIKE


def test_of_eight_pairs_one_may_disagree_and_two_may_not() -> None:
    before = [100.0] * 8
    assert judged(before, [70.0] * 7 + [101.0]) is Verdict.WORSE
    assert judged(before, [70.0] * 6 + [101.0] * 2) is Verdict.ALIKE


def test_a_machine_that_slows_down_meanwhile_strikes_both_of_a_pair() -> None:
    drift = [100.0, 80.0, 60.0, 50.0, 40.0]
    assert judged(drift, scaled(drift, 1.01)) is Verdict.ALIKE
    assert judged(drift, scaled(drift, 0.8)) is Verdict.WORSE


def test_one_bad_run_of_either_is_no_verdict() -> None:
    assert judged(RATES, [*RATES[:4], 10.0]) is Verdict.ALIKE
    assert judged([*RATES[:4], 10.0], RATES) is Verdict.ALIKE


@pytest.mark.parametrize("runs", [1, 2])
def test_too_few_runs_are_not_judged(runs: int) -> None:
    assert judged([100.0] * runs, [10.0] * runs) is Verdict.UNJUDGED


def test_equal_runs_agree_with_nobody() -> None:
    assert judge([3.0] * 3, [3.0] * 3, more_is_better=True) == Judgement(0.0, 0, Verdict.ALIKE)
    assert judged([100.0, 50.0, 100.0], [80.0, 50.0, 80.0]) is Verdict.ALIKE
