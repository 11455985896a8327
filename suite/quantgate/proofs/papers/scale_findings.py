"""Findings on size and precision with one simulated scheme in every model: integers of 2 to 8 bits in blocks of 64,
and 16 bits. Losses are paired by blocks of the text, scores by items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from quantgate.errors import InputError
from quantgate.proofs.papers.section import TOLERABLE, Finding, Measured, decide
from quantgate.proofs.papers.statistics import (
    RESAMPLES,
    Floats,
    Point,
    around,
    least,
    mean_interval,
    middle,
    points_of,
    score_draws,
)
from quantgate.records import Measurement

BINS = 15
COLLAPSED = 0.5
"""A model has collapsed if it keeps less than this share of its reference's lead over chance."""

Condition = Literal["intact", "loss", "collapse", "open"]


@dataclass(frozen=True)
class Answers:
    """Answers of one cell on the items of all tasks in order, [items] each. chance: probability that a guess is
    right."""

    confidence: Floats
    correct: Floats
    chance: Floats


def answers_of(record: Measurement, tasks: Sequence[str]) -> Answers:
    """Read multiple-choice answers, by the log-likelihood of whole choices. Raises InputError for a task that was not
    measured."""
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
    """Return the expected calibration error, 0 to 1, over the last axis of [..., items]."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    draws = int(np.prod(bins.shape[:-1]))
    place = bins.reshape(draws, -1) + BINS * np.arange(draws)[:, None]
    gaps = np.bincount(place.ravel(), weights=(correct - confidence).ravel(), minlength=BINS * draws)
    errors = np.abs(gaps.reshape(*bins.shape[:-1], BINS)).sum(axis=-1) / bins.shape[-1]
    return np.asarray(errors)


def draws_of_items(items: int, seed: int = 0) -> NDArray[np.int64]:
    """Draw items with replacement, [resamples, items]: the same for every cell."""
    return np.random.default_rng(seed).integers(items, size=(RESAMPLES, items))


def error_draws(answers: Answers) -> tuple[float, Floats]:
    """Return the calibration error on all items, and on draws of them."""
    rows = draws_of_items(len(answers.correct))
    draws = calibration_error(answers.confidence[rows], answers.correct[rows])
    return float(calibration_error(answers.confidence, answers.correct)), draws


def kept(answers: Answers, reference: Answers) -> tuple[float, float, float]:
    """Return the share that a cell keeps of its reference's lead over chance, with its interval. NaN where that lead
    may be zero: then there is nothing to lose."""
    rows = draws_of_items(len(answers.correct))
    cell_lead, lead = (a.correct - a.chance for a in (answers, reference))
    leads = lead[rows].mean(axis=1)
    if middle(leads)[0] <= 0:
        return math.nan, math.nan, math.nan
    return float(cell_lead.mean() / lead.mean()), *middle(cell_lead[rows].mean(axis=1) / leads)


def condition(low: float, high: float) -> Condition:
    """Classify the interval of `kept`: `collapse` below half, `loss` between half and all, `intact` at all; `open`
    where it allows both of the first two, or where the reference is no better than chance."""
    if not np.isfinite(low):
        return "open"
    if high < COLLAPSED:
        return "collapse"
    if low <= COLLAPSED:
        return "open"
    return "loss" if high < 1 else "intact"


UNDERSTANDING = ("rte", "sst2", "mrpc")
REASONING = ("copa", "social_iqa", "piqa", "winogrande", "arc_easy", "arc_challenge")
TRUTH = ("factual_summaries", "bbq")
GROUPS = {"understanding": UNDERSTANDING, "reasoning": REASONING, "misinformation": TRUTH}
CHOICES = (*UNDERSTANDING, *REASONING, *TRUTH, "hellaswag", "mmlu", "continuation")
"""Tasks whose answers have a confidence."""
FULL = 16.0
BITS = (8.0, 4.0, 3.0, 2.0)


class Family:
    """The measured cells by model and bits; models by size, ascending. small: the models that share a tokenizer and a
    training text, so that their losses compare."""

    def __init__(self, measured: Measured) -> None:
        self.measured = measured
        self.number = {(cell.model, cell.bits): n for n, (cell, _) in enumerate(measured)}
        self.points = {(p.model, p.bits): p for p in points_of(measured)}
        models = dict.fromkeys(cell.model for cell, _ in measured)
        missing = [f"{m} at {b:g} bits" for m in models for b in (FULL, *BITS) if (m, b) not in self.points]
        if missing or not models:
            raise InputError(f"{len(missing)} cells were not measured ({', '.join(missing[:2])} ...)")
        self.models = sorted(models, key=lambda m: self.points[m, FULL].total_bits)
        self.small = [m for m in self.models if m.startswith("pocket-")]
        self.largest = self.models[-1]
        if len(self.small) < 2 or self.largest in self.small:
            raise InputError("needs pocket models and a larger one; measure the whole tier")

    def record(self, model: str, bits: float) -> Measurement:
        return self.measured[self.number[model, bits]][1]

    def losses(self, model: str, bits: float) -> Floats:
        """Return the loss of each block of the text, nats per token."""
        return self.points[model, bits].losses

    def answers(self, model: str, bits: float) -> Answers:
        return answers_of(self.record(model, bits), CHOICES)

    def at_equal_memory(self, bits: float) -> list[tuple[Point, Floats]]:
        """Return each small model at `bits` with the losses of a 16-bit model of as many total bits: interpolated block
        by block, linearly over their logarithm, between the two models nearest in size. Models smaller than the
        smallest one at 16 bits are left out."""
        full = [self.points[m, FULL] for m in self.small]
        sizes = np.log2([p.total_bits for p in full])
        curves = np.array([p.losses for p in full])  # [models, blocks]
        pairs = []
        for model in self.small:
            point = self.points[model, bits]
            place = np.log2(point.total_bits)
            if sizes[0] <= place <= sizes[-1]:
                pairs.append((point, np.array([np.interp(place, sizes, c) for c in curves.T])))
        return pairs


def findings(measured: Measured) -> list[Finding]:
    """Return all findings, in the order of the page."""
    family = Family(measured)
    return [
        _larger_lose_less(family),
        *(_larger_do_better(family, name) for name in GROUPS),
        _larger_are_resilient(family),
        _largest_keeps(family),
        *(_equal_memory(family, bits) for bits in BITS),
        *(_calibration(family, bits) for bits in (4.0, 3.0, 2.0)),
        _collapse(family, 3.0),
        _collapse(family, 2.0),
    ]


def _larger_lose_less(family: Family) -> Finding:
    steps = {
        f"{small} to {large}": mean_interval(family.losses(small, FULL) - family.losses(large, FULL))
        for small, large in pairwise(family.small)
    }
    where = least(steps)
    value, low, high = steps[where]
    return Finding(
        "larger-models-lose-less", "larger models predict better", "larger models generally outperform smaller ones",
        value, low, high, "nats/token", decide(low, high, above=0),
        f"the smallest gain of a step in size, {where}, at 16 bits",
    )  # fmt: skip


def _larger_do_better(family: Family, group: str) -> Finding:
    small = family.small[-1]
    draws = score_draws(family.measured, GROUPS[group])
    value, low, high = draws.difference([family.number[family.largest, FULL]], [family.number[small, FULL]])
    return Finding(
        f"larger-models-{group}", f"larger models do better: {group}",
        "larger models generally outperform smaller ones",
        value, low, high, "points of 1", decide(low, high, above=0),
        f"mean score of {', '.join(GROUPS[group])}: {family.largest} minus {small}, at 16 bits",
    )  # fmt: skip


def _larger_are_resilient(family: Family) -> Finding:
    small, large = family.small[0], family.small[-1]

    def cost(model: str) -> Floats:
        return family.losses(model, 4.0) - family.losses(model, FULL)

    value, low, high = mean_interval(cost(small) - cost(large))
    return Finding(
        "larger-models-resilient", "larger models lose less at 4 bits",
        "larger models are exceptionally resilient to 4 bits",
        value, low, high, "nats/token", decide(low, high, above=0),
        f"what 4 bits cost {small} minus what they cost {large}",
    )  # fmt: skip


def _largest_keeps(family: Family) -> Finding:
    draws = score_draws(family.measured, [task for tasks in GROUPS.values() for task in tasks])
    four, full = (family.number[family.largest, bits] for bits in (4.0, FULL))
    value, low, high = draws.difference([four], [full])
    return Finding(
        "four-bits-accuracy", "the largest model keeps its accuracy at 4 bits",
        "larger models maintain high accuracy even at 4 bits", value, low, high, "points of 1",
        decide(low, high, above=-TOLERABLE),
        f"{family.largest}, mean score of all groups, 4 bits minus 16; kept: a loss below {TOLERABLE}",
    )  # fmt: skip


def _equal_memory(family: Family, bits: float) -> Finding:
    pairs = family.at_equal_memory(bits)
    text = (
        f"loss of the small models at 16 bits, interpolated to as many bits of memory, minus loss at {bits:g} bits; "
        f"mean of {len(pairs)} models; embeddings, at 16 bits everywhere, count"
    )
    value, low, high = (
        mean_interval(np.mean([other - point.losses for point, other in pairs], axis=0))
        if pairs
        else (math.nan, math.nan, math.nan)
    )
    return Finding(
        f"equal-memory-{bits:g}-bits", f"in the same memory: large at {bits:g} bits against small at 16",
        "a larger model at 4 bits is better than a smaller one at high precision in the same memory"
        if bits == 4
        else f"the paper says it of 4 bits; the same asked of {bits:g}",
        value, low, high, "nats/token", decide(low, high, above=0), text,
    )  # fmt: skip


def _calibration(family: Family, bits: float) -> Finding:
    value, draws = error_draws(family.answers(family.largest, bits))
    reference, others = error_draws(family.answers(family.largest, FULL))
    low, high = around(value - reference, draws - others)
    return Finding(
        f"calibration-{bits:g}-bits", f"confidence is less right at {bits:g} bits",
        "related work: quantization makes a model's confidence fit its accuracy less", value - reference, low, high, "",
        decide(low, high, above=0),
        f"expected calibration error of {family.largest} at {bits:g} bits ({value:.3f}) minus that at 16 "
        f"({reference:.3f})",
    )  # fmt: skip


def _collapse(family: Family, bits: float) -> Finding:
    value, low, high = kept(family.answers(family.largest, bits), family.answers(family.largest, FULL))
    collapse = bits < 3
    state = decide(low, high, below=COLLAPSED) if collapse else decide(low, high, above=COLLAPSED, below=1)
    return Finding(
        f"{'collapse' if collapse else 'loss'}-{bits:g}-bits",
        f"{bits:g} bits are a {'collapse' if collapse else 'loss, and no collapse'}",
        "related work: below 3 bits models collapse" if collapse else "related work: 3 bits lose, and still work",
        value, low, high, "of the lead over chance", state,
        f"what {family.largest} at {bits:g} bits keeps of its lead over chance at 16; a collapse keeps less than "
        f"{COLLAPSED}",
    )  # fmt: skip


def rows_by_bits(family: Family) -> list[tuple[str, float]]:
    """Return model and bits of every cell, sizes ascending, bits descending."""
    return [(model, bits) for model in family.models for bits in (FULL, *BITS)]


def group_scores(measured: Measured) -> dict[str, tuple[Floats, Sequence[tuple[float, float]]]]:
    """Return, for each group of tasks, the score of every cell and its interval."""
    draws = {name: score_draws(measured, tasks) for name, tasks in GROUPS.items()}
    cells = range(len(measured))
    return {name: (d.all_items, [d.interval(cell) for cell in cells]) for name, d in draws.items()}
