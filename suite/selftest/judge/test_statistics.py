"""Intervals and tests: equal to scipy's and to worked examples, and honest on simulated noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate.judge.statistics import (
    Change,
    detectable_flips,
    detectable_mean,
    flips,
    mcnemar,
    mean_difference,
    most_lost,
    root_mean_square,
)
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ALPHA = 0.001

pairs = st.lists(
    st.tuples(st.floats(0, 8), st.floats(0, 8), st.floats(0.5, 600)), min_size=2, max_size=20
).filter(lambda units: len({b - a for a, b, _ in units}) > 1)
"""Units: old and new value, weight; with some spread."""

quick = settings(max_examples=60, deadline=None, database=None, derandomize=True)


def sample(seed: int, size: int = 12) -> tuple[list[float], list[float]]:
    random = np.random.default_rng(seed)
    old = random.normal(3.2, 0.4, size)
    return old.tolist(), (old + random.normal(0.02, 0.01, size)).tolist()


# --- the difference of paired samples -------------------------------------------------------------


class Difference(NamedTuple):
    estimate: float
    low: float
    high: float
    p: float


def paired_difference(
    old: list[float], new: list[float], weights: list[float] | None, alpha: float, noise: float | None = None
) -> Difference:
    change = Change(*mean_difference(old, new, weights, noise))
    return Difference(*change.at(alpha), change.p)


@pytest.mark.parametrize("weights", [None, [7.0] * 12])
@pytest.mark.parametrize("seed", range(3))
def test_with_equal_weights_it_is_the_paired_t_test(seed: int, weights: list[float] | None) -> None:
    old, new = sample(seed)
    actual = paired_difference(old, new, weights, 0.01)
    theirs = stats.ttest_rel(new, old)
    interval = theirs.confidence_interval(0.98)
    assert actual == pytest.approx(
        (np.mean(new) - np.mean(old), interval.low, interval.high, theirs.pvalue / 2)
    )


def test_a_heavier_unit_counts_for_more_and_its_spread_too() -> None:
    """Worked by hand: differences 0.1 and 0.3 of weights 1 and 3. Mean (0.1 + 0.9) / 4; squared standard error
    2 / 1 * (0.15^2 + (3 * 0.05)^2) / 4^2; Student's t with one degree of freedom is 1 at its upper quartile."""
    actual = paired_difference([1.0, 1.0], [1.1, 1.3], [1.0, 3.0], 0.25)
    assert actual.estimate == pytest.approx(0.25)
    assert actual.high - actual.estimate == pytest.approx(0.075)
    assert actual.estimate - actual.low == pytest.approx(0.075)
    assert actual.p == pytest.approx(stats.t(1).sf(0.25 / 0.075))


def test_the_noise_cap_bounds_the_interval_of_a_candidate_that_spreads() -> None:
    old, new = [3.0] * 8, [3.05, 3.04, 3.06, 3.05, 3.04, 3.05, 3.06, 9.0]
    free, capped = (paired_difference(old, new, None, ALPHA, noise) for noise in (None, 0.05))
    assert capped.estimate == free.estimate
    assert free.low < 0 < capped.low, "one broken window must not hide the loss"
    half = stats.norm.isf(ALPHA) * 0.05 / math.sqrt(8)
    assert (capped.low, capped.high) == pytest.approx((capped.estimate - half, capped.estimate + half))
    assert free.p > ALPHA
    assert capped.p == pytest.approx(stats.norm.sf(capped.estimate / (0.05 / math.sqrt(8))))


def test_the_noise_cap_knows_how_many_units_the_weights_amount_to() -> None:
    """Weights 1, 1, 2 are as good as 16 / 6 equal units."""
    actual = paired_difference([0.0] * 3, [0.0, 5.0, 1.0], [1.0, 1.0, 2.0], 0.05, noise=0.1)
    assert actual.high - actual.estimate == pytest.approx(stats.norm.isf(0.05) * 0.1 / math.sqrt(16 / 6))


def test_a_spread_below_the_noise_cap_keeps_its_own_error_bar() -> None:
    old, new = sample(1)
    assert paired_difference(old, new, None, ALPHA, 0.05) == paired_difference(old, new, None, ALPHA)


