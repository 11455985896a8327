"""The report as GitHub Markdown: the outcome in one sentence, a common cause, the table, then the details."""

from __future__ import annotations

import html
import re
from itertools import groupby
from typing import TYPE_CHECKING

from quantgate.judge import MOVED
from quantgate.records import Status
from quantgate.report import JOB_SUMMARY_LIMIT
from quantgate.report.findings import (
    against_text,
    changes,
    circumstances,
    counts_text,
    findings,
    leading,
    members,
    outcome,
    run_text,
    unequal_text,
    update_command,
)
from quantgate.report.summary import COLUMNS, MARKS, judged_text, rows, shown_columns, unique
from quantgate.words import DASH, abridged, difference, limit, lines_of, listed, plural, quantity

if TYPE_CHECKING:
    from quantgate.records import Verdict
    from quantgate.report import RunInfo
    from quantgate.report.findings import Finding
    from quantgate.report.summary import Entry

CUT = "\n\n**Cut here:** GitHub takes 1 MiB of Markdown. `report.json` (`--quantgate-report DIR`) has everything.\n"

SHORT = (Status.NO_BASELINE, Status.INCONCLUSIVE, Status.IMPROVEMENT)
"""Told in one line each; a long list of them is folded away."""


def to_markdown(verdicts: list[Verdict], info: RunInfo, limit: int = JOB_SUMMARY_LIMIT) -> str:
    """The whole report, or as much of it, from the top, as fits into `limit` bytes."""
    text: list[str] = []
    size = 0
    for part in _parts(verdicts, info):
        size += len(part.encode())
        if size > limit - len(CUT.encode()):
            return "".join(text).rstrip() + CUT
        text.append(part)
    return "".join(text)


def _parts(verdicts: list[Verdict], info: RunInfo) -> list[str]:
    """Pieces that are whole by themselves: a cut between two of them leaves valid Markdown."""
    where = [f"quantgate {info.version}", info.machine, info.commit and f"commit {info.commit}", info.matrix]
    parts = [
        f"## quantgate {escape(info.tier)}: {counts_text(verdicts)}\n\n",
        f"**{escape(outcome(verdicts, info.bits))}**\n\n",
        f"{escape(judged_text(verdicts, info))}<br>\n",
        f"{escape(run_text(verdicts, info))}<br>\n{' · '.join(escape(part) for part in where if part)}\n\n",
    ]
    said = filter(None, (against_text(info), unequal_text(verdicts)))
    parts += [f"{escape(sentence)}\n\n" for sentence in said]
    first, others = leading(findings(verdicts, info.bits))
    parts += [_common(finding) for finding in first]
    parts += _headline_table(verdicts)
    for status, group in groupby(others, key=lambda finding: finding.status):
        texts = [_finding(finding) for finding in group]
        parts += (
            [_details(f"{len(texts)} x {status}", "".join(texts))]
            if status in SHORT and len(texts) > 5
            else texts
        )
    if command := update_command(verdicts, info):
        parts.append(f"To take improvements and first values into the baseline:\n\n{_block([command])}")
    if info.skipped:
        skipped = [f"- {code(cell)}: {escape(reason)}\n" for cell, reason in info.skipped]
        parts.append(_details(f"{plural(len(skipped), 'cell')} skipped", "".join(skipped)))
    if info.notes:
        parts.append("".join(f"- {code(cell)}: {escape(note)}\n" for cell, note in info.notes) + "\n")
    if info.environment:
        body = "".join(
            f"| {cell_code(name)} | {escape(str(value))} |\n" for name, value in info.environment.items()
        )
        for cell, rest in info.environments.items():
            own = ", ".join(f"{name} {value}" for name, value in rest.items())
            body += f"| {cell_code(cell)} | {escape(own)} |\n"
        parts.append(_details("Environment", f"| | |\n|:--|:--|\n{body}"))
    return parts + [_all_metrics(cell, verdicts) for cell in unique(v.cell for v in verdicts)]


def _headline_table(verdicts: list[Verdict]) -> list[str]:
    table = rows(verdicts)
    if not table:
        return []
    shown = shown_columns(table)
    titles = " | ".join(f"{COLUMNS[index].title} {COLUMNS[index].unit}".strip() for index in shown)
    head = f"| cell | {titles} | verdict |\n|:--|{'--:|' * len(shown)}:--|\n"
    lines = [
        f"| {cell_code(row.cell)} | {' | '.join(_entry(row.entries[index]) for index in shown)} "
        f"| {_bold(f'{MARKS[row.status]} {row.status}', row.status)} |\n"
        for row in table
    ]
    return [head, *lines, "\n"]


