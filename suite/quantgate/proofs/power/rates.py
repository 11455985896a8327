"""How often something happened, and how sure that is."""

from __future__ import annotations

from typing import NamedTuple

from scipy import special


class Rate(NamedTuple):
    """`hits` of `total` independent replays."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        """0 to 1; 0 for no replay at all."""
        return self.hits / self.total if self.total else 0.0

    def plus(self, other: Rate) -> Rate:
        """Of both."""
        return Rate(self.hits + other.hits, self.total + other.total)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided exact interval of the chance behind it, Clopper and Pearson, Biometrika 26 (1934) 404-413:
        quantiles of beta distributions."""
        tail, rest = (1 - level) / 2, self.total - self.hits
        low = float(special.betaincinv(self.hits, rest + 1, tail)) if self.hits else 0.0
        high = float(special.betaincinv(self.hits + 1, rest, 1 - tail)) if rest else 1.0
        return low, high
