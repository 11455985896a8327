"""Cells of a family of models as points: how many bits in all, and how good."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantgate.config.matrix import Cell
from quantgate.records import Measurement

TASK = "accuracy/continuation/acc"


@dataclass(frozen=True)
class Point:
    """One cell.

    options: of its scheme (`data_type`, `block` ...). bits: nominal bits of a weight. total_bits: of all weights.
    loss: mean negative log-likelihood, nats per token; losses: of each block of the text, sizes: their tokens.
    divergences: mean KL from the reference of each block, nats; None: the cell is the reference. hits: of each item of
    the task, 1 or 0.
    """

    model: str
    scheme: str
    options: dict[str, Any]
    bits: float
    total_bits: float
    losses: NDArray[np.float64]
    sizes: NDArray[np.float64]
    divergences: NDArray[np.float64] | None
    hits: NDArray[np.float64]

    @property
    def loss(self) -> float:
        return float(np.average(self.losses, weights=self.sizes))

    @property
    def accuracy(self) -> float:
        """0 to 1."""
        return float(self.hits.mean())

    @property
    def divergence(self) -> float:
        """Mean KL from the reference, nats."""
        return 0.0 if self.divergences is None else float(np.average(self.divergences, weights=self.sizes))


def points_of(measured: Iterable[tuple[Cell, Measurement]]) -> list[Point]:
    """A point for each cell that has perplexity, accuracy and the size of its weights."""
    points = []
    for cell, record in measured:
        metrics = record.metrics
        if not {"perplexity", TASK, "memory/weight_bytes"} <= metrics.keys():
            continue
        divergence = metrics.get("divergence/kl_mean")
        points.append(
            Point(
                model=cell.model,
                scheme=cell.scheme,
                options=cell.scheme_options,
                bits=cell.bits,
                total_bits=8 * metrics["memory/weight_bytes"].value,
                losses=np.array(metrics["perplexity"].samples),
                sizes=np.array(metrics["perplexity"].weights),
                divergences=None if divergence is None else np.array(divergence.samples),
                hits=np.array(metrics[TASK].samples),
            )
        )
    return points


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
