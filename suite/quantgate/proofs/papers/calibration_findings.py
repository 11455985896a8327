"""Findings of Paglieri et al., Outliers and Calibration Sets have Diminishing Effect on Quantization of
Modern LLMs (2024), arXiv 2405.20835, asked of one small model; and of group-wise and mixed precision, which
its related work is about.

Losses are taken on the same blocks of text, answers on the same items: intervals come from Student's t over
the differences of blocks or items; that of a ratio of losses from a bootstrap of the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from quantgate.proofs.papers.calibration_points import METHODS, NONSENSE, Grid, Method
from quantgate.proofs.papers.section import LITTLE, NOTHING, TOLERABLE, Finding, decide
from quantgate.proofs.papers.statistics import Floats, Interval, bootstrap, least, mean_interval


def findings(grid: Grid) -> list[Finding]:
    """All of them. Raises InputError for a cell that was not measured."""
    return [
        *(calibration_helps(grid, m) for m in METHODS),
        *(sets_differ_little(grid, m) for m in METHODS),
        *(answers_differ_little(grid, m) for m in METHODS),
        *(nonsense_is_no_better(grid, m) for m in METHODS),
        *(nonsense_costs_little(grid, m) for m in METHODS),
        eight_bits_are_enough(grid),
        small_groups(grid),
        mixed_precision(grid),
    ]


def calibration_helps(grid: Grid, method: Method) -> Finding:
    """On held-out text of the kind it was calibrated on."""
    value, low, high = mean_interval(
        grid.at(method.plain).losses - grid.calibrated(method, "wikipedia").losses
    )
    return Finding(
        f"helps-{method.key}",
        f"{method.label}: calibration helps",
        "a calibrated quantizer loses less than rounding to nearest",
        value, low, high, "nats/token", decide(low, high, above=0),
        f"loss of {method.plain} minus loss calibrated on Wikipedia passages, on other passages",
    )  # fmt: skip


def sets_differ_little(grid: Grid, method: Method) -> Finding:
    """Loss of the worst real set minus that of the best."""
    value, low, high = spread([q.losses for q in grid.real(method)])
    return Finding(
        f"sets-{method.key}",
        f"{method.label}: real sets differ little",
        "quality, content and language of the set hardly matter for newer models",
        value, low, high, "nats/token", decide(low, high, below=LITTLE),
        f"the highest loss of {len(grid.real(method))} real sets minus the lowest; up to {LITTLE:g} is little",
    )  # fmt: skip


def answers_differ_little(grid: Grid, method: Method) -> Finding:
    """Accuracy of the best real set minus that of the worst."""
    value, low, high = spread([q.hits for q in grid.real(method)])
    items = len(grid.full.hits)
    return Finding(
        f"accuracy-{method.key}",
        f"{method.label}: accuracy hardly depends on the set",
        "the same for accuracy",
        value, low, high, "", decide(low, high, below=TOLERABLE),
        f"the highest accuracy of the real sets minus the lowest, {items} items; up to {TOLERABLE:g} is little",
    )  # fmt: skip


def nonsense_is_no_better(grid: Grid, method: Method) -> Finding:
    """By how much random text loses more than real sets do."""
    value, low, high = mean_interval(_nonsense_minus_real(grid, method))
    return Finding(
        f"random-no-better-{method.key}",
        f"{method.label}: random text is no better than real text",
        "nonsense is not the better calibration set",
        value, low, high, "nats/token", decide(low, high, above=-NOTHING),
        f"loss with random text minus mean loss of the real sets; better by up to {NOTHING:g} does not count",
    )  # fmt: skip


def nonsense_costs_little(grid: Grid, method: Method) -> Finding:
    """The same, asked the other way round."""
    value, low, high = mean_interval(_nonsense_minus_real(grid, method))
    return Finding(
        f"random-costs-little-{method.key}",
        f"{method.label}: even random text costs little",
        "newer models are robust even to nonsense",
        value, low, high, "nats/token", decide(low, high, below=LITTLE),
        f"loss with random text minus mean loss of the real sets; up to {LITTLE:g} is little",
    )  # fmt: skip


def eight_bits_are_enough(grid: Grid) -> Finding:
    """What outliers cost where activations are rounded as they are."""
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
    """The smallest of the falls of loss from one group size to the next smaller one."""
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
    """Which part of the loss comes back with a quarter of the layers at 8 bits."""
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


def _nonsense_minus_real(grid: Grid, method: Method) -> Floats:
    found: Floats = grid.calibrated(method, NONSENSE).losses - np.mean(
        [q.losses for q in grid.real(method)], axis=0
    )
    return found


def spread(values: Sequence[Floats]) -> Interval:
    """Highest mean minus lowest, with its interval; unit i is the same one in all. Which are the highest and the
    lowest is decided by all units, so that the spread is rather too large than too small."""
    ordered = sorted(values, key=lambda v: float(v.mean()))
    return mean_interval(ordered[-1] - ordered[0])
