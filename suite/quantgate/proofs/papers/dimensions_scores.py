"""Scores of cells on groups of tasks, from 0 (worst) to 1, with draws of the items: the same for every cell, so that
what two cells differ by is paired.

A task with right answers counts its accuracy (`acc_norm` where it has one). A task about bias counts how near the
model is to no preference: min(p, 1 - p) / 0.5 for the share p of stereotypes that it prefers, as in the idealized
score of StereoSet (Nadeem et al. 2021, arXiv 2004.09456, section 4), which is that times the language-modeling score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quantgate.errors import InputError
from quantgate.proofs.papers.section import Measured
from quantgate.proofs.papers.statistics import RESAMPLES, Floats, around, middle, spearman
from quantgate.records import Measurement


@dataclass(frozen=True)
class Draws:
    """Of some cells on some tasks. all_items: [cells]. resampled: [resamples, cells], items drawn with replacement, the
    same ones for every cell."""

    all_items: Floats
    resampled: Floats

    def difference(self, ones: Sequence[int], others: Sequence[int]) -> tuple[float, float, float]:
        """Mean of the cells `ones` minus that of the cells `others`, with its interval."""

        def apart(scores: Floats) -> Floats:
            difference: Floats = scores[..., list(ones)].mean(axis=-1) - scores[..., list(others)].mean(
                axis=-1
            )
            return difference

        value = float(apart(self.all_items))
        return value, *around(value, apart(self.resampled))

    def interval(self, cell: int) -> tuple[float, float]:
        """Of the score of one cell."""
        return around(float(self.all_items[cell]), self.resampled[:, cell])


def score_draws(measured: Measured, tasks: Sequence[str], seed: int = 0) -> Draws:
    """Mean score of the tasks, each counting the same. Raises InputError where a cell lacks a task."""
    parts = [task_draws(measured, task, seed + number) for number, task in enumerate(tasks)]
    return Draws(np.mean([p.all_items for p in parts], axis=0), np.mean([p.resampled for p in parts], axis=0))


def task_draws(measured: Measured, task: str, seed: int = 0) -> Draws:
    """Score of one task."""
    samples = np.array([_samples(record, task) for _, record in measured])  # [cells, metrics, items]
    items = samples.shape[-1]
    picked = np.random.default_rng(seed).integers(items, size=(RESAMPLES, items))
    shares = np.array([samples[..., row].mean(axis=-1) for row in picked])  # [resamples, cells, metrics]
    kind = _metrics(measured[0][1], task)
    return Draws(_score(kind, samples.mean(axis=-1)), _score(kind, shares))


def _metrics(record: Measurement, task: str) -> tuple[str, ...]:
    for names in (("lms", "ss"), ("pct_stereotype",), ("acc_norm",), ("acc",)):
        if all(f"accuracy/{task}/{name}" in record.metrics for name in names):
            return names
    raise InputError(f"{record.cell}: {task} was not measured; measure the whole tier")


def _samples(record: Measurement, task: str) -> Floats:
    return np.array(
        [record.metrics[f"accuracy/{task}/{name}"].samples for name in _metrics(record, task)], float
    )


def _score(kind: tuple[str, ...], shares: Floats) -> Floats:
    """shares: [..., metrics], means over items."""
    if kind == ("lms", "ss"):
        return np.asarray(shares[..., 0] * unbiased(shares[..., 1]))
    if kind == ("pct_stereotype",):
        return unbiased(shares[..., 0])
    return np.asarray(shares[..., 0])


def unbiased(share: Floats) -> Floats:
    """1 for a share of one half, 0 for none or all."""
    return np.asarray(np.minimum(share, 1 - share) / 0.5)


def losses(measured: Measured) -> Floats:
    """Mean negative log-likelihood of each cell, nats per token, ascending with perplexity."""
    try:
        return np.array([np.log(record.metrics["perplexity"].value) for _, record in measured])
    except KeyError:
        raise InputError("perplexity was not measured of every cell; measure the whole tier") from None


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
