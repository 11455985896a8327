"""Decide from verdicts whether a fault was caught, and lay out the table. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatchcase

from quantgate.proofs.faults.registry import Fault
from quantgate.proofs.table import Layout
from quantgate.records import Record, Status, Verdict
from quantgate.words import delta

GREEN = {Status.PASS, Status.IMPROVEMENT, Status.INCONCLUSIVE, Status.NO_BASELINE}
"""Verdicts that do not fail a case."""


class Outcome(StrEnum):
    """What became of a fault, or of a run without one."""

    CAUGHT = "caught"
    REPORTED = "in a line of the report"
    ELSEWHERE = "caught by another gate"
    MISSED = "missed"
    BROKEN = "fault failed"
    """The faulty process ended with another error than the injected one, which proves nothing."""
    CLEAN = "clean"
    FALSE_ALARM = "false alarm"


class Row(Record):
    """One fault, or one run without a fault (kind `control`).

    gates: patterns of the gates that must turn red. red: the gates that did, with what they measured. upgraded: the
    gates that would have turned red if a library had been upgraded since the baseline, which allows wider tolerances;
    None for a fault that is compared with clean processes. note: why no gate can see the fault. measured: the metric
    groups that were measured.
    """

    fault: str
    kind: str
    text: str
    cell: str
    gates: list[str]
    red: list[str]
    upgraded: list[str] | None = None
    note: str = ""
    measured: list[str]
    outcome: Outcome
    seconds: float
    verdicts: list[Verdict]


def red(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts that fail a case."""
    return [v for v in verdicts if v.status not in GREEN and not v.by_machine]


def outcome(fault: Fault | None, verdicts: Sequence[Verdict]) -> Outcome:
    """Decide: each gate pattern of a fault needs a red metric; a run without a fault must have none."""
    failed = red(verdicts)
    if fault is None:
        return Outcome.FALSE_ALARM if failed else Outcome.CLEAN
    if fault.line:
        if failed:
            return Outcome.ELSEWHERE
        return Outcome.REPORTED if _matched(fault, [v for v in verdicts if v.unequal]) else Outcome.MISSED
    # An absolute gate that fails is a verdict on a measured value, not an error of the faulty process.
    errors = [v for v in failed if v.status == Status.ERROR and v.measured is None]
    if errors and not (fault.ends and all(fault.ends in v.text for v in errors)):
        return Outcome.BROKEN
    if _matched(fault, failed):
        return Outcome.CAUGHT
    return Outcome.ELSEWHERE if failed else Outcome.MISSED


def _matched(fault: Fault, verdicts: Sequence[Verdict]) -> bool:
    return all(any(fnmatchcase(v.metric, gate) for v in verdicts) for gate in fault.gates)


def by_gate(verdicts: Sequence[Verdict]) -> list[str]:
    """Write one line for each gate with its change; the tasks of accuracy share a line, with their largest change."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        name = re.sub(r"^accuracy/[^/]+/", "accuracy/*/", verdict.metric)
        groups.setdefault(name, []).append(verdict)
    return [_line(name, group) for name, group in groups.items()]


def _line(name: str, verdicts: Sequence[Verdict]) -> str:
    worst = max(verdicts, key=lambda v: abs(v.change or 0.0))
    change = str(worst.status) if worst.change is None else delta(worst.change, worst)
    if len(verdicts) == 1:
        return f"{worst.metric} {change}"
    return f"{name} {change} ({len(verdicts)} tasks)"


def _cells(row: Row) -> list[tuple[str, ...]]:
    none = f"none: {row.note}" if row.note else "none"
    return [
        (
            row.text,
            row.cell,
            "\n".join(row.gates) or "none",
            "\n".join(row.red) or none,
            "-" if row.upgraded is None else "\n".join(row.upgraded) or "none",
            str(row.outcome),
        )
    ]


LAYOUT = Layout[Row](
    headings=(
        "fault",
        "cell",
        "gates that must turn red",
        "gates that did, and by how much",
        "after an upgrade",
        "verdict",
    ),
    lines=_cells,
    styles={
        Outcome.CAUGHT: "green",
        Outcome.REPORTED: "green",
        Outcome.ELSEWHERE: "yellow",
        Outcome.MISSED: "bold red",
        Outcome.BROKEN: "bold magenta",
        Outcome.CLEAN: "green",
        Outcome.FALSE_ALARM: "bold red",
    },
    failing=frozenset({Outcome.MISSED, Outcome.BROKEN, Outcome.FALSE_ALARM}),
    nouns=("fault", "control"),
    noun=lambda row: "control" if row.kind == "control" else "fault",
)
