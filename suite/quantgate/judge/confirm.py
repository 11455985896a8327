"""The second look at a timing or a memory peak that seems worse: it is measured again in fresh processes before it
is called a regression (in an A/B run also at one that seems better, before it is called an improvement).

A false alarm comes at most as often as the gate's level alpha says:

- A/B: both sides are measured anew. The two stages are independent and each is judged at sqrt(alpha); both must say
  `regression` (or both `improvement`), which by chance alone they do with probability alpha.
- Stored baseline: it stays as it is, so a second look at it is not independent of the first. The second stage judges
  all processes of this run together, the first ones and the fresh ones, at alpha, and the fresh ones alone must be
  worse by more than the tolerance too, so that one bad minute is not enough; since the judgement of all at alpha is
  needed, nothing beside it can raise the chance above alpha.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from quantgate.records import Metric, Status, Verdict
from quantgate.words import comparison

DECIDED = (Status.REGRESSION, Status.IMPROVEMENT)


def suspicious(verdicts: Iterable[Verdict], metrics: Mapping[str, Metric], against: bool) -> bool:
    """Whether any verdict asks for fresh processes."""
    return any(_suspicious(v, metrics.get(v.metric), against) for v in verdicts)


def settle(
    first: Iterable[Verdict],
    second: Iterable[Verdict],
    fresh: Iterable[Verdict] | None,
    metrics: Mapping[str, Metric],
) -> list[Verdict]:
    """The verdicts on `metrics` after the second look. `fresh`: with a stored baseline, what the fresh processes alone
    say; None: an A/B run."""
    later, alone = {v.metric: v for v in second}, {v.metric: v for v in fresh or ()}
    settled = []
    for verdict in first:
        metric, other = metrics.get(verdict.metric), later.get(verdict.metric)
        if metric is None or other is None or not _suspicious(verdict, metric, fresh is None):
            settled.append(verdict)
            continue
        real = other.status == (verdict.status if fresh is None else Status.REGRESSION)
        if fresh is None and not real and other.status in DECIDED:
            text = f"first {verdict.status}, then {other.status}: the machine is too restless to tell"
            other = other.model_copy(update={"status": Status.INCONCLUSIVE, "text": text})
        if real and fresh is not None and not _worse(alone.get(verdict.metric, other), metric):
            real = False
            text = "the first processes were worse by more than the tolerance, the fresh ones are not"
            other = other.model_copy(update={"status": Status.INCONCLUSIVE, "text": text})
        said = ", ".join(comparison(other)[1:3]) or other.status
        words = f"measured again in fresh processes: {'the same' if real else 'not seen again'} ({said})"
        keeps = verdict if real and fresh is None else other
        settled.append(keeps.model_copy(update={"confirmed": words}))
    return settled


def _suspicious(verdict: Verdict, metric: Metric | None, against: bool) -> bool:
    """Worse by more than the tolerance. Noise may explain it as yet; in an A/B run, where both stages must say so,
    it may not, and better counts as well."""
    if metric is None or not metric.nested:
        return False
    unsure = verdict.status == Status.INCONCLUSIVE and verdict.change_low is not None
    if against:
        return verdict.status in DECIDED
    return verdict.status == Status.REGRESSION or (unsure and _worse(verdict, metric))


def _worse(verdict: Verdict, metric: Metric) -> bool:
    """Whether the estimate is worse by more than the tolerance."""
    if verdict.change is None or verdict.tolerance is None:
        return False
    return (verdict.change if metric.better == "lower" else -verdict.change) > verdict.tolerance
