"""Metrics and tolerances, made up for the judge."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from quantgate.config.tolerances import Tolerance
from quantgate.judge.judge import Subject, judge
from quantgate.records import Metric, Verdict

CELL = "smollm2-135m/llamacpp/Q4_K_M"

ALPHA = 0.001

ONE_PERCENT = Tolerance(metric="perplexity", relative=0.01, noise=0.05)

OLD = [3.10, 2.71, 3.52, 3.30, 2.95, 3.05, 3.61, 3.22]

"""Negative log-likelihood per token of eight windows."""

JITTER = [0.001, -0.002, 0.0015, 0.0, -0.001, 0.002, -0.0005, 0.0005]


def perplexity(samples: list[float], **changes: Any) -> Metric:
    fields: dict[str, Any] = {
        "kind": "paired",
        "value": math.exp(sum(samples) / len(samples)),
        "unit": "",
        "better": "lower",
        "link": "exp",
        "samples": samples,
        "weights": [511.0] * len(samples),
        "conditions": {"source": "w1", "tokens": "t1", "n_ctx": 512},
    }
    return Metric(**fields | changes)


def grown(by: float) -> list[float]:
    """Perplexity larger by a share, a little differently in each window."""
    return [x + math.log1p(by) + j for x, j in zip(OLD, JITTER, strict=True)]


def accuracy(right: list[int], **changes: Any) -> Metric:
    samples = [float(x) for x in right]
    fields: dict[str, Any] = {
        "kind": "paired",
        "value": sum(samples) / len(samples),
        "unit": "fraction",
        "better": "higher",
        "samples": samples,
        "answers": True,
    }
    return Metric(**fields | changes)


def rounds(seconds: list[float], better: str = "higher", **changes: Any) -> Metric:
    """One round in each process."""
    median = float(np.median(seconds))
    fields = {
        "kind": "rounds",
        "value": 100 / median if better == "higher" else median,
        "unit": "tokens/s",
        "better": better,
        "samples": seconds,
        "processes": [1] * len(seconds),
    }
    return Metric.model_validate(fields | changes)


def plain(value: float, better: str = "lower") -> Metric:
    return Metric.model_validate({"kind": "exact", "value": value, "unit": "bytes", "better": better})


def level(value: float, better: str = "lower", kind: str = "level") -> Metric:
    """In three processes that hardly differ."""
    fields = {"kind": kind, "value": value, "unit": "bytes", "better": better}
    return Metric.model_validate({**fields, "samples": [0.999 * value, value, 1.001 * value]})


def judged(
    measured: Metric, baseline: Metric | None, tolerance: Tolerance = ONE_PERCENT, alpha: float = ALPHA
) -> Verdict:
    verdict = judge(Subject(CELL, tolerance.metric), measured, baseline, tolerance, alpha)
    return Verdict.model_validate(verdict.model_dump())  # NaN and infinity are refused here


def relative(limit: float, **more: Any) -> Tolerance:
    return Tolerance(metric="some/metric", relative=limit, **more)


def absolute(limit: float, **more: Any) -> Tolerance:
    return Tolerance(metric="some/metric", absolute=limit, **more)


FAST, SLOW = [0.500, 0.502, 0.499, 0.501, 0.500], [0.625, 0.627, 0.624, 0.626, 0.625]
