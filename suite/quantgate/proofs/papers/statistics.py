"""What findings share: 95 % intervals of means of units and, by drawing units anew, of anything else; correlations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
RESAMPLES = 1000

Floats = NDArray[np.float64]
Interval = tuple[float, float, float]
"""Value, lower and upper bound."""


def mean_interval(differences: Floats) -> Interval:
    """Mean of units [units] of about equal size (blocks of a text, items), with Student's interval."""
    n, mean = len(differences), float(differences.mean())
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def least(steps: Mapping[str, Interval]) -> str:
    """Which of the named differences speaks most against all being above 0: one that is surely not comes first, else
    that with the lowest limit."""
    return min(steps, key=lambda step: (steps[step][2] > 0, steps[step][1]))


def around(value: float, draws: Floats) -> tuple[float, float]:
    """As `middle`, of draws moved so that their mean is `value`: items drawn anew add noise, and the mean of a folded
    statistic (a distance from one half, an absolute gap) grows or shrinks by noise alone."""
    return middle(draws + (value - np.nanmean(draws)))


def middle(draws: Floats) -> tuple[float, float]:
    """The middle 95 % of finite draws (percentile bootstrap); NaN where there are none."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bootstrap(units: int, statistic: Callable[[NDArray[np.int64]], float]) -> Interval:
    """The statistic of all units, given as their numbers, with its interval by drawing them anew."""
    source = np.random.default_rng(0)
    draws = np.array([statistic(source.integers(0, units, units)) for _ in range(RESAMPLES)])
    return statistic(np.arange(units)), *middle(draws)


def pearson(x: Floats, y: Floats) -> Floats:
    """Linear correlation; NaN where one of them is constant."""
    x, y = (a - a.mean(axis=-1, keepdims=True) for a in (x, y))
    norm = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    constant = np.isclose(norm, 0, atol=1e-12)
    correlations = (x * y).sum(axis=-1) / np.where(constant, 1, norm)
    return np.where(constant, np.nan, correlations)


def spearman(x: Floats, y: Floats) -> Floats:
    """Rank correlation, ties at their mean rank; NaN where one of them is constant."""
    return pearson(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1))
