"""The second look at a timing or a memory peak that seems worse: it is measured again in fresh processes before it is
called a regression. In an A/B run the same holds for one that seems better, before it is called an improvement.

False alarms stay at most as frequent as the gate's level alpha says:

- A/B: both sides are measured anew. The two stages are independent, and each is judged at sqrt(alpha). Both must say
  `regression` (or both `improvement`), which happens by chance with probability alpha at most.
- Stored baseline: it stays as it is, so a second look at it is not independent of the first. The second stage judges
  all processes of this run together, the first and the fresh ones, at alpha. The fresh ones alone must be worse by more
  than the tolerance as well, so that one bad minute is not enough. Since the verdict on all processes at alpha is
  required, the additional condition cannot raise the chance above alpha. How far Welch's test keeps that level where
  the two sides spread unequally, and what the tolerance adds: README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantgate.judge.anchor import measured_name
from quantgate.judge.compare import Comparison, Covers, Rules, verdicts
from quantgate.records import Metric, Status, Verdict
from quantgate.words import comparison as figures_of

DECIDED = (Status.REGRESSION, Status.IMPROVEMENT)
RED = (Status.REGRESSION, Status.DRIFT)


@dataclass(frozen=True)
class MoreProcesses:
    """Second look against a stored baseline. together: the first processes and the fresh ones; fresh: those alone."""

    together: Comparison
    fresh: Comparison


@dataclass(frozen=True)
class FreshPairs:
    """Second look of an A/B run: both sides measured anew, without the processes of the first look."""

    pairs: Comparison


SecondLook = MoreProcesses | FreshPairs


def needs_second_look(first: Sequence[Verdict], comparison: Comparison, rules: Rules) -> bool:
    """Return whether fresh processes have to confirm a verdict."""
    return any(_suspicious(v, _metric(comparison, v), rules.against) for v in first)


def confirmed(
    first: Sequence[Verdict],
    comparison: Comparison,
    look: SecondLook,
    covers: Covers,
    rules: Rules,
) -> list[Verdict]:
    """Return the verdicts of `first` on `comparison` as the second look leaves them."""
    against = isinstance(look, FreshPairs)
    second, fresh = (look.pairs, None) if isinstance(look, FreshPairs) else (look.together, look.fresh)
    later = {v.metric: v for v in verdicts(second, covers, rules)}
    alone = {v.metric: v for v in verdicts(fresh, covers, rules)} if fresh else {}
    settled = []
    for verdict in first:
        metric, again = _metric(comparison, verdict), later.get(verdict.metric)
        if metric is None or again is None or not _suspicious(verdict, metric, against):
            settled.append(verdict)
            continue
        same = again.status == verdict.status if against else again.status in RED
        figures = ", ".join(figures_of(again)[1:3]) or again.status
        text = ""
        if against and not same and again.status in DECIDED:
            text = f"first {verdict.status}, then {again.status}: the machine is too noisy to tell"
        elif same and not against and not _worse(alone.get(verdict.metric, again), metric):
            same = False
            text = "the first processes were worse by more than the tolerance, the fresh ones were not"
        if text:
            again = again.model_copy(update={"status": Status.INCONCLUSIVE, "text": text})
        result = f"measured again in fresh processes: {'' if same else 'not '}confirmed ({figures})"
        final = verdict if same and against else again
        settled.append(final.model_copy(update={"confirmed": result}))
    return settled


def unconfirmed(first: Sequence[Verdict], comparison: Comparison, rules: Rules, why: str) -> list[Verdict]:
    """Return the verdicts of `first` where there is no second look: what needed one is an error, the rest stands. why:
    the reason that there is none."""
    changes = {"status": Status.ERROR, "text": f"could not be measured again in fresh processes: {why}"}
    return [
        v.model_copy(update=changes) if _suspicious(v, _metric(comparison, v), rules.against) else v
        for v in first
    ]


def _metric(comparison: Comparison, verdict: Verdict) -> Metric | None:
    """Return the metric that a verdict is on: its value, or its loss since the anchor."""
    return comparison.new.metrics.get(measured_name(verdict.metric))


def _suspicious(verdict: Verdict, metric: Metric | None, against: bool) -> bool:
    """Whether a value is worse by more than the tolerance. Against a stored baseline noise may still explain it; in an
    A/B run, where both stages have to agree, it may not, and better counts as well."""
    if metric is None or not metric.nested:
        return False
    if against:
        return verdict.status in DECIDED
    unsure = verdict.status == Status.INCONCLUSIVE and verdict.change_low is not None
    return verdict.status in RED or (unsure and _worse(verdict, metric))


def _worse(verdict: Verdict, metric: Metric) -> bool:
    """Whether the estimate is worse by more than the tolerance."""
    if verdict.change is None or verdict.tolerance is None:
        return False
    return (verdict.change if metric.better == "lower" else -verdict.change) > verdict.tolerance
