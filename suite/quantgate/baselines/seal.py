"""Whether a metric of a baseline is still the one that was written: nobody edits a value by hand, and no merge by lines
puts the value of one update beside the samples of another."""

from __future__ import annotations

import math
import statistics

from quantgate.files import hash_of
from quantgate.records import Estimate, Metric

CLOSE = 1e-9
"""What the order of a sum may make of it."""


def seal_of(metric: Metric) -> str:
    """A hash of all that the summary says of the metric; it is kept in the raw file, whose own hash the summary has."""
    estimate = metric.model_dump(include=set(Estimate.model_fields))
    return hash_of([estimate, sorted((key, repr(value)) for key, value in metric.conditions.items())])


def inconsistency(metric: Metric, seal: str | None) -> str:
    """What of the summary does not fit the raw file, whose name is to follow; empty where all does. seal: of the raw
    file; None: it was written before there were any, and values are held against their samples alone."""
    if expected := _unlike_samples(metric):
        return f"value = {metric.value!r}, but {expected} by the samples in"
    if seal is not None and seal != seal_of(metric):
        return f"its line (value = {metric.value!r}) or its conditions are not those that were written with"
    return ""


def _unlike_samples(metric: Metric) -> str:
    """What the value would be by the samples; empty where it is that, or where samples do not say."""
    samples = metric.samples
    if not samples:
        return ""
    if metric.kind == "ratio":  # of two medians: between the lowest and the highest ratio
        low, high = min(samples), max(samples)
        return "" if low * (1 - CLOSE) <= metric.value <= high * (1 + CLOSE) else f"{low!r} to {high!r}"
    value, scale = _of_samples(metric, samples)
    if value is None or math.isclose(metric.value, value, rel_tol=CLOSE, abs_tol=CLOSE * scale):
        return ""
    return repr(value)


def _of_samples(metric: Metric, samples: list[float]) -> tuple[float | None, float]:
    """The value that the samples give, and how large what was added up is."""
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
    mean = math.fsum(w * s for w, s in zip(weights, samples, strict=True)) / total
    scale = math.fsum(abs(w * s) for w, s in zip(weights, samples, strict=True)) / total
    if metric.link == "identity":
        return mean, scale
    return (math.exp(mean) if mean < 709 else math.inf), scale * metric.value
