"""The summary on a terminal: common causes first, the table, the other findings, the counts last.

Colour never carries anything alone: every verdict also has a mark and, in its row, its word.
"""

from __future__ import annotations

import textwrap
from itertools import groupby

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from quantgate.judge.coverage import coverage
from quantgate.measure.groups import Column
from quantgate.records import MOVED, Status, Verdict
from quantgate.report import RunInfo, summary
from quantgate.report.findings import FAILED, Finding, changes, circumstances, leading, members, sentences
from quantgate.report.summary import COLUMNS, MARKS, Entry, Row, counts, rows, shown_columns
from quantgate.words import abridged, comparison, delta, listed, plural, quantity

STYLES = {
    Status.REGRESSION: "bold red",
    Status.DRIFT: "bold red",
    Status.CHANGED: "red",
    Status.ERROR: "bold magenta",
    Status.NOT_COMPARABLE: "yellow",
    Status.NO_BASELINE: "cyan",
    Status.INCONCLUSIVE: "yellow",
    Status.IMPROVEMENT: "bold green",
    Status.PASS: "green",
}
MEMBERS = 12
"""How many of the cells of a common cause are listed."""
ASCII = str.maketrans({"✗": "x", "↘": "v", "≈": "~", "≠": "#", "○": "o", "↑": "^", "·": "-"})


def render_summary(verdicts: list[Verdict], info: RunInfo, console: Console) -> None:
    """Print the whole summary to `console`, within its width."""
    if console.no_color and console.color_system:  # with NO_COLOR rich keeps bold and dim; drop them too
        console = Console(file=console.file, width=console.width, color_system=None)
    content = Group(*_summary(verdicts, info, console))
    if not console.options.ascii_only:
        console.print(content, crop=False)
        return
    with console.capture() as captured:
        console.print(content, crop=False)
    console.file.write(captured.get().translate(ASCII).encode("ascii", "replace").decode("ascii"))


def _summary(verdicts: list[Verdict], info: RunInfo, console: Console) -> list[RenderableType]:
    width = console.width
    where = [f"tier {info.tier}", info.machine, f"commit {info.commit}" if info.commit else ""]
    title = Text(f"quantgate {info.version}", "bold")
    for part in filter(None, where):
        title.append(f" · {part}", "not bold dim")
    parts: list[RenderableType] = [title]
    if compared := summary.against_text(info):
        parts.append(_lines(compared, width))
    first, others = leading(verdicts, info.bits)
    for finding in first:
        parts += [Text(), *_common(finding, width)]
    if verdicts:
        parts += [Text()] if first else []
        parts += _table(rows(verdicts), console)
    for _, group in groupby(others, key=lambda finding: finding.status):
        for number, finding in enumerate(group):
            block = _finding(finding, width)
            parts += [Text(), *block] if number == 0 or len(block) > 1 else block
    if command := summary.update_command(verdicts, info):
        parts += [Text("  to make these the baseline:"), _command(command)]
    if unequal := summary.unequal_text(verdicts):
        parts += [Text(), _lines(unequal, width, style="yellow")]
    apart: dict[tuple[str, str], list[str]] = {}
    for begin, lines in (("skipped: ", info.skipped), ("", info.notes)):
        for cell, text in lines:
            apart.setdefault((begin, text), []).append(cell)
    for (begin, text), cells in apart.items():
        parts += [Text(), _lines(f"{begin}{', '.join(cells)}: {text}", width, style="dim")]
    if ended := summary.ended_text(info):
        parts += [Text(), _lines(ended, width, style="yellow")]
    style = STYLES[next(iter(counts(verdicts)), Status.PASS)]
    last = _lines(_unbroken(summary.counts_text(verdicts).split(", ")), width, style=style)
    gates = coverage(verdicts, info.left_out)
    judged = _lines(
        summary.judged_text(verdicts, info), width, style="" if gates.judged == gates.gates else "yellow"
    )
    return [*parts, Text(), judged, _lines(summary.run_text(verdicts, info), width), last]


def _table(table: list[Row], console: Console) -> list[RenderableType]:
    """Return the table with as many columns as fit; the most important ones are chosen first."""
    shown: list[int] = []
    columns = sorted(shown_columns(table), key=lambda index: -COLUMNS[index].keep)
    for index in columns:
        wider = sorted([*shown, index])
        grid = _grid(table, wider)
        unlimited = console.options.update(max_width=10_000)
        if not shown or Measurement.get(console, unlimited, grid).maximum <= console.width:
            shown = wider
    parts: list[RenderableType] = [_grid(table, shown)]
    present = {row.entries[index].status for row in table for index in shown if row.entries[index].mark}
    if present:
        marks = [f"{MARKS[status]} {status}" for status in Status if status in present]
        parts.append(_lines(_unbroken(marks), console.width, style="dim"))
    if dropped := [COLUMNS[index].title for index in sorted(columns) if index not in shown]:
        text = f"terminal too narrow for: {', '.join(dropped)} (see --quantgate-report DIR)"
        parts.append(_lines(text, console.width, style="dim"))
    return parts


