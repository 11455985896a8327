"""The verdict on one metric of one cell, and on whether it is still the same computation."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from quantgate.config.tolerances import REPRODUCTION, Tolerance
from quantgate.judge import nested
from quantgate.judge.environment import of_weights, relevant
from quantgate.judge.kernels import same_work
from quantgate.judge.sensitivity import what_would_do
from quantgate.judge.statistics import (
    Change,
    differences,
    flips,
    growth,
    mcnemar,
    mean_difference,
    most_lost,
    root_mean_square,
)
from quantgate.records import Metric, Scalar, Status, Verdict

MACHINE_CONDITIONS = {"kernels", "threads", "governor"}
"""Conditions that differ on another machine without anybody's doing."""
OTHER_FILES = "the model has other weights, or another configuration or tokenizer, than the baseline's"
"""What the condition `source` says, a hash of all files that are loaded."""


@dataclass(frozen=True)
class Subject:
    """What a verdict is about: a metric of a cell.

    environment: what changed in the environment since the older value; unused: distributions whose changes do not
    count.
    """

    cell: str
    name: str
    environment: Sequence[str] = ()
    unused: Collection[str] = ()

    @property
    def changed(self) -> list[str]:
        """The changes of the environment that can change the number."""
        return relevant(self.environment, self.unused)

    def verdict(self, status: Status, **fields: Any) -> Verdict:
        """Return a verdict. fields: others of `Verdict`."""
        about = {"cell": self.cell, "metric": self.name, "environment": list(self.environment)}
        return Verdict(**{**about, "status": status, **fields})

    def reproduced(self, distance: float, limit: float, **fields: Any) -> Verdict:
        """Return the verdict on whether a metric is still the baseline's computation: `changed` beyond the limit."""
        return self.verdict(
            Status.PASS if distance <= limit else Status.CHANGED,
            metric=f"{self.name}{REPRODUCTION}",
            measured=distance,
            baseline=0.0,
            change=distance,
            change_unit="absolute",
            tolerance=limit,
            **fields,
        )


def judge(
    subject: Subject,
    measured: Metric,
    baseline: Metric | None,
    tolerance: Tolerance,
    alpha: float,
    *,
    against: bool = False,
) -> Verdict:
    """Compare `measured` with `baseline`.

    `regression`: worse by more than the tolerance, and by more than noise explains at level `alpha` (one-sided);
    `improvement`: the same for the better; `pass`: the 95 % limit of the change for the worse is within the
    tolerance, of another checkpoint within the wide one; `inconclusive`: the sample allows none of these; `not
    comparable`: the conditions differ.

    against: both were measured in this run, A/B. Raises ValidationError where the change is not a finite number.
    """
    shown = {"measured": measured.value, "baseline": baseline and baseline.value, "unit": measured.unit}
    if baseline is None:
        return subject.verdict(Status.NO_BASELINE, **shown, text="no baseline is stored")
    baseline, tolerance, kernels = _on_kernels(measured, baseline, tolerance, against)
    different, by_machine = first_difference(baseline, measured)
    if different:
        text = different + kernels
        return subject.verdict(Status.NOT_COMPARABLE, **shown, text=text, by_machine=by_machine)
    if not baseline.value:
        tolerance = tolerance.of_zero()
    relative = tolerance.relative is not None
    base = abs(baseline.value) if relative else 1.0
    change, evidence = _change(measured, baseline, tolerance, base)
    interval = change.at(alpha)
    changed = subject.changed
    # The same libraries on the same machine measure another checkpoint as exactly as the baseline's; but what has no
    # error bar, such as a quantile, would be red by chance.
    as_exact = all(map(of_weights, changed)) if measured.kind == "paired" else not changed
    limit = max(tolerance.limit(unchanged=as_exact), tolerance.floor / base)
    # Few samples show that a checkpoint is as good to within `here`: to pass, its 95 % limit has the other tolerance.
    sure = max(tolerance.limit(unchanged=not changed), limit)
    worse = interval.estimate if measured.better == "lower" else -interval.estimate
    if worse > limit:
        status = Status.REGRESSION if change.p < alpha else Status.INCONCLUSIVE
    elif worse < -limit and not measured.relative and change.p < alpha:
        # A value relative to the reference never counts as an improvement: a slow reference would make every other
        # cell look faster. Nor does one that is better than on other kernels: it is no reason to update the baseline.
        status = Status.PASS if kernels else Status.IMPROVEMENT
    elif _most_worse(measured, baseline, base, change, unchanged=not changed) <= sure:
        status = Status.PASS
    else:
        status = Status.INCONCLUSIVE
    if measured.nested and status == Status.INCONCLUSIVE:
        evidence = nested.why_inconclusive(measured, baseline, tolerance, limit, alpha)
    settles = status == Status.INCONCLUSIVE and (measured.answers or worse > limit)
    more = what_would_do(measured, change, limit * base, alpha) if settles else ""
    bounded = interval.low != interval.high and math.isfinite(interval.low) and math.isfinite(interval.high)
    return subject.verdict(
        status,
        **shown,
        change=interval.estimate,
        change_low=interval.low if bounded else None,
        change_high=interval.high if bounded else None,
        change_unit="relative" if relative else "absolute",
        tolerance=limit,
        detectable=None if as_exact else baseline.detectable,
        text=_text(status, change, worse > limit, alpha, evidence) + more + kernels,
    )


