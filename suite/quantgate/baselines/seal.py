"""Whether a metric of a baseline is still the one that was written: detects values edited by hand, and merges by lines
that put the value of one update beside the samples of another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from quantgate.files import hash_of
from quantgate.records import Estimate, Metric, Scalar

CLOSE = 1e-9
"""The relative error that the order of a sum may cause."""


def seal_of(metric: Metric, conditions: Mapping[str, Scalar] | None = None) -> str:
    """Return a hash of everything that the summary says about the metric. It is kept in the raw file, whose own hash is
    in the summary. conditions: as they are written there, if they differ from the metric's."""
    estimate = metric.model_dump(include=set(Estimate.model_fields))
    written = metric.conditions if conditions is None else conditions
    return hash_of([estimate, sorted((key, repr(value)) for key, value in written.items())])


def inconsistency(metric: Metric, seal: str | None, conditions: Mapping[str, Scalar] | None = None) -> str:
    """Return what in the summary does not fit the raw file, whose name is to follow; empty where everything fits.

    seal: from the raw file; None: the file is older than seals, and values are compared with their samples alone.
    conditions: as in `seal_of`.
    """
    if expected := _expected_by_samples(metric):
        return f"value = {metric.value!r}, but {expected} by the samples in"
    if seal is not None and seal != seal_of(metric, conditions):
        return f"its line (value = {metric.value!r}) or its conditions are not those that were written with"
    return ""


def _expected_by_samples(metric: Metric) -> str:
    """Return the value that the samples give; empty where it is the metric's, or where the samples do not tell."""
    if not (samples := metric.samples):
        return ""
    if metric.kind == "ratio":  # of two medians: between the lowest and the highest ratio
        low, high = min(samples), max(samples)
        return "" if low * (1 - CLOSE) <= metric.value <= high * (1 + CLOSE) else f"{low!r} to {high!r}"
    value, scale = _of_samples(metric, samples)
    if value is None or math.isclose(metric.value, value, rel_tol=CLOSE, abs_tol=CLOSE * scale):
        return ""
    return repr(value)


def _of_samples(metric: Metric, samples: list[float]) -> tuple[float | None, float]:
    """Return the value that the samples give, and the size of what was added up for it."""
    if metric.kind == "level":
        return statistics.median(samples), 0.0
    if metric.kind == "rounds":
        seconds, tokens = statistics.median(metric.medians), metric.raw.get("tokens")
        if metric.better == "lower":
            return seconds, 0.0
        return (tokens / seconds if isinstance(tokens, int) and seconds else None), 0.0
    if metric.kind != "paired":
        return None, 0.0
    weights = metric.weights or [1.0] * len(samples)
    total = math.fsum(weights)
    if len(weights) != len(samples) or not total:
        return math.nan, 0.0
    products = [w * s for w, s in zip(weights, samples, strict=True)]
    mean, scale = math.fsum(products) / total, math.fsum(map(abs, products)) / total
    if metric.link == "identity":
        return mean, scale
    return (math.exp(mean) if mean < 709 else math.inf), scale * metric.value
