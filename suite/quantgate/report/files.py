"""Write the reports into files: `report.html`, `report.md`, `report.json`, GitHub's job summary."""

from __future__ import annotations

from pathlib import Path

import pydantic_core

from quantgate.errors import InputError
from quantgate.files import write_atomic
from quantgate.judge.coverage import coverage
from quantgate.records import Verdict
from quantgate.report import RunInfo
from quantgate.report.comment import to_comment
from quantgate.report.findings import leading
from quantgate.report.markdown import JOB_SUMMARY_LIMIT, to_markdown
from quantgate.report.page.figures import to_html
from quantgate.report.summary import counts, outcome, unequal_text

FORMAT = 1
"""Version of the layout of `report.json`; raised when a reader of the old one would misread the new one."""


def to_json(verdicts: list[Verdict], info: RunInfo) -> str:
    """Return the report as JSON, to count, plot or compare runs."""
    first, others = leading(verdicts, info.bits)
    gates = coverage(verdicts, info.left_out)
    report = {
        "format": FORMAT,
        "outcome": outcome(verdicts, info),  # the run in one sentence
        # What did not pass, common causes first. environment: what changed; for a common cause, in all of its cells.
        "findings": [
            {
                "status": one.status,
                "title": one.title,
                "one_cause": one.common is not None,
                "cells": one.cells,
                "metrics": one.metrics,
                "environment": one.environment,
            }
            for one in (*first, *others)
        ],
        "unequal": unequal_text(verdicts),
        "counts": counts(verdicts),  # cases by status, the worst first
        "gates": {"gates": gates.gates, "judged": gates.judged, "not_judged": gates.others},
        "info": info,
        "verdicts": verdicts,
    }
    return pydantic_core.to_json(report, indent=1).decode() + "\n"


def write_report(folder: Path, verdicts: list[Verdict], info: RunInfo) -> list[Path]:
    """Write `report.md`, `report.json`, `report.html` and, for a pull request, `comment.md`, each in one step, and
    return them. Raises InputError naming the folder."""
    texts = {
        "report.md": to_markdown(verdicts, info),
        "report.json": to_json(verdicts, info),
        "report.html": to_html(verdicts, info),
        "comment.md": to_comment(verdicts, info),
    }
    try:
        for name, text in texts.items():
            write_atomic(folder / name, text.encode())
    except OSError as error:
        raise InputError(
            f"cannot write the report into {folder}: {error.strerror or error}. "
            "Name a writable folder with --quantgate-report DIR, or free some space there."
        ) from error
    return [folder / name for name in texts]


def append_job_summary(path: Path, markdown: str) -> None:
    """Append to the file that $GITHUB_STEP_SUMMARY names; the step may have written to it before. Raises InputError."""
    try:
        size = path.stat().st_size if path.exists() else 0
        if size + len(markdown.encode()) > JOB_SUMMARY_LIMIT:
            markdown = (
                "The quantgate report does not fit into this summary (GitHub takes 1 MiB for a step).\n"
            )
        with path.open("a", encoding="utf-8") as file:
            file.write(markdown)
    except OSError as error:
        raise InputError(
            f"cannot append to the job summary {path}: {error.strerror or error}. "
            "GITHUB_STEP_SUMMARY has to name a writable file; unset it to go without the summary."
        ) from error
