"""Turn a comparison of one cell into the verdicts of one case. Pure: the pytest case, the fault catalogue and the
power study all judge by these functions.

    verdicts(comparison, covers, rules)                 the first look
    confirm.needs_second_look, confirm.confirmed        the second, at fresh processes
    explained(verdicts, reference, covers, rules)       with what the reference did in the same run
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from quantgate.config.tolerances import Tolerances
from quantgate.files import hash_of
from quantgate.judge.anchor import Anchor, anchor_of, measured_name, since_anchor
from quantgate.judge.environment import CHECKPOINT, MADE_FROM, changed_environment, of_weights
from quantgate.judge.expected import Limits, held_to, limits_of
from quantgate.judge.judge import (
    Subject,
    first_difference,
    judge,
    of_choices,
    recorded,
    reproduction,
)
from quantgate.judge.nested import doubts_of
from quantgate.judge.texts import same_texts
from quantgate.records import (
    AGREEMENT,
    IN_PROCESS,
    MOVED,
    QUANTIZED_SHARE,
    Measurement,
    Metric,
    Scalar,
    Status,
    Verdict,
)
from quantgate.words import delta

UNNAMED_MACHINE = "timings are gated on a named machine (--machine) or as ratio"

Covers = Callable[[str], bool]
"""Whether the case judges the metric of this name."""


@dataclass(frozen=True)
class Rules:
    """How measurements are judged.

    alpha: the chance of a false alarm that one gate may have (level of its test).
    against: A/B: the old values were measured in this run, in another environment.
    timings: whether absolute timings are judged; without, they are recorded.
    minimum_shares: by cell id, the least quantized share that the cell's scheme states; None: it states none.
    unused: by backend, the distributions that it does not compute with: their changes widen no tolerance.
    """

    tolerances: Tolerances
    alpha: float
    against: bool = False
    timings: bool = False
    minimum_shares: Mapping[str, float | None] = field(default_factory=dict)
    unused: Mapping[str, Collection[str]] = field(default_factory=dict)

    def level(self, metric: Metric) -> float:
        """Return the level of one look at a metric: an A/B run takes two independent ones, and both must agree (see
        `quantgate.judge.confirm`)."""
        return math.sqrt(self.alpha) if self.against and metric.nested else self.alpha

    def gates(self, name: str, cell: str) -> bool:
        """Return whether a metric is a gate: it has a tolerance, or values that it must have."""
        return self.tolerances.of(name, cell) is not None or self.limits(name, cell) is not None

    def limits(self, name: str, cell: str) -> Limits | None:
        """Return the values that a metric must have regardless of the baseline; None where there are no such values."""
        minimum = self.minimum_shares.get(cell) if name == QUANTIZED_SHARE else None
        return limits_of(self.tolerances.of_expected(name, cell), minimum)


@dataclass(frozen=True)
class Comparison:
    """One look at a cell: a measurement and what it is compared with.

    old: the stored baseline, or the measurement in the other environment; None where there is neither.
    anchors: what losses of the baseline's metrics add up from, by `on_kernels`; none in an A/B run.
    no_reference: why metrics relative to the reference are missing from `new`, if they are. apart: why `new` can be
    compared with nothing: other versions measured it than those of the run; empty: it can.
    """

    new: Measurement
    old: Measurement | None
    no_reference: str = "the reference has no such metric in this run"
    anchors: Mapping[str, Anchor] = field(default_factory=dict)
    apart: str = ""


def verdicts(comparison: Comparison, covers: Covers, rules: Rules) -> list[Verdict]:
    """Judge every metric of the case, those that only the old side has included."""
    new, old = comparison.new, comparison.old
    if comparison.apart:
        return [
            Subject(new.cell, name).verdict(
                Status.NOT_COMPARABLE, measured=metric.value, unit=metric.unit, text=comparison.apart
            )
            for name, metric in new.metrics.items()
            if covers(name)
        ]
    judged = [
        described(verdict, metric, new.environment) if verdict.metric == name else verdict
        for name, metric in new.metrics.items()
        if covers(name)
        for verdict in _of_metric(name, metric, comparison, rules)
    ]
    for name, metric in (old.metrics if old else {}).items():
        if name in new.metrics or not covers(name):
            continue
        subject = Subject(new.cell, name)
        if not metric.relative:
            remedy = "if it cannot be any more, delete the baseline's files and update again"
            text = f"is in the baseline, but was not measured; {remedy}"
            judged.append(subject.verdict(Status.ERROR, text=text))
        elif rules.gates(name, new.cell):
            # No error of this cell: the cases of the other one say what happened to it.
            text = f"cannot be judged without the reference: {comparison.no_reference}"
            if name in (AGREEMENT, IN_PROCESS):
                other = metric.conditions["relative to"]
                text = f"cannot be judged without {other}, of which this run has no perplexity of the same tokens"
            judged.append(
                subject.verdict(Status.INCONCLUSIVE, baseline=metric.value, unit=metric.unit, text=text)
            )
    return judged


def _of_metric(name: str, metric: Metric, comparison: Comparison, rules: Rules) -> Iterator[Verdict]:
    """Judge one measured metric: its value, and of a paired one whether its units are what they were."""
    new, old = comparison.new, comparison.old
    cell, tolerances = new.cell, rules.tolerances
    before, environment = old.comparable(name, metric) if old else (None, {})
    changed = changed_environment(environment, new.environment) if before else []
    subject = Subject(cell, name, changed, rules.unused.get(cell.split("/")[1], ()))
    tolerance, limits = tolerances.of(name, cell, against=rules.against), rules.limits(name, cell)
    if tolerance is not None and metric.kind == "rounds" and not rules.timings:
        yield recorded(cell, name, metric, None, UNNAMED_MACHINE)
        return
    if tolerance is not None and (doubts := doubts_of(metric, before if rules.against else None)):
        # A process of this run says that it may have measured something else.
        shown = recorded(cell, name, metric, before, doubts[0])
        yield shown.model_copy(update={"status": Status.INCONCLUSIVE})
        return
    verdict = None
    if tolerance is None and limits is None:
        yield recorded(cell, name, metric, before, flips_in_words(metric))
    elif tolerance is not None:
        verdict = judge(subject, metric, before, tolerance, rules.level(metric), against=rules.against)
    if limits is not None:
        verdict = held_to(limits, cell, name, metric, verdict)
    if verdict is not None:
        yield verdict
    anchor = anchor_of(comparison.anchors, name, metric, new.environment)
    if anchor is not None and tolerance is not None:
        yield from since_anchor(subject, metric, anchor, tolerance, rules.level(metric), new.environment)
    if before is None or any(map(of_weights, changed)):
        return
    # Where the two cannot be compared, one verdict that says so is enough.
    silent = tolerance and verdict and verdict.status in (Status.NOT_COMPARABLE, Status.ERROR)
    same_as_before = partial(tolerances.of_reproduction, cell=cell, against=rules.against)
    if metric.kind == "paired" and not silent and (same := same_as_before(name)):
        yield reproduction(subject, metric, before, same)
    choices, old_choices = of_choices(metric), of_choices(before)
    if choices and old_choices and not first_difference(old_choices, choices)[0]:
        name = f"{name.rpartition('/')[0]}/choices"
        if same := same_as_before(name):
            yield reproduction(replace(subject, name=name), choices, old_choices, same)
    if "ids" in metric.raw and "ids" in before.raw and not first_difference(before, metric)[0]:
        name = name.rpartition("/")[0]
        if same := same_as_before(name):
            yield same_texts(replace(subject, name=name), metric, before, same)


def described(verdict: Verdict, metric: Metric, environment: Mapping[str, Scalar]) -> Verdict:
    """Add to a verdict what the history keeps of its metric."""
    weights = (environment.get(CHECKPOINT), environment.get(MADE_FROM), metric.conditions.get("source"))
    facts = {
        "kind": metric.kind,
        "better": metric.better,
        "stderr": metric.stderr,
        "samples": metric.process_count if metric.nested else metric.unit_count or None,
        "conditions": hash_of(metric.conditions),
        "weights": str(next(filter(None, weights), "")),
    }
    return verdict.model_copy(update=facts)


def explained(moved: Sequence[Verdict], reference: Comparison, covers: Covers, rules: Rules) -> list[Verdict]:
    """Add to each verdict that moved whether the reference moved too: everything moved, or this scheme alone. A
    relative metric leaves that to the one it is made of, where that moved as well."""
    references = {v.metric: v for v in verdicts(reference, covers, rules)}
    mine = {v.metric: v for v in reversed(moved)}

    def beside(verdict: Verdict) -> Verdict:
        name = origin(verdict.metric)
        # A reference without an older anchor has its baseline as anchor.
        whole, other = mine.get(name, verdict), references.get(name) or references.get(measured_name(name))
        elsewhere = name != verdict.metric and whole.status in MOVED
        if verdict.status not in MOVED or elsewhere or other is None or other.change is None:
            return verdict
        change = f"{other.cell} {delta(other.change, other)}"
        text = beside_reference(whole, other)
        if any(map(of_weights, other.environment)):
            text = "the reference is made from the checkpoint under test, too, and moves with it"
        return verdict.model_copy(update={"reference": f"{text} ({change})"})

    return [beside(verdict) for verdict in moved]


def beside_reference(cell: Verdict, reference: Verdict) -> str:
    """Return in one line what the reference did in the same run; both verdicts are on the same metric.

    What decides is the reference's change as a share of the cell's (on the log scale if relative): from three quarters
    on everything moved; up to one quarter this scheme alone did; in between, some of both.
    """
    change, other = cell.size, reference.size
    if cell.status not in MOVED and abs(other) > abs(change):
        return "the reference got better; this scheme did not, or by less"
    share = other / change if change else 0.0
    if share > 4 / 3:
        return "the reference moved as well, by more: everything moved"
    if share >= 3 / 4:
        return "the reference moved as well, by as much: everything moved"
    if share > 1 / 4:
        return "the reference moved as well, but by less: part of the change is common to all"
    if share >= -1 / 4:
        return "the reference did not move: this scheme alone"
    return "the reference moved the other way: this scheme alone"


def origin(name: str) -> str:
    """Return the metric that a relative one is made of: `perplexity` of `perplexity/loss`; of any other, itself. The
    same of verdicts on the loss since the anchor: `perplexity/anchor` of `perplexity/loss/anchor`."""
    metric = measured_name(name)
    return f"{metric.removesuffix('/loss').removesuffix('_ratio')}{name.removeprefix(metric)}"


def flips_in_words(metric: Metric) -> str:
    """`2 lost, 1 gained of 16 items against <reference>`; empty for a metric without flips."""
    if not {"lost", "gained", "items"} <= metric.raw.keys():
        return ""
    lost, gained, items = (metric.raw[key] for key in ("lost", "gained", "items"))
    return f"{lost} lost, {gained} gained of {items} items against {metric.conditions.get('relative to')}"
