"""Turn verdicts into the rows of the table, into counts and into sentences, for every kind of report."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from quantgate.config.matrix import selecting
from quantgate.judge.anchor import measured_name
from quantgate.judge.coverage import coverage
from quantgate.judge.expected import why_refused
from quantgate.measure.groups import Column, case_of, columns
from quantgate.records import MOVED, Status, Verdict, worst
from quantgate.report import RunInfo, by_cell
from quantgate.report.findings import FAILED, leading, unique
from quantgate.words import BEYOND, DASH, delta, duration, plural, signed

MARKS = {
    Status.REGRESSION: "✗",
    Status.DRIFT: "↘",
    Status.CHANGED: "≈",
    Status.ERROR: "!",
    Status.NOT_COMPARABLE: "≠",
    Status.NO_BASELINE: "○",
    Status.INCONCLUSIVE: "?",
    Status.IMPROVEMENT: "↑",
    Status.PASS: "",
}

WHAT = {
    Status.REGRESSION: "Worse than the baseline",
    Status.DRIFT: "Worse than the anchor, within the tolerance of the baseline",
    Status.CHANGED: "Changed",
}
"""What a value that moved did."""

COLUMNS = columns()
"""What the table shows of a cell."""


@dataclass(frozen=True)
class Entry:
    """One column of one row, as text."""

    value: str
    change: str
    status: Status
    mark: str


EMPTY = Entry(DASH, "", Status.PASS, "")


@dataclass(frozen=True)
class Row:
    """One cell in the table."""

    cell: str
    entries: tuple[Entry, ...]
    status: Status


def rows(verdicts: list[Verdict]) -> list[Row]:
    """Return one row per cell, grouped by model, in the order of the verdicts."""
    models: dict[str, list[Row]] = {}
    for cell, its in by_cell(verdicts).items():
        models.setdefault(cell.partition("/")[0], []).append(_row(cell, {v.metric: v for v in its}))
    return [row for group in models.values() for row in group]


def shown_columns(table: list[Row]) -> list[int]:
    """Return the indices of the columns that are not empty in all rows."""
    return [index for index in range(len(COLUMNS)) if any(row.entries[index] != EMPTY for row in table)]


def _row(cell: str, metrics: dict[str, Verdict]) -> Row:
    entries = [_entry(column, metrics) for column in COLUMNS]
    status = worst(v.status for v in metrics.values())
    statuses = {entry.status for entry in entries if entry != EMPTY}
    if statuses <= {status} and status in (Status.ERROR, Status.NO_BASELINE):
        # The verdict at the end of the row says it for all.
        entries = [replace(entry, mark="") for entry in entries]
    return Row(cell, tuple(entries), status)


def _entry(column: Column, metrics: dict[str, Verdict]) -> Entry:
    first = {name: v for name, v in metrics.items() if not _matches(name, column.last)}
    chosen = _values(column, first) or _values(column, metrics)
    patterns = column.values + column.marks
    named = ((measured_name(name), verdict) for name, verdict in metrics.items())
    status = worst(v.status for name, v in named if _matches(name, patterns))
    measured = [v.measured for v in chosen.values() if v.measured is not None]
    if not measured or len(measured) < len(chosen):  # a mean over other tasks cannot be compared
        return Entry(DASH, "", status, MARKS[status])
    value = sum(measured) / len(measured) * column.scale
    number = f"{value:.{column.digits}f}" if abs(value) < BEYOND else f"{value:.5g}"
    text = f"{number}{' %' if column.percent else ''}"
    return Entry(text, _change(column, list(chosen.values())), status, MARKS[status])


def _values(column: Column, metrics: dict[str, Verdict]) -> dict[str, Verdict]:
    """Return the values that a column shows the mean of, by their names without the last part."""
    chosen: dict[str, Verdict] = {}
    for pattern in column.values:
        for name, verdict in metrics.items():
            if fnmatchcase(name, pattern):
                chosen.setdefault(name.rpartition("/")[0], verdict)
    return chosen


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _change(column: Column, verdicts: list[Verdict]) -> str:
    """Return the change of those that have a baseline and may be compared with it."""
    pairs = [
        (v.measured, v.baseline)
        for v in verdicts
        if v.measured is not None and v.baseline is not None and v.status != Status.NOT_COMPARABLE
    ]
    if not pairs:
        return ""
    new, old = (sum(side) / len(side) for side in zip(*pairs, strict=True))
    if column.percent:
        return signed((new - old) * 100, "pp")
    return signed((new / old - 1) * 100, "%") if old else ""


def counts(verdicts: list[Verdict]) -> dict[Status, int]:
    """Count cases by status, the worst first, as pytest does: a case takes the worst of its metrics."""
    cases: dict[tuple[str, str], list[Status]] = {}
    for verdict in verdicts:
        cases.setdefault((verdict.cell, case_of(verdict.metric)), []).append(verdict.status)
    numbers = Counter(worst(statuses) for statuses in cases.values())
    return {status: numbers[status] for status in Status if numbers[status]}


def counts_text(verdicts: list[Verdict]) -> str:
    """Return the numbers of cases: `3 regressions, 1 not comparable, 49 pass`."""
    nouns = (Status.REGRESSION, Status.ERROR, Status.IMPROVEMENT)
    parts = [plural(n, s) if s in nouns else f"{n:,} {s}" for s, n in counts(verdicts).items()]
    return ", ".join(parts) or "nothing was judged"


def judged_text(verdicts: list[Verdict], info: RunInfo) -> str:
    """Return how many gates were judged: `171 of 193 gates judged; not judged: 12 inconclusive (throughput 8)`."""
    gates, least = coverage(verdicts, info.left_out), info.min_judged
    few = least is not None and gates.share < least
    return f"{gates.text}: fewer than --min-judged {least:g}" if few else gates.text


def run_text(verdicts: list[Verdict], info: RunInfo) -> str:
    """Return the size of the run: `65 cases in 13 cells, 2 cells skipped, 9 min 40 s, exit status 1`."""
    cells = len({v.cell for v in verdicts})
    parts = [
        f"{plural(sum(counts(verdicts).values()), 'case')} in {plural(cells, 'cell')}",
        f"{plural(len(info.skipped), 'cell')} skipped" if info.skipped else "",
        duration(info.seconds),
        f"exit status {info.exit_status}" if info.exit_status else "",
    ]
    return ", ".join(filter(None, parts))


def where(info: RunInfo) -> str:
    """Return what judged, and where: version, machine, commit, matrix."""
    commit = info.commit and f"commit {info.commit}"
    return " · ".join(filter(None, (f"quantgate {info.version}", info.machine, commit, info.matrix)))


ENDED = {"2": "The run was interrupted", "3": "An internal error ended the run"}
"""By exit status: what is judged then is not all that was to be."""


def ended_text(info: RunInfo) -> str:
    """Return what a run says that did not come to its end; empty: it did. No A/B run reuses what another measured."""
    ended = ENDED.get(info.exit_status, "")
    return (
        f"{ended}: the same command with --reuse goes on from here" if ended and not info.against else ended
    )


def outcome(verdicts: list[Verdict], info: RunInfo | None = None) -> str:
    """Return the run in one sentence; in two, where `info` says that it did not come to its end."""
    text = _outcome(verdicts, info.bits if info else {})
    ended = ENDED.get(info.exit_status) if info else None
    return f"{ended}. So far: {text}" if ended else text


def _outcome(verdicts: list[Verdict], bits: Mapping[str, float]) -> str:
    by_status = counts(verdicts)
    if not by_status:
        return "Nothing was judged."
    common, others = leading(verdicts, bits)
    if common:
        rest = len(common) - 1 + sum(1 for f in others if f.status in FAILED)
        more = f"; and {plural(rest, 'further finding')}" if rest else ""
        return f"One cause in {common[0].title}{more}."
    cases = plural(sum(by_status.values()), "case")
    moved = [v for v in verdicts if v.status in MOVED]
    if moved:
        first = min(moved, key=lambda v: MOVED.index(v.status))
        by = f" by {delta(first.change, first)}" if first.change is not None else ""
        return f"{WHAT[first.status]}: {measured_name(first.metric)} of {first.cell}{by}{_further(moved)}."
    wrong = [v for v in verdicts if v.wrong]
    if wrong:
        return f"Wrong regardless of the baseline: {wrong[0].metric} of {wrong[0].cell}{_further(wrong)}."
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


def _further(verdicts: list[Verdict]) -> str:
    return f", and {plural(len(verdicts) - 1, 'further metric')}" if len(verdicts) > 1 else ""


def against_text(info: RunInfo) -> str:
    """Return what an A/B run compared and how the two environments differ; for other runs, how the environment differs
    from that of the baselines."""
    changed = ", ".join(info.changed)
    if info.against:
        where = f"compared with {info.against}, measured alternately on this machine"
        return f"{where}: {changed or 'same versions'}"
    return f"changed since the baselines: {changed}" if changed else ""


def unequal_text(verdicts: list[Verdict]) -> str:
    """Return in a sentence which metrics are not equal to the last digit although nothing has changed; empty: none."""
    unequal = [v for v in verdicts if v.unequal]
    if not unequal:
        return ""
    largest = max(unequal, key=lambda v: v.measured or 0.0)
    return (
        f"{plural(len(unequal), 'metric')} of {plural(len({v.cell for v in unequal}), 'cell')} "
        f"{'is' if len(unequal) == 1 else 'are'} not equal to the last digit although nothing has changed since the "
        f"baseline: the computation is not deterministic ({largest.cell} {largest.metric}: "
        f"{largest.measured:.2g} {largest.unit})"
    )


def update_command(verdicts: list[Verdict], info: RunInfo) -> str:
    """Return the command that makes improvements and first values the baseline; empty where there are none, or where
    this run updates. Cells in which something failed are left out: that comes first."""
    other_work = [v for v in verdicts if v.status == Status.NOT_COMPARABLE and not v.by_machine]
    failed = {v.cell for v in verdicts if v.status in FAILED} | {v.cell for v in other_work}
    better = unique(v.cell for v in verdicts if v.status in (Status.IMPROVEMENT, Status.NO_BASELINE))
    wrong = [v for v in verdicts if v.wrong]
    cells = [cell for cell in better if cell not in failed and not why_refused(cell, wrong)]
    if not cells or info.updating or info.against:
        return ""
    # With --reuse: these are the values, and nothing is measured twice.
    command = f'pytest --update-baselines --reason "..." --reuse --tier {info.tier}'
    if info.options:
        command += f" {shlex.join(info.options)}"
    tier = set(info.bits) - {cell for cell, _ in info.skipped} or {v.cell for v in verdicts}
    if set(cells) == tier:
        return command
    # Always with a selection: without one, values that drifted within their tolerance would be updated too.
    chosen = " or ".join(f"({selecting(cell)})" for cell in cells) if len(cells) > 1 else selecting(cells[0])
    return f'{command} -m "{chosen}"'
