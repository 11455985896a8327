"""Findings of Paglieri et al., Outliers and Calibration Sets have Diminishing Effect on Quantization of
Modern LLMs (2024), arXiv 2405.20835, on one small model; and on group-wise and mixed precision, which its
related work is about.

Losses are taken on the same blocks of text, answers on the same items: intervals come from Student's t over
the differences of blocks or items; that of a ratio of losses from a bootstrap of the blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from quantgate.errors import InputError
from quantgate.proofs.papers.section import LITTLE, NOTHING, TOLERABLE, Finding, Measured, decide
from quantgate.proofs.papers.statistics import Floats, Interval, bootstrap, least, mean_interval
from quantgate.records import Measurement

REAL = ("wikipedia", "stories", "code", "questions", "german")
NONSENSE = "random"
SETS = (*REAL, NONSENSE)


@dataclass(frozen=True)
class Method:
    """A quantizer. schemes: beginning of the names of its calibrated schemes; the calibration set follows. plain: the
    scheme without calibration. reference: the one in full precision."""

    key: str
    label: str
    schemes: str
    plain: str
    reference: str = "transformers/fp32"


METHODS = (
    Method("gptq", "GPTQ, 4 bits", "llmcompressor/gptq4-g64-", "llmcompressor/rtn4-g64"),
    Method("awq", "AWQ, 4 bits", "llmcompressor/awq4-g64-", "llmcompressor/rtn4-g64"),
    Method("imatrix", "importance matrix, Q4_0", "llamacpp/Q4_0-", "llamacpp/Q4_0", "llamacpp/F16"),
    Method("smoothquant", "SmoothQuant, 8 bits", "llmcompressor/smoothquant8-a8-", "llmcompressor/rtn8-a8"),
)


@dataclass(frozen=True)
class Quality:
    """Quality of one cell. losses: mean negative log-likelihood of each block of the text, nats per token. hits: 1 or 0
    for each item of the tasks."""

    scheme: str
    losses: NDArray[np.float64]
    hits: NDArray[np.float64]
    bits_per_weight: float

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


class Grid:
    """The measured cells by scheme, method and calibration set."""

    def __init__(self, measured: Measured) -> None:
        self._at = {f"{cell.backend}/{cell.scheme}": _quality(cell.scheme, m) for cell, m in measured}
        self.full = self.at("transformers/fp32")

    def at(self, scheme: str) -> Quality:
        """Return the cell of a scheme. Raises InputError where it was not measured."""
        if scheme not in self._at:
            raise InputError(f"{scheme} was not measured")
        return self._at[scheme]

    def sets(self, method: Method) -> list[str]:
        """Return the calibration sets of a method."""
        return [s for s in SETS if f"{method.schemes}{s}" in self._at]

    def real(self, method: Method) -> list[Quality]:
        """Return the cells that are calibrated on real text."""
        return [self.calibrated(method, s) for s in self.sets(method) if s in REAL]

    def calibrated(self, method: Method, calibration: str) -> Quality:
        return self.at(f"{method.schemes}{calibration}")

    @property
    def rounded(self) -> list[Quality]:
        """Rounded to nearest at 4 bits, in the order of the matrix."""
        return [q for name, q in self._at.items() if name.startswith("llmcompressor/rtn4-")]


def _quality(scheme: str, measured: Measurement) -> Quality:
    metrics = measured.metrics
    return Quality(
        scheme=scheme,
        losses=np.array(metrics["perplexity"].samples),
        hits=np.array(metrics["accuracy/mean/acc"].samples),
        bits_per_weight=metrics["memory/bits_per_weight"].value,
    )


def findings(grid: Grid) -> list[Finding]:
    """Return all findings, in the order of the page. Raises InputError for a cell that was not measured."""
    return [
        *(_of_method(grid, method, question) for question in QUESTIONS for method in METHODS),
        eight_bits_are_enough(grid),
        small_groups(grid),
        mixed_precision(grid),
    ]


@dataclass(frozen=True)
class Question:
    """A finding on every method.

    interval: the measured value. above, below: bounds between which the finding holds. name, text: templates with
    `{m}`, the method, `{sets}`, the number of real sets, and `{items}`, of the tasks.
    """

    key: str
    name: str
    claim: str
    interval: Callable[[Grid, Method], Interval]
    text: str
    unit: str = "nats/token"
    above: float = -math.inf
    below: float = math.inf


QUESTIONS = (
    Question(
        "helps",
        "{m.label}: calibration helps",
        "a calibrated quantizer loses less than rounding to nearest",
        lambda grid, method: mean_interval(
            grid.at(method.plain).losses - grid.calibrated(method, "wikipedia").losses
        ),
        "loss of {m.plain} minus loss calibrated on Wikipedia passages, on other passages",
        above=0,
    ),
    Question(
        "sets",
        "{m.label}: real sets differ little",
        "quality, content and language of the set hardly matter for newer models",
        lambda grid, method: spread([q.losses for q in grid.real(method)]),
        f"the highest loss of {{sets}} real sets minus the lowest; up to {LITTLE:g} is little",
        below=LITTLE,
    ),
    Question(
        "accuracy",
        "{m.label}: accuracy hardly depends on the set",
        "the same for accuracy",
        lambda grid, method: spread([q.hits for q in grid.real(method)]),
        f"the highest accuracy of the real sets minus the lowest, {{items}} items; up to {TOLERABLE:g} is little",
        unit="",
        below=TOLERABLE,
    ),
    Question(
        "random-no-better",
        "{m.label}: random text is no better than real text",
        "nonsense is not the better calibration set",
        lambda grid, method: _nonsense_minus_real(grid, method),
        f"loss with random text minus mean loss of the real sets; better by up to {NOTHING:g} does not count",
        above=-NOTHING,
    ),
    Question(
        "random-costs-little",
        "{m.label}: even random text costs little",
        "newer models are robust even to nonsense",
        lambda grid, method: _nonsense_minus_real(grid, method),
        f"loss with random text minus mean loss of the real sets; up to {LITTLE:g} is little",
        below=LITTLE,
    ),
)


def _of_method(grid: Grid, method: Method, question: Question) -> Finding:
    value, low, high = question.interval(grid, method)
    return Finding(
        f"{question.key}-{method.key}",
        question.name.format(m=method),
        question.claim,
        value, low, high, question.unit, decide(low, high, above=question.above, below=question.below),
        question.text.format(m=method, sets=len(grid.real(method)), items=len(grid.full.hits)),
    )  # fmt: skip


def eight_bits_are_enough(grid: Grid) -> Finding:
    """Loss added by rounding weights and activations to 8 bits, without smoothing."""
    value, low, high = mean_interval(grid.at("llmcompressor/rtn8-a8").losses - grid.full.losses)
    return Finding(
        "outliers-cost-little",
        "8 bits for weights and activations",
        "newer models lose next to nothing at 8 bits, outliers or not",
        value, low, high, "nats/token", decide(low, high, below=LITTLE),
        "loss with weights and activations rounded to nearest in 8 bits, without smoothing, minus loss in "
        "full precision; "
        f"up to {LITTLE:g} is little",
    )  # fmt: skip


def small_groups(grid: Grid) -> Finding:
    """Smallest fall of the loss from one group size to the next smaller one."""
    names = ("rtn4-channel", "rtn4-g192", "rtn4-g64", "rtn4-g32")
    steps = {
        f"from {large} to {small}": mean_interval(
            grid.at(f"llmcompressor/{large}").losses - grid.at(f"llmcompressor/{small}").losses
        )
        for large, small in pairwise(names)
    }
    where = least(steps)
    value, low, high = steps[where]
    return Finding(
        "small-groups",
        "Groups: the smaller, the better",
        "weights that share a scale in smaller groups lose less (related work: group-wise quantization)",
        value, low, high, "nats/token", decide(low, high, above=0), f"the smallest fall of the loss, {where}",
    )  # fmt: skip


def mixed_precision(grid: Grid) -> Finding:
    """Share of the loss that a quarter of the layers at 8 bits recovers."""
    low_bits = grid.at("llmcompressor/rtn4-g64").losses - grid.full.losses
    mixed = grid.at("llmcompressor/rtn4-g64-high0.25").losses - grid.full.losses
    value, low, high = bootstrap(
        len(mixed), lambda rows: 1 - float(mixed[rows].mean() / low_bits[rows].mean())
    )
    return Finding(
        "mixed-precision",
        "Mixed precision: the right quarter of the layers",
        "few sensitive layers make most of the loss (related work: mixed precision)",
        value, low, high, "of the loss", decide(low, high, above=0.25),
        "what of the loss of 4 bits goes when the quarter of the layers that rounding hurts most has 8 "
        "bits; a quarter would be chance",
    )  # fmt: skip


def _nonsense_minus_real(grid: Grid, method: Method) -> Interval:
    """Return the loss with random text minus the mean loss of the real sets."""
    real = np.mean([q.losses for q in grid.real(method)], axis=0)
    return mean_interval(grid.calibrated(method, NONSENSE).losses - real)


def spread(values: Sequence[Floats]) -> Interval:
    """Return the highest mean minus the lowest, with its interval; unit i is the same in all. All units decide which is
    the highest and which the lowest, so the spread is biased upwards rather than downwards."""
    ordered = sorted(values, key=lambda v: float(v.mean()))
    return mean_interval(ordered[-1] - ordered[0])
