"""Intervals and tests on plain sequences of floats. scipy's where it has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from operator import mul, sub
from typing import Any, NamedTuple

POWER = 0.95
"""With which chance a change of the minimum detectable size is detected."""


class Interval(NamedTuple):
    """Estimate of new minus old between its limits."""

    estimate: float
    low: float
    high: float


class Change(NamedTuple):
    """What samples say of new minus old: estimate, standard error, and degrees of freedom of Student's t.

    df: infinite where the standard error is known; the normal distribution holds then. terms: from the scale of the
    samples to the one it is told in. exact: p of an exact test, where there is one.
    """

    estimate: float
    se: float = 0.0
    df: float = math.inf
    terms: Callable[[float], float] | None = None
    exact: float | None = None

    def at(self, alpha: float) -> Interval:
        """The interval that has `alpha` on each side."""
        estimate, se, df, terms, _ = self
        if se == 0:
            estimate = terms(estimate) if terms else estimate
            return Interval(estimate, estimate, estimate)
        low, high = -math.inf, math.inf
        if se < math.inf:
            half = quantile(df, alpha) * se
            low, high = estimate - half, estimate + half
        return Interval(terms(estimate), terms(low), terms(high)) if terms else Interval(estimate, low, high)

    @property
    def p(self) -> float:
        """The one-sided chance that a difference this large, in the direction it has, comes from noise alone."""
        if self.exact is not None:
            return self.exact
        if self.se == math.inf:
            return 0.5
        if self.se == 0:
            return 0.0 if self.estimate else 1.0
        return _tail(self.df, abs(self.estimate) / self.se)


@cache
def special() -> Any:
    """scipy.special, imported by the first who needs it: collecting cases does not."""
    from scipy import special

    return special


@lru_cache(maxsize=64)
def quantile(df: float, alpha: float) -> float:
    """What Student's t exceeds with chance `alpha`. All cells of a workload ask for the same few."""
    return -float(special().ndtri(alpha) if df == math.inf else special().stdtrit(df, alpha))


def _tail(df: float, t: float) -> float:
    """The chance that Student's t exceeds `t`."""
    return float(special().ndtr(-t) if df == math.inf else special().stdtr(df, -t))


def mean_difference(
    old: Sequence[float],
    new: Sequence[float],
    weights: Sequence[float] | None = None,
    noise: float | None = None,
) -> tuple[float, float, float]:
    """Weighted mean of new - old over units, each unit a cluster (the tokens of a window depend on each other); its
    standard error; degrees of freedom.

    Standard error of a ratio of means, Cochran, Sampling Techniques (1977), section 2.11:
    se^2 = n / (n - 1) * sum (w_i (d_i - d))^2 / (sum w_i)^2; Student's t with n - 1 degrees of freedom.
    With `noise`, the standard deviation counts as at most that (known, so the normal distribution holds then).
    Raises ValueError for fewer than two units or unequal lengths.
    """
    n = len(old)
    if n != len(new) or n < 2:
        raise ValueError(f"paired samples need equal lengths of two or more, got {n} and {len(new)}")
    if old == new:
        return 0.0, 0.0, math.inf
    moves = differences(old, new)
    if weights:
        total = math.fsum(weights)
        estimate = math.fsum(map(mul, weights, moves)) / total
        rest = [w * (d - estimate) for w, d in zip(weights, moves, strict=True)]
    else:
        total = n
        estimate = math.fsum(moves) / n
        rest = [d - estimate for d in moves]
    se = math.sqrt(n / (n - 1) * math.fsum(map(mul, rest, rest))) / total
    if noise is not None and se > noise / math.sqrt(n):  # unequal weights make it fewer units: a wider cap
        cap = noise / math.sqrt(effective_units(weights) if weights else n)
        if se > cap:
            return estimate, cap, math.inf
    return estimate, se, n - 1


def differences(old: Sequence[float], new: Sequence[float]) -> list[float]:
    """new - old, unit by unit. Raises ValueError for unequal lengths."""
    if len(old) != len(new):
        raise ValueError(f"paired samples need equal lengths, got {len(old)} and {len(new)}")
    return list(map(sub, new, old))


def effective_units(weights: Sequence[float]) -> float:
    """How many equal units give a mean as certain as these of unequal weights: (sum w)^2 / sum w^2, Kish,
    Survey Sampling (1965), section 8.2."""
    return math.fsum(weights) ** 2 / math.fsum([w * w for w in weights])


def root_mean_square(
    old: Sequence[float], new: Sequence[float], weights: Sequence[float] | None = None
) -> float:
    """Weighted root mean square of new - old, in the unit of the samples."""
    moves = differences(old, new)
    if not weights:
        return math.sqrt(math.fsum(map(mul, moves, moves)) / len(moves))
    if len(weights) != len(moves):
        raise ValueError(f"{len(weights)} weights of {len(moves)} units")
    weighted = map(mul, map(mul, moves, moves), weights)
    return math.sqrt(math.fsum(weighted) / math.fsum(weights))


def flips(old: Sequence[float], new: Sequence[float]) -> tuple[int, int]:
    """Items that were right and are wrong now, and the other way round. Samples are 0 or 1."""
    changes = differences(old, new)
    return changes.count(-1), changes.count(1)


def mcnemar(lost: int, gained: int) -> float:
    """One-sided exact McNemar test (McNemar 1947): chance of at least this many more flips in the direction that
    has more, if both directions were equally likely."""
    if lost == gained:
        return 1.0
    return float(special().bdtrc(max(lost, gained) - 1, lost + gained, 0.5))


def growth(log_change: float) -> float:
    """exp(x) - 1; infinite where a float cannot hold it."""
    try:
        return math.expm1(log_change)
    except OverflowError:
        return math.inf


def detectable_shift(df: float, alpha: float) -> float:
    """In standard errors: the true change that a one-sided t-test at level `alpha` with `df` degrees of freedom finds
    with `POWER`, from the noncentral t distribution (Cohen, Statistical Power Analysis, 1988, section 2)."""
    return float(special().nctdtrinc(df, 1 - POWER, quantile(df, alpha)))


def detectable_mean(noise: float, units: float, df: float, alpha: float) -> float:
    """Smallest change of a mean over `units` units that the t-test at level `alpha` finds with `POWER`, where the
    paired differences have the standard deviation `noise`."""
    return detectable_shift(df, alpha) * noise / math.sqrt(units)


def detectable_flips(items: int, alpha: float) -> float:
    """Smallest share of items lost (and none gained) that the exact McNemar test at level `alpha` finds with
    `POWER`. Where all items together are too few for the level: 1."""
    needed = math.floor(-math.log2(alpha)) + 1  # (1/2)^needed < alpha
    if needed > items:
        return 1.0
    # The share p with P(Binomial(items, p) >= needed) = POWER.
    return float(special().bdtri(needed - 1, items, 1 - POWER))
