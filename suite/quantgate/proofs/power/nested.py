"""Replays of timings and peaks: processes of recorded runs drawn anew, an effect multiplied in.

A process is a `Measurement` of it alone; the gate's own `merge` makes one of several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from quantgate.errors import InputError
from quantgate.records import Measurement, Metric

Run = Sequence[Measurement]
"""The processes of one cell in one run, in the order in which they ran."""


def split(record: Measurement, group: str) -> list[Measurement]:
    """Return a measurement for each process that measured the group's nested metrics; `merge` inverts it."""
    nested = {n: m for n, m in record.metrics.items() if m.nested and n.startswith(f"{group}/")}
    parts: list[dict[str, Metric]] = []
    for name, metric in nested.items():
        for number, one in enumerate(_alone(metric)):
            if number == len(parts):
                parts.append({})
            parts[number][name] = one
    return [record.model_copy(update={"metrics": part}) for part in parts]


def _alone(metric: Metric) -> Iterator[Metric]:
    """Yield the metric of each process."""
    samples = metric.samples or [metric.value]
    sizes = (metric.processes or [len(samples)]) if metric.kind == "rounds" else [1] * len(samples)
    values = metric.per_process
    for i, (a, b) in enumerate(pairwise([0, *accumulate(sizes)])):
        raw = {
            key: value[i : i + 1] if isinstance(value, list) else value for key, value in metric.raw.items()
        }
        update: dict[str, Any] = {"samples": samples[a:b], "value": values[i], "raw": raw}
        if metric.kind == "rounds":
            update["processes"] = [b - a]
        yield metric.model_copy(update=update)


def times(record: Measurement, factor: float) -> Measurement:
    """Multiply every duration or peak by `factor`, and divide every rate by it."""
    return record.model_copy(update={"metrics": {n: _times(m, factor) for n, m in record.metrics.items()}})


def _times(metric: Metric, factor: float) -> Metric:
    rate = metric.kind == "rounds" and metric.better == "higher"
    return metric.model_copy(
        update={
            "samples": [sample * factor for sample in metric.samples or ()],
            "value": metric.value / factor if rate else metric.value * factor,
        }
    )


def spread_out(run: Run) -> list[Measurement]:
    """Stretch the distance of the n processes from their geometric mean by sqrt(n / (n - 1)), so that draws with
    replacement vary as much as the unbiased estimate of the variance says. A single process stays as it is."""
    more = math.sqrt(len(run) / (len(run) - 1)) - 1 if len(run) > 1 else 0.0
    centres = {
        name: math.fsum(_log(part.metrics[name]) for part in run) / len(run) for name in run[0].metrics
    }
    return [
        part.model_copy(
            update={
                "metrics": {
                    name: _times(metric, math.exp(more * (_log(metric) - centres[name])))
                    for name, metric in part.metrics.items()
                }
            }
        )
        for part in run
    ]


def _log(metric: Metric) -> float:
    """Return the logarithm of the duration or peak of a single process."""
    return math.log(metric.medians[0] if metric.kind == "rounds" else metric.value)


def neighbours(
    run: Run, count: int, random: np.random.Generator
) -> tuple[list[Measurement], list[Measurement]]:
    """Draw both sides of an A/B run of equal environments, `count` processes each. A pair is two processes that ran one
    after the other, in random roles, or a recorded pair where processes took turns; process i of one side is paired
    with process i of the other.

    Raises InputError for fewer than four recorded processes.
    """
    if len(run) < 4:
        raise InputError(f"an A/B is replayed from four recorded processes or more, not from {len(run)}")
    matched = any(metric.in_turns for metric in run[0].metrics.values())
    firsts = (
        2 * random.integers(len(run) // 2, size=count)
        if matched
        else random.integers(len(run) - 1, size=count)
    )
    turned = random.integers(2, size=count)
    return [run[i + t] for i, t in zip(firsts, turned, strict=True)], [
        run[i + 1 - t] for i, t in zip(firsts, turned, strict=True)
    ]


def two_sides(count: int, random: np.random.Generator) -> tuple[list[int], list[int]]:
    """Return the numbers of the runs that a baseline and a later measurement are drawn from, nearest first. With two or
    more runs, the two sides have none in common."""
    first, *rest = random.permutation(count).tolist()
    return [first], rest or [first]


def draw(runs: Sequence[Run], count: int, random: np.random.Generator) -> list[Measurement]:
    """Draw `count` different processes from the first run and, where it has too few, from the next ones.

    Raises InputError where all together have too few.
    """
    drawn: list[Measurement] = []
    for run in runs:
        drawn += [run[i] for i in random.permutation(len(run))]
        if len(drawn) >= count:
            return drawn[:count]
    raise InputError(f"{len(drawn)} recorded processes are too few to draw {count} different ones")


def as_ab(record: Measurement) -> Measurement:
    """Return the record with its metrics marked as those of an A/B run."""
    return record.model_copy(
        update={"metrics": {n: m.model_copy(update={"beside": "replay"}) for n, m in record.metrics.items()}}
    )
