"""Outliers among activations, by layer and text, on all models in full precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from quantgate.proofs.papers import calibration
from quantgate.proofs.papers.calibration_findings import NONSENSE, SETS
from quantgate.proofs.papers.section import (
    HEIGHT,
    WIDTH,
    Figure,
    Finding,
    Measured,
    Paper,
    Table,
    chart_data,
    decide,
    load_altair,
)
from quantgate.proofs.papers.statistics import LEVEL
from quantgate.records import Metric

PAPER = Paper(
    authors=calibration.PAPER.authors,
    title=calibration.PAPER.title + ": the outliers",
    year=calibration.PAPER.year,
    arxiv=calibration.PAPER.arxiv,
    question=(
        "A few activations that are far larger than the others stretch the range that all are rounded in. "
        "The paper follows the largest activation beside the median one, and how heavy the tails are "
        "(kurtosis), through the layers of older and newer models and over the texts that quantizers are "
        "calibrated on: strong outliers that come and go with the text would explain why the choice of the "
        "text mattered."
    ),
    setup=(
        "The inputs of every linear layer of SmolLM2-135M and of the four pocket models in full precision, "
        "on windows of 256 tokens of each text that quantizers are calibrated on here."
    ),
)

KINDS = ("q_proj", "o_proj", "gate_proj", "down_proj")
"""Linear layers with different inputs: k_proj and v_proj share those of q_proj, up_proj those of gate_proj."""
TWICE = math.log(2)
BIG = "smollm2-135m"
"""The model that the figure shows: the one that a quantizer would be used on."""


@dataclass(frozen=True)
class Outliers:
    """Outliers of one model on one text. logs: of each window, the largest-to-median ratio as a mean logarithm over the
    layers; value: the geometric mean of these ratios. layers, kurtosis: by layer."""

    logs: NDArray[np.float64]
    value: float
    layers: Mapping[str, float]
    kurtosis: Mapping[str, float]


def findings(measured: Measured) -> list[Finding]:
    return [alike(model, texts) for model, texts in _by_model(measured).items()]


def alike(model: str, texts: Mapping[str, Outliers]) -> Finding:
    """Highest ratio of the real texts over the lowest, with Welch's interval over the windows of the two."""
    rows = [o.logs for text, o in texts.items() if text != NONSENSE]
    lowest, *_, highest = sorted(rows, key=lambda row: float(row.mean()))
    interval = stats.ttest_ind(highest, lowest, equal_var=False).confidence_interval(LEVEL)
    low, high = float(interval.low), float(interval.high)
    value = float(highest.mean() - lowest.mean())
    return Finding(
        f"alike-{model}",
        f"{model}: outliers are alike on all real texts",
        "activations of newer models hardly depend on the text",
        math.exp(value), math.exp(low), math.exp(high), "times",
        decide(low, high, below=TWICE),
        "the largest-to-median ratio (geometric mean of all layers) on the text where it is highest, over "
        "that where it is lowest; less than twice is alike",
    )  # fmt: skip


def figures(measured: Measured) -> list[Figure]:
    texts = _by_model(measured).get(BIG)
    if texts is None:
        return []
    return [
        Figure(
            "outliers",
            f"Outliers by layer and text, {BIG}",
            "The largest magnitude among the inputs of a linear layer over the median one, by the depth of "
            "the layer. Where the lines of the texts lie close together, outliers belong to the model.",
            _chart(texts),
        )
    ]


def tables(measured: Measured) -> list[Table]:
    """Return, for each model and text, the mean over layers and the most extreme layer."""
    rows: list[Sequence[str]] = []
    for model, texts in _by_model(measured).items():
        for text, one in texts.items():
            worst = max(one.layers, key=lambda name, one=one: one.layers[name])  # type: ignore[misc]
            tails = float(np.exp(np.mean(np.log(list(one.kurtosis.values())))))
            rows.append((model, text, f"{one.value:.1f}", f"{one.layers[worst]:.0f}", worst, f"{tails:.1f}"))
    header = ("model", "text", "largest to median", "in the most extreme layer", "which", "kurtosis")
    return [Table("Outliers by text (geometric means of all layers)", header, rows)]


def _by_model(measured: Measured) -> dict[str, dict[str, Outliers]]:
    return {
        cell.model: {text: _outliers(record.metrics, text) for text in SETS}
        for cell, record in measured
        if f"outliers/{SETS[0]}/ratio" in record.metrics
    }


def _outliers(metrics: Mapping[str, Metric], text: str) -> Outliers:
    ratio, kurtosis = (metrics[f"outliers/{text}/{statistic}"] for statistic in ("ratio", "kurtosis"))
    return Outliers(np.array(ratio.samples), ratio.value, ratio.raw["layers"], kurtosis.raw["layers"])


def _chart(texts: Mapping[str, Outliers]) -> Any:
    alt = load_altair()
    rows = [
        {"text": text, "kind": kind, "depth": depth, "ratio": ratio, "kurtosis": one.kurtosis[name]}
        for text, one in texts.items()
        for kind in KINDS
        for depth, (name, ratio) in enumerate((n, r) for n, r in one.layers.items() if n.endswith(kind))
    ]
    return (
        alt.Chart(chart_data(rows))
        .mark_line(point=True)
        .encode(
            alt.X("depth:Q", title="depth of the layer"),
            alt.Y("ratio:Q", title="largest to median", scale=alt.Scale(type="log")),
            alt.Color("text:N", sort=list(SETS)),
            alt.Column("kind:N", title=None, sort=list(KINDS)),
            tooltip=["text:N", "depth:Q", alt.Tooltip("ratio:Q", format=".1f"), alt.Tooltip("kurtosis:Q",
            format=".1f")],
        )
        .properties(width=WIDTH / 2, height=HEIGHT)
    )  # fmt: skip