def _entry(entry: Entry) -> str:
    return _bold(" ".join(part for part in (entry.value, entry.change, entry.mark) if part), entry.status)


def _bold(text: str, status: Status) -> str:
    text = text.strip()
    return f"**{text}**" if status in (*MOVED, Status.ERROR) and text != DASH else text


def _common(finding: Finding) -> str:
    """What moved, where, by how much, what goes with it; the cells are folded away."""
    text = f"### {MARKS[finding.status]} {finding.status}, one cause in {escape(finding.title)}\n\n"
    text += "".join(f"- {code(metric)}: {escape(said)}\n" for metric, said in changes(finding))
    text += "".join(f"- {escape(line)}\n" for line in circumstances(finding)) + "\n"
    log = finding.cause[1:] if finding.status == Status.ERROR else []
    text += _details("The last lines of one log", _block(log)) if log else ""
    cells = [f"- {code(cell)} {escape(said)}".rstrip() + "\n" for cell, said in members(finding)]
    text += _details(f"The {plural(len(cells), 'cell')}", "".join(cells))
    return text + (f"Reproduce:\n\n{_block(finding.commands)}" if finding.commands else "")


def _finding(finding: Finding) -> str:
    if finding.common is not None:
        return _common(finding)
    status, first = finding.status, finding.verdicts[0]
    head = f"{MARKS[status]} {status}: {code(abridged(finding.cells))}"
    reason, *log = finding.cause
    if status == Status.IMPROVEMENT:
        values = [quantity(value, first.unit) for value in (first.baseline, first.measured)]
        return f"- {head} {code(first.metric)} {' -> '.join(values)}, {difference(first)}\n\n"
    if status == Status.NO_BASELINE:
        return f"- {head} ({plural(len(finding.verdicts), 'metric')})\n\n"
    if status == Status.INCONCLUSIVE:
        return f"- {head} {escape(finding.subject)}: {escape(reason)}\n\n"
    text = f"### {head}\n\n"
    if status in MOVED:
        text += _metric_table(finding.verdicts)
        said = [text for v in finding.verdicts for text in (v.text, v.confirmed, v.reference)]
        reasons = [line for text in said for line in lines_of(text)]
        text += "".join(f"- {escape(line)}\n" for line in unique(reasons)) + "\n"
    else:
        text += f"Why: {escape(reason)}\n\n"
        text += _details("The last lines of its log", _block(log)) if log else ""
        text += f"Metrics: {code(listed(finding.metrics))}\n\n"
    if status != Status.NOT_COMPARABLE:
        text += "".join(f"{escape(line[0].upper() + line[1:])}\n\n" for line in circumstances(finding))
    if finding.commands and status != Status.NOT_COMPARABLE:
        text += f"Reproduce:\n\n{_block(finding.commands)}"
    return text


def _all_metrics(cell: str, verdicts: list[Verdict]) -> str:
    mine = [v for v in verdicts if v.cell == cell]
    return _details(f"{cell}: {plural(len(mine), 'metric')}", _metric_table(mine))


def _metric_table(verdicts: list[Verdict]) -> str:
    head = "| metric | baseline | measured | difference | tolerance | verdict |\n|:--|--:|--:|--:|--:|:--|\n"
    return (
        head
        + "".join(
            f"| {cell_code(v.metric)} | {quantity(v.baseline, v.unit)} | {quantity(v.measured, v.unit)} "
            f"| {difference(v) or DASH} | {limit(v, v.tolerance) or DASH} | {_word(v)} |\n"
            for v in verdicts
        )
        + "\n"
    )


def _word(verdict: Verdict) -> str:
    """Of a metric without a gate, what was recorded with it."""
    recorded = verdict.status == Status.PASS and verdict.tolerance is None and verdict.text
    return escape(verdict.text) if recorded else str(verdict.status)


def _details(summary: str, body: str) -> str:
    """Markdown is not read inside <summary>, and after it only behind an empty line."""
    return f"<details><summary>{html.escape(summary)}</summary>\n\n{body.rstrip()}\n\n</details>\n\n"


def _block(lines: list[str]) -> str:
    text = "\n".join(lines)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}\n\n"


def escape(text: str) -> str:
    """Shown as it is, in a paragraph and in a table; an underscore inside a word is no markup."""
    text = " ".join(lines_of(text))
    return re.sub(r"[\\`*<|\[\]~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def code(text: str) -> str:
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def cell_code(text: str) -> str:
    """In a table, a pipe ends the cell even inside code."""
    return code(text).replace("|", "\\|")