def test_units_that_all_change_by_the_same_leave_no_doubt() -> None:
    actual = paired_difference([1.0, 2.0, 3.0], [1.5, 2.5, 3.5], [1.0, 2.0, 3.0], ALPHA, 0.05)
    assert actual == (0.5, 0.5, 0.5, 0.0)


def test_equal_samples_are_no_change() -> None:
    assert paired_difference([1.0, 2.0], [1.0, 2.0], None, ALPHA, 0.05) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(("old", "new"), [([1.0], [2.0]), ([], []), ([1.0, 2.0], [1.0, 2.0, 3.0])])
def test_too_few_or_unequal_units_are_refused(old: list[float], new: list[float]) -> None:
    with pytest.raises(ValueError, match=f"two or more, got {len(old)} and {len(new)}"):
        paired_difference(old, new, None, ALPHA)


@quick
@given(pairs, st.floats(1e-3, 0.2), st.none() | st.floats(0.01, 1.0))
def test_the_p_value_and_the_interval_say_the_same(
    units: list[tuple[float, float, float]], alpha: float, noise: float | None
) -> None:
    old, new, weights = map(list, zip(*units, strict=True))
    actual = paired_difference(old, new, weights, alpha, noise)
    assert actual.low <= actual.estimate <= actual.high
    outside = actual.low > 0 or actual.high < 0
    if not math.isclose(actual.p, alpha, rel_tol=1e-6):
        assert outside == (actual.p < alpha)


@quick
@given(pairs, st.floats(0.5, 1000))
def test_turning_the_sides_turns_the_sign_and_scaling_the_weights_changes_nothing(
    units: list[tuple[float, float, float]], factor: float
) -> None:
    old, new, weights = map(list, zip(*units, strict=True))
    actual = paired_difference(old, new, weights, 0.01, 0.3)
    turned = paired_difference(new, old, [w * factor for w in weights], 0.01, 0.3)
    assert turned == pytest.approx((-actual.estimate, -actual.high, -actual.low, actual.p), abs=1e-9)


# --- how often it is wrong, and how much it sees --------------------------------------------------


def rejections(
    draws: int,
    alpha: float,
    noise: float | None,
    change: Callable[[np.random.Generator], NDArray[np.float64]],
) -> float:
    """Share of simulated runs that are called worse. Windows differ by far more than the change between runs."""
    random = np.random.default_rng(20260701)
    actual = 0
    for _ in range(draws):
        differences = change(random)
        old = random.normal(3.2, 0.4, len(differences))
        result = paired_difference(old.tolist(), (old + differences).tolist(), None, alpha, noise)
        actual += result.estimate > 0 and result.p < alpha
    return actual / draws


def within_three_errors(rate: float, expected: float, draws: int) -> bool:
    return abs(rate - expected) < 3 * math.sqrt(expected * (1 - expected) / draws)


def test_false_alarms_come_as_often_as_the_level_says() -> None:
    rate = rejections(2500, 0.05, None, lambda random: random.normal(0, 0.02, 8))
    assert within_three_errors(rate, 0.05, 2500), rate


def test_a_noise_cap_above_the_real_noise_raises_no_more_alarms() -> None:
    rate = rejections(2500, 0.05, 0.05, lambda random: random.normal(0, 0.02, 8))
    assert within_three_errors(rate, 0.05, 2500), rate


def test_a_noise_cap_equal_to_the_real_noise_at_most_doubles_the_alarms() -> None:
    rate = rejections(2500, 0.05, 0.02, lambda random: random.normal(0, 0.02, 8))
    assert 0.04 < rate < 0.1, rate


def test_half_a_percent_of_perplexity_is_seen_through_windows_that_differ_by_far_more() -> None:
    def change(random: np.random.Generator) -> NDArray[np.float64]:
        return random.normal(math.log(1.005), 0.004, 24)

    assert rejections(300, ALPHA, 0.05, change) > 0.95


# --- flips and McNemar ----------------------------------------------------------------------------


def test_flips_are_counted_by_direction() -> None:
    assert flips([1, 1, 1, 0, 0, 1], [1, 0, 0, 1, 0, 1]) == (2, 1)


