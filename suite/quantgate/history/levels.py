"""The levels beyond which the detectors of noisy series see a shift. Pure.

The table comes from a simulation of 20,000 series of a year without a change, of noise as shared machines have it:
neighbours correlated by 0.2, tails of Student's distribution with 5 degrees of freedom
(`python -m quantgate.proofs.power.levels` makes it). `tox -e power` replays whole years and says how many false events
there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

FALSE_PER_YEAR = 0.5
"""False shifts that all noisy series of a history may raise in a year of nights."""
TABLE = np.array(
    [
        (0.25, 3.66, 6.8),
        (0.1, 4.00, 8.6),
        (0.025, 4.40, 11.5),
        (0.01, 4.65, 14.1),
        (0.0025, 5.01, 18.2),
        (0.001, 5.30, 22.5),
        (0.00025, 5.68, 27.9),
    ]
)
"""Share of the series that a year takes beyond a level: that of steps, and that of the cumulative sum."""
FREEDOM = 0.6
"""Degrees of freedom that a night gives the standard deviation of differences."""


@dataclass(frozen=True)
class Levels:
    """The levels of one history. steps: as of a normal value. sums: of the cumulative sum, in standard deviations."""

    steps: float
    sums: float

    @classmethod
    def of(cls, series: int) -> Levels:
        """Return the levels at which so many series raise `FALSE_PER_YEAR`, half of it by each detector."""
        share = FALSE_PER_YEAR / 2 / max(1, series)
        return cls(*(_interpolated(share, column) for column in (1, 2)))

    def step(self, count: int) -> float:
        """Return the level of steps after `count` values, from which the standard deviation is estimated."""
        return _student(self.steps, count)

    def ramp(self, count: int) -> float:
        """Return the level of the cumulative sum after `count` values."""
        return self.sums * _student(self.steps, count) / self.steps


def _interpolated(share: float, column: int) -> float:
    """Interpolate over the logarithm of the share; below the table, the line through its last row and the last but
    two goes on."""
    logs, values = -np.log10(TABLE[:, 0]), TABLE[:, column]
    beyond = max(0.0, -math.log10(share) - logs[-1])
    slope = (values[-1] - values[-3]) / (logs[-1] - logs[-3])
    return float(np.interp(-math.log10(share), logs, values) + slope * beyond)


def _student(normal: float, count: int) -> float:
    """Return the quantile of Student's distribution for that of a normal one."""
    return float(-special.stdtrit(FREEDOM * count, special.ndtr(-normal)))
