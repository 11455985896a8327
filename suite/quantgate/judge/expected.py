"""Absolute gates: the value that a metric has to have whatever any baseline says. They judge from the first run on, and
a value that fails one cannot become a baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from quantgate.config.tolerances import Tolerance
from quantgate.records import AGREEMENT, MOVED, Metric, Status, Verdict


@dataclass(frozen=True)
class Limits:
    """The values that are right, from `low` to `high`. text: what is expected; width: how far from the expected value
    they may be."""

    low: float
    high: float
    text: str
    width: float = 0.0


def limits_of(tolerance: Tolerance | None, minimum: float | None = None) -> Limits | None:
    """Return the limits of an entry with `expected`, or of a minimum that the scheme states; None: there are none."""
    if minimum is not None:
        return Limits(minimum, math.inf, f"expected at least {minimum:g} (minimum_share of the scheme)")
    if tolerance is None or tolerance.expected is None:
        return None
    expected = tolerance.expected
    width = tolerance.limit(unchanged=False) * (1.0 if tolerance.relative is None else abs(expected))
    within = f" within {width:g}" if width else ""
    return Limits(expected - width, expected + width, f"expected {expected:g}{within}", width)


def held_to(limits: Limits, cell: str, name: str, measured: Metric, verdict: Verdict | None) -> Verdict:
    """Return the verdict on a metric that has limits. verdict: the result of the comparison with the baseline; None:
    there was none.

    Within the limits it is that of the comparison, or `pass`. Outside it is `error`, or that of the comparison where
    the value also got worse; either way `wrong` is set.
    """
    within = limits.low <= measured.value <= limits.high
    if within and verdict is not None:
        return verdict
    unit = "" if measured.unit in ("", "fraction") else f" {measured.unit}"
    text = f"{limits.text}, regardless of the baseline"
    wrong = "" if within else f"measured {measured.value:.4g}{unit}, {text}"
    if wrong and (details := measured.raw.get("says")):
        wrong = f"{wrong}: {details}"
    if verdict is not None and verdict.status in MOVED:
        return verdict.model_copy(update={"wrong": wrong})
    return Verdict(
        cell=cell,
        metric=name,
        status=Status.PASS if within else Status.ERROR,
        measured=measured.value,
        unit=measured.unit,
        tolerance=limits.width,
        change_unit="absolute",
        text=wrong or text,
        wrong=wrong,
    )


def why_refused(cell: str, verdicts: Iterable[Verdict]) -> list[str]:
    """Return why a cell cannot become a baseline, whatever a person accepts: the absolute gates that it failed, and a
    disagreement of its model's full-precision cells, since then nobody knows which of its cells are right.

    verdicts: those of the cell's model; more do no harm.
    """
    model = cell.partition("/")[0]
    reasons = []
    for verdict in verdicts:
        if verdict.wrong and verdict.cell == cell:
            reasons.append(f"{verdict.metric}: {verdict.wrong}")
        elif verdict.wrong and verdict.metric == AGREEMENT and verdict.cell.partition("/")[0] == model:
            reasons.append(f"{AGREEMENT} of {verdict.cell}: {verdict.wrong}")
    return reasons
