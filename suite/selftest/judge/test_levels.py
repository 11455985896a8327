"""The verdict on exact numbers, peaks, ratios and timings: signs, floors, words."""

from __future__ import annotations

from typing import Any

import pytest
from quantgate.config.tolerances import Tolerance
from quantgate.records import Status

from selftest.judge.made import (
    FAST,
    OLD,
    SLOW,
    absolute,
    grown,
    judged,
    level,
    perplexity,
    plain,
    relative,
    rounds,
)


@pytest.mark.parametrize(
    ("new", "status"), [(1000.0, Status.PASS), (1001.0, Status.REGRESSION), (999.0, Status.IMPROVEMENT)]
)
@pytest.mark.parametrize("tolerance", [relative(0.0), absolute(0.0)])
def test_an_exact_metric_may_not_change_at_all(new: float, status: Status, tolerance: Tolerance) -> None:
    verdict = judged(plain(new), plain(1000.0), tolerance)
    assert verdict.status == status
    assert verdict.change == pytest.approx((new - 1000) / (1000 if tolerance.relative is not None else 1))
    assert (verdict.change_low, verdict.change_high) == (None, None), "one number has no interval"


@pytest.mark.parametrize("tolerance", [relative(0.0), absolute(0.0)])
def test_the_first_mismatch_is_a_regression(tolerance: Tolerance) -> None:
    """From a baseline of zero there is no relative change; it is told in the metric's unit."""
    assert judged(plain(3.0), plain(0.0), tolerance).status == Status.REGRESSION
    assert judged(plain(0.0), plain(0.0), tolerance).status == Status.PASS
    verdict = judged(plain(3.0), plain(0.0), relative(0.0))
    assert (verdict.change, verdict.change_unit, verdict.tolerance) == (3.0, "absolute", 0.0)


@pytest.mark.parametrize(
    ("make", "new", "floor", "status"),
    [
        (plain, 1e-9, 0.02, Status.PASS),
        (plain, 0.021, 0.02, Status.REGRESSION),
        (plain, 5e9, 64e3, Status.REGRESSION),
        (plain, 63e3, 64e3, Status.PASS),
        (level, 5e9, 64e3, Status.REGRESSION),
        (level, 63e3, 64e3, Status.PASS),
    ],
)
def test_the_floor_is_what_a_baseline_of_zero_allows(
    make: Any, new: float, floor: float, status: Status
) -> None:
    """In the metric's unit, however wide the share: a share of nothing is nothing."""
    for tolerance in (
        relative(0.25, floor=floor),
        relative(0.0, floor=floor),
        relative(9.0, floor=floor, here=8.0),
    ):
        verdict = judged(make(new), make(0.0), tolerance)
        assert (verdict.status, verdict.tolerance) == (status, floor)
    assert judged(make(0.0), make(new), relative(0.25)).status == Status.IMPROVEMENT
    assert judged(make(0.0), make(new), relative(0.25, floor=2 * new)).status == Status.PASS


@pytest.mark.parametrize(
    ("new", "better", "status"),
    [
        (0.30, "higher", Status.REGRESSION),
        (0.45, "higher", Status.PASS),
        (1.70, "higher", Status.IMPROVEMENT),
        (1.70, "lower", Status.REGRESSION),
        (0.30, "lower", Status.IMPROVEMENT),
    ],
)
def test_the_sign_of_worse_is_the_metrics(new: float, better: str, status: Status) -> None:
    verdict = judged(level(new, better), level(1.0, better), relative(0.6))
    assert verdict.status == status
    assert verdict.change == pytest.approx(new - 1)


def test_a_change_below_the_floor_does_not_count() -> None:
    tolerance = relative(0.15, floor=32e6)
    small, large = level(40e6), level(400e6)
    assert judged(level(70e6), small, tolerance).status == Status.PASS  # +75 %, 30 MB
    assert judged(level(73e6), small, tolerance).status == Status.REGRESSION  # 33 MB
    assert judged(level(440e6), large, tolerance).status == Status.PASS  # 40 MB, 10 %
    assert judged(level(470e6), large, tolerance).status == Status.REGRESSION
    assert judged(level(5e6), small, tolerance).status == Status.IMPROVEMENT
    assert judged(level(70e6), small, tolerance).tolerance == pytest.approx(0.8), "what it was held against"
    assert judged(level(440e6), large, tolerance).tolerance == 0.15


