"""Judge the loss that has added up over several accepted baselines: since the anchor, the first of them. Pure.

Each update may lose up to the tolerance, so ten updates may lose ten times as much, and each night is green. The anchor
of a metric stays where it is through updates. A metric that was never updated, or always with equal values, has its
baseline as anchor, and nothing has to be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from pydantic import Field

from quantgate.config.tolerances import Tolerance
from quantgate.judge.environment import changed_environment
from quantgate.judge.judge import Subject, first_difference, judge
from quantgate.judge.kernels import kernels_of, name_of, nearest, on_kernels, same_work
from quantgate.records import Metric, Record, Scalar, Scalars, Status, Verdict
from quantgate.words import listed, quantity

ANCHOR = "/anchor"
"""Ends the name of a verdict on the loss since the anchor: `perplexity/anchor`."""


class Origin(Record):
    """The origin of accepted values: the day and the job that measured them, and why a person accepted them."""

    created: str
    reason: str
    fingerprint: str
    environment: Scalars = Field(default_factory=dict)


class Anchor(Record):
    """An accepted value that later ones are compared with."""

    metric: Metric
    """Without `raw`, which no test of the mean reads."""
    origin: Origin

    @property
    def kernels(self) -> str:
        """The kernels that it was computed with."""
        return kernels_of(self.metric, self.origin.environment)


def measured_name(verdict: str) -> str:
    """Return the metric that a verdict of this name is on: `perplexity` for `perplexity/anchor`."""
    return verdict.removesuffix(ANCHOR)


class Replaced(NamedTuple):
    """A value that an update replaces. gated: whether the new one was judged against it by a tolerance."""

    name: str
    old: Anchor
    new: Metric
    gated: bool


class Anchors(NamedTuple):
    """The anchors of a new baseline by `on_kernels`, and the lines of an update about those that moved."""

    kept: dict[str, Anchor]
    moved: list[str]


def anchor_of(
    anchors: Mapping[str, Anchor], name: str, measured: Metric, environment: Mapping[str, Scalar]
) -> Anchor | None:
    """Return the anchor that a value is compared with: the one on the same kernels, else the one whose kernels have
    most features in common. Timings and memory peaks have no other than on their own kernels. None: the baseline itself
    is the anchor."""
    kinds = {one.kernels: one for key, one in anchors.items() if name_of(key) == name}
    kernels = kernels_of(measured, environment)
    return kinds.get(kernels) if measured.nested else nearest(kinds, kernels)


def updated(anchors: Mapping[str, Anchor], replaced: Iterable[Replaced], *, re_anchor: bool) -> Anchors:
    """Return the anchors after an update that replaces these values.

    A value that was judged against the one that it replaces, and differs from it, leaves that one as anchor where there
    is none yet for its kernels. Where the two cannot be compared (other tokens, another workload), nothing of before
    can be compared with the new value, which begins anew. re_anchor: all that were judged begin anew.
    """
    kept = dict(anchors)
    moved: dict[str, list[str]] = {}
    for name, old, new, gated in replaced:
        key_of_old = on_kernels(name, old.kernels)
        different = first_difference(old.metric, new)[0]
        if different:
            moved.setdefault(f"new, since the {different}", []).append(name)
            kept = {k: one for k, one in kept.items() if name_of(k) != name or same_work(one.metric, new)}
        elif gated and re_anchor:
            before = kept.get(key_of_old, old)
            if _values(before.metric) != _values(new):
                was = f"{quantity(before.metric.value, new.unit)} of {before.origin.created} ({before.origin.reason})"
                moved.setdefault(f"moved from {was}", []).append(name)
            # A value of any kernels replaces that of all, but for timings and memory peaks.
            gone = {key_of_old} if new.nested else {key for key in kept if name_of(key) == name}
            kept = {key: one for key, one in kept.items() if key not in gone}
        elif gated and _values(old.metric) != _values(new):
            kept.setdefault(key_of_old, old)
    return Anchors(kept, [f"anchor of {listed(names)}: {text}" for text, names in moved.items()])


def _values(metric: Metric) -> object:
    return metric.value, metric.samples


def since_anchor(
    subject: Subject,
    measured: Metric,
    anchor: Anchor,
    tolerance: Tolerance,
    alpha: float,
    environment: Mapping[str, Scalar],
) -> Iterator[Verdict]:
    """Judge the loss since the anchor, by the same test and tolerance as that since the baseline: `drift` where it is
    beyond. Yields nothing where the two may not be compared.

    environment: that of `measured`; the others as of `quantgate.judge.judge.judge`.
    """
    changed = changed_environment(anchor.origin.environment, environment)
    verdict = judge(replace(subject, environment=changed), measured, anchor.metric, tolerance, alpha)
    if verdict.status == Status.NOT_COMPARABLE:
        return
    status = {Status.REGRESSION: Status.DRIFT, Status.IMPROVEMENT: Status.PASS}.get(verdict.status)
    since = f"since the anchor of {anchor.origin.created} ({anchor.origin.reason})"
    yield verdict.model_copy(
        update={
            "metric": f"{subject.name}{ANCHOR}",
            "status": status or verdict.status,
            "text": f"{since}: {verdict.text.removesuffix(': update the baseline')}",
        }
    )
