"""Metrics of several processes, made up or drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from quantgate.config.tolerances import Tolerance
from quantgate.records import Metric

ALPHA = 0.01

TIGHT = Tolerance(metric="throughput/decode", relative=0.025)


def timed(
    seconds: list[list[float]], *, better: str = "higher", beside: str | None = None, **changes: Any
) -> Metric:
    """Rounds by process; a round processes 100 tokens."""
    middle = float(np.median([np.median(process) for process in seconds]))
    fields = {
        "kind": "rounds",
        "value": 100 / middle if better == "higher" else middle,
        "unit": "tokens/s",
        "better": better,
        "samples": [second for process in seconds for second in process],
        "processes": [len(process) for process in seconds],
        "beside": beside,
    }
    return Metric.model_validate(fields | changes)


def level(values: list[float], **changes: Any) -> Metric:
    fields = {"kind": "level", "value": float(np.median(values)), "unit": "bytes", "better": "lower"}
    return Metric.model_validate(fields | {"samples": values} | changes)


def drawn(
    source: np.random.Generator, processes: int, *, between: float, within: float, factor: float = 1.0
) -> list[list[float]]:
    """Three rounds in each process, about half a second; deviations are of the logarithm."""
    return [
        [factor * 0.5 * math.exp(shift + source.normal(0, within)) for _ in range(3)]
        for shift in source.normal(0, between, processes)
    ]
