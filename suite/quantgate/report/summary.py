"""Turn verdicts into rows and counts, for every kind of report."""

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
    """Drop repetitions; the order is that of the first occurrence."""
    return list(dict.fromkeys(items))


def rows(verdicts: list[Verdict]) -> list[Row]:
    """Return one row per cell, grouped by model, in the order of the verdicts."""
    by_cell: dict[str, dict[str, Verdict]] = {}
    for verdict in verdicts:
        by_cell.setdefault(verdict.cell, {})[verdict.metric] = verdict
    models: dict[str, list[Row]] = {}
    for cell, metrics in by_cell.items():
        models.setdefault(cell.partition("/")[0], []).append(_row(cell, metrics))
    return [row for group in models.values() for row in group]


def shown_columns(table: list[Row]) -> list[int]:
    """Return the indices of the columns that are not empty in all rows."""
    return [index for index in range(len(COLUMNS)) if any(row.entries[index] != EMPTY for row in table)]


def _row(cell: str, metrics: dict[str, Verdict]) -> Row:
    model, _, label = cell.partition("/")
    entries = [_entry(column, metrics) for column in COLUMNS]
    status = worst(v.status for v in metrics.values())
    statuses = {entry.status for entry in entries if entry != EMPTY}
    if statuses <= {status} and status in (Status.ERROR, Status.NO_BASELINE):
        entries = [
            replace(entry, mark="") for entry in entries
        ]  # the verdict at the end of the row says it for all
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
    if not measured or len(measured) < len(chosen):  # a mean over other tasks cannot be compared
        return Entry(DASH, "", status, MARKS[status])
    value = sum(measured) / len(measured) * column.scale
    text = f"{value:.{column.digits}f}{' %' if column.percent else ''}"
    return Entry(text, _change(column, list(chosen.values())), status, MARKS[status])


def _change(column: Column, verdicts: list[Verdict]) -> str:
    """Return the change of those that have a baseline and may be compared with it."""
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
    """Count cases by status, the worst first, as pytest does: a case takes the worst of its metrics."""
    cases: dict[tuple[str, str], list[Status]] = {}
    for verdict in verdicts:
        cases.setdefault((verdict.cell, case_of(verdict.metric)), []).append(verdict.status)
    numbers = Counter(worst(statuses) for statuses in cases.values())
    return {status: numbers[status] for status in Status if numbers[status]}


def judged_text(verdicts: list[Verdict], info: RunInfo) -> str:
    """Return how many gates were judged: `171 of 193 gates judged; not judged: 12 inconclusive (throughput 8)`."""
    gates = coverage(verdicts)
    share = info.min_judged
    few = share is not None and gates.share < share
    return f"{gates.text}: fewer than --min-judged {share:g}" if few else gates.text
