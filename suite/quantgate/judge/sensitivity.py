"""What the sample can see: the smallest change that a gate detects, known before anything gets worse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from quantgate.config.tolerances import Tolerance, Tolerances
from quantgate.judge.statistics import POWER, detectable_flips, detectable_mean, effective_units, growth
from quantgate.records import Metric

NOISY = {"paired", "level", "ratio", "rounds"}
"""Kinds of metrics whose gates can raise a false alarm."""


MOST = 1e9
"""As a growth: everything above it is more than any model loses, and a float may not hold it."""


def gate_level(tolerances: Tolerances, metrics: Mapping[str, Mapping[str, Metric]]) -> float:
    """One-sided level of one gate, so that a run of all gates of `metrics` (by cell, by name) raises any false
    alarm with a chance of `run_alpha` at most, however the gates depend on each other: run_alpha / N, Bonferroni
    (Dunn, JASA 56 (1961) 52-64).

    Neither counted nor covered: gates without a distribution to test by. Reproduction, quantiles and root mean squares
    (kind `exact`) and exact values repeat to the last digit where nothing has changed, and cannot raise one there; in
    another environment their limits are about twice what was seen between processors and builds, and no chance is
    claimed for them."""
    noisy = sum(
        metric.kind in NOISY and tolerances.of(name, cell) is not None
        for cell, found in metrics.items()
        for name, metric in found.items()
    )
    return tolerances.run_alpha / max(1, noisy)


def detectable(name: str, cell: str, metric: Metric, tolerances: Tolerances, alpha: float) -> float | None:
    """Smallest change for the worse that the gate of `metric` detects with a power of 95 %, in the terms of its
    tolerance; None where it has no gate or no sampling noise.

    Paired metrics: in another environment than the baseline's, where differences between units vary as much as the
    gate on reproduction lets harmless ones vary (`statistics.detectable_mean`); flips:
    `statistics.detectable_flips`. Measured in several processes: they vary by the tolerance's `noise`, on a log
    scale, on both sides. Where the tolerance is wider, a loss has to be beyond that too.
    """
    tolerance = tolerances.of(name, cell)
    samples = metric.samples or []
    if tolerance is None or metric.kind not in NOISY:
        return None
    if metric.kind != "paired":
        if tolerance.noise is None or tolerance.relative is None:
            return None
        if (count := metric.process_count) < 2:
            return None  # the spread of one process is not known: it never shows a loss
        # Welch's test has between count - 1 and 2 (count - 1) degrees of freedom, by how alike the sides are.
        return min(growth(detectable_mean(tolerance.noise, count / 2, count - 1, alpha)), MOST)
    if metric.answers:
        change = detectable_flips(len(samples), alpha)
    else:
        harmless = tolerances.of_reproduction(name, cell)
        if harmless is None or not harmless.absolute:
            return None
        units = effective_units(metric.weights) if metric.weights else len(samples)
        change = detectable_mean(harmless.absolute, units, len(samples) - 1, alpha)
    if tolerance.relative is None:
        return change
    return min(growth(change), MOST) if metric.link == "exp" else change / (abs(metric.value) or 1.0)


class Sensitivity(NamedTuple):
    """What the gates of a cell can detect. metrics: with the smallest change of each. void: gates that can never turn
    red; narrow: tolerances that ask for more than the sample shows; both in words."""

    metrics: dict[str, Metric]
    void: list[str]
    narrow: list[str]


def with_sensitivity(
    cell: str, metrics: Mapping[str, Metric], tolerances: Tolerances, alpha: float
) -> Sensitivity:
    """What the gates of these metrics can detect, and which ask too much of the sample.

    A tolerance narrower than what the sample shows is no false promise: `judge` passes a metric only where the 95 %
    limit of a loss is within the tolerance, and is inconclusive otherwise; a loss of the size that the sample shows is
    red all the same, and that size stands with the baseline. So it is worth a warning: refused, a user who has few
    items would be left without any gate. A gate is void, and refused, where even `ruin` would go unseen: its case can
    only ever be green or skipped, and looks like a gate.
    """
    found = Sensitivity({}, [], [])
    for name, metric in metrics.items():
        smallest = detectable(name, cell, metric, tolerances, alpha)
        found.metrics[name] = metric.model_copy(update={"detectable": smallest})
        tolerance = tolerances.of(name, cell)
        if tolerance and smallest and (text := too_narrow(name, metric, tolerance, smallest, alpha)):
            void = smallest >= ruin(metric, tolerance)
            (found.void if void else found.narrow).append(text)
    return found


def ruin(metric: Metric, tolerance: Tolerance) -> float:
    """The loss of a model that is of no use any more, in the terms of the tolerance. A gate that sees only more than
    that sees nothing.

    Relative: doubled, or all of it. A share of answers: all right ones lost. Nats: where less is better, ln 2 a token,
    which doubles a perplexity; where more is better, as far as items are from undecided in the mean, after which no
    answer leads (not known before anything is measured: then without bound).
    """
    if tolerance.relative is not None:
        return 1.0
    if metric.unit == "fraction":
        return metric.value if metric.better == "higher" else 1 - metric.value
    if metric.better == "lower":
        return math.log(2)
    lead = math.fsum(map(abs, metric.samples or ())) / max(1, len(metric.samples or ()))
    return lead or math.inf


def too_narrow(name: str, metric: Metric, tolerance: Tolerance, found: float | None, alpha: float) -> str:
    """Why a tolerance asks more of the sample than it can show, and what would do; empty when it does not."""
    limit = tolerance.limit(unchanged=False)
    if found is None or limit >= found:
        return ""
    unit = " %" if tolerance.relative is not None or metric.unit == "fraction" else f" {metric.unit}"
    scale = 100 if unit == " %" else 1
    amount, noun = _amount(metric)
    text = (
        f"{name}: a tolerance of {limit * scale:.3g}{unit} is below what {amount:,} {noun} can show "
        f"({found * scale:.3g}{unit}, found {POWER:.0%} of the time)"
    )
    if limit > 0 and found < MOST:
        enough = _enough(metric, tolerance, found, alpha)
        text += f"; {enough:,} {noun} would do{_as_option(metric, enough / amount)}"
    return f"{text}; measure more (matrix.toml), or widen it (tolerances.toml)"


def _as_option(metric: Metric, factor: float) -> str:
    """How much `factor` times as much is, as the option of the tier that says it."""
    if metric.kind != "paired":
        return f" (processes = {math.ceil(metric.process_count * factor)})"
    for key, option in {"windows": "windows", "items": "items", "decoded": "tokens"}.items():
        if isinstance(now := metric.conditions.get(key), int):
            return f" ({option} = {math.ceil(now * factor)} in place of {now})"
    return ""


def _amount(metric: Metric) -> tuple[int, str]:
    if metric.weights:
        whole = all(weight == 1 for weight in metric.weights)
        return round(sum(metric.weights)), "windows" if whole else "scored tokens"
    return (
        (len(metric.samples or ()), "items")
        if metric.kind == "paired"
        else (metric.process_count, "processes")
    )


def _enough(metric: Metric, tolerance: Tolerance, found: float, alpha: float) -> int:
    amount, _ = _amount(metric)
    limit = tolerance.limit(unchanged=False)
    if metric.kind == "paired" and metric.answers:
        low, high = amount, 10**7
        share = limit if tolerance.relative is None else limit * (abs(metric.value) or 1.0)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if detectable_flips(middle, alpha) <= share else (middle + 1, high)
        return low
    units = len(metric.samples or ()) if metric.kind == "paired" else metric.process_count
    if tolerance.relative is not None and (metric.link == "exp" or metric.kind != "paired"):
        limit, found = (
            math.log1p(limit),
            math.log1p(found),
        )  # the scale on which errors fall with the root of n

    def width(n: int) -> float:
        return detectable_mean(1.0, n, n - 1, alpha)

    goal = width(units) * limit / found
    low, high = units, 2 * math.ceil(units * (found / limit) ** 2)  # more units, and more degrees of freedom
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if width(middle) <= goal else (middle + 1, high)
    return math.ceil(amount * low / units)
