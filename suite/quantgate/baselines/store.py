"""Baselines: measurements that a person accepted, kept in git. Read, plan an update, write it.

    <root>/<model>/<backend>/<scheme>/<tier>.toml            the summary, read by reviewers in a diff
    <root>/<model>/<backend>/<scheme>/<tier>.<sha>.json      values per window and item, named by the summary
    <root>/<model>/<backend>/<scheme>/<tier>@<machine>.toml  absolute timings (kind "rounds"), with raw file
    <root>/machines/<machine>.toml                           what tells that machine from others

What is inside the files, and why an interrupted update leaves the old pair whole: `quantgate.baselines.file`.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pydantic import Field

from quantgate.baselines.file import Baseline, Origin, name_of, on_kernels, read_file, write_file
from quantgate.baselines.machines import check_machine, read_machine
from quantgate.baselines.storage import locked, one_line
from quantgate.config.matrix import selecting
from quantgate.errors import InputError
from quantgate.files import checked_name
from quantgate.judge import Sensitivity, restless, why_refused
from quantgate.records import Measurement, Metric, Record, Status, Verdict, same_work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.table import Table

__all__ = [
    "Baseline",
    "Origin",
    "Row",
    "Update",
    "baseline_path",
    "check_machine",
    "format_update",
    "plan_update",
    "read",
    "write_update",
]


class Row(Record):
    """One metric of an update; `new` None: not measured this time, kept from the day `kept`."""

    metric: str
    unit: str
    old: float | None
    new: float | None
    status: Status | None = None
    kept: str = ""

    @property
    def difference(self) -> float | None:
        """New minus old, where both exist."""
        return None if self.old is None or self.new is None else self.new - self.old


class Update(Record):
    """What an update would change, and what speaks against it (only `regressions` can be accepted). warnings: what
    makes some of the values poor to hold later runs against. narrow: tolerances below what the sample shows."""

    new: Measurement
    old: Baseline | None
    machine: str | None
    rows: list[Row]
    refusals: list[str]
    regressions: list[str]
    warnings: list[str]
    narrow: list[str] = Field(default_factory=list)


def baseline_path(root: Path, cell: str, tier: str, machine: str | None = None) -> Path:
    """The summary file of a cell. Raises InputError for a name that cannot be part of a path."""
    parts = cell.split("/")
    if len(parts) != 3:
        raise InputError(f"cell {cell!r}: not of the form <model>/<backend>/<scheme>")
    at = "" if machine is None else f"@{checked_name('machine', machine)}"
    file = f"{checked_name('tier', tier)}{at}.toml"
    return root.joinpath(*(checked_name("cell", part) for part in parts), file)


def read(root: Path, cell: str, tier: str, machine: str | None = None) -> Baseline | None:
    """The baseline of a cell, with the absolute timings of `machine` if one is named; None: no file.

    Raises InputError (file, key, remedy) for a file that is corrupted, incomplete or of a newer format.
    """
    general = read_file(baseline_path(root, cell, tier), cell, tier, None)
    if machine is None:
        return general
    timings = read_file(baseline_path(root, cell, tier, machine), cell, tier, machine)
    if general is None or timings is None:
        return general or timings
    return general.model_copy(
        update={
            "machine": machine,
            "metrics": general.metrics | timings.metrics,
            "kept": general.kept | {name: timings.origin(name) for name in timings.metrics},
            "digests": general.digests | timings.digests,
        }
    )


def plan_update(
    new: Measurement,
    old: Baseline | None,
    verdicts: Sequence[Verdict],
    machine: str | None = None,
    seen: Sensitivity | None = None,
) -> Update:
    """What accepting `new` would change. Pure; what speaks against it is part of the answer.

    Timings (kind "rounds") take part only with a `machine`; read `old` with the same one. Metrics not
    measured this time are kept with their origin; to drop one for good, delete the file and update.
    seen: what this sample can show; a gate that it makes void is a refusal.
    """
    mine = [verdict for verdict in verdicts if verdict.cell == new.cell]
    status = {verdict.metric: verdict.status for verdict in mine}
    before = old.metrics | old.others if old else {}
    timed = machine is not None
    measured = {place(old, name, m): m for name, m in new.metrics.items() if m.kind != "rounds" or timed}
    kept = {name: old.origin(name).created for name in _left(old, new)} if old else {}
    refusals = [_said(v) for v in mine if v.status is Status.ERROR and not v.wrong]
    refusals += why_refused(new.cell, verdicts)
    refusals += [f"{text}; as it is, this gate never turns red" for text in seen.void] if seen else []
    if not new.complete:
        refusals.append("the measurement is incomplete; a failed or partial run never becomes a baseline")
    elif not measured:
        refusals.append("nothing measured can be kept (timings need a named machine: --machine NAME)")
    return Update(
        new=new,
        old=old,
        machine=machine,
        rows=[
            Row(
                metric=name,
                unit=(measured if name in measured else before)[name].unit,
                old=before[name].value if name in before else None,
                new=measured[name].value if name in measured else None,
                status=status.get(name_of(name)) if name in measured else None,
                kept=kept.get(name, ""),
            )
            for name in sorted(measured.keys() | kept.keys())
        ],
        refusals=refusals,
        regressions=[_said(verdict) for verdict in mine if verdict.status is Status.REGRESSION],
        warnings=restless(measured),
        narrow=seen.narrow if seen else [],
    )


def place(old: Baseline | None, name: str, metric: Metric) -> str:
    """The name in `metrics` or `others` that a newly measured value takes: a ratio of timings or a memory peak on other
    kernels than the baseline's stands beside that value, and takes the place of none."""
    was = old.metrics.get(name) if old else None
    if was is None or metric.kind not in ("level", "ratio") or was.conditions == metric.conditions:
        return name
    return on_kernels(name, metric) if same_work(was, metric) else name


