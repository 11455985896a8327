"""Intervals and tests on plain sequences of floats, with scipy's distributions."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import mul
from typing import Any, NamedTuple

POWER = 0.95
"""The probability with which a change of the minimum detectable size is detected."""

FINE = 1_000_000
"""Steps of a share in which its limit is looked for."""


class Interval(NamedTuple):
    """Estimate of new minus old between its limits."""

    estimate: float
    low: float
    high: float


class Change(NamedTuple):
    """An estimate of new minus old with its uncertainty.

    se: standard error. df: degrees of freedom of Student's t; infinite where the standard error is known, and the
    normal distribution applies. terms: maps the scale of the samples to that of the tolerance; None: they are the same.
    exact: p of an exact test, where there is one.
    """

    estimate: float
    se: float = 0.0
    df: float = math.inf
    terms: Callable[[float], float] | None = None
    exact: float | None = None

    def at(self, alpha: float) -> Interval:
        """Return the interval that leaves `alpha` on each side, in the tolerance's terms."""
        half = self.se and (math.inf if self.se == math.inf else quantile(self.df, alpha) * self.se)
        limits = (self.estimate, self.estimate - half, self.estimate + half)
        return Interval(*(map(self.terms, limits) if self.terms else limits))

    @property
    def p(self) -> float:
        """The one-sided probability that noise alone causes a difference this large in this direction."""
        if self.exact is not None:
            return self.exact
        if self.se == 0:
            return 0.0 if self.estimate else 1.0
        return float(special().stdtr(self.df, -abs(self.estimate) / self.se))


def special() -> Any:
    """Return scipy.special. Imported late, because collecting cases does not need it."""
    from scipy import special

    return special


def quantile(df: float, alpha: float) -> float:
    """Return the value that Student's t exceeds with probability `alpha`; of infinite `df`, the normal distribution."""
    return -float(special().stdtrit(df, alpha))


def mean_difference(
    old: Sequence[float],
    new: Sequence[float],
    weights: Sequence[float] | None = None,
    noise: float | None = None,
) -> tuple[float, float, float]:
    """Return the weighted mean of new - old over units, its standard error, and the degrees of freedom. Each unit is a
    cluster (the tokens of a window depend on each other).

    Standard error of a ratio of means, Cochran, Sampling Techniques (1977), section 2.11:
    se^2 = n / (n - 1) * sum (w_i (d_i - d))^2 / (sum w_i)^2; Student's t with n - 1 degrees of freedom.
    `noise` caps the standard deviation, so that a broken model cannot hide behind its own variance; where the cap
    applies, the standard error is known and the degrees of freedom are infinite.
    Raises ValueError for fewer than two units or unequal lengths.
    """
    n = len(old)
    if n != len(new) or n < 2:
        raise ValueError(f"paired samples need equal lengths of two or more, got {n} and {len(new)}")
    if old == new:
        return 0.0, 0.0, math.inf
    moves = differences(old, new)
    shares = weights or [1.0] * n
    total = math.fsum(shares)
    estimate = math.fsum(map(mul, shares, moves)) / total
    rest = [w * (d - estimate) for w, d in zip(shares, moves, strict=True)]
    se = math.sqrt(n / (n - 1) * math.fsum(map(mul, rest, rest))) / total
    cap = math.inf if noise is None else noise / math.sqrt(effective_units(shares))
    return (estimate, cap, math.inf) if se > cap else (estimate, se, n - 1)


def differences(old: Sequence[float], new: Sequence[float]) -> list[float]:
    """Return new - old, unit by unit. Raises ValueError for unequal lengths."""
    return [now - before for before, now in zip(old, new, strict=True)]


def effective_units(weights: Sequence[float]) -> float:
    """Return the number of equal units that give a mean as certain as these of unequal weights: (sum w)^2 / sum w^2,
    Kish, Survey Sampling (1965), section 8.2."""
    return math.fsum(weights) ** 2 / math.fsum(map(mul, weights, weights))


def root_mean_square(
    old: Sequence[float], new: Sequence[float], weights: Sequence[float] | None = None
) -> float:
    """Return the weighted root mean square of new - old, in the unit of the samples. Raises ValueError for unequal
    lengths."""
    moves = differences(old, new)
    shares = weights or [1.0] * len(moves)
    squares = [move * move * share for move, share in zip(moves, shares, strict=True)]
    return math.sqrt(math.fsum(squares) / math.fsum(shares))


def flips(old: Sequence[float], new: Sequence[float]) -> tuple[int, int]:
    """Count the items that were right and are wrong now, and the reverse. Samples are 0 or 1."""
    changes = differences(old, new)
    return changes.count(-1), changes.count(1)


def mcnemar(lost: int, gained: int) -> float:
    """Return p of the one-sided exact McNemar test (McNemar 1947): the probability of at least this many flips in the
    more frequent direction, if both directions were equally likely."""
    if lost == gained:
        return 1.0
    return float(special().bdtrc(max(lost, gained) - 1, lost + gained, 0.5))


def most_lost(lost: int, gained: int, items: int, alpha: float) -> float:
    """Return the largest share of items that may be lost, net of those gained, by flips like these: the upper limit at
    the one-sided level `alpha` of the score interval of two paired shares (Tango, Statistics in Medicine 17 (1998)
    891-908). Unlike the mean's error bar it has a width where nothing flipped."""
    z = quantile(math.inf, alpha)

    def beyond(share: float) -> bool:
        b = (2 * items - lost + gained) * share - lost - gained
        root = math.sqrt(max(0.0, b**2 + 8 * items * gained * share * (1 - share)))
        of_gained = (root - b) / (4 * items)  # the likeliest share of items gained, if `share` is lost
        variance = items * (2 * of_gained + share * (1 - share))
        return (items * share - (lost - gained)) ** 2 > z**2 * variance

    least = math.ceil(FINE * (lost - gained) / items)
    shares = range(least, FINE)
    return (least + bisect_left(shares, True, key=lambda n: beyond(n / FINE))) / FINE


def growth(log_change: float) -> float:
    """Return exp(x) - 1; infinite where a float cannot hold it."""
    try:
        return math.expm1(log_change)
    except OverflowError:
        return math.inf


def relative_loss(log_loss: float, better: str) -> float:
    """Return a loss on the log scale as a share of the value: 0.7 doubles what is better low, and halves what is better
    high."""
    return growth(log_loss) if better == "lower" else -growth(-log_loss)


def log_loss(share: float, better: str) -> float:
    """Return a loss, a share of the value, on the log scale: the inverse of `relative_loss`."""
    return math.log1p(share) if better == "lower" else -math.log1p(-share)


def detectable_mean(noise: float, units: float, df: float, alpha: float) -> float:
    """Return the smallest change of a mean over `units` units that a one-sided t-test at level `alpha` with `df`
    degrees of freedom detects with `POWER`, where the paired differences have the standard deviation `noise`: from the
    noncentral t distribution (Cohen, Statistical Power Analysis, 1988, section 2)."""
    shift = float(special().nctdtrinc(df, 1 - POWER, quantile(df, alpha)))
    return shift * noise / math.sqrt(units)


def detectable_flips(items: int, alpha: float) -> float:
    """Return the smallest share of items lost (and none gained) that the exact McNemar test at level `alpha` detects
    with `POWER`; 1 where all items together are too few for the level."""
    needed = math.floor(-math.log2(alpha)) + 1  # (1/2)^needed < alpha
    if needed > items:
        return 1.0
    # The share p with P(Binomial(items, p) >= needed) = POWER.
    return float(special().bdtri(needed - 1, items, 1 - POWER))
