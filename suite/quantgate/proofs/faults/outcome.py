"""What a fault's verdicts amount to: caught, caught by another gate, missed. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatchcase

from quantgate.proofs.faults.registry import Fault
from quantgate.records import Record, Status, Verdict
from quantgate.words import delta

GREEN = {Status.PASS, Status.IMPROVEMENT, Status.INCONCLUSIVE, Status.NO_BASELINE}
"""With these a case does not fail."""


class Outcome(StrEnum):
    """Of a fault, or of a run without one."""

    CAUGHT = "caught"
    SAID = "in a line of the report"
    ELSEWHERE = "caught by another gate"
    MISSED = "missed"
    BROKEN = "fault failed"
    """The faulty process ended with an error that is not the one that was put into it: nothing is proven."""
    CLEAN = "clean"
    FALSE_ALARM = "false alarm"


FAILING = (Outcome.MISSED, Outcome.BROKEN, Outcome.FALSE_ALARM)
"""With one of these the proof has failed."""


class Row(Record):
    """One line of the table. red: the gates that turned red, with what they saw. note: why no gate can."""

    fault: str
    kind: str
    text: str
    cell: str
    gates: list[str]
    red: list[str]
    upgraded: list[str] | None = None
    """The gates that would have turned red if something in the environment had changed since the baseline as well: they
    allow for what other kernels do. None: held against clean processes."""
    note: str = ""
    measured: list[str]
    """The metric groups that were measured."""
    outcome: Outcome
    seconds: float
    verdicts: list[Verdict]


def red(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those that make a case fail."""
    return [v for v in verdicts if v.status not in GREEN and not v.by_machine]


def outcome(fault: Fault | None, verdicts: Sequence[Verdict]) -> Outcome:
    """Every pattern of the fault's gates needs a red metric; without a fault, none may be red."""
    found = red(verdicts)
    if fault is not None and fault.line:
        said = [v for v in verdicts if v.unequal]
        seen = all(any(fnmatchcase(v.metric, gate) for v in said) for gate in fault.gates)
        return Outcome.SAID if seen and not found else Outcome.ELSEWHERE if found else Outcome.MISSED
    if fault is None:
        return Outcome.FALSE_ALARM if found else Outcome.CLEAN
    errors = [v for v in found if v.status == Status.ERROR and v.measured is None]  # no absolute gate
    if errors and not (fault.ends and all(fault.ends in v.text for v in errors)):
        return Outcome.BROKEN
    if all(any(fnmatchcase(v.metric, gate) for v in found) for gate in fault.gates):
        return Outcome.CAUGHT
    return Outcome.ELSEWHERE if found else Outcome.MISSED


def in_words(verdicts: Sequence[Verdict]) -> list[str]:
    """Gate and what it saw, a line each; the tasks of accuracy together, with the largest change among them."""
    together: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        name = re.sub(r"^accuracy/[^/]+/", "accuracy/*/", verdict.metric)
        together.setdefault(name, []).append(verdict)
    return [_line(name, group) for name, group in together.items()]


def _line(name: str, verdicts: Sequence[Verdict]) -> str:
    worst = max(verdicts, key=lambda v: abs(v.change or 0.0))
    if len(verdicts) == 1:
        name = worst.metric
    said = str(worst.status) if worst.change is None else delta(worst.change, worst)
    return f"{name} {said}" if len(verdicts) == 1 else f"{name} {said} ({len(verdicts)} tasks)"
