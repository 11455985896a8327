"""Outliers among the inputs of the linear layers: they make activations hard to round, and calibration sets matter.

Measured as Paglieri et al. do (Outliers and Calibration Sets have Diminishing Effect on Quantization of Modern LLMs,
2024, arXiv 2405.20835): by layer, the largest magnitude over the median one, and kurtosis.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from quantgate.backends.base import ShowsInputs
from quantgate.errors import MeasurementError
from quantgate.jobs import Needs
from quantgate.measure.groups import Group, paired
from quantgate.measure.options import Names
from quantgate.measure.session import Session
from quantgate.records import Declared, Metric, Record, Scalar

Layers = dict[str, dict[str, list[float]]]
"""By statistic and layer, one value for each window."""


class Options(Record):
    """texts: names in tasks.toml. n_ctx: tokens of a window."""

    texts: Names
    n_ctx: int = Field(default=256, ge=8)
    windows: int = Field(default=4, ge=2)


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return for each text `outliers/<text>/ratio`, the largest magnitude among a layer's inputs in a window over the
    median one, and `outliers/<text>/kurtosis` of all of them, 3 for a normal distribution. Values are geometric means
    of all layers and windows, samples the mean logarithms of windows; `raw` has a value for each layer."""
    options = session.options("outliers", Options)
    backend = session.backend
    assert isinstance(backend, ShowsInputs)
    metrics: dict[str, Metric] = {}
    for name, progress in session.each(options.texts, parts):
        text = session.text(name)
        statistics: Layers = {"ratio": defaultdict(list), "kurtosis": defaultdict(list)}
        for window in range(options.windows):
            begin = window * options.n_ctx
            backend.inputs(text.ids[begin : begin + options.n_ctx], partial(_add, statistics))
            progress(window + 1, options.windows)
        if {len(values) for values in statistics["ratio"].values()} != {options.windows}:
            raise MeasurementError(
                "not all linear layers show their inputs in each window (experts that no token goes to), or none does "
                "(packed weights): leave outliers out of the tier"
            )
        conditions: dict[str, Scalar] = {
            "source": session.source_hash,
            "tokens": text.hash,
            "text": name,
            "n_ctx": options.n_ctx,
            "windows": options.windows,
        }
        for statistic, layers in statistics.items():
            metrics[f"outliers/{name}/{statistic}"] = paired(
                np.log(np.array(list(layers.values()))).mean(axis=0),
                conditions,
                unit="",
                better="lower",
                link="exp",
                weights=[1.0] * options.windows,
                raw={"layers": {layer: float(np.exp(np.mean(np.log(v)))) for layer, v in layers.items()}},
            )
    return metrics


def _add(statistics: Layers, layer: str, inputs: NDArray[np.float32]) -> None:
    statistics["ratio"][layer].append(largest_to_median(inputs))
    statistics["kurtosis"][layer].append(kurtosis(inputs))


def largest_to_median(values: NDArray[np.float32]) -> float:
    """Return the largest magnitude over the median one. Raises MeasurementError where half of the values are zero."""
    magnitudes = np.abs(values)
    middle = float(np.median(magnitudes))
    if not middle > 0:
        raise MeasurementError(
            "the median magnitude among a layer's inputs is 0 or no number: broken weights"
        )
    return float(magnitudes.max()) / middle


def kurtosis(values: NDArray[np.float32]) -> float:
    """Return the fourth central moment over the square of the second (Pearson's), of all values together."""
    centered = values.astype(np.float64) - values.mean(dtype=np.float64)
    squares = np.square(centered)
    return float(np.square(squares).mean() / squares.mean() ** 2)


GROUP = Group(
    options=Options,
    metrics={
        "outliers/{texts}/ratio": Declared("paired", "exp"),
        "outliers/{texts}/kurtosis": Declared("paired", "exp"),
    },
    measure=measure,
    family="outliers",
    has_parts=True,
    capabilities=frozenset({"inputs"}),
    needs=lambda options: Needs(texts=dict.fromkeys(options.texts, options.n_ctx * options.windows)),
    length=("n_ctx",),
)
