"""What the sample can show: the smallest change that a gate detects, computed before anything gets worse."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping
from typing import NamedTuple

from quantgate.config.tolerances import Tolerance, Tolerances
from quantgate.judge.statistics import (
    POWER,
    Change,
    detectable_flips,
    detectable_mean,
    effective_units,
    log_loss,
    relative_loss,
)
from quantgate.records import Metric

NOISY = {"paired", "level", "ratio", "rounds"}
"""Kinds of metrics whose gates can raise a false alarm."""

MOST = 1e9
"""The largest relative change that is reported: more than any model loses, and safe for a float."""

FAR = 10_000_000
"""Times a sample that nobody measures: it is not advised."""


def gate_level(
    tolerances: Tolerances,
    metrics: Mapping[str, Mapping[str, Metric]],
    anchored: Mapping[str, Collection[str]] | None = None,
) -> float:
    """Return the one-sided level of one gate, so that a run of all gates of `metrics` (by cell, by name) raises any
    false alarm with probability `run_alpha` at most, however the gates depend on each other: run_alpha / N, Bonferroni
    (Dunn, JASA 56 (1961) 52-64). anchored: by cell, the metrics that are compared with an anchor, too, which is another
    test of the same noise.

    Not counted and not covered are gates without a distribution to test by (README.md: One alarm rate for the run).
    """
    noisy = sum(
        1 + (name in (anchored or {}).get(cell, ()))
        for cell, of_cell in metrics.items()
        for name, metric in of_cell.items()
        if metric.kind in NOISY and tolerances.of(name, cell) is not None
    )
    return tolerances.run_alpha / max(1, noisy)


def detectable(name: str, cell: str, metric: Metric, tolerances: Tolerances, alpha: float) -> float | None:
    """Return the smallest change for the worse that the gate of `metric` detects with 95 % power, in the terms of its
    tolerance; None where it has no gate or no sampling noise.

    Paired metrics: in another environment than the baseline's, where differences between units are assumed to vary as
    much as the gate on reproduction allows; for answers see `statistics.detectable_flips`. Metrics measured in several
    processes: on both sides these vary by the tolerance's `noise`, on a log scale. Where the tolerance is wider than
    the result, a loss has to exceed the tolerance too.
    """
    tolerance = tolerances.of(name, cell)
    if tolerance is None or metric.kind not in NOISY:
        return None
    if metric.nested:
        count = metric.process_count
        if tolerance.noise is None or tolerance.relative is None or count < 2:
            return None  # the spread of a single process is unknown: it never shows a loss
        # Welch's test has between count - 1 and 2 (count - 1) degrees of freedom, by how alike the sides are.
        smallest = detectable_mean(tolerance.noise, count / 2, count - 1, alpha)
        return min(relative_loss(smallest, metric.better), MOST)
    harmless = tolerances.of_reproduction(name, cell)
    if metric.answers:
        change = detectable_flips(metric.unit_count, alpha)
    elif harmless is not None and harmless.absolute:
        units = effective_units(metric.weights) if metric.weights else metric.unit_count
        change = detectable_mean(harmless.absolute, units, metric.unit_count - 1, alpha)
    else:
        return None
    if tolerance.relative is None:
        return change
    if metric.link == "exp":
        return min(relative_loss(change, metric.better), MOST)
    return change / (abs(metric.value) or 1.0)


class Sensitivity(NamedTuple):
    """What the gates of a cell can detect. metrics: with the smallest detectable change of each; void: why gates can
    never turn red; narrow: why tolerances are smaller than what the sample can show; never: why other gates cannot
    turn red, for their tolerance or since a single process measured them."""

    metrics: dict[str, Metric]
    void: list[str]
    narrow: list[str]
    never: list[str]


def with_sensitivity(
    cell: str, metrics: Mapping[str, Metric], tolerances: Tolerances, alpha: float
) -> Sensitivity:
    """Return what the gates of these metrics can detect, and which ask too much of the sample.

    A tolerance that is narrower than what the sample can show promises nothing false: `judge` passes a metric only
    where the 95 % limit of a loss is within the tolerance, and is inconclusive otherwise; a loss of the size that the
    sample can show is red all the same, and that size is kept with the baseline. So this is a warning: refusing would
    leave a user with few items without any gate. A gate is void, and refused, where even `ruin` would go unseen: its
    case could only be green or skipped. Where the tolerance allows even that, a warning says so: the same tolerance is
    for better models, too; and so it does of a value that a single process measured, which a person may want to keep.
    """
    result = Sensitivity({}, [], [], [])
    for name, metric in metrics.items():
        smallest = detectable(name, cell, metric, tolerances, alpha)
        result.metrics[name] = metric.model_copy(update={"detectable": smallest})
        tolerance = tolerances.of(name, cell)
        if tolerance and smallest and (text := too_narrow(name, metric, tolerance, smallest, alpha)):
            void = smallest >= ruin(metric, tolerance)
            (result.void if void else result.narrow).append(text)
        elif tolerance and (text := too_wide(name, metric, tolerance) or alone(name, metric)):
            result.never.append(text)
    return result


def too_wide(name: str, metric: Metric, tolerance: Tolerance) -> str:
    """Return why a gate can never fail that allows to lose all of a value which cannot be worse than nothing; empty
    where it can."""
    limit = tolerance.limit(unchanged=False)
    bounded = metric.unit == "fraction"
    if tolerance.relative is not None:
        bounded = metric.better == "higher" and not metric.unit.startswith("nats")
    if not bounded or not 0 < (most := ruin(metric, tolerance)) <= limit:
        return ""
    return (
        f"{name}: the tolerance of {limit * 100:.3g} % allows to lose all of the {most * 100:.3g} % that there is: as "
        "it is, this gate can never fail; narrow the tolerance"
    )


def alone(name: str, metric: Metric) -> str:
    """Return why a gate of what varies from process to process can never fail: a single one measured it; empty: it
    can."""
    if not metric.nested or metric.process_count > 1:
        return ""
    return (
        f"{name}: a single process says nothing about noise: as it is, this gate can never fail; measure it in several "
        "(processes), or gate another metric"
    )


def ruin(metric: Metric, tolerance: Tolerance) -> float:
    """Return the loss of a model that is of no use any more, in the terms of the tolerance.

    Relative: doubled, or all of it. A share of answers: all right ones lost. Nats, lower is better: ln 2 per token,
    which doubles a perplexity. Nats, higher is better: the mean distance of items from undecided, after which no answer
    leads (without samples: infinite).
    """
    if tolerance.relative is not None:
        return 1.0
    if metric.unit == "fraction":
        return metric.value if metric.better == "higher" else 1 - metric.value
    if metric.better == "lower":
        return math.log(2)
    lead = math.fsum(map(abs, metric.samples or ())) / max(1, metric.unit_count)
    return lead or math.inf


def too_narrow(name: str, metric: Metric, tolerance: Tolerance, smallest: float | None, alpha: float) -> str:
    """Return why a tolerance is below `smallest`, the smallest change that the sample can show, and what would help;
    empty when it is not."""
    limit = tolerance.limit(unchanged=False)
    if smallest is None or limit >= smallest:
        return ""
    unit = " %" if tolerance.relative is not None or metric.unit == "fraction" else f" {metric.unit}"
    scale = 100 if unit == " %" else 1
    amount, noun = _amount(metric)
    elsewhere = " in another environment" if tolerance.here is not None else ""
    text = (
        f"{name}: the tolerance of {limit * scale:.3g}{unit}{elsewhere} is below {smallest * scale:.3g}{unit}, the "
        f"smallest loss that {amount:,} {noun} detect {POWER * 100:.0f} % of the time"
    )
    enough = _enough(metric, tolerance, smallest, alpha) if limit > 0 and smallest < MOST else math.inf
    if enough <= FAR * amount:
        text += f"; {enough:,} {noun} would do{_as_option(metric, enough / amount)}"
    return f"{text}: measure more in this tier, or widen the tolerance"


def what_would_do(measured: Metric, change: Change, share: float, alpha: float) -> str:
    """Return how large a sample would settle what this one cannot: of answers, to detect that this share of them is
    lost; of means, to detect a change of this size. Empty of other metrics, of a change or share of nothing, and where
    the sample is as large."""
    if measured.kind != "paired" or not measured.samples:
        return ""
    if measured.answers:
        return _answers_that_would_do(measured, share, alpha)
    units, size = measured.unit_count, abs(change.estimate)
    smallest = detectable_mean(change.se * math.sqrt(units), units, units - 1, alpha)
    if not 0 < size < smallest < math.inf:
        return ""
    enough = _enough_units(units, size / smallest, alpha) / units
    amount, noun = _amount(measured)
    return (
        f"; {math.ceil(amount * enough):,} {noun} detect a change of this size {POWER * 100:.0f} % of the time"
        f"{_as_option(measured, enough)}"
    )


def _answers_that_would_do(measured: Metric, share: float, alpha: float) -> str:
    if share <= 0:
        return ""
    amount = measured.unit_count
    enough = _enough_answers(amount, share, alpha)
    if enough <= amount:
        return ""
    return (
        f"; {enough:,} items detect a loss of {share * 100:.3g} points {POWER * 100:.0f} % of the time"
        f"{_as_option(measured, enough / amount)}"
    )


def _as_option(metric: Metric, factor: float) -> str:
    """Return the group option of the tier that makes the sample `factor` times as large."""
    if metric.nested:
        return f" (processes = {math.ceil(metric.process_count * factor)})"
    for key, option in {"windows": "windows", "items": "items", "decoded": "tokens"}.items():
        if isinstance(now := metric.conditions.get(key), int):
            return f" ({option} = {math.ceil(now * factor)} instead of {now}, if the data suffices)"
    return ""


def _amount(metric: Metric) -> tuple[int, str]:
    """Return the size of the sample and its unit."""
    if metric.nested:
        return metric.process_count, "processes"
    if metric.weights:
        whole = all(weight == 1 for weight in metric.weights)
        return round(sum(metric.weights)), "windows" if whole else "scored tokens"
    return metric.unit_count, "items"


def _enough(metric: Metric, tolerance: Tolerance, smallest: float, alpha: float) -> int:
    """Return how large a sample would show a change as small as the tolerance."""
    amount, _ = _amount(metric)
    limit = tolerance.limit(unchanged=False)
    if metric.answers:
        share = limit if tolerance.relative is None else limit * (abs(metric.value) or 1.0)
        return _enough_answers(amount, share, alpha)
    units = metric.process_count if metric.nested else metric.unit_count
    if tolerance.relative is not None and (metric.link == "exp" or metric.nested):
        # The log scale, on which errors shrink with the square root of n.
        limit, smallest = log_loss(limit, metric.better), log_loss(smallest, metric.better)

    return math.ceil(amount * _enough_units(units, limit / smallest, alpha) / units)


def _enough_units(units: int, share: float, alpha: float) -> int:
    """Return how many units detect this share of what `units` detect."""

    def width(n: int) -> float:
        return detectable_mean(1.0, n, n - 1, alpha)

    goal = width(units) * share
    most = 2 * math.ceil(units / share**2)  # more units also mean more degrees of freedom
    return units + bisect_left(range(units, most), True, key=lambda n: width(n) <= goal)


def _enough_answers(least: int, share: float, alpha: float) -> int:
    """Return the number of answers, `least` or more, of which a loss of this share is detected."""
    counts = range(least, 10**7)
    return least + bisect_left(counts, True, key=lambda n: detectable_flips(n, alpha) <= share)
