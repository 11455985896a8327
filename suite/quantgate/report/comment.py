"""The report as the comment of a pull request: a table of what moved; one line where nothing did."""

from __future__ import annotations

import re

from quantgate.judge.coverage import coverage
from quantgate.records import Status, Verdict
from quantgate.report import RunInfo, summary
from quantgate.report.markdown import cell_code, escape
from quantgate.words import DASH, columns, lines_of, plural

SHOWN = (
    Status.REGRESSION,
    Status.DRIFT,
    Status.CHANGED,
    Status.ERROR,
    Status.NOT_COMPARABLE,
    Status.IMPROVEMENT,
)
"""What a reviewer has to see, the worst first; the rest is counted."""
ROWS = 30
REASON = 120
"""Characters."""


def to_comment(verdicts: list[Verdict], info: RunInfo) -> str:
    """Return the comment. Its first line is a mark, equal in every run of the same tier and matrix, by which the
    comment of the run before is replaced."""
    name = re.sub(r"[^\w./]+", " ", f"{info.tier} {info.matrix}").strip()
    mark = f"<!-- quantgate {name} -->\n"
    judged = escape(summary.judged_text(verdicts, info))
    moved = [v for status in SHOWN for v in verdicts if v.status == status]
    if not moved:
        status = f" Exit status {info.exit_status}." if info.exit_status not in ("", "0") else ""
        return (
            f"{mark}**quantgate {escape(info.tier)}: {escape(_still(verdicts, info))}** {judged}.{status}\n"
        )
    text = f"{mark}**quantgate {escape(info.tier)}: {escape(summary.outcome(verdicts, info))}**\n\n"
    text += "| cell | metric | before | now | change | tolerance | verdict |\n|:--|:--|--:|--:|--:|--:|:--|\n"
    for v in moved[:ROWS]:
        values = columns(v)
        if v.change is None:  # an error, or not comparable
            values[2] = escape(next(iter(lines_of(v.text)), "")[:REASON]) or DASH
        word = f"{summary.MARKS[v.status]} {v.status}"
        text += f"| {cell_code(v.cell)} | {cell_code(v.metric)} | {' | '.join(values)} | {word} |\n"
    if len(moved) > ROWS:
        text += f"\nand {plural(len(moved) - ROWS, 'further metric')}: see the report.\n"
    return f"{text}\n{judged}\n"


def _still(verdicts: list[Verdict], info: RunInfo) -> str:
    """Return what a run says in which nothing moved."""
    if info.exit_status in summary.ENDED:
        return summary.outcome(verdicts, info)
    return "nothing moved." if coverage(verdicts).judged else "nothing was judged."
