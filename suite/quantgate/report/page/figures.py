"""What the page of a run shows: findings, gates and their intervals, each prepared for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from quantgate.measure.groups import group_name
from quantgate.records import MOVED, Status, Verdict, worst
from quantgate.report import RunInfo, by_cell, summary
from quantgate.report.findings import (
    FAILED,
    Finding,
    changes,
    circumstances,
    leading,
    members,
    sentences,
    unique,
)
from quantgate.report.page.frontier import frontiers
from quantgate.report.page.template import SLUGS, render
from quantgate.report.summary import COLUMNS, rows, shown_columns
from quantgate.words import abridged, columns, delta, listed, plural

SPAN = 3.0
"""How many tolerances the drawing of an interval reaches to either side."""
RECORDED = "recorded"
"""The state of a metric that has no gate."""

SECTIONS = (
    ("failed", "What failed", FAILED),
    ("improved", "Improvements", (Status.IMPROVEMENT,)),
    ("incomparable", "Not comparable", (Status.NOT_COMPARABLE,)),
    ("open", "Not judged", (Status.NO_BASELINE, Status.INCONCLUSIVE)),
)
"""Id, heading and conclusions of the sections of findings, in their order."""


@dataclass(frozen=True)
class Bar:
    """An interval of a change against the tolerance, in percent of the drawing's width. beyond: it reaches out of the
    drawing to the left (-1), to the right (1) or not (0)."""

    low: float
    high: float
    at: float
    beyond: int


def bar(verdict: Verdict) -> Bar | None:
    """Return the drawing of a change and its interval, to the scale of the tolerance; None where there are none."""
    change, tolerance = verdict.change, verdict.tolerance
    if change is None or not tolerance:
        return None
    low = change if verdict.change_low is None else verdict.change_low
    high = change if verdict.change_high is None else verdict.change_high

    def place(value: float) -> float:
        return round(50 + 50 * min(max(value / tolerance / SPAN, -1.0), 1.0), 1)

    beyond = 1 if high > SPAN * tolerance else -1 if low < -SPAN * tolerance else 0
    return Bar(place(low), place(high), place(change), beyond)


@dataclass(frozen=True)
class Gate:
    """One verdict as a row. state: its conclusion, or `recorded`. why: its sentences. quiet: it passed."""

    metric: str
    state: str
    slug: str
    baseline: str
    measured: str
    change: str
    interval: str
    tolerance: str
    bar: Bar | None
    why: list[str]
    quiet: bool


def gate(verdict: Verdict) -> Gate:
    """Prepare a verdict."""
    free = verdict.status == Status.PASS and verdict.tolerance is None
    baseline, measured, difference, tolerance = columns(verdict)
    change, _, interval = difference.partition(" (")
    why = [line for line in sentences([verdict]) if line != "recorded, not gated"]
    return Gate(
        verdict.metric,
        RECORDED if free else str(verdict.status),
        RECORDED if free else SLUGS[verdict.status],
        baseline,
        measured,
        change,
        interval and f"({interval}",
        tolerance,
        bar(verdict),
        why[:3],
        verdict.status == Status.PASS,
    )


@dataclass(frozen=True)
class Card:
    """A finding, ready to be shown. log: the last lines of an error's log. members: cells and what changed."""

    status: Status
    title: str
    groups: list[str]
    gates: list[Gate]
    lines: list[str]
    changes: list[tuple[str, str]]
    members: list[tuple[str, str]]
    log: list[str]
    commands: list[str]


def card(finding: Finding) -> Card:
    """Prepare a finding: for a common cause what moved and where, else the gates or the reason."""
    reason, *log = finding.cause
    common = finding.common is not None
    failed = finding.status in FAILED
    gates, lines = [], []
    if common:
        title = f"one cause in {finding.title}"
    elif finding.status in MOVED:
        title = finding.cells[0]
        gates = [gate(v) for v in finding.verdicts]
    elif finding.status == Status.IMPROVEMENT:
        title, gates = finding.cells[0], [gate(finding.verdicts[0])]
    elif finding.status == Status.NO_BASELINE:
        title = f"{plural(len(finding.verdicts), 'metric')} of {plural(len(finding.cells), 'cell')}"
    else:
        title, lines = abridged(finding.cells), [reason]
        if len(finding.cells) == 1:
            lines.append(f"metrics: {listed(finding.metrics)}")
    return Card(
        finding.status,
        title,
        unique(map(group_name, finding.metrics)),
        gates,
        [*lines, *(circumstances(finding) if failed or common else [])],
        changes(finding),
        members(finding) if common else _metrics_by_cell(finding),
        log if finding.status in (Status.ERROR, Status.NOT_COMPARABLE) else [],
        finding.commands if failed else [],
    )


def _metrics_by_cell(finding: Finding) -> list[tuple[str, str]]:
    """Return each cell with its metrics, where the card shows no table of them."""
    if finding.status in (*MOVED, Status.IMPROVEMENT) or len(finding.cells) == 1:
        return []

    def shown(v: Verdict) -> str:
        return v.metric if v.change is None else f"{v.metric} {delta(v.change, v)}"

    return [(cell, ", ".join(map(shown, its))) for cell, its in by_cell(finding.verdicts).items()]


@dataclass(frozen=True)
class CellGates:
    """All gates of a cell, the worst first."""

    cell: str
    status: Status
    tally: str
    gates: list[Gate]


def gates_by_cell(verdicts: Iterable[Verdict]) -> list[CellGates]:
    """Return the gates of each cell."""
    order = list(Status)
    prepared = []
    for cell, mine in by_cell(verdicts).items():
        gates = [gate(v) for v in sorted(mine, key=lambda v: order.index(v.status))]
        numbers = Counter(one.state for one in gates)
        tally = ", ".join(f"{number} {state}" for state, number in numbers.items())
        prepared.append(CellGates(cell, worst(v.status for v in mine), tally, gates))
    return prepared


def to_html(verdicts: list[Verdict], info: RunInfo) -> str:
    """Return the page of a run: what failed first, then improvements, what could not be judged, and every gate."""
    first, others = leading(verdicts, info.bits)
    findings = [*first, *others]
    cells = gates_by_cell(verdicts)
    states = Counter(one.slug for cell in cells for one in cell.gates)
    table = rows(verdicts)
    return render(
        "report.html.j2",
        scripts=("report.js",),
        info=info,
        status=worst(v.status for v in verdicts),
        outcome=summary.outcome(verdicts, info),
        counts=summary.counts(verdicts),
        sentences=[
            summary.judged_text(verdicts, info),
            summary.run_text(verdicts, info),
            summary.where(info),
            summary.against_text(info),
            summary.unequal_text(verdicts),
        ],
        sections=[
            (name, heading, [card(finding) for finding in findings if finding.status in statuses])
            for name, heading, statuses in SECTIONS
        ],
        states=[(slug, states[slug]) for slug in [*SLUGS.values(), RECORDED] if states[slug]],
        groups=sorted({group_name(v.metric) for v in verdicts}),
        update=summary.update_command(verdicts, info),
        table=table,
        columns=[(index, COLUMNS[index]) for index in shown_columns(table)],
        frontiers=frontiers(verdicts),
        cells=cells,
        links={cell.cell: f"#cell-{number}" for number, cell in enumerate(cells)},
    )
