"""The run in sentences: outcome, counts, what was compared, how to update."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from quantgate.config.matrix import selecting
from quantgate.judge import MOVED, why_refused
from quantgate.records import Status, Verdict
from quantgate.report.findings import findings, leading
from quantgate.report.summary import counts, unique
from quantgate.words import delta, duration, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantgate.report import RunInfo


def update_command(verdicts: list[Verdict], info: RunInfo) -> str:
    """Return the command that makes improvements and first values the baseline; empty where there are none, or where
    this run updates. Cells in which something failed are left out: that comes first."""
    failed = {v.cell for v in verdicts if v.status in (*MOVED, Status.ERROR)}
    better = unique(v.cell for v in verdicts if v.status in (Status.IMPROVEMENT, Status.NO_BASELINE))
    wrong: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.wrong:
            wrong.setdefault(_model(verdict.cell), []).append(verdict)
    cells = [
        cell for cell in better if cell not in failed and not why_refused(cell, wrong.get(_model(cell), []))
    ]
    if not cells or info.updating or info.against:
        return ""
    command = f'pytest --update-baselines --reason "..." --tier {info.tier}'
    if info.options:
        command += f" {shlex.join(info.options)}"
    tier = set(info.bits) - {cell for cell, _ in info.skipped} or {v.cell for v in verdicts}
    if set(cells) == tier:
        return command
    # Always with a selection: without one, values that drifted within their tolerance would be updated too.
    chosen = " or ".join(f"({selecting(cell)})" for cell in cells) if len(cells) > 1 else selecting(cells[0])
    return f'{command} -m "{chosen if len(cells) <= 3 else "<these cells>"}"'


def _model(cell: str) -> str:
    return cell.partition("/")[0]


def against_text(info: RunInfo) -> str:
    """Return what an A/B run compared and how the two environments differ; for other runs, how the environment differs
    from that of the baselines."""
    if not info.against:
        return f"changed since the baselines: {', '.join(info.changed)}" if info.changed else ""
    return (
        f"compared with {info.against}, measured alternately on this machine: "
        f"{', '.join(info.changed) or 'same versions'}"
    )


def outcome(verdicts: list[Verdict], bits: Mapping[str, float] | None = None) -> str:
    """Return the run in one sentence."""
    by_status = counts(verdicts)
    if not by_status:
        return "Nothing was judged."
    common, others = leading(findings(verdicts, bits))
    if common:
        rest = len(common) - 1 + sum(1 for f in others if f.status in (*MOVED, Status.ERROR))
        more = f"; and {plural(rest, 'further finding')}" if rest else ""
        return f"One cause in {common[0].title}{more}."
    cases = plural(sum(by_status.values()), "case")
    moved = [v for v in verdicts if v.status in MOVED]
    if moved:
        regressions = [v for v in moved if v.status == Status.REGRESSION]
        worse, what = regressions or moved, "Worse than the baseline" if regressions else "Changed"
        by = f" by {delta(worse[0].change, worse[0])}" if worse[0].change is not None else ""
        more = f", and {plural(len(moved) - 1, 'further metric')}" if len(moved) > 1 else ""
        return f"{what}: {worse[0].metric} of {worse[0].cell}{by}{more}."
    wrong = [v for v in verdicts if v.wrong]
    if wrong:
        more = f", and {plural(len(wrong) - 1, 'further metric')}" if len(wrong) > 1 else ""
        return f"Wrong whatever the baseline: {wrong[0].metric} of {wrong[0].cell}{more}."
    words = {
        Status.ERROR: "failed to measure",
        Status.NOT_COMPARABLE: "not comparable",
        Status.NO_BASELINE: "without a baseline",
        Status.INCONCLUSIVE: "inconclusive",
    }
    unjudged = [f"{by_status[status]:,} {word}" for status, word in words.items() if status in by_status]
    if unjudged:
        return f"No regression in what could be judged, but of {cases}: {', '.join(unjudged)}."
    better = f", {by_status[Status.IMPROVEMENT]:,} better" if Status.IMPROVEMENT in by_status else ""
    return f"No regression: {cases} within tolerance of the baseline{better}."


def unequal_text(verdicts: list[Verdict]) -> str:
    """Return in a sentence which metrics are not equal to the last digit although nothing has changed; empty: none."""
    unequal = [v for v in verdicts if v.unequal]
    if not unequal:
        return ""
    largest = max(unequal, key=lambda v: v.measured or 0.0)
    return (
        f"{plural(len(unequal), 'metric')} of {plural(len(unique(v.cell for v in unequal)), 'cell')} "
        f"{'is' if len(unequal) == 1 else 'are'} not equal to the last digit although nothing has changed since the "
        f"baseline: the computation is not deterministic ({largest.cell} {largest.metric}: "
        f"{largest.measured:.2g} {largest.unit})"
    )


def counts_text(verdicts: list[Verdict]) -> str:
    """Return the numbers of cases: `3 regressions, 1 not comparable, 49 pass`."""
    nouns = (Status.REGRESSION, Status.ERROR, Status.IMPROVEMENT)
    parts = [
        plural(n, status) if status in nouns else f"{n:,} {status}" for status, n in counts(verdicts).items()
    ]
    return ", ".join(parts) or "nothing was judged"


def run_text(verdicts: list[Verdict], info: RunInfo) -> str:
    """Return the size of the run: `65 cases in 13 cells, 2 cells skipped, 9 min 40 s, exit status 1`."""
    cells = len(unique(v.cell for v in verdicts))
    parts = [f"{plural(sum(counts(verdicts).values()), 'case')} in {plural(cells, 'cell')}"]
    if info.skipped:
        parts.append(f"{plural(len(info.skipped), 'cell')} skipped")
    parts.append(duration(info.seconds))
    if info.exit_status:
        parts.append(f"exit status {info.exit_status}")
    return ", ".join(parts)
