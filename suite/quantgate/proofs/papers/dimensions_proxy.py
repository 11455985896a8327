"""Perplexity as a proxy: how well it orders, and how well a line of it gives, what cells score on tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quantgate.proofs.papers.dimensions_scores import Draws
from quantgate.proofs.papers.statistics import RESAMPLES, Floats, middle, spearman


@dataclass(frozen=True)
class Correlation:
    """Of loss and score over cells. low, high: 95 % interval over draws of cells and, in each, of items."""

    value: float
    low: float
    high: float


Coefficient = Callable[[Floats, Floats], Floats]
"""Of two arrays [..., cells], over the last axis."""


def correlation(loss: Floats, scores: Draws, of: Coefficient, seed: int = 0) -> Correlation:
    """loss: [cells]. `of` is `spearman` or `pearson`."""
    return Correlation(float(of(loss, scores.all_items)), *middle(of(*_drawn(loss, scores, seed))))


def share_of_tasks(loss: Floats, tasks: Sequence[Draws], seed: int = 0) -> Correlation:
    """On which share of the tasks a higher perplexity means a lower score, by rank. A task on which all cells score the
    same counts half: there perplexity tells nothing."""

    def share(coefficients: Floats) -> Floats:
        """coefficients: [tasks, ...]."""
        falls = np.where(np.isnan(coefficients), 0.5, coefficients < 0)
        return np.asarray(falls.mean(axis=0))

    value = share(np.array([spearman(loss, t.all_items) for t in tasks]))
    drawn = share(np.array([spearman(*_drawn(loss, t, seed)) for t in tasks]))
    return Correlation(float(value), *middle(drawn))


def _drawn(loss: Floats, scores: Draws, seed: int) -> tuple[Floats, Floats]:
    """Loss and score [resamples, cells] of cells drawn with replacement, the same ones for any scores of these
    cells."""
    picked = np.random.default_rng(seed).integers(len(loss), size=(RESAMPLES, len(loss)))
    return loss[picked], np.take_along_axis(scores.resampled, picked, axis=1)