def recorded(cell: str, name: str, measured: Metric, baseline: Metric | None, text: str = "") -> Verdict:
    """Return the verdict on a metric without a gate: shown beside the others, never fails."""
    return Verdict(
        cell=cell,
        metric=name,
        status=Status.PASS,
        measured=measured.value,
        baseline=baseline.value if baseline else None,
        unit=measured.unit,
        text=text or "recorded, not gated",
    )


def reproduction(subject: Subject, measured: Metric, baseline: Metric, tolerance: Tolerance) -> Verdict:
    """Judge whether the units of a paired metric are still the baseline's; `judge` says whether their mean got worse.

    Compared is the root mean square over the units of measurement minus baseline, in the unit of the samples (nats).
    The limit is `here`, next to nothing, in the baseline's own environment, and elsewhere what other processors and
    builds of the same libraries cause. Beyond it the status is `changed`. This sees what a mean cannot, such as a
    change that is better on one half of the text and worse on the other; it does not prove a loss.
    """
    different, by_machine = first_difference(baseline, measured)
    if different:
        return subject.verdict(Status.NOT_COMPARABLE, by_machine=by_machine, text=different)
    old, new = baseline.samples or [], measured.samples or []
    size = root_mean_square(old, new, measured.weights)
    limit = tolerance.limit(unchanged=not subject.changed)
    same = size <= limit
    unequal = same and old != new and not subject.environment
    if not same:
        cause = "the environment is unchanged"
        if subject.changed:
            cause = "by more than other processors and builds cause"
        elif subject.environment:
            cause = "only quantgate's own code, or libraries that this cell does not use, have changed"
        moves = differences(old, new)
        largest = max(moves, key=abs)
        text = (
            f"the computation or the weights differ from the baseline's: {cause} (largest difference {largest:+.3g}, "
            f"sample {moves.index(largest) + 1:,} of {len(new):,})"
        )
    elif old == new:
        text = "equal to the last digit"
    else:
        text = f"the same computation ({len(new):,} paired samples)"
        text += ", but not equal to the last digit although the environment is unchanged" if unequal else ""
    unit = measured.unit or "nats"  # the samples of a perplexity are nats
    return subject.reproduced(size, limit, unit=unit, unequal=unequal, text=text)


def of_choices(metric: Metric) -> Metric | None:
    """Return the log-likelihoods of all choices of all items as a metric; None where `metric` does not keep them.

    A margin depends on the best wrong choice only; this one on all of them.
    """
    kept = metric.raw.get("loglikelihoods")
    if kept is None:
        return None
    samples = [value for item in kept for value in item]
    return metric.model_copy(update={"samples": samples, "weights": None, "unit": "nats", "answers": False})


def first_difference(baseline: Metric, measured: Metric) -> tuple[str, bool]:
    """Return why two metrics may not be compared, as the first condition that differs (empty: they may), and whether
    only the machine differs."""
    if baseline.kind != measured.kind:
        return _differs("kind", baseline.kind, measured.kind), False
    old, new = baseline.conditions, measured.conditions
    differing = [key for key in old | new if old.get(key) != new.get(key)]
    if differing:
        key = min(differing, key=lambda one: one in MACHINE_CONDITIONS)
        return _differs(key, old.get(key), new.get(key)), key in MACHINE_CONDITIONS
    if baseline.unit_count != measured.unit_count:
        return _differs("number of samples", baseline.unit_count, measured.unit_count), False
    return "", False