@quick
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_flips_explain_the_change_of_the_sum(items: list[tuple[bool, bool]]) -> None:
    old, new = [float(a) for a, _ in items], [float(b) for _, b in items]
    lost, gained = flips(old, new)
    assert gained - lost == sum(new) - sum(old)
    assert lost + gained == sum(a != b for a, b in items)


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [(10, 0, 1 / 1024), (5, 1, 7 / 64), (1, 5, 7 / 64), (1, 0, 0.5), (3, 3, 1), (0, 0, 1)],
)
def test_mcnemar_against_sums_of_binomial_coefficients(lost: int, gained: int, p: float) -> None:
    assert mcnemar(lost, gained) == pytest.approx(p)


@pytest.mark.parametrize(("lost", "gained"), [(9, 2), (30, 12), (2, 14)])
def test_mcnemar_is_half_of_the_two_sided_binomial_test(lost: int, gained: int) -> None:
    assert mcnemar(lost, gained) == pytest.approx(stats.binomtest(lost, lost + gained).pvalue / 2)


@pytest.mark.parametrize(("lost", "items"), [(0, 20), (2, 100), (30, 60), (5, 5)])
def test_the_limit_of_a_loss_without_gains_is_that_of_one_share(lost: int, items: int) -> None:
    """Wilson's score interval; both sides of an interval of 90 % leave 5 %."""
    both = stats.binomtest(lost, items).proportion_ci(0.9, "wilson")
    assert most_lost(lost, 0, items, 0.05) == pytest.approx(both.high, abs=1e-5)


@pytest.mark.parametrize(("items", "share", "gained"), [(40, 0.05, 0.03), (59, 0.05, 0.0), (60, 0.1, 0.05)])
def test_a_loss_is_below_its_limit_19_times_of_20(items: int, share: float, gained: float) -> None:
    """Over all outcomes; by the error bar of the mean it is above in 20 % of 59 items that lose a twentieth."""
    missed = 0.0
    for lost in range(items // 3):
        for won in range(items // 3):
            if most_lost(lost, won, items, 0.05) < share:
                outcome, chances = (
                    [lost, won, items - lost - won],
                    [share + gained, gained, 1 - share - 2 * gained],
                )
                missed += stats.multinomial.pmf(outcome, items, chances)
    assert missed <= 0.0505


# --- what a sample can see ------------------------------------------------------------------------


def test_a_mean_shows_the_detectable_change_with_a_power_of_95_percent() -> None:
    """Simulated: differences of known spread, a change of exactly that size, judged at the level. The spread is taken
    from the few differences themselves, which costs power: what the normal distribution gives is found in 81 %."""
    random, alpha, units, noise = np.random.default_rng(5), 1e-3, 16, 0.05
    change = detectable_mean(noise, units, units - 1, alpha)
    actual = 0
    for _ in range(2000):
        new = random.normal(change, noise, units).tolist()
        actual += paired_difference([0.0] * units, new, None, alpha).p < alpha
    assert actual / 2000 == pytest.approx(0.95, abs=0.02)


def test_the_change_that_is_shown_is_that_of_the_noncentral_t_distribution() -> None:
    """Cohen (1988), one-sided, in standard errors: delta with P(t' > t) = 95 %."""
    effect = detectable_mean(1.0, 1, 3, 1e-3)
    assert stats.nct(3, effect).sf(stats.t(3).isf(1e-3)) == pytest.approx(0.95, abs=1e-6)


@pytest.mark.parametrize(("items", "alpha"), [(80, 5e-5), (256, 5e-5), (500, 1e-3)])
def test_flips_show_the_detectable_loss_with_a_power_of_95_percent(items: int, alpha: float) -> None:
    share = detectable_flips(items, alpha)
    shown = [lost for lost in range(items + 1) if mcnemar(lost, 0) < alpha]
    assert stats.binom(items, share).sf(min(shown) - 1) == pytest.approx(0.95, abs=1e-6)


def test_too_few_items_show_no_loss_at_all() -> None:
    assert detectable_flips(14, 5e-5) == 1.0
    assert mcnemar(14, 0) > 5e-5


def test_the_root_mean_square_sees_what_the_mean_does_not() -> None:
    assert root_mean_square([0.0] * 4, [1.0, -1.0, 1.0, -1.0]) == pytest.approx(1.0)
    assert root_mean_square([0.0, 0.0], [0.0, 2.0], [3.0, 1.0]) == pytest.approx(1.0)
