"""The report as GitHub Markdown: the outcome in one sentence, a common cause, the table, then the details."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import groupby

from quantgate.records import MOVED, Status, Verdict
from quantgate.report import RunInfo, by_cell, summary
from quantgate.report.findings import FAILED, Finding, changes, circumstances, leading, members, sentences
from quantgate.report.summary import COLUMNS, MARKS, Entry, rows, shown_columns
from quantgate.words import DASH, abridged, columns, difference, lines_of, listed, plural, quantity

JOB_SUMMARY_LIMIT = 1024 * 1024
"""Bytes that GitHub takes as the summary of one step; it drops a larger one as a whole."""
CUT = "\n\n**Cut here:** GitHub takes 1 MiB of Markdown. `report.json` (`--quantgate-report DIR`) has everything.\n"

SHORT = (Status.NO_BASELINE, Status.INCONCLUSIVE, Status.IMPROVEMENT)
"""Statuses that take one line each; a long list of them is folded."""


def to_markdown(verdicts: list[Verdict], info: RunInfo, limit: int = JOB_SUMMARY_LIMIT) -> str:
    """Return the report, or as much of it, from the top, as fits into `limit` bytes."""
    text: list[str] = []
    size = 0
    for part in _parts(verdicts, info):
        size += len(part.encode())
        if size > limit - len(CUT.encode()):
            return "".join(text).rstrip() + CUT
        text.append(part)
    return "".join(text)


def _parts(verdicts: list[Verdict], info: RunInfo) -> Iterator[str]:
    """Yield pieces that are complete by themselves: a cut between two of them leaves valid Markdown. They are built as
    they are read, so that what does not fit costs nothing."""
    yield f"## quantgate {escape(info.tier)}: {summary.counts_text(verdicts)}\n\n"
    yield f"**{escape(summary.outcome(verdicts, info))}**\n\n"
    yield f"{escape(summary.judged_text(verdicts, info))}<br>\n"
    yield f"{escape(summary.run_text(verdicts, info))}<br>\n{escape(summary.where(info))}\n\n"
    for sentence in (summary.against_text(info), summary.unequal_text(verdicts)):
        if sentence:
            yield f"{escape(sentence)}\n\n"
    first, others = leading(verdicts, info.bits)
    yield from map(_common, first)
    yield from _headline_table(verdicts)
    for status, group in groupby(others, key=lambda finding: finding.status):
        texts = [_finding(finding) for finding in group]
        if status in SHORT and len(texts) > 5:
            yield _details(f"{len(texts)} x {status}", "".join(texts))
        else:
            yield from texts
    if command := summary.update_command(verdicts, info):
        yield f"To make improvements and first values the baseline:\n\n{_block([command])}"
    if info.skipped:
        skipped = [f"- {code(cell)}: {escape(reason)}\n" for cell, reason in info.skipped]
        yield _details(f"{plural(len(skipped), 'cell')} skipped", "".join(skipped))
    if info.notes:
        yield "".join(f"- {code(cell)}: {escape(note)}\n" for cell, note in info.notes) + "\n"
    if info.environment:
        body = "".join(
            f"| {cell_code(n)} | {escape(str(value))} |\n" for n, value in info.environment.items()
        )
        for cell, rest in info.environments.items():
            different = ", ".join(f"{name} {value}" for name, value in rest.items())
            body += f"| {cell_code(cell)} | {escape(different)} |\n"
        yield _details("Environment", f"| | |\n|:--|:--|\n{body}")
    for cell, metrics in by_cell(verdicts).items():
        yield _details(f"{cell}: {plural(len(metrics), 'metric')}", _metric_table(metrics))


def _headline_table(verdicts: list[Verdict]) -> Iterator[str]:
    table = rows(verdicts)
    if not table:
        return
    shown = shown_columns(table)
    titles = " | ".join(f"{COLUMNS[index].title} {COLUMNS[index].unit}".strip() for index in shown)
    yield f"| cell | {titles} | verdict |\n|:--|{'--:|' * len(shown)}:--|\n"
    for row in table:
        entries = " | ".join(_entry(row.entries[index]) for index in shown)
        word = _bold(f"{MARKS[row.status]} {row.status}", row.status)
        yield f"| {cell_code(row.cell)} | {entries} | {word} |\n"
    yield "\n"


def _entry(entry: Entry) -> str:
    return _bold(" ".join(part for part in (entry.value, entry.change, entry.mark) if part), entry.status)


def _bold(text: str, status: Status) -> str:
    text = text.strip()
    return f"**{text}**" if status in FAILED and text != DASH else text


def _common(finding: Finding) -> str:
    """Return what moved, where, by how much, and what goes with it; the list of cells is folded."""
    text = f"### {MARKS[finding.status]} {finding.status}, one cause in {escape(finding.title)}\n\n"
    text += "".join(f"- {code(metric)}: {escape(change)}\n" for metric, change in changes(finding))
    text += "".join(f"- {escape(line)}\n" for line in circumstances(finding)) + "\n"
    text += _log(finding.cause[1:], "one") if finding.status == Status.ERROR else ""
    cells = [f"- {code(cell)} {escape(change)}".rstrip() + "\n" for cell, change in members(finding)]
    text += _details(f"The {plural(len(cells), 'cell')}", "".join(cells))
    return text + _reproduce(finding)


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
        text += "".join(f"- {escape(line)}\n" for line in sentences(finding.verdicts)) + "\n"
    else:
        text += f"Why: {escape(reason)}\n\n"
        text += _log(log, "its")
        text += f"Metrics: {code(listed(finding.metrics))}\n\n"
    if status == Status.NOT_COMPARABLE:
        return text
    text += "".join(f"{escape(line[0].upper() + line[1:])}\n\n" for line in circumstances(finding))
    return text + _reproduce(finding)


def _reproduce(finding: Finding) -> str:
    return f"Reproduce:\n\n{_block(finding.commands)}" if finding.commands else ""


def _metric_table(verdicts: list[Verdict]) -> str:
    table = "| metric | baseline | measured | difference | tolerance | verdict |\n|:--|--:|--:|--:|--:|:--|\n"
    for v in verdicts:
        table += f"| {cell_code(v.metric)} | {' | '.join(columns(v))} | {_word(v)} |\n"
    return f"{table}\n"


def _word(verdict: Verdict) -> str:
    """Return the status; for a metric without a gate, the text that was recorded with it."""
    recorded = verdict.status == Status.PASS and verdict.tolerance is None and verdict.text
    return escape(verdict.text) if recorded else str(verdict.status)


def _details(title: str, body: str) -> str:
    """Fold `body` under a summary. Markdown is not read inside <summary>, and after it only behind an empty line."""
    return f"<details><summary>{html.escape(title)}</summary>\n\n{body.rstrip()}\n\n</details>\n\n"


def _log(lines: list[str], whose: str) -> str:
    return _details(f"The last lines of {whose} log", _block(lines)) if lines else ""


def _block(lines: list[str]) -> str:
    text = "\n".join(lines)
    fence = _fence(text, 3)
    return f"{fence}\n{text}\n{fence}\n\n"


def _fence(text: str, least: int) -> str:
    """Return more backticks than there are anywhere in the text."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def escape(text: str) -> str:
    """Escape text for a paragraph or a table; an underscore inside a word is no markup."""
    text = " ".join(lines_of(text))
    return re.sub(r"[\\`*<|\[\]~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def code(text: str) -> str:
    """Return text as a code span."""
    fence = _fence(text, 1)
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def cell_code(text: str) -> str:
    """Return a code span for a table, where a pipe would end the cell even inside code."""
    return code(text).replace("|", "\\|")