def test_the_floor_of_a_perplexity_is_in_its_own_unit() -> None:
    new, old = perplexity(grown(0.03)), perplexity(OLD)
    step = new.value - old.value
    assert judged(new, old, relative(0.01, floor=step * 1.1)).status == Status.PASS
    assert judged(new, old, relative(0.01, floor=step * 0.99)).status == Status.REGRESSION


@pytest.mark.parametrize(
    ("old", "new", "better", "status", "change"),
    [
        (FAST, SLOW, "higher", Status.REGRESSION, -0.2),  # tokens/s: 25 % more seconds, 20 % fewer tokens
        (SLOW, FAST, "higher", Status.IMPROVEMENT, 0.25),
        (FAST, SLOW, "lower", Status.REGRESSION, 0.25),
        (SLOW, FAST, "lower", Status.IMPROVEMENT, -0.2),
        (FAST, FAST, "higher", Status.PASS, 0.0),
    ],
)
def test_rounds_are_seconds_and_their_sign_turns_for_tokens_per_second(
    old: list[float], new: list[float], better: str, status: Status, change: float
) -> None:
    verdict = judged(rounds(new, better), rounds(old, better), relative(0.1))
    assert verdict.status == status
    assert verdict.change == pytest.approx(change, abs=1e-3)
    assert verdict.change_low is not None
    assert verdict.change_high is not None
    assert verdict.change_low < change < verdict.change_high
    assert verdict.change_unit == "relative"


def test_processes_that_scatter_are_inconclusive_in_words() -> None:
    noisy = [0.45, 0.9, 0.5, 1.2, 0.48]
    busy = {"disturbances": [{"others": 0.31, "steal": 0.02, "load": 3.0}]}
    verdict = judged(rounds(noisy, raw=busy), rounds(FAST), relative(0.1))
    assert verdict.status == Status.INCONCLUSIVE
    assert verdict.text.startswith(
        "worse by more than the tolerance, but the sample cannot distinguish this from noise ("
    )
    assert "processes differ by up to 167 %, other work took up to 31 % of the processor" in verdict.text
    assert "the hypervisor took up to 2 % of the processor (steal); " in verdict.text


def test_a_timing_that_looks_fine_but_is_too_noisy_proves_nothing() -> None:
    noisy, old = rounds([0.45, 0.55, 0.50, 0.48, 0.52]), rounds(FAST)
    verdict = judged(noisy, old, relative(0.05))
    assert abs(verdict.change or 0) < 0.05
    assert verdict.status == Status.INCONCLUSIVE
    assert "cannot rule one out (processes differ by up to 22" in verdict.text
    assert judged(noisy, old, relative(0.2)).status == Status.PASS, "clearly fine"
    better = rounds([0.40, 0.47, 0.43, 0.41, 0.45])
    assert judged(better, old, relative(0.05)).status == Status.PASS, "better, if anything"


@pytest.mark.parametrize("better", ["lower", "higher"])
@pytest.mark.parametrize("seconds", [4.0, 2.0])
def test_a_single_process_shows_a_change_without_an_interval(better: str, seconds: float) -> None:
    """However many rounds it timed: nothing says how the next process would differ."""
    old, new = (rounds([s] * 5, better, processes=None) for s in (2.0, seconds))
    verdict = judged(new, old, relative(0.4))
    assert verdict.status == Status.INCONCLUSIVE
    assert verdict.change == pytest.approx((seconds / 2) ** (1 if better == "lower" else -1) - 1)
    assert (verdict.change_low, verdict.change_high) == (None, None)
    assert "the baseline and the measurement have a single process" in verdict.text


def test_processes_without_any_spread_are_judged_too() -> None:
    same = judged(rounds([0.5] * 3), rounds([0.5] * 3), relative(0.1))
    assert (same.status, same.text) == (Status.PASS, "equal to the last digit")
    assert judged(rounds([0.8] * 3), rounds([0.5] * 3), relative(0.1)).status == Status.REGRESSION


def test_another_governor_is_another_machine() -> None:
    conditions: list[dict[str, Any]] = [{"governor": "performance"}, {"governor": None}]
    old, new = (rounds(FAST, conditions=c) for c in conditions)
    verdict = judged(new, old, relative(0.1))
    assert (verdict.status, verdict.by_machine) == (Status.NOT_COMPARABLE, True)
    unknown = rounds(FAST, conditions={})  # of a baseline from before it was kept
    assert judged(new, unknown, relative(0.1)).status == Status.PASS
