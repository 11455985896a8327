"""Plan what accepting a measurement would change, and write it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from quantgate.baselines.baseline import Baseline
from quantgate.baselines.file import write_file
from quantgate.baselines.store import baseline_path, read, read_machine
from quantgate.baselines.toml_file import locked, one_line
from quantgate.config.matrix import selecting
from quantgate.errors import InputError
from quantgate.judge.anchor import Anchor, Replaced, anchor_of, measured_name, updated
from quantgate.judge.expected import why_refused
from quantgate.judge.kernels import name_of, on_kernels, same_work
from quantgate.judge.nested import poor_baselines
from quantgate.judge.sensitivity import Sensitivity
from quantgate.records import Measurement, Metric, Record, Status, Verdict, worst


class Row(Record):
    """One metric of an update. new: None where it was not measured this time; then it is kept from the day `kept`.
    anchor: what losses have added up from, of the day `since`; None where nothing was compared by a tolerance."""

    metric: str
    unit: str
    old: float | None
    new: float | None
    status: Status | None = None
    kept: str = ""
    anchor: float | None = None
    since: str = ""

    @property
    def difference(self) -> float | None:
        """New minus old; None where one of them is missing."""
        return None if self.old is None or self.new is None else self.new - self.old

    @property
    def from_anchor(self) -> float | None:
        """New minus anchor; None where one of them is missing."""
        return None if self.anchor is None or self.new is None else self.new - self.anchor


ACCEPT, MOVE = "--accept-regressions", "--re-anchor"
"""What a person agrees to a value with that is worse than the baseline, and to one that is worse than the anchor."""


class Objection(Record):
    """Why a person has to agree to an update, and the options that agree to it."""

    text: str
    options: list[str]

    @property
    def remedy(self) -> str:
        """What accepts it."""
        return f"{' and '.join(self.options)} accept{'s' if len(self.options) == 1 else ''} it"


class Update(Record):
    """What an update would change. refusals: why it is refused in any case; objections: what a person has to accept;
    anchors: those of the new baseline; moved: which of them are new, and why; warnings: why some of the values make
    poor baselines; narrow: tolerances smaller than what the sample can show."""

    new: Measurement
    old: Baseline | None
    machine: str | None
    re_anchor: bool
    rows: list[Row]
    refusals: list[str]
    objections: list[Objection]
    anchors: dict[str, Anchor]
    moved: list[str]
    warnings: list[str]
    narrow: list[str] = Field(default_factory=list)


def plan_update(
    new: Measurement,
    old: Baseline | None,
    verdicts: Sequence[Verdict],
    machine: str | None = None,
    sensitivity: Sensitivity | None = None,
    *,
    re_anchor: bool = False,
) -> Update:
    """Return what accepting `new` would change, with the objections to it. Pure.

    Timings (`is_timing`) take part only with a `machine`; read `old` with the same one. Metrics not measured this
    time are kept with their origin; to drop one for good, delete the file and update.

    verdicts: those of the cell's model, since references that disagree keep the whole model out; more do no harm.
    sensitivity: what this sample can show; a gate that is void is refused. re_anchor: the new values become the anchors
    of their gates.
    """
    mine = [verdict for verdict in verdicts if verdict.cell == new.cell]
    status: dict[str, Status] = {}
    for verdict in mine:
        name = measured_name(verdict.metric)
        status[name] = worst([verdict.status, status.get(name, verdict.status)])
    before = old.values if old else {}
    measured = {place(old, name, m): m for name, m in new.metrics.items() if machine or not is_timing(m)}
    kept = {name: old.origin(name).created for name in _left(old, new)} if old else {}
    void, narrow = (sensitivity.void, sensitivity.narrow + sensitivity.never) if sensitivity else ([], [])
    refusals = [_line(v) for v in mine if v.status is Status.ERROR and not v.wrong]
    refusals += why_refused(new.cell, verdicts)
    refusals += [f"{text}; as it is, this gate can never fail" for text in void]
    if not new.complete:
        refusals.append("the measurement is incomplete; a failed or partial run never becomes a baseline")
    elif not measured:
        refusals.append("nothing measured can be kept (timings need a named machine: --machine NAME)")
    replaced = list(_replaced(old, measured, mine)) if old else []
    earlier = old.anchors if old else {}
    anchors = updated(earlier, replaced, re_anchor=re_anchor)
    since = {
        place(old, one.name, one.new): anchor_of(earlier, one.name, one.new, new.environment) or one.old
        for one in replaced
        if one.gated
    }
    return Update(
        new=new,
        old=old,
        machine=machine,
        re_anchor=re_anchor,
        rows=[
            Row(
                metric=name,
                unit=(measured if name in measured else before)[name].unit,
                old=before[name].value if name in before else None,
                new=measured[name].value if name in measured else None,
                status=status.get(name_of(name)) if name in measured else None,
                kept=kept.get(name, ""),
                anchor=anchor.metric.value if (anchor := since.get(name)) else None,
                since=anchor.origin.created if anchor else "",
            )
            for name in sorted(measured.keys() | kept.keys())
        ],
        refusals=refusals,
        objections=list(_objections(old, new, mine)),
        anchors=anchors.kept,
        moved=anchors.moved,
        warnings=poor_baselines(measured),
        narrow=narrow,
    )


def _replaced(
    old: Baseline, measured: Mapping[str, Metric], verdicts: Sequence[Verdict]
) -> Iterator[Replaced]:
    """Yield the values of the baseline that newly measured ones replace. measured: those by `place`."""
    # What was compared with the baseline by a tolerance; an absolute gate alone compares with nothing.
    gated = {v.metric for v in verdicts if v.tolerance is not None and v.baseline is not None}
    for key, metric in measured.items():
        if key in old.values:
            name = name_of(key)
            yield Replaced(name, old.as_anchor(key), metric, name in gated)


def _objections(old: Baseline | None, new: Measurement, verdicts: Sequence[Verdict]) -> Iterator[Objection]:
    for verdict in verdicts:
        text = _line(verdict)
        if verdict.status is Status.DRIFT:
            yield Objection(text=text, options=[MOVE])
        elif verdict.status is Status.REGRESSION:
            begins = _begins_anchor(old, new, verdict.metric)
            yield Objection(text=text, options=[ACCEPT, MOVE] if begins else [ACCEPT])


def _begins_anchor(old: Baseline | None, new: Measurement, name: str) -> bool:
    """Return whether the old value of a metric becomes the first anchor, so that the next run would say `drift`."""
    metric = new.metrics.get(name)
    if old is None or metric is None or place(old, name, metric) not in old.values:
        return False
    return anchor_of(old.anchors, name, metric, new.environment) is None


def place(old: Baseline | None, name: str, metric: Metric) -> str:
    """Return the name in `values` that a newly measured value takes.

    A ratio of timings or a memory peak on other kernels than the baseline's stands beside that value and replaces none.
    """
    before = old.metrics.get(name) if old else None
    if before is None or metric.kind not in ("level", "ratio") or before.conditions == metric.conditions:
        return name
    return on_kernels(name, metric.kernels) if same_work(before, metric) else name


def _left(old: Baseline, new: Measurement) -> dict[str, Metric]:
    """Return the old values that stay: metrics that were not measured, and the same work on other kernels."""
    taken = {place(old, name, metric) for name, metric in new.metrics.items()}
    fresh = {name: metric for name, metric in new.metrics.items() if name in taken}
    left = {name: metric for name, metric in old.values.items() if name not in taken}
    return {n: m for n, m in left.items() if name_of(n) not in fresh or same_work(m, fresh[name_of(n)])}


def _line(verdict: Verdict) -> str:
    return f"{verdict.metric}: {verdict.text or verdict.status}"


def write_update(
    root: Path, update: Update, *, reason: str, accept_regressions: bool = False, command: str = "pytest"
) -> list[Path]:
    """Make the planned update the baseline and return the files written. command: begins the command that regenerates
    it.

    Raises InputError where the update is refused, gives no reason, names a machine that is not recorded,
    or another run got in between; QuantgateError where a file cannot be written.
    """
    new, reason = update.new, one_line(reason)
    if not reason:
        raise InputError('an update of baselines needs a reason: --reason "why the values change"')
    agreed = {ACCEPT: accept_regressions, MOVE: update.re_anchor}
    refusals = update.refusals + [
        f"{text} ({Objection(text=text, options=missing).remedy})"
        for text, options in ((one.text, one.options) for one in update.objections)
        if (missing := [option for option in options if not agreed[option]])
    ]
    if refusals:
        raise InputError("\n  ".join([f"{new.cell} ({new.tier}): the baseline is not updated:", *refusals]))
    if update.machine is not None:
        read_machine(root, update.machine)
    files = [None] if update.machine is None else [None, update.machine]
    parts = [part for machine in files if (part := _accepted(root, update, machine, reason))]
    with locked(root):
        current, old = read(root, new.cell, new.tier, update.machine), update.old
        if (current and current.digests) != (old and old.digests):
            raise InputError(f"{new.cell} ({new.tier}): the baseline was changed by another run; run again")
        return [path for part in parts for path in write_file(part, _regenerate(part, command))]


def _accepted(root: Path, update: Update, machine: str | None, reason: str) -> Baseline | None:
    """Return the new content of the general file, or of that of a machine; None: nothing of it was measured."""
    new, old = update.new, update.old
    metrics = {name: metric for name, metric in new.metrics.items() if _belongs(metric, machine)}
    if not metrics:
        return None
    accepted = Baseline(
        **new.model_dump(include={"cell", "tier", "fingerprint", "environment"}),
        created=new.created[:10],  # the day: enough for a reviewer
        reason=reason,
        metrics=metrics,
        path=baseline_path(root, new.cell, new.tier, machine),
        machine=machine,
        complete=True,
    )
    if old is None:
        return accepted
    anchors = {name: one for name, one in update.anchors.items() if _belongs(one.metric, machine)}
    left = {name: m for name, m in _left(old, new).items() if _belongs(m, machine)}
    kept = {name: origin for name in left if (origin := old.origin(name)) != accepted.latest}
    values = left | {place(old, name, metric): metric for name, metric in metrics.items()}
    main = {name: metric for name, metric in values.items() if name == name_of(name)}
    others = {name: metric for name, metric in values.items() if name not in main}
    return accepted.model_copy(update={"metrics": main, "others": others, "kept": kept, "anchors": anchors})


def is_timing(metric: Metric) -> bool:
    """Whether a metric is an absolute timing, which no general baseline keeps: rounds, or a rate made of them."""
    return metric.kind == "rounds" or metric.unit.endswith("/s")


def _belongs(metric: Metric, machine: str | None) -> bool:
    """Whether a metric goes into the file: absolute timings into that of a machine, all else into the general one."""
    return is_timing(metric) == (machine is not None)


def _regenerate(baseline: Baseline, command: str) -> str:
    on = ["--machine", baseline.machine] if baseline.machine is not None else []
    options = ["--tier", baseline.tier, *on, "-m", selecting(baseline.cell), "--update-baselines"]
    return f"{command} {shlex.join([*options, '--reason', baseline.reason])}"
