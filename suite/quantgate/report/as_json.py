"""The report as JSON, to count, plot or compare runs. It can be read back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

from quantgate.errors import InputError
from quantgate.judge import coverage
from quantgate.records import Record, Status, Verdict
from quantgate.report import RunInfo
from quantgate.report.findings import findings, leading
from quantgate.report.sentences import outcome, unequal_text
from quantgate.report.summary import counts

FORMAT = 1
"""Version of this file's layout; raised when a reader of the old one would misread the new one."""


class _Finding(Record):
    status: Status
    title: str
    one_cause: bool
    """Whether the cells have one cause in common."""
    cells: list[str]
    metrics: list[str]
    environment: list[str]
    """What changed since the baseline; for a common cause, in all of its cells."""


class _Gates(Record):
    """Numbers of gates. not_judged: by reason and metric group."""

    gates: int
    judged: int
    not_judged: dict[str, dict[str, int]]


class _Report(Record):
    format: Annotated[int, Field(ge=1, le=FORMAT)]
    outcome: str = ""
    """The run in one sentence."""
    findings: list[_Finding] = Field(default_factory=list)
    """What did not pass, common causes first."""
    unequal: str = ""
    """Which metrics are not equal to the last digit although nothing has changed."""
    counts: dict[Status, int]
    """Cases by status, the worst first."""
    gates: _Gates | None = None
    info: RunInfo
    verdicts: list[Verdict]


def to_json(verdicts: list[Verdict], info: RunInfo) -> str:
    """Return format number, outcome, findings, counts, run and every verdict as JSON."""
    first, others = leading(findings(verdicts, info.bits))
    everything = [
        _Finding(
            status=one.status,
            title=one.title,
            one_cause=one.common is not None,
            cells=one.cells,
            metrics=one.metrics,
            environment=one.environment,
        )
        for one in (*first, *others)
    ]
    gates = coverage(verdicts)
    report = _Report(
        format=FORMAT,
        outcome=outcome(verdicts, info.bits),
        findings=everything,
        unequal=unequal_text(verdicts),
        counts=counts(verdicts),
        gates=_Gates(gates=gates.gates, judged=gates.judged, not_judged=gates.others),
        info=info,
        verdicts=verdicts,
    )
    return report.model_dump_json(indent=1) + "\n"


def from_json(text: str) -> tuple[list[Verdict], RunInfo]:
    """Return the verdicts and the run that `to_json` was given. Raises InputError for anything else."""
    try:
        report = _Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"not a quantgate report of format {FORMAT} or older: {where}: {first['msg']}. "
            "Write it again with --quantgate-report DIR, or read it with the quantgate that wrote it."
        ) from error
    return report.verdicts, report.info
