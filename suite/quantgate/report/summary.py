"""From verdicts to rows and counts: pure data shaping, shared by every kind of report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from quantgate.judge import coverage
from quantgate.measure.groups import Column, case_of, columns
from quantgate.records import Status, Verdict, worst
from quantgate.words import DASH, signed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantgate.report import RunInfo

MARKS = {
    Status.REGRESSION: "✗",
    Status.CHANGED: "≈",
    Status.ERROR: "!",
    Status.NOT_COMPARABLE: "≠",
    Status.NO_BASELINE: "○",
    Status.INCONCLUSIVE: "?",
    Status.IMPROVEMENT: "↑",
    Status.PASS: "",
}


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
    model: str
    label: str
    entries: tuple[Entry, ...]
    status: Status


def unique(items: Iterable[str]) -> list[str]:
    """Without repetitions, in first-seen order."""
    return list(dict.fromkeys(items))


def rows(verdicts: list[Verdict]) -> list[Row]:
    """One row a cell, grouped by model, each in first-seen order."""
    by_cell: dict[str, dict[str, Verdict]] = {}
    for verdict in verdicts:
        by_cell.setdefault(verdict.cell, {})[verdict.metric] = verdict
    models = unique(cell.partition("/")[0] for cell in by_cell)
    return [
        _row(cell, by_cell[cell])
        for cell in sorted(by_cell, key=lambda cell: models.index(cell.partition("/")[0]))
    ]


def shown_columns(table: list[Row]) -> list[int]:
    """Indices of the columns that hold something in at least one row."""
    return [index for index in range(len(COLUMNS)) if any(row.entries[index] != EMPTY for row in table)]


def _row(cell: str, metrics: dict[str, Verdict]) -> Row:
    model, _, label = cell.partition("/")
    entries = [_entry(column, metrics) for column in COLUMNS]
    status = worst(v.status for v in metrics.values())
    said = {entry.status for entry in entries if entry != EMPTY}
    if said <= {status} and status in (Status.ERROR, Status.NO_BASELINE):
        entries = [replace(entry, mark="") for entry in entries]  # the row's last word says it for all
    return Row(cell, model, label or cell, tuple(entries), status)


def _entry(column: Column, metrics: dict[str, Verdict]) -> Entry:
    chosen: dict[str, Verdict] = {}
    for pattern in column.values:
        for name, verdict in metrics.items():
            if fnmatchcase(name, pattern):
                chosen.setdefault(name.rpartition("/")[0], verdict)
    patterns = column.values + column.marks
    status = worst(v.status for n, v in metrics.items() if any(fnmatchcase(n, p) for p in patterns))
    measured = [v.measured for v in chosen.values() if v.measured is not None]
    if not measured or len(measured) < len(chosen):  # a mean of other tasks is no mean to compare
        return Entry(DASH, "", status, MARKS[status])
    value = sum(measured) / len(measured) * column.scale
    text = f"{value:.{column.digits}f}{' %' if column.percent else ''}"
    return Entry(text, _change(column, list(chosen.values())), status, MARKS[status])


def _change(column: Column, verdicts: list[Verdict]) -> str:
    """Against the baseline, of those that have one and may be compared with it."""
    pairs = [
        (v.measured, v.baseline)
        for v in verdicts
        if v.measured is not None and v.baseline is not None and v.status != Status.NOT_COMPARABLE
    ]
    if not pairs:
        return ""
    new = sum(measured for measured, _ in pairs) / len(pairs)
    old = sum(baseline for _, baseline in pairs) / len(pairs)
    if column.percent:
        return signed((new - old) * 100, "pp")
    return signed((new / old - 1) * 100, "%") if old else ""


def counts(verdicts: list[Verdict]) -> dict[Status, int]:
    """Cases by status, the worst first, as pytest counts them: a case takes its worst metric."""
    cases: dict[tuple[str, str], list[Status]] = {}
    for verdict in verdicts:
        cases.setdefault((verdict.cell, case_of(verdict.metric)), []).append(verdict.status)
    found = Counter(worst(statuses) for statuses in cases.values())
    return {status: found[status] for status in Status if found[status]}


def judged_text(verdicts: list[Verdict], info: RunInfo) -> str:
    """`171 of 193 gates judged; not judged: 12 inconclusive (throughput 8, memory 4)`."""
    seen = coverage(verdicts)
    share = info.min_judged
    few = share is not None and seen.share < share
    return f"{seen.text}: fewer than --min-judged {share:g}" if few else seen.text
