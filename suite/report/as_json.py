"""The report as JSON, for whoever counts, plots or compares runs; reads back what it wrote."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

from suite.errors import InputError
from suite.records import Record, Status, Verdict
from suite.report import RunInfo
from suite.report.summary import counts

FORMAT = 1
"""Version of this file's layout; raised when a reader of the old one would misread the new one."""


class _Report(Record):
    format: Annotated[int, Field(ge=1, le=FORMAT)]
    counts: dict[Status, int]
    """Cases by status, the worst first."""
    info: RunInfo
    verdicts: list[Verdict]


def to_json(verdicts: list[Verdict], info: RunInfo) -> str:
    """Format number, counts, run and every verdict."""
    report = _Report(format=FORMAT, counts=counts(verdicts), info=info, verdicts=verdicts)
    return report.model_dump_json(indent=1) + "\n"


def from_json(text: str) -> tuple[list[Verdict], RunInfo]:
    """The verdicts and the run that `to_json` was given."""
    try:
        report = _Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"not a quantgate report of format {FORMAT} or older: {where}: {first['msg']}. "
            "Write it again with --report DIR, or read it with the quantgate that wrote it."
        ) from error
    return report.verdicts, report.info
