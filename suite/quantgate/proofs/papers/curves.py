"""Bit-level scaling: curves of loss over total bits, and which points no other one beats.

Dettmers and Zettlemoyer, The case for 4-bit precision (2023), arXiv 2212.09720, section 4, found power laws in
parameters and bits to fit badly, and interpolate linearly between the models of a family; so does this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantgate.proofs.papers.points import Point


@dataclass(frozen=True)
class Curve:
    """Loss (nats per token) over log2 of the total bits, ascending: the models of a family in one scheme."""

    name: str
    log_bits: tuple[float, ...]
    losses: tuple[float, ...]

    def at(self, log_bits: ArrayLike) -> NDArray[np.float64]:
        """Interpolated linearly; NaN beyond the ends."""
        places = np.asarray(log_bits, dtype=np.float64)
        return np.asarray(np.interp(places, self.log_bits, self.losses, left=np.nan, right=np.nan))


def curve(name: str, points: Sequence[Point]) -> Curve:
    """Through the points of one scheme, one for each model."""
    ordered = sorted(points, key=lambda p: p.total_bits)
    return Curve(name, tuple(float(np.log2(p.total_bits)) for p in ordered), tuple(p.loss for p in ordered))


def pareto(points: Sequence[Point], cost: Callable[[Point], float] = lambda p: p.loss) -> list[Point]:
    """The points that no other one with as few bits or fewer beats, by ascending bits."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.total_bits, cost(p))):
        if not front or cost(point) < cost(front[-1]):
            front.append(point)
    return front


def lead(one: Curve, other: Curve, steps: int = 201) -> float:
    """By how many nats per token the first lies below the second, in the mean over the total bits that both reach.

    NaN where there are none.
    """
    low = max(one.log_bits[0], other.log_bits[0])
    high = min(one.log_bits[-1], other.log_bits[-1])
    if low > high:
        return float("nan")
    grid = np.linspace(low, high, steps)
    return float(np.mean(other.at(grid) - one.at(grid)))
