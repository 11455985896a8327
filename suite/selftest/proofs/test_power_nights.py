"""The replay of nights: rules of others are what they are taken for, and a change is seen where there is one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from quantgate.history.levels import TABLE
from quantgate.proofs.power.levels import calibrated
from quantgate.proofs.power.nights import (
    HISTORY,
    NOISES,
    NOTHING,
    ONSET,
    OTHERS,
    SCENARIOS,
    SERIES,
    SPREAD,
    Segmentation,
    beyond,
    by_history,
    drawn,
    median,
    previous_run,
    rate,
    result,
    rolling_week,
    study,
    threshold,
)
from quantgate.proofs.power.nights_report import quality_years, summary

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.mark.parametrize("least", [3, 5])
def test_the_evidence_of_a_segmentation_is_the_penalty_at_which_ruptures_sees_nothing(least: int) -> None:
    ruptures = pytest.importorskip("ruptures", reason="the extra `changes` is not installed")
    made = drawn(BY_NAME["step of 1"], NOISES[0], 6, 1)
    values = np.array(made.values)
    evidence = Segmentation(least)(values)
    for night in (ONSET - 20, ONSET + 10, 300):
        sigma = np.abs(np.diff(values[:, : night + 1])).mean(axis=1) * np.sqrt(np.pi) / 2
        for row in range(6):
            model = ruptures.KernelCPD(kernel="linear", min_size=least).fit(values[row, : night + 1, None])
            scale = float(evidence[row, night] * sigma[row] ** 2)
            cut = model.predict(n_bkps=1)[0]
            head, tail = values[row, :cut], values[row, cut : night + 1]
            by_hand = (tail.mean() - head.mean()) ** 2 / (1 / len(head) + 1 / len(tail))
            assert by_hand == pytest.approx(scale, rel=1e-6)
            assert len(model.predict(pen=scale * 0.99)) > 1


def test_the_rules_of_others() -> None:
    values = np.zeros((1, 40))
    values[0, 30:] = 1.0
    assert np.flatnonzero(previous_run(values)[0] > 0.5).tolist() == [30]
    week = rolling_week(values)[0]
    assert np.nanmax(week) == 1.0
    assert week[30] == pytest.approx(1 / 7)


def test_a_threshold_has_the_share_of_alarms_that_it_is_made_for() -> None:
    null = drawn(NOTHING, NOISES[0], 200, 0)
    limit = threshold(null, previous_run, 0.05)
    assert 0.03 <= np.mean([bool(nights) for nights in beyond(null, previous_run, limit)]) <= 0.05


def test_missing_nights_and_machines() -> None:
    missing = drawn(BY_NAME["30 % of the nights missing"], NOISES[0], 20, 1)
    assert 0.6 < np.mean([len(nights) / 365 for nights in missing.nights]) < 0.8
    swapped = drawn(BY_NAME["other machine"], NOISES[0], 20, 1)
    assert {len(set(classes.tolist())) for classes in swapped.classes} == {2}
    away = np.mean(
        [
            values[classes == 1].mean() - values[classes == 0].mean()
            for values, _, classes in zip(*swapped, strict=True)
        ]
    )
    assert away == pytest.approx(5 * SPREAD, rel=0.1)
    assert sum(map(len, by_history(swapped))) == 0


def test_a_large_step_is_seen_in_days_and_a_bad_night_is_not() -> None:
    one = result(BY_NAME["step of 4"], HISTORY, by_history(drawn(BY_NAME["step of 4"], NOISES[0], SERIES, 3)))
    assert 1 <= one.delay[1] <= one.delay[0] <= one.delay[2] <= 6
    assert one.missed == 0
    for name in ("one night off by 8", "two nights off by 10"):
        assert sum(map(len, by_history(drawn(BY_NAME[name], NOISES[0], SERIES, 5)))) <= 1


def test_a_study_judges_all_rules_on_the_same_nights() -> None:
    results, share = study(NOISES[0], 1, [NOTHING, BY_NAME["step of 2"]], quiet=400)
    assert share == 1 / 400, "the least that so many series show"
    assert len(results) == 12
    delays = {one.rule: one.delay[0] for one in results if one.scenario.change}
    assert 4 <= delays[HISTORY] <= 20
    assert math.isinf(delays["previous run"])
    false = {one.rule: one.false[0] for one in results if not one.scenario.change}
    assert false[HISTORY] <= 1
    assert false.keys() == {HISTORY, *OTHERS}


def test_a_median_has_its_interval() -> None:
    """Of 100 values the 40th and the 61st hold the median with 96.5 %, by the binomial distribution."""
    assert median(np.arange(1.0, 101)) == (50, 40, 61)
    assert median(np.array([3.0] * 55 + [math.inf] * 45)) == (3, 3, math.inf)
    assert median(np.array([])) == (math.inf,) * 3


def test_a_rate_has_its_interval() -> None:
    assert rate(0, 10)[:2] == (0.0, 0.0)
    assert rate(0, 10)[2] == pytest.approx(0.3689, abs=1e-3)
    assert rate(10, 20)[0] == 0.5
    assert rate(10, 20)[1:] == pytest.approx((0.2398, 0.9195), abs=1e-3)


def test_a_year_of_quality_has_events_only_where_something_moved() -> None:
    assert quality_years(3).hits == 0
    assert quality_years(3, step=0.01).hits == 3
    assert summary(0) == []


def test_the_table_of_levels_is_what_the_command_makes() -> None:
    """To what 2,000 series say of shares that are not rare."""
    made = calibrated(NOISES[1], 2000)
    assert made[:, 0].tolist() == TABLE[:, 0].tolist()
    assert made[:3, 1] == pytest.approx(TABLE[:3, 1], rel=0.04)
    assert made[:3, 2] == pytest.approx(TABLE[:3, 2], rel=0.12)