def _grid(table: list[Row], shown: list[int]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("cell", overflow="fold")
    texts = []
    for index in shown:
        header, values = _aligned(COLUMNS[index], [row.entries[index] for row in table])
        grid.add_column(header, no_wrap=True)
        texts.append(values)
    grid.add_column("verdict", no_wrap=True)
    for number, row in enumerate(table):
        model, _, label = row.cell.partition("/")
        if number == 0 or model != table[number - 1].cell.partition("/")[0]:
            grid.add_row(Text(model, "bold"))
        verdict = Text(str(row.status), STYLES[row.status])
        grid.add_row(Text(label or row.cell), *(column[number] for column in texts), verdict)
    return grid


def _aligned(column: Column, entries: list[Entry]) -> tuple[str, list[Text]]:
    """Align values, changes and marks, each only as wide as this run needs."""
    change = max(len(entry.change) for entry in entries)
    mark = max(len(entry.mark) for entry in entries)
    beside = (change + 1 if change else 0) + (mark + 1 if mark else 0)
    title = max(len(column.title), len(column.unit))
    value = max(title - beside, *(len(entry.value) for entry in entries))
    texts = []
    for entry in entries:
        style = STYLES[entry.status] if entry.status != Status.PASS else "dim"
        text = Text(entry.value.rjust(value))
        if change:
            text.append(" " + entry.change.rjust(change), style)
        if mark:
            text.append(" " + entry.mark.ljust(mark), style)
        texts.append(text)
    return f"{column.title.rjust(value)}\n{column.unit.rjust(value)}", texts


def _common(finding: Finding, width: int) -> list[RenderableType]:
    """Return what moved, where, by how much, and what goes with it; then the cells in short."""
    head = f"{MARKS[finding.status]}\xa0{finding.status}"
    title = _lines(f"{head}  one cause in {finding.title}", width, hanging=4)
    title.stylize(STYLES[finding.status], 0, len(head))
    parts: list[RenderableType] = [title]
    for metric, change in changes(finding):
        parts.append(_lines(f"{metric}: {_unbroken(change.split(', '))}", width, 2, 2))
    if finding.status == Status.ERROR:
        parts += [_lines(line, width, 4, style="dim") for line in finding.cause[1:]]
    parts += [_lines(line, width, 2, 2) for line in circumstances(finding)]
    parts.append(_lines("cells:", width, 2))
    cells = members(finding)
    for cell, change in cells[:MEMBERS]:
        parts.append(_lines(f"{cell}  {_unbroken(change.split(', '))}", width, 4, 4, style="dim"))
    if len(cells) > MEMBERS:
        parts.append(_lines(f"and {len(cells) - MEMBERS} more (all are in the table)", width, 4, style="dim"))
    return [*parts, *_reproduce(finding, width)]


def _finding(finding: Finding, width: int) -> list[RenderableType]:
    """Return one finding in as many lines as its status deserves."""
    if finding.common is not None:
        return _common(finding, width)
    status, first = finding.status, finding.verdicts[0]
    head = f"{MARKS[status]}\xa0{status}  {abridged(finding.cells)}"
    reason, *log = finding.cause
    if status == Status.IMPROVEMENT:
        values = [quantity(value, first.unit) for value in (first.baseline, first.measured)]
        change = f" ({delta(first.change, first)})" if first.change is not None else ""
        head += f"  {first.metric} {_unbroken([' -> '.join(values) + change])}"
    elif status == Status.NO_BASELINE:
        head += f"  ({plural(len(finding.verdicts), 'metric')})"
    elif status == Status.INCONCLUSIVE:
        head += f"  {_unbroken(finding.subject.split(', '))}: {reason}"
    title = _lines(head, width, hanging=4)
    title.stylize(STYLES[status], 0, len(f"? {status}"))
    parts: list[RenderableType] = [title]
    if status in MOVED:
        parts += _regressions(finding, width)
    elif status in (Status.ERROR, Status.NOT_COMPARABLE):
        parts.append(_lines(reason, width, 2))
        parts += [_lines(line, width, 4, style="dim") for line in log]
        parts.append(_lines(f"metrics: {listed(finding.metrics)}", width, 2))
    if status in FAILED:
        parts += [_lines(line, width, 2) for line in circumstances(finding)]
        parts += _reproduce(finding, width)
    return parts


def _reproduce(finding: Finding, width: int) -> list[Text]:
    head = [_lines("reproduce:", width, 2)] if finding.commands else []
    return head + [_command(command) for command in finding.commands]


def _regressions(finding: Finding, width: int) -> list[RenderableType]:
    parts: list[RenderableType] = []
    lines: set[str] = set()
    for verdict in finding.verdicts:
        parts.append(_lines(verdict.metric, width, 2, style="bold"))
        parts.append(_lines(_unbroken(comparison(verdict)), width, 4))
        for line in sentences([verdict]):
            if line not in lines:
                parts.append(_lines(line, width, 4))
            lines.add(line)
    return parts


def _unbroken(phrases: list[str]) -> str:
    """Join by commas, with no-break spaces inside the phrases, so that no number is separated from its unit."""
    return ", ".join(phrase.replace(" ", "\xa0") for phrase in phrases)


def _lines(text: str, width: int, indent: int = 0, hanging: int = 0, style: str = "") -> Text:
    """Wrap text with a hanging indent, which rich lacks; no-break spaces are kept together where a line has room."""
    first, other = " " * indent, " " * (indent + hanging)
    room = width - len(other)
    text = " ".join(part.replace("\xa0", " ") if len(part) > room else part for part in text.split(" "))
    wrapped = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=other, break_on_hyphens=False
    )
    return Text("\n".join(wrapped).replace("\xa0", " "), style)


def _command(command: str) -> Text:
    """One line, whatever the width: the terminal wraps it, and a copy of it is the command."""
    return Text(f"    {command}", "bold", no_wrap=True, overflow="ignore")