def _left(old: Baseline, new: Measurement) -> dict[str, Metric]:
    """The old values that stay: of metrics that were not measured, and of the same work on other kernels."""
    taken = {place(old, name, metric) for name, metric in new.metrics.items()}
    fresh = {name: metric for name, metric in new.metrics.items() if name in taken}
    left = {name: metric for name, metric in old.metrics.items() if name not in taken}
    others = {name: metric for name, metric in old.others.items() if name not in taken}
    return left | {
        n: m for n, m in others.items() if name_of(n) not in fresh or same_work(m, fresh[name_of(n)])
    }


def _said(verdict: Verdict) -> str:
    return f"{verdict.metric}: {verdict.text or verdict.status}"


def write_update(
    root: Path, update: Update, *, reason: str, accept_regressions: bool = False, command: str = "pytest"
) -> list[Path]:
    """Make the planned update the baseline; the files written. `command` begins the regenerating line.

    Raises InputError where the update is refused, gives no reason, names a machine that is not recorded,
    or another run got in between; QuantgateError where a file cannot be written.
    """
    new, reason = update.new, one_line(reason)
    if not reason:
        raise InputError('an update of baselines needs a reason: --reason "why the values change"')
    refusals = list(update.refusals)
    if not accept_regressions:
        refusals += [f"{text} (--accept-regressions takes it nevertheless)" for text in update.regressions]
    if refusals:
        raise InputError("\n  ".join([f"{new.cell} ({new.tier}): the baseline is not updated:", *refusals]))
    if update.machine is not None:
        read_machine(root, update.machine)
    files = [None] if update.machine is None else [None, update.machine]
    parts = [part for machine in files if (part := _accepted(root, update, machine, reason))]
    with locked(root):
        current = read(root, new.cell, new.tier, update.machine)
        check_unchanged(new, current, update.old.digests if update.old else {})
        return [path for part in parts for path in write_file(part, _regenerate(part, command))]


def check_unchanged(new: Measurement, current: Baseline | None, digests: Mapping[str, str]) -> None:
    """Raise InputError where a baseline is another one by now than when it had these digests (none: no baseline)."""
    if (current.digests if current else {}) != digests:
        raise InputError(f"{new.cell} ({new.tier}): the baseline was changed by another run; run again")


def _accepted(root: Path, update: Update, machine: str | None, reason: str) -> Baseline | None:
    """What the general file, or that of one machine, becomes; None: nothing of it was measured."""
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
    left = {name: m for name, m in _left(old, new).items() if _belongs(m, machine)}
    kept = {name: origin for name in left if (origin := old.origin(name)) != accepted.latest}
    values = left | {place(old, name, metric): metric for name, metric in metrics.items()}
    main = {name: metric for name, metric in values.items() if name == name_of(name)}
    others = {name: metric for name, metric in values.items() if name not in main}
    return accepted.model_copy(update={"metrics": main, "others": others, "kept": kept})


def _belongs(metric: Metric, machine: str | None) -> bool:
    """Absolute timings go into the file of a machine, and nothing else does."""
    return (metric.kind == "rounds") == (machine is not None)


def _regenerate(baseline: Baseline, command: str) -> str:
    on = ["--machine", baseline.machine] if baseline.machine is not None else []
    options = ["--tier", baseline.tier, *on, "-m", selecting(baseline.cell), "--update-baselines"]
    return f"{command} {shlex.join([*options, '--reason', baseline.reason])}"


def format_update(update: Update) -> Table:
    """The planned update as a table for the terminal: metric, old, new, difference."""
    from rich.table import Table
    from rich.text import Text

    on = f", timings of {update.machine}" if update.machine else ""
    again = ["update them again on a machine at rest: -m throughput"] if update.warnings else []
    warnings = [*update.narrow, *update.warnings, *again]
    table = Table(
        title=Text(f"{update.new.cell} ({update.new.tier}{on})"),
        title_justify="left",
        caption=Text("\n".join(warnings), style="yellow") if warnings else None,
        caption_justify="left",
    )
    table.add_column("metric", overflow="fold")
    for heading in ("old", "new", "difference"):
        table.add_column(heading, justify="right")
    colours = {Status.REGRESSION: "red", Status.ERROR: "red", Status.IMPROVEMENT: "green"}
    for row in update.rows:
        table.add_row(
            Text(f"{row.metric} ({row.unit})"),
            "-" if row.old is None else _number(row.old),
            f"kept from {row.kept}" if row.new is None else _number(row.new),
            _difference(row),
            style="dim" if row.new is None else colours.get(row.status, "") if row.status else "",
        )
    return table


def _difference(row: Row) -> str:
    if row.difference is None:
        return "" if row.new is None else "first"
    if row.difference == 0:
        return "none"
    return _number(row.difference, "+") + (f" ({row.difference / abs(row.old):+.2%})" if row.old else "")


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign},.0f}" if value.is_integer() else f"{value:{sign}.6g}"
