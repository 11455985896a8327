"""Intervals and tests on plain sequences of floats. scipy's where it has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Difference(NamedTuple):
    """Estimate of new minus old with a two-sided interval, and the one-sided chance (p) that a difference this
    large, in the direction it has, comes from noise alone."""

    estimate: float
    low: float
    high: float
    p: float


def paired_difference(
    old: Sequence[float],
    new: Sequence[float],
    weights: Sequence[float] | None,
    alpha: float,
    noise: float | None = None,
) -> Difference:
    """Weighted mean of new - old over units, each unit a cluster (the tokens of a window depend on each other).

    Standard error of a ratio of means, Cochran, Sampling Techniques (1977), section 2.11:
    se^2 = n / (n - 1) * sum (w_i (d_i - d))^2 / (sum w_i)^2; Student's t with n - 1 degrees of freedom.
    With `noise`, the standard deviation counts as at most that (known, so the normal distribution holds then).
    Raises ValueError for fewer than two units or unequal lengths.
    """
    if len(old) != len(new) or len(old) < 2:
        raise ValueError(f"paired samples need equal lengths of two or more, got {len(old)} and {len(new)}")
    weights = weights or [1.0] * len(old)
    differences = [b - a for a, b in zip(old, new, strict=True)]
    total = math.fsum(weights)
    estimate = math.fsum(w * d for w, d in zip(weights, differences, strict=True)) / total
    n = len(differences)
    spread = math.fsum((w * (d - estimate)) ** 2 for w, d in zip(weights, differences, strict=True))
    se = math.sqrt(n / (n - 1) * spread) / total
    if se == 0:
        return Difference(estimate, estimate, estimate, 0.0 if estimate else 1.0)
    # Imported here: scipy.stats takes a second, and collecting cases does not need it.
    from scipy import stats

    effective = total**2 / math.fsum(w * w for w in weights)
    cap = noise / math.sqrt(effective) if noise is not None else math.inf
    distribution = stats.norm if se > cap else stats.t(n - 1)
    se = min(se, cap)
    half = float(distribution.isf(alpha)) * se
    return Difference(estimate, estimate - half, estimate + half, float(distribution.sf(abs(estimate) / se)))


def flips(old: Sequence[float], new: Sequence[float]) -> tuple[int, int]:
    """Items that were right and are wrong now, and the other way round. Samples are 0 or 1."""
    lost = sum(1 for a, b in zip(old, new, strict=True) if a > b)
    gained = sum(1 for a, b in zip(old, new, strict=True) if b > a)
    return lost, gained


def mcnemar(lost: int, gained: int) -> float:
    """One-sided exact McNemar test (McNemar 1947): chance of at least this many more flips in the direction that
    has more, if both directions were equally likely."""
    if lost == gained:
        return 1.0
    from scipy import stats

    return float(stats.binomtest(max(lost, gained), lost + gained, 0.5, alternative="greater").pvalue)


def log_ratio(old: Sequence[float], new: Sequence[float], alpha: float) -> Difference:
    """Difference of mean log round time, new against old; Welch's t-test. With a single round on either side
    there is no spread to judge by: the interval is infinite."""
    a, b = [math.log(x) for x in old], [math.log(x) for x in new]
    estimate = math.fsum(b) / len(b) - math.fsum(a) / len(a)
    if min(len(a), len(b)) < 2:
        return Difference(estimate, -math.inf, math.inf, 0.5)
    from scipy import stats

    result = stats.ttest_ind(b, a, equal_var=False)
    interval = result.confidence_interval(1 - 2 * alpha)
    return Difference(estimate, float(interval.low), float(interval.high), float(result.pvalue) / 2)
