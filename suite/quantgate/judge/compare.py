"""Turn a comparison of one cell into the verdicts of one case. Pure: the pytest case, the fault catalogue and the
power study all judge by these functions.

    verdicts(comparison, request, rules)            the first look
    needs_second_look(first, comparison, rules)     whether fresh processes have to confirm it
    confirmed(first, comparison, look, ...)         the verdicts after them
    explained(verdicts, reference, ...)             with what the reference did in the same run
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from quantgate.config.tolerances import Tolerances
from quantgate.judge.confirm import settle, suspicious
from quantgate.judge.drift import MOVED, drift
from quantgate.judge.environment import changed_environment
from quantgate.judge.expected import Limits, held_to, limits_of
from quantgate.judge.judge import first_difference, no_result, recorded
from quantgate.judge.kernels import judge_on_kernels
from quantgate.judge.reproduction import of_choices, reproduction
from quantgate.records import AGREEMENT, QUANTIZED_SHARE, Measurement, Metric, Status, Verdict
from quantgate.words import delta

UNNAMED_MACHINE = "timings are gated on a named machine (--machine) or as ratio"


@dataclass(frozen=True)
class Rules:
    """How measurements are judged.

    alpha: the chance of a false alarm that one gate may have (level of its test).
    against: A/B: the old values were measured in this run, in another environment.
    timings: whether absolute timings are judged; without, they are recorded.
    minimum_shares: by cell id, the least share of quantized weights that its scheme states.
    """

    tolerances: Tolerances
    alpha: float
    against: bool = False
    timings: bool = False
    minimum_shares: Mapping[str, float] = field(default_factory=dict)

    def level(self, metric: Metric) -> float:
        """Return the level of one look at a metric: an A/B run takes two independent ones, and both must agree (see
        `quantgate.judge.confirm`)."""
        return math.sqrt(self.alpha) if self.against and metric.nested else self.alpha

    def limits(self, name: str, cell: str) -> Limits | None:
        """Return the values that a metric must have whatever the baseline; None where there are no such values."""
        minimum = self.minimum_shares.get(cell) if name == QUANTIZED_SHARE else None
        return limits_of(self.tolerances.of_expected(name, cell), minimum)


@dataclass(frozen=True)
class Comparison:
    """One look at a cell: a measurement and what it is held against.

    old: the stored baseline, or the measurement in the other environment; None where there is neither.
    no_reference: why metrics relative to the reference are missing from `new`, if they are.
    """

    new: Measurement
    old: Measurement | None
    no_reference: str = "the reference has no such metric in this run"


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


def covers(request: str, metric: str) -> bool:
    """Return whether the case of `request` judges this metric."""
    if metric == AGREEMENT:
        return request == "perplexity"
    return metric == request or metric.startswith(f"{request}/") or metric == f"{request}_ratio"


def origin(name: str) -> str:
    """Return the metric that a relative one is made of: `perplexity` of `perplexity/loss`; of any other, itself."""
    return name.removesuffix("/loss").removesuffix("_ratio")


def verdicts(comparison: Comparison, request: str, rules: Rules, reproduce: str = "") -> list[Verdict]:
    """Judge every metric of the request, those that only the old side has included.

    reproduce: the command that repeats the case, for verdicts that a person may want to see again.
    """
    new, old = comparison.new, comparison.old
    judged = [
        verdict
        for name, metric in new.metrics.items()
        if covers(request, name)
        for verdict in _of_metric(name, metric, comparison, rules, reproduce)
    ]
    for name, metric in (old.metrics if old else {}).items():
        if name in new.metrics or not covers(request, name):
            continue
        if not metric.relative:
            text = "is in the baseline, but was not measured"
            judged.append(no_result(new.cell, name, text, reproduce))
        elif rules.tolerances.of(name, new.cell) is not None:
            judged.append(_without_reference(name, metric, comparison, reproduce))
    return judged


def needs_second_look(first: Sequence[Verdict], comparison: Comparison, rules: Rules) -> bool:
    """Return whether fresh processes have to confirm a verdict (see `quantgate.judge.confirm`)."""
    return suspicious(first, comparison.new.metrics, rules.against)


def confirmed(
    first: Sequence[Verdict],
    comparison: Comparison,
    look: SecondLook,
    request: str,
    rules: Rules,
    reproduce: str = "",
) -> list[Verdict]:
    """Return the verdicts of `first` on `comparison` as the second look leaves them."""
    metrics = comparison.new.metrics
    match look:
        case FreshPairs(pairs):
            return settle(first, verdicts(pairs, request, rules, reproduce), None, metrics)
        case MoreProcesses(together, fresh):
            second, alone = (verdicts(c, request, rules, reproduce) for c in (together, fresh))
            return settle(first, second, alone, metrics)


def moved(verdicts: Sequence[Verdict]) -> bool:
    """Return whether a metric moved, so that what its reference did is worth knowing."""
    return any(v.status in MOVED for v in verdicts)


def explained(
    moved: Sequence[Verdict], reference: Comparison, request: str, rules: Rules, reproduce: str = ""
) -> list[Verdict]:
    """Add to each verdict that moved whether the reference moved too: everything drifted, or this scheme alone."""
    references = {v.metric: v for v in verdicts(reference, request, rules, reproduce)}
    return [_beside(verdict, moved, references) for verdict in moved]


def flips_in_words(metric: Metric) -> str:
    """`2 lost, 1 gained of 16 items against <reference>`; empty for a metric without flips."""
    if not {"lost", "gained", "items"} <= metric.raw.keys():
        return ""
    lost, gained, items = (metric.raw[key] for key in ("lost", "gained", "items"))
    return f"{lost} lost, {gained} gained of {items} items against {metric.conditions.get('relative to')}"


def _of_metric(
    name: str, metric: Metric, comparison: Comparison, rules: Rules, reproduce: str
) -> Iterator[Verdict]:
    """Judge one measured metric: its value, and of a paired one whether its units are what they were."""
    new, old = comparison.new, comparison.old
    cell = new.cell
    before, environment = old.comparable(name, metric) if old else (None, {})
    changed = changed_environment(environment, new.environment) if before else []
    paired = metric.kind == "paired"
    tolerance, limits = rules.tolerances.of(name, cell, against=rules.against), rules.limits(name, cell)
    same = rules.tolerances.of_reproduction(name, cell) if paired else None
    if tolerance is None:
        if limits is None:
            yield recorded(cell, name, metric, before, flips_in_words(metric))
        else:
            yield held_to(limits, cell, name, metric, None, reproduce)
        if before and same:
            yield _reproduction(name, metric, before, changed, cell, rules, reproduce)
    elif metric.kind == "rounds" and not rules.timings:
        yield recorded(cell, name, metric, None, UNNAMED_MACHINE)
    else:
        verdict = judge_on_kernels(
            cell, name, metric, before, tolerance, rules.level(metric), changed, reproduce,
            against=rules.against,
        )  # fmt: skip
        if limits is not None:
            verdict = held_to(limits, cell, name, metric, verdict, reproduce)
        yield verdict
        if same and before and verdict.status not in (Status.NOT_COMPARABLE, Status.ERROR):
            yield reproduction(verdict, metric, before, same)
    choices = of_choices(metric)
    old_choices = of_choices(before) if before else None
    # Where the two cannot be compared, the verdict on the metric itself says so.
    if choices and old_choices and not first_difference(old_choices, choices)[0]:
        choices_name = f"{name.rpartition('/')[0]}/choices"
        if rules.tolerances.of_reproduction(choices_name, cell):
            yield _reproduction(choices_name, choices, old_choices, changed, cell, rules, reproduce)


def _reproduction(
    name: str, metric: Metric, before: Metric, changed: list[str], cell: str, rules: Rules, reproduce: str
) -> Verdict:
    """Judge whether the units are what they were, of a paired metric whose mean has no gate."""
    tolerance = rules.tolerances.of_reproduction(name, cell)
    assert tolerance is not None
    different, by_machine = first_difference(before, metric)
    verdict = Verdict(cell=cell, metric=name, status=Status.PASS, environment=changed, reproduce=reproduce)
    if different:
        update = {"status": Status.NOT_COMPARABLE, "text": different, "by_machine": by_machine}
        return verdict.model_copy(update=update)
    return reproduction(verdict, metric, before, tolerance)


def _without_reference(name: str, baseline: Metric, comparison: Comparison, reproduce: str) -> Verdict:
    """No error of this cell: the cases of the reference say what happened to it."""
    return Verdict(
        cell=comparison.new.cell,
        metric=name,
        status=Status.INCONCLUSIVE,
        baseline=baseline.value,
        unit=baseline.unit,
        text=f"cannot be judged without the reference: {comparison.no_reference}",
        reproduce=reproduce,
    )


def _beside(verdict: Verdict, cell: Sequence[Verdict], references: Mapping[str, Verdict]) -> Verdict:
    """Add what the reference did to a verdict that moved. A relative metric leaves that to the one it is made of, where
    that moved as well."""
    name = origin(verdict.metric)
    mine, reference = next((v for v in cell if v.metric == name), verdict), references.get(name)
    elsewhere = name != verdict.metric and mine.status in MOVED
    if verdict.status not in MOVED or elsewhere or reference is None or reference.change is None:
        return verdict
    change = f"{reference.cell} {delta(reference.change, reference)}"
    return verdict.model_copy(update={"reference": f"{drift(mine, reference)} ({change})"})
