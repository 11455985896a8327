"""What is left of a model beside its accuracy: whether its confidence is right, and whether it has collapsed.

Calibration error: items in bins of equal width by confidence, the mean over items of how far confidence and accuracy of
their bin are apart (Guo et al. 2017, arXiv 1706.04599, equation 3, with its 15 bins). Confidence is the probability
of the likeliest choice among the choices of an item; where several are right and one of them is the likeliest, that of
all of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from quantgate.errors import InputError
from quantgate.proofs.papers.statistics import RESAMPLES, Floats, middle
from quantgate.records import Measurement

BINS = 15
COLLAPSED = 0.5
"""A model that keeps less of what its reference is better than chance by has collapsed."""

Condition = Literal["intact", "loss", "collapse", "open"]


@dataclass(frozen=True)
class Answers:
    """Of one cell, on the items of all tasks in order, [items] each. chance: of a guess to be right."""

    confidence: Floats
    correct: Floats
    chance: Floats


def answers_of(record: Measurement, tasks: Sequence[str]) -> Answers:
    """Multiple-choice tasks, by the log-likelihood of whole choices. Raises InputError where one was not measured."""
    confidence, correct, chance = [], [], []
    for task in tasks:
        metric = record.metrics.get(f"accuracy/{task}/acc")
        if metric is None:
            raise InputError(f"{record.cell}: {task} was not measured; measure the whole tier")
        for scores, gold in zip(metric.raw["loglikelihoods"], metric.raw["gold"], strict=True):
            shares, best = softmax(scores), int(np.argmax(scores))
            confidence.append(float(shares[gold].sum() if best in gold else shares[best]))
            correct.append(float(best in gold))
            chance.append(len(gold) / len(scores))
    return Answers(np.array(confidence), np.array(correct), np.array(chance))


def calibration_error(confidence: Floats, correct: Floats) -> Floats:
    """From 0 (right) to 1; of [..., items], over the items."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    draws = int(np.prod(bins.shape[:-1]))
    place = bins.reshape(draws, -1) + BINS * np.arange(draws)[:, None]
    gaps = np.bincount(place.ravel(), weights=(correct - confidence).ravel(), minlength=BINS * draws)
    found = np.abs(gaps.reshape(*bins.shape[:-1], BINS)).sum(axis=-1) / bins.shape[-1]
    return np.asarray(found)


def draws_of_items(items: int, seed: int = 0) -> NDArray[np.int64]:
    """[resamples, items]: the same ones for every cell."""
    return np.random.default_rng(seed).integers(items, size=(RESAMPLES, items))


def error_draws(answers: Answers) -> tuple[float, Floats]:
    """Calibration error on all items, and on draws of them."""
    rows = draws_of_items(len(answers.correct))
    draws = calibration_error(answers.confidence[rows], answers.correct[rows])
    return float(calibration_error(answers.confidence, answers.correct)), draws


def kept(answers: Answers, reference: Answers) -> tuple[float, float, float]:
    """What a cell keeps of its reference's lead over chance, with its interval. NaN where that lead may be nought: then
    there is nothing to lose."""
    rows = draws_of_items(len(answers.correct))
    own, lead = (a.correct - a.chance for a in (answers, reference))
    leads = lead[rows].mean(axis=1)
    if middle(leads)[0] <= 0:
        return math.nan, math.nan, math.nan
    return float(own.mean() / lead.mean()), *middle(own[rows].mean(axis=1) / leads)


def condition(low: float, high: float) -> Condition:
    """What the interval of `kept` says: `collapse` below half, `loss` between that and all, `intact` at all; `open`: it
    allows for more than one of the first two, or the reference itself is no better than chance."""
    if not np.isfinite(low):
        return "open"
    if high < COLLAPSED:
        return "collapse"
    if low <= COLLAPSED:
        return "open"
    return "loss" if high < 1 else "intact"
