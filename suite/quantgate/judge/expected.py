"""Absolute gates: what a value has to be whatever any baseline says. They judge from the first run on, and what fails
one can become no baseline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantgate.records import AGREEMENT, Metric, Status, Verdict

if TYPE_CHECKING:
    from quantgate.config.tolerances import Tolerance

_MOVED = (Status.REGRESSION, Status.CHANGED)


@dataclass(frozen=True)
class Limits:
    """The values that are right, from `low` to `high`; source: who says so, in words; width: how far from the expected
    value they may be."""

    low: float
    high: float
    source: str
    width: float = 0.0


def limits_of(tolerance: Tolerance | None, minimum: float | None = None) -> Limits | None:
    """By an entry with `expected`, or by a minimum that the scheme states; None: there is neither."""
    if minimum is not None:
        return Limits(
            minimum, float("inf"), f"at least {minimum:g} is what the scheme states (minimum_share)"
        )
    if tolerance is None or tolerance.expected is None:
        return None
    expected = tolerance.expected
    width = tolerance.absolute if tolerance.relative is None else tolerance.relative * abs(expected)
    width = width or 0.0
    reach = f", or at most {width:g} from it," if width else ""
    return Limits(expected - width, expected + width, f"{expected:g}{reach} is expected", width)


def held_to(
    limits: Limits, cell: str, name: str, measured: Metric, verdict: Verdict | None, reproduce: str = ""
) -> Verdict:
    """The verdict on a metric that has limits. verdict: what a comparison with the baseline says; None: it has none.

    Outside: `error`, and where the value also got worse than the baseline's, what that comparison says; either way
    `wrong` is set. Within: what the comparison says, or `pass`.
    """
    within = limits.low <= measured.value <= limits.high
    if within and verdict is not None:
        return verdict
    status = Status.PASS if within else Status.ERROR
    unit = "" if measured.unit in ("", "fraction") else f" {measured.unit}"
    text = f"{limits.source}, whatever the baseline"
    wrong = "" if within else f"{measured.value:.4g}{unit}, where {text}"
    if wrong and (says := measured.raw.get("says")):
        wrong = f"{wrong}: {says}"
    if verdict is not None and verdict.status in _MOVED:
        return verdict.model_copy(update={"wrong": wrong})
    return Verdict(
        cell=cell,
        metric=name,
        status=status,
        measured=measured.value,
        unit=measured.unit,
        tolerance=limits.width,
        change_unit="absolute",
        text=text if within else wrong,
        wrong=wrong,
        reproduce="" if within else reproduce,
    )


def why_refused(cell: str, verdicts: Iterable[Verdict]) -> list[str]:
    """Why a cell can become no baseline, whatever a person accepts: what it failed, and that its model's full-precision
    cells disagree, since then nobody knows which of its cells are right."""
    model = cell.partition("/")[0]
    reasons = []
    for verdict in verdicts:
        if verdict.wrong and verdict.cell == cell:
            reasons.append(f"{verdict.metric}: {verdict.wrong}")
        elif verdict.wrong and verdict.metric == AGREEMENT and verdict.cell.partition("/")[0] == model:
            reasons.append(f"{AGREEMENT} of {verdict.cell}: {verdict.wrong}")
    return reasons
