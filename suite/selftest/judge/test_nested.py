"""The judge of what is nested in processes: against scipy, and in words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from quantgate.config.tolerances import Tolerance
from quantgate.judge.judge import Subject, judge
from quantgate.judge.nested import change, needed, pairs, poor_baselines, spread
from quantgate.records import Status
from scipy import stats

from selftest.judge.processes import ALPHA, TIGHT, level, timed


def test_a_process_counts_by_its_median_round() -> None:
    metric = timed([[0.5, 0.4, 9.0], [0.25], [1.0, 1.0]])
    assert metric.medians == [0.5, 0.25, 1.0]
    assert metric.per_process == [200.0, 400.0, 100.0]
    assert timed([[2.0, 4.0], [5.0]], better="lower").per_process == [3.0, 5.0]
    assert level([3.0, 1.0, 2.0]).per_process == [3.0, 1.0, 2.0]


def test_an_old_record_is_one_process() -> None:
    old = timed([[0.5, 0.4, 9.0]]).model_copy(update={"processes": None})
    assert old.per_process == [200.0]
    assert level([7.0]).model_copy(update={"samples": None}).per_process == [7.0]


def test_unpaired_processes_are_compared_by_welchs_test() -> None:
    old, new = [0.50, 0.52, 0.49, 0.51, 0.55], [0.60, 0.71, 0.58]
    test = change(timed([[x] for x in new], better="lower"), timed([[x] for x in old], better="lower"), TIGHT)
    result = test.at(ALPHA)
    theirs = stats.ttest_ind(np.log(new), np.log(old), equal_var=False)
    interval = theirs.confidence_interval(1 - 2 * ALPHA)
    assert test.p == pytest.approx(theirs.pvalue / 2)
    assert (result.low, result.high) == pytest.approx((math.expm1(interval.low), math.expm1(interval.high)))
    assert result.estimate == pytest.approx(stats.gmean(new) / stats.gmean(old) - 1)


def test_pairs_are_compared_by_the_paired_test() -> None:
    old, new = [0.50, 0.70, 0.90, 0.61], [0.55, 0.76, 1.00, 0.66]
    sides = [timed([[x] for x in side], better="lower", beside="a run") for side in (new, old)]
    test = change(sides[0], sides[1], TIGHT)
    result = test.at(ALPHA)
    theirs = stats.ttest_rel(np.log(new), np.log(old))
    interval = theirs.confidence_interval(1 - 2 * ALPHA)
    assert test.p == pytest.approx(theirs.pvalue / 2)
    assert (result.low, result.high) == pytest.approx((math.expm1(interval.low), math.expm1(interval.high)))
    apart = sides[1].model_copy(update={"beside": None})
    assert change(sides[0], apart, TIGHT).p > 20 * test.p, "what both share no longer cancels"


@pytest.mark.parametrize(("one", "other"), [("a", "b"), (None, None), ("a", None)])
def test_processes_of_different_runs_are_no_pairs(one: str | None, other: str | None) -> None:
    sides = [level([1.0, 2.0], beside=name) for name in (one, other)]
    assert not pairs(sides[0], sides[1])
    assert not pairs(level([1.0, 2.0, 3.0], beside="a"), level([1.0, 2.0], beside="a"))
    assert pairs(level([1.0, 2.0], beside="a"), level([3.0, 4.0], beside="a"))


def test_an_absolute_tolerance_is_judged_on_the_plain_scale() -> None:
    old, new = [10.0, 11.0, 12.0], [14.0, 15.0, 17.0]
    test = change(level(new), level(old), Tolerance(metric="m", absolute=1.0))
    theirs = stats.ttest_ind(new, old, equal_var=False)
    assert test.estimate == pytest.approx(np.mean(new) - np.mean(old))
    assert test.p == pytest.approx(theirs.pvalue / 2)


def test_more_rounds_in_a_process_are_no_more_evidence() -> None:
    old, new = [0.50, 0.52, 0.49], [0.53, 0.55, 0.52]
    one = change(timed([[x] for x in new]), timed([[x] for x in old]), TIGHT).at(ALPHA)
    many = change(timed([[x] * 50 for x in new]), timed([[x] * 50 for x in old]), TIGHT).at(ALPHA)
    assert many == pytest.approx(one)


def test_the_sides_turn_the_sign_and_the_unit_does_not_matter() -> None:
    one, other = (
        spread([1.0, 2.0, 4.0], [3.0, 3.5], paired=False),
        spread([3.0, 3.5], [1.0, 2.0, 4.0], paired=False),
    )
    assert (one.estimate, one.se, one.df) == pytest.approx((-other.estimate, other.se, other.df))
    old, new = [[0.50], [0.52], [0.49]], [[0.53], [0.55], [0.52]]
    milli = [timed([[1000 * x for x in p] for p in side]) for side in (new, old)]
    assert change(milli[0], milli[1], TIGHT).at(ALPHA) == pytest.approx(
        change(timed(new), timed(old), TIGHT).at(ALPHA)
    )


def test_why_a_sample_cannot_tell_names_spread_disturbance_and_remedy() -> None:
    seen = [
        {"others": 0.31, "steal": 0.0, "load": 2.0, "mhz": 2900, "throttled": 0},
        {"others": 0.02, "steal": 0.04, "load": 2.0, "mhz": 1800, "throttled": 3},
    ]
    new = timed([[0.50], [0.57], [0.50]], beside="r", raw={"disturbances": seen})
    verdict = judge(Subject("c", "throughput/decode"), new, timed([[0.5]] * 3, beside="r"), TIGHT, ALPHA)
    assert verdict.status == Status.INCONCLUSIVE
    for words in (
        "the ratios of the pairs differ by up to 14 %",
        "other work took up to 31 % of the processor",
        "the hypervisor took up to 4 % of the processor (steal)",
        "the clock ran at 1,800 to 2,900 MHz",
        "throttled 3 times",
        f"{needed(new, timed([[0.5]] * 3, beside='r'), TIGHT, 0.025, ALPHA)} pairs would show",
    ):
        assert words in verdict.text


def test_as_many_processes_as_the_limit_asks_for_are_named() -> None:
    """A loss of half of a rate is as large as a doubled duration; a floor above the tolerance is the limit."""
    noisy, calm = [1.0, 1.3, 1.6], [1.0, 1.2, 1.4]
    tolerance = Tolerance(metric="m", relative=0.5)
    rate, duration = (
        needed(level(noisy, better=better), level(calm, better=better), tolerance, limit, ALPHA)
        for better, limit in (("higher", 0.5), ("lower", 1.0))
    )
    assert rate == duration
    texts = [
        judge(Subject("c", "m"), level(noisy), level(calm), one, ALPHA).text
        for one in (Tolerance(metric="m", relative=0.1, floor=0.36), Tolerance(metric="m", relative=0.3))
    ]
    assert texts[0] == texts[1]


def test_timings_of_a_busy_machine_are_named() -> None:
    calm = {"disturbances": [{"others": 0.05, "steal": 0.0, "load": 1.0}]}
    busy = {"disturbances": [*calm["disturbances"], {"others": 0.15, "steal": 0.06, "load": 3.0}]}
    result = poor_baselines(
        {
            "throughput/decode": timed([[0.5]], raw=calm),
            "throughput/decode_ratio": timed([[0.5]], raw=busy, kind="ratio"),
            "memory/peak_load": level([1.0], raw=busy),
            "throughput/load": timed([[0.5]]),
            "traffic/scaling": level([2.0], raw={"doubts": ["", "the client may be slow"]}),
        }
    )
    assert result.pop() == "traffic/scaling: the client may be slow"
    assert result == [
        "throughput/decode_ratio was timed while other work took up to 15 % of the processor and "
        "the hypervisor took up to 6 % of the processor (steal)"
    ]


@pytest.mark.parametrize(
    ("old", "new", "change", "status"),
    [
        ([0.0] * 3, [5.0] * 3, 5.0, Status.REGRESSION),
        ([0.0] * 3, [0.0, 0.0, 5.0], 5 / 3, Status.INCONCLUSIVE),
        ([5.0] * 3, [0.0] * 3, -1.0, Status.IMPROVEMENT),
        ([5.0, 5.0, 4.0], [0.0, 5.0, 5.0], -4 / 15, Status.INCONCLUSIVE),
        ([0.0] * 3, [0.0] * 3, 0.0, Status.PASS),
    ],
)
def test_a_peak_of_zero_has_no_logarithm(
    old: list[float], new: list[float], change: float, status: Status
) -> None:
    """Shares of the baseline; of one of 0, in its own unit."""
    verdict = judge(Subject("c", "memory/peak_x"), level(new), level(old), TIGHT, ALPHA)
    assert verdict.change == pytest.approx(change)
    assert verdict.status == status
