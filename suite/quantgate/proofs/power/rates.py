"""Rates with exact intervals."""

from __future__ import annotations

from typing import NamedTuple

from scipy import special


class Rate(NamedTuple):
    """`hits` of `total` independent replays."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        """Fraction of hits; 0 without replays."""
        return self.hits / self.total if self.total else 0.0

    def plus(self, other: Rate) -> Rate:
        """Pool two rates."""
        return Rate(self.hits + other.hits, self.total + other.total)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided exact interval of the probability: Clopper and Pearson, Biometrika 26 (1934) 404-413:
        quantiles of beta distributions."""
        tail, rest = (1 - level) / 2, self.total - self.hits
        low = float(special.betaincinv(self.hits, rest + 1, tail)) if self.hits else 0.0
        high = float(special.betaincinv(self.hits + 1, rest, 1 - tail)) if rest else 1.0
        return low, high