def _differs(key: str, old: Scalar, new: Scalar) -> str:
    before, now = ("none" if value is None else value for value in (old, new))
    text = f"{key} differs: baseline {before}, measured {now}"
    return f"{text} ({OTHER_FILES})" if key == "source" else text


def _on_kernels(
    measured: Metric, baseline: Metric, tolerance: Tolerance, against: bool
) -> tuple[Metric, Tolerance, str]:
    """Return what a value is compared with, by which tolerance, and what to add to the text, where only the kernels
    may differ.

    On another processor, or with another build, a library uses other kernels, which take other amounts of memory and
    are faster by another factor. There the tolerance's `elsewhere` applies to ratios and peaks: wide, but narrow enough
    to see a lost kernel and a doubled peak. In an A/B run the kernels are part of what is compared, so the usual
    tolerance applies.
    """
    if baseline.kernels == measured.kernels or not same_work(baseline, measured):
        return baseline, tolerance, ""
    as_here = baseline.model_copy(update={"conditions": measured.conditions})
    if against:
        return as_here, tolerance, ""
    if measured.kind not in ("level", "ratio"):  # an absolute timing of the named machine: not comparable
        return baseline, tolerance, ""
    if (elsewhere := tolerance.on_other_kernels()) is None:
        return baseline, tolerance, "; its tolerance has no `elsewhere`"
    text = f"; measured on other kernels than the baseline ({baseline.kernels}), so `elsewhere` applies"
    return as_here, elsewhere, text


def _change(measured: Metric, baseline: Metric, tolerance: Tolerance, base: float) -> tuple[Change, str]:
    """Return the signed change in the tolerance's terms, and the evidence as text. base: what a change is divided by in
    these terms."""
    if measured.nested:
        return nested.change(measured, baseline, tolerance), nested.evidence(measured, baseline)
    if measured.kind != "paired":
        return Change((measured.value - baseline.value) / base), ""
    old, new = baseline.samples or [], measured.samples or []
    evidence, exact = f"{len(new):,} paired samples", None
    if measured.answers:
        lost, gained = flips(old, new)
        exact = mcnemar(lost, gained)
        evidence = f"{lost:,} items lost, {gained:,} gained of {len(new):,}, exact McNemar test"
    terms: Callable[[float], float] | None = None
    if tolerance.relative is not None:
        terms = growth if measured.link == "exp" else lambda x: x / base
    return Change(*mean_difference(old, new, measured.weights, tolerance.noise), terms, exact), evidence


def _most_worse(measured: Metric, baseline: Metric, base: float, change: Change, *, unchanged: bool) -> float:
    """Return the 95 % limit of the change for the worse, in the tolerance's terms. unchanged: the environment is that
    of the baseline, where equal answers are the same computation and no sample of what others might be."""
    old, new = baseline.samples or [], measured.samples or []
    if measured.answers and not (unchanged and old == new):
        lost, gained = flips(old, new) if measured.better == "higher" else flips(new, old)
        return most_lost(lost, gained, len(new), nested.PASS_LEVEL) / base
    cautious = change.at(nested.PASS_LEVEL)
    return cautious.high if measured.better == "lower" else -cautious.low


def _text(status: Status, change: Change, beyond: bool, alpha: float, evidence: str) -> str:
    """Return the cause. A pass has no p: a change within the tolerance may well be significant."""
    if status == Status.PASS:
        if change.estimate == change.se == 0:
            return "equal to the last digit"
        return f"within tolerance ({evidence})" if evidence else "within tolerance"
    tail = f" ({evidence}, p {f'= {change.p:.2g}' if change.p else '< 1e-300'})" if evidence else ""
    if status == Status.REGRESSION:
        return f"worse by more than the tolerance{tail}"
    if status == Status.IMPROVEMENT:
        return f"better by more than the tolerance{tail}: update the baseline"
    if beyond:
        noise = f"the sample cannot distinguish this from noise{tail}, level {alpha:.2g}"
        return f"worse by more than the tolerance, but {noise}"
    return f"no loss beyond the tolerance seen, but the sample cannot rule one out{tail}"
