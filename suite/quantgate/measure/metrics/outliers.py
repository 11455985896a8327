"""Outliers among the inputs of the linear layers: what makes activations hard to round, and calibration sets matter.

As Paglieri et al., Outliers and Calibration Sets have Diminishing Effect on Quantization of Modern LLMs (2024), arXiv
2405.20835, look at them: by layer, the largest magnitude beside the median one, and kurtosis.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from quantgate.backends.base import ShowsInputs
from quantgate.errors import MeasurementError
from quantgate.jobs import Needs
from quantgate.measure.groups import Group
from quantgate.measure.session import Session
from quantgate.records import Declared, Metric, Record


class Options(Record):
    """texts: names in tasks.toml. n_ctx: tokens of a window."""

    texts: list[str] = Field(min_length=1)
    n_ctx: int = Field(default=256, ge=8)
    windows: int = Field(default=4, ge=2)


def needs(options: Options) -> Needs:
    """The tokens that the windows take."""
    return Needs(texts=dict.fromkeys(options.texts, options.n_ctx * options.windows))


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """For each text `outliers/<text>/ratio`: the largest magnitude among a layer's inputs in a window over
    the median one; `outliers/<text>/kurtosis`: of all of them, 3 for a normal distribution. Values are
    geometric means of all layers and windows, samples the mean logarithms of windows; `raw` has a value for
    each layer."""
    options = session.options("outliers", Options)
    backend = session.backend
    if not isinstance(backend, ShowsInputs):
        raise MeasurementError(
            "this backend does not show the inputs of its layers: leave its cells out of the tier, or the metric"
        )
    metrics: dict[str, Metric] = {}
    names = [t for t in options.texts if t in parts or not parts]
    for number, name in enumerate(names):
        text = session.text(name)
        found: dict[str, dict[str, list[float]]] = {"ratio": defaultdict(list), "kurtosis": defaultdict(list)}

        def look(
            layer: str, inputs: NDArray[np.float32], found: dict[str, dict[str, list[float]]] = found
        ) -> None:
            found["ratio"][layer].append(largest_to_median(inputs))
            found["kurtosis"][layer].append(kurtosis(inputs))

        for window in range(options.windows):
            begin = window * options.n_ctx
            backend.inputs(text.ids[begin : begin + options.n_ctx], look)
            session.progress(number + (window + 1) / options.windows, len(names))
        conditions = {
            "source": session.source_hash,
            "tokens": text.hash,
            "text": name,
            "n_ctx": options.n_ctx,
            "windows": options.windows,
        }
        for statistic, layers in found.items():
            logs = np.log(np.array(list(layers.values()))).mean(axis=0)
            value = math.exp(logs.mean())
            metrics[f"outliers/{name}/{statistic}"] = Metric(
                kind="paired",
                value=value,
                unit="",
                better="lower",
                link="exp",
                stderr=value * float(np.std(logs, ddof=1) / math.sqrt(len(logs))),
                samples=logs.tolist(),
                weights=[1.0] * len(logs),
                conditions=dict(conditions),
                raw={"layers": {layer: float(np.exp(np.mean(np.log(v)))) for layer, v in layers.items()}},
            )
    return metrics


def largest_to_median(values: NDArray[np.float32]) -> float:
    """Largest magnitude over the median one. Raises MeasurementError where half of the values are zero."""
    magnitudes = np.abs(values)
    middle = float(np.median(magnitudes))
    if not middle > 0:
        raise MeasurementError(
            "the median magnitude among a layer's inputs is 0 or no number: broken weights"
        )
    return float(magnitudes.max()) / middle


def kurtosis(values: NDArray[np.float32]) -> float:
    """Fourth central moment over the square of the second (Pearson's), of all values together."""
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
    needs=needs,
    length=("n_ctx",),
)
