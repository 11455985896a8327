"""Replay paired metrics: resample windows or items, add harmless noise and an effect."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantgate.errors import InputError
from quantgate.records import Metric

Array = NDArray[np.float64]
Pair = tuple[Metric, Metric]
"""A baseline and a later measurement of one metric."""


def clusters(metric: Metric) -> int:
    """Return the number of independent units: windows of a text (blocks of a window share it), or items."""
    samples = metric.samples or []
    windows = int(metric.conditions.get("windows") or len(samples))
    if not samples or len(samples) % windows:
        raise InputError(f"{len(samples)} samples do not divide into {windows} windows")
    return windows


def by_cluster(metric: Metric, values: list[float] | None = None) -> Array:
    """Return `values` (None: the samples) in shape (clusters, units of a cluster); runs follow one another."""
    units = len(metric.samples or ()) // clusters(metric)
    return np.array(metric.samples if values is None else values).reshape(-1, units)


def weights_of(metric: Metric) -> Array:
    """Return the weights in shape (clusters, units of a cluster)."""
    return by_cluster(metric, metric.weights or [1.0] * len(metric.samples or ()))


def stretched(values: Array) -> Array:
    """Multiply the deviations from the mean by sqrt(n / (n - 1)), n rows: draws with replacement then have the unbiased
    estimate of the variance, instead of 1 / n less."""
    n = len(values)
    mean = values.mean()
    stretched: Array = mean + (values - mean) * math.sqrt(n / (n - 1))
    return stretched


def uniform(metric: Metric, mean: float) -> Array:
    """Return the same effect in every unit, in shape (clusters, units of a cluster)."""
    return np.full_like(by_cluster(metric), mean)


def as_between(worse: Metric, better: Metric, mean: float) -> Array:
    """Scale the differences of a real loss, unit by unit, to the weighted mean `mean`.

    Raises InputError where the two are not of the same units, or `worse` is none.
    """
    if worse.conditions != better.conditions or len(worse.samples or ()) != len(better.samples or ()):
        raise InputError("a pattern of loss needs two metrics of the same tokens")
    loss = by_cluster(worse) - by_cluster(better)
    average = float(np.average(loss, weights=weights_of(worse)))
    if average * mean <= 0:
        raise InputError(f"they differ by {average:+.4g} on average: no loss to scale to {mean:+.4g}")
    wide = stretched(loss)
    scaled: Array = wide * (mean / float(np.average(wide, weights=weights_of(worse))))
    return scaled


class Part(NamedTuple):
    """A metric of a cell with what varies between replays: noise (harmless) in shape (any, units of a cluster), and the
    effect in shape (clusters, units of a cluster)."""

    metric: Metric
    harmless: Array
    effect: Array


def replays(parts: Mapping[str, Part], count: int, random: np.random.Generator) -> Iterator[dict[str, Pair]]:
    """`count` pairs of baseline and measurement of metrics of the same clusters, by name.

    Baseline: clusters drawn with replacement, for all metrics the same. Measurement: the same, plus the effect on the
    cluster, plus the noise of a cluster drawn at random, in one replay with one sign, as either of two builds may
    be the later one.
    """
    first = next(iter(parts.values()))
    size = (count, clusters(first.metric))
    picks = random.integers(size[1], size=size)
    noisy = random.integers(len(first.harmless), size=size)
    signs = random.choice([-1.0, 1.0], size=(count, 1, 1))
    drawn = {name: _drawn(part, picks, noisy, signs) for name, part in parts.items()}
    for i in range(count):
        yield {
            name: (
                with_samples(parts[name].metric, old[i], weights[i]),
                with_samples(parts[name].metric, new[i], weights[i]),
            )
            for name, (old, new, weights) in drawn.items()
        }


def _drawn(
    part: Part, picks: NDArray[np.int64], noisy: NDArray[np.int64], signs: Array
) -> tuple[Array, Array, Array]:
    """Old and new samples and weights, each in shape (replays, units)."""
    old = by_cluster(part.metric)[picks]
    new = old + part.effect[picks] + part.harmless[noisy] * signs
    count = len(picks)
    return old.reshape(count, -1), new.reshape(count, -1), weights_of(part.metric)[picks].reshape(count, -1)


def with_samples(metric: Metric, samples: Array, weights: Array | None = None) -> Metric:
    """Return the metric with these samples, and the value that follows from them."""
    mean = float(np.average(samples, weights=weights) if weights is not None else samples.mean())
    update: dict[str, object] = {
        "value": math.exp(mean) if metric.link == "exp" else mean,
        "samples": samples.tolist(),
    }
    if metric.weights is not None and weights is not None:
        update["weights"] = weights.tolist()
    return metric.model_copy(update=update)


@dataclass(frozen=True)
class Answers:
    """What a cell answered on the items of a task: right (1) or wrong (0), and by which margin (nats).

    harmless: differences of the margins between two runs that are equally good.
    """

    task: str
    acc: Metric
    margin: Metric
    harmless: Array

    @property
    def margin_decides(self) -> bool:
        """Whether an answer is right exactly where its margin is positive (not so where greedy decoding must
        give the whole continuation)."""
        both = zip(self.margin.samples or (), self.acc.samples or (), strict=True)
        return all((margin > 0) == (right == 1) for margin, right in both)


def answer_replays(
    answers: Answers, lost: float, shift: float, count: int, random: np.random.Generator
) -> Iterator[dict[str, Pair]]:
    """`count` pairs of `acc` and `margin` of a task, by whole name. Items are drawn with replacement, noise is added to
    the margins, and answers follow them where the margin decides.

    shift: by how many nats every margin sinks. lost: share of all items (0.01: one point) whose answer turns from
    right to wrong, at random, its margin changing its sign: of all tasks where `shift` is 0, else of
    those where the margin does not decide.
    """
    acc, margin = np.array(answers.acc.samples), np.array(answers.margin.samples)
    picks = random.integers(len(acc), size=(count, len(acc)))
    noise = answers.harmless[random.integers(len(answers.harmless), size=picks.shape)]
    noise = noise * random.choice([-1.0, 1.0], size=(count, 1))
    old, before = acc[picks], margin[picks]
    at_random = 0.0 if shift and answers.margin_decides else lost
    chance = at_random / max(float(acc.mean()), at_random, 1e-9)
    falls = (old == 1) & (random.random(picks.shape) < chance)
    if answers.margin_decides:
        after = np.where(falls, -before, before) - shift + noise
        new = (after > 0).astype(float)
    else:
        after = before - shift + noise
        new = np.where(falls, 0.0, old)
    for i in range(count):
        yield {
            f"accuracy/{answers.task}/acc": (
                with_samples(answers.acc, old[i]),
                with_samples(answers.acc, new[i]),
            ),
            f"accuracy/{answers.task}/margin": (
                with_samples(answers.margin, before[i]),
                with_samples(answers.margin, after[i]),
            ),
        }


def shift_for(margins: Array, lost: float) -> float:
    """By how many nats all margins must sink for a share `lost` of the items to turn from right to wrong.

    Raises InputError where fewer than that are right.
    """
    right = np.sort(margins[margins > 0])
    turned = lost * len(margins)
    if turned > len(right):
        raise InputError(
            f"only {len(right)} of {len(margins)} items are right: {lost * 100:.1f} % cannot be lost"
        )
    return float(np.interp(turned, np.arange(len(right) + 1), np.concatenate([[0.0], right])))
