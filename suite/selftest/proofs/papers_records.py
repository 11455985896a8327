"""Records of invented cells, for the sections on dimensions and on scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from quantgate.config.matrix import Cell
from quantgate.proofs.papers.dimensions import KNOWLEDGE, LIKELIHOOD
from quantgate.proofs.papers.expected import load_entries
from quantgate.proofs.papers.scale_findings import (
    CHOICES,
)
from quantgate.proofs.papers.section import Finding, Measured
from quantgate.records import Measurement, Metric
from quantgate.run.inputs import load_matrix

ITEMS = 100


MATRIX = load_matrix()


SIZES = {"pocket-90k": 1e5, "pocket-230k": 3e5, "pocket-660k": 9e5, "pocket-3m": 3e6, "smollm2-135m": 1.35e8}


def paired(samples: Any, unit: str = "fraction", **raw: Any) -> Metric:
    values = [float(x) for x in samples]
    return Metric(
        kind="paired", value=float(np.mean(values)), unit=unit, better="higher", samples=values, raw=raw
    )


def exact(value: float) -> Metric:
    return Metric(kind="exact", value=value, unit="bytes", better="lower")


def answers(right: float, seed: int, sure: float) -> dict[str, Metric]:
    """Four choices an item, the first the gold one, which wins in the share `right` of the items: those with the lowest
    of fixed draws, so that cells are paired."""
    wins = np.random.default_rng(seed).random(ITEMS) < right
    scores = [[sure, 0.0, 0.0, 0.0] if w else [0.0, sure, 0.0, 0.0] for w in wins]
    return {"acc": paired(wins, loglikelihoods=scores, gold=[[0]] * ITEMS)}


def share(value: float, seed: int) -> Metric:
    return paired(np.random.default_rng(seed).random(ITEMS) < value)


def record(cell: Cell, loss: float, right: float, *, bias: float = 0.5, sure: float = 0.5) -> Measurement:
    """right: the accuracy of every task; bias: the share of stereotypes preferred."""
    blocks = loss + np.random.default_rng(7).normal(0, 0.01, 32)
    metrics = {
        "perplexity": paired(blocks, "perplexity").model_copy(
            update={"value": float(np.exp(blocks.mean())), "link": "exp", "weights": [128.0] * 32}
        ),
        "memory/weight_bytes": exact(cell.bits * SIZES[cell.model] / 8),
        "memory/bits_per_weight": exact(cell.bits),
        "accuracy/mean/acc": paired([right] * 4),
    }
    for number, task in enumerate(dict.fromkeys((*KNOWLEDGE, *CHOICES))):
        metrics |= {f"accuracy/{task}/{k}": m for k, m in answers(right, number, sure).items()}
    for number, task in enumerate(("crows_pairs_english", "winobias")):
        metrics[f"accuracy/{task}/pct_stereotype"] = share(bias, 50 + number)
    metrics["accuracy/stereoset/lms"] = share(right, 60)
    metrics["accuracy/stereoset/ss"] = share(bias, 61)
    for task in LIKELIHOOD:
        metrics[f"accuracy/{task}/margin_norm"] = paired([-loss / 4] * 8, "nats/character")
    return Measurement(
        cell=cell.id, tier="papers-dimensions", fingerprint="f", created="now", metrics=metrics
    )


def cells(section: str) -> list[Cell]:
    entry = load_entries()[section]
    return entry.chosen(MATRIX.cells(entry.tier))


def by_key(findings: list[Finding]) -> dict[str, Finding]:
    return {f.key: f for f in findings}


def with_cost(cell: Cell) -> float:
    """Nats that few bits cost."""
    return 2.0 ** (4 - cell.bits) if cell.bits < 8 else 0.0


def three_dimensions(slope: float = 0.12, bias: float = 0.0) -> Measured:
    """What few bits cost in loss they cost in accuracy, `slope` for each nat, and in fairness, `bias` for each."""
    return [
        (c, record(c, 3 + with_cost(c), 0.7 - slope * with_cost(c), bias=0.55 + bias * with_cost(c)))
        for c in cells("dimensions")
    ]


def sizes(resilient: bool = True, equal: float = 1.0, lost: float = 0.1) -> Measured:
    """Loss falls with the logarithm of the size. resilient: few bits cost large models less. equal: what bits cost.
    lost: of the accuracy, at 3 bits."""
    measured = []
    for cell in cells("scale"):
        size = np.log2(SIZES[cell.model])
        weight = (17 / size if resilient else size / 17) * equal
        cost = 0.05 * with_cost(cell) * weight
        lead = max(0.0, (size - 21) / 20 - lost * (cell.bits == 3) - 0.95 * (cell.bits == 2))
        right = 0.25 + max(lead, 0.0)
        measured.append((cell, record(cell, 12 - size / 2 + cost, right, sure=0.5 if cell.bits > 2 else 9.0)))
    return measured
