"""Merge the records of several processes of one cell. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from quantgate.errors import MeasurementError
from quantgate.records import Measurement, Metric, added


def merge(parts: Sequence[Measurement]) -> Measurement:
    """Merge the records of a cell's processes, given in the order in which they ran.

    Nested metrics (timings, peaks) take the samples of all processes; any other is that of the first process that has
    it. Identity, time and environment are the first record's; wall times add up. Raises MeasurementError where
    processes of equal work disagree in what must not vary.
    """
    names = dict.fromkeys(name for part in parts for name in part.metrics)
    return parts[0].model_copy(
        update={
            "notes": {about: note for part in parts for about, note in part.notes.items()},
            "requests": list(dict.fromkeys(r for part in parts for r in part.requests)),
            "seconds": sum(part.seconds for part in parts),
            "phases": added([part.phases for part in parts]),
            "forward": added([part.forward for part in parts]),
            "scoring": added([part.scoring for part in parts]),
            "unmeasured": {group: why for part in parts for group, why in part.unmeasured.items()},
            "metrics": {n: _merged(n, [p.metrics[n] for p in parts if n in p.metrics]) for n in names},
        }
    )


def _merged(name: str, metrics: Sequence[Metric]) -> Metric:
    first = metrics[0]
    for other in metrics[1:]:
        if other.conditions != first.conditions or (first.kind == "exact" and other.value != first.value):
            raise MeasurementError(
                f"{name} differs between two processes of equal work: "
                f"{first.value:g} {first.conditions}, then {other.value:g} {other.conditions}"
            )
    if len(metrics) == 1 or not first.nested:
        return first
    update: dict[str, Any] = {
        "samples": [sample for metric in metrics for sample in metric.samples or [metric.value]],
        "raw": _raw([metric.raw for metric in metrics]),
    }
    if first.kind == "rounds":
        update["processes"] = [n for m in metrics for n in m.processes or [len(m.samples or ())]]
        update["in_turns"] = all(metric.in_turns for metric in metrics)
        seconds = statistics.median(median for metric in metrics for median in metric.medians)
        work = first.value * statistics.median(first.medians)  # tokens, where the value is a rate
        update["value"] = work / seconds if first.better == "higher" else seconds
    else:
        update["value"] = statistics.median(update["samples"])
    return first.model_copy(update=update)


def _raw(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the lists, which have an entry per process; the rest is the same in all."""
    return {
        key: [entry for part in parts for entry in part.get(key, [])] if isinstance(value, list) else value
        for key, value in parts[0].items()
    }
