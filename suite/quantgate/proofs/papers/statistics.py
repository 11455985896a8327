"""Compute what findings share: intervals and correlations; scores of tasks with draws of their items; points.

Scores run from 0 (worst) to 1. A task with right answers counts its accuracy (`acc_norm` where it has one). A task
about bias counts how near the model is to no preference: min(p, 1 - p) / 0.5 for the share p of stereotypes that it
prefers, as in the idealized score of StereoSet (Nadeem et al. 2021, arXiv 2004.09456, section 4), which is that times
the language-modeling score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from quantgate.errors import InputError
from quantgate.proofs.papers.section import Measured
from quantgate.records import Measurement

LEVEL = 0.95
RESAMPLES = 1000

Floats = NDArray[np.float64]
Interval = tuple[float, float, float]
"""Value, lower and upper bound."""


def mean_interval(differences: Floats) -> Interval:
    """Return the mean of `differences` [units] with Student's interval. Units are of about equal size: blocks of a
    text, or items."""
    n, mean = len(differences), float(differences.mean())
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def least(steps: Mapping[str, Interval]) -> str:
    """Return the name of the difference that speaks most against all being above 0: one that is surely below, else the
    one with the lowest limit."""
    return min(steps, key=lambda step: (steps[step][2] > 0, steps[step][1]))


def around(value: float, draws: Floats) -> tuple[float, float]:
    """Return `middle` of draws shifted to the mean `value`: drawing items adds noise, and noise alone raises or lowers
    the mean of a folded statistic (a distance from one half, an absolute gap)."""
    return middle(draws + (value - np.nanmean(draws)))


def middle(draws: Floats) -> tuple[float, float]:
    """Return the middle 95 % of the finite draws (percentile bootstrap); NaN where there are none."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bootstrap(units: int, statistic: Callable[[NDArray[np.int64]], float]) -> Interval:
    """Return the statistic of all units with its bootstrap interval. It is called with the numbers of units."""
    source = np.random.default_rng(0)
    draws = np.array([statistic(source.integers(0, units, units)) for _ in range(RESAMPLES)])
    return statistic(np.arange(units)), *middle(draws)


def pearson(x: Floats, y: Floats) -> Floats:
    """Return the linear correlation over the last axis; NaN where one of the two is constant."""
    x, y = (a - a.mean(axis=-1, keepdims=True) for a in (x, y))
    norm = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    constant = np.isclose(norm, 0, atol=1e-12)
    correlations = (x * y).sum(axis=-1) / np.where(constant, 1, norm)
    return np.where(constant, np.nan, correlations)


def spearman(x: Floats, y: Floats) -> Floats:
    """Return the rank correlation, ties at their mean rank; NaN where one of the two is constant."""
    return pearson(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1))


# --- scores of tasks


@dataclass(frozen=True)
class Draws:
    """Scores of cells on a task or several. all_items: [cells]. resampled: [resamples, cells]; items are drawn with
    replacement, the same for every cell, so that the difference of two cells is paired."""

    all_items: Floats
    resampled: Floats

    def difference(self, ones: Sequence[int], others: Sequence[int]) -> Interval:
        """Return the mean of the cells `ones` minus that of the cells `others`, with its interval."""

        def apart(scores: Floats) -> Floats:
            means = [scores[..., list(cells)].mean(axis=-1) for cells in (ones, others)]
            return np.asarray(means[0] - means[1])

        value = float(apart(self.all_items))
        return value, *around(value, apart(self.resampled))

    def interval(self, cell: int) -> tuple[float, float]:
        """Return the interval of one cell's score."""
        return around(float(self.all_items[cell]), self.resampled[:, cell])


def score_draws(measured: Measured, tasks: Sequence[str], seed: int = 0) -> Draws:
    """Return the mean score of the tasks, each counting the same. Raises InputError where a cell lacks a task."""
    parts = [task_draws(measured, task, seed + number) for number, task in enumerate(tasks)]
    return Draws(np.mean([p.all_items for p in parts], axis=0), np.mean([p.resampled for p in parts], axis=0))


def task_draws(measured: Measured, task: str, seed: int = 0) -> Draws:
    """Return the scores of one task."""
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
    """Return the score [...] of shares [..., metrics], means over items."""
    if kind == ("lms", "ss"):
        return np.asarray(shares[..., 0] * unbiased(shares[..., 1]))
    if kind == ("pct_stereotype",):
        return unbiased(shares[..., 0])
    return np.asarray(shares[..., 0])


def unbiased(share: Floats) -> Floats:
    """Return 1 for a share of one half, 0 for none or all."""
    return np.asarray(np.minimum(share, 1 - share) / 0.5)


def losses(measured: Measured) -> Floats:
    """Return the mean negative log-likelihood of each cell, nats per token. Raises InputError where one lacks it."""
    try:
        return np.array([np.log(record.metrics["perplexity"].value) for _, record in measured])
    except KeyError:
        raise InputError("perplexity was not measured of every cell; measure the whole tier") from None


@dataclass(frozen=True)
class Correlation:
    """Correlation of loss and score over cells. low, high: 95 % interval over draws of cells and, in each, of items."""

    value: float
    low: float
    high: float


Coefficient = Callable[[Floats, Floats], Floats]
"""Correlation of two arrays [..., cells] over the last axis."""


def correlation(loss: Floats, scores: Draws, of: Coefficient, seed: int = 0) -> Correlation:
    """Correlate loss [cells] and scores. of: `spearman` or `pearson`."""
    return Correlation(float(of(loss, scores.all_items)), *middle(of(*_drawn(loss, scores, seed))))


def share_of_tasks(loss: Floats, tasks: Sequence[Draws], seed: int = 0) -> Correlation:
    """Return the share of the tasks on which a higher perplexity goes with a lower score, by rank. A task on which all
    cells score the same counts half: there perplexity tells nothing."""

    def share(coefficients: Floats) -> Floats:
        """Average over the first axis of [tasks, ...]."""
        falls = np.where(np.isnan(coefficients), 0.5, coefficients < 0)
        return np.asarray(falls.mean(axis=0))

    value = share(np.array([spearman(loss, t.all_items) for t in tasks]))
    drawn = share(np.array([spearman(*_drawn(loss, t, seed)) for t in tasks]))
    return Correlation(float(value), *middle(drawn))


def _drawn(loss: Floats, scores: Draws, seed: int) -> tuple[Floats, Floats]:
    """Return loss and score [resamples, cells] of cells drawn with replacement, the same for any scores of these
    cells."""
    picked = np.random.default_rng(seed).integers(len(loss), size=(RESAMPLES, len(loss)))
    return loss[picked], np.take_along_axis(scores.resampled, picked, axis=1)


# --- points

TASK = "accuracy/continuation/acc"


@dataclass(frozen=True)
class Point:
    """One cell as a point: total bits and quality.

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

    @cached_property
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


def points_of(measured: Measured) -> list[Point]:
    """Return a point for each cell that has perplexity, accuracy and the size of its weights."""
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
