"""Write the rows as tables, effects side by side: for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from rich.table import Table

from quantgate.proofs.power.study import Alarms, Rate, Row

DASH = "-"
SIGNS = {"perplexity": "+", "accuracy": "-", "answers": "-", "tokens/s": "-", "memory": "+"}
POINTS = ("accuracy", "answers")
"""Groups whose effects are in points."""
UNSURE = 0.005
"""Fraction of inconclusive replays from which the table shows it."""


class Section(NamedTuple):
    """The rows of one group, as text. notes: what was replayed."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def percent(share: float) -> str:
    """Without sign; 0 and 100 only where it is exactly that."""
    value = 100 * share
    if value in (0.0, 100.0):
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 0.1 or value > 99.9 else f"{value:.1f}"


def rate(value: Rate) -> str:
    """Share with its 95 % interval, in percent."""
    low, high = value.interval()
    return f"{percent(value.share)} ({percent(low)} to {percent(high)})"


def effect(group: str, size: float) -> str:
    """`+0.5 %`, `-2 points`; `none`."""
    if size == 0:
        return "none"
    unit = "%" if group not in POINTS else "point" if size == 0.01 else "points"
    return f"{SIGNS[group]}{100 * size:g} {unit}"


def sections(rows: Iterable[Row]) -> list[Section]:
    """One per group of metrics, in the order of the rows: first the gates, then the two other rules."""
    return [
        _section(group, place, list(members))
        for (group, place), members in groupby(rows, key=lambda r: (r.scenario.group, r.scenario.place))
    ]


def _section(group: str, place: str, rows: list[Row]) -> Section:
    effects = sorted({row.scenario.effect for row in rows})
    lines: dict[tuple[str, str], dict[float, tuple[Rate, str]]] = {}
    for row in rows:
        for judge, red, more in _judged(row):
            line = lines.setdefault((judge, row.scenario.spread), {})
            so_far = line.get(row.scenario.effect, (Rate(0, 0), ""))[0]
            line[row.scenario.effect] = so_far.plus(red), more
    # Replays without effect stand once, and begin the line of every way to spread one.
    null = {judge: line[0.0] for (judge, _), line in lines.items() if set(line) == {0.0}}
    table = []
    for (judge, spread), line in sorted(lines.items(), key=lambda item: item[0][0].startswith(RULE)):
        if set(line) != {0.0} or effects == [0.0]:
            shown = {0.0: null[judge], **line} if judge in null else line
            cells = [rate(shown[e][0]) + shown[e][1] if e in shown else DASH for e in effects]
            table.append([judge, spread, *cells, f"{min(red.total for red, _ in shown.values()):,}"])
    notes = list(dict.fromkeys(f"{row.scenario.spread}: {row.scenario.source}" for row in rows))
    columns = ["judged by", "effect", *(effect(group, e) for e in effects), "replays"]
    title = f"{group}{place and f', {place}'}: red, % of replays (95 % interval)"
    return Section(title, columns, table, notes)


def alarms(place: str, runs: Alarms) -> list[str]:
    """Say how many whole runs without any change had a red case, and which gates were red most often."""
    first = (
        f"whole runs without any change {place} that had a red case: {rate(runs.rate)} % of {runs.rate.total:,}, "
        f"with {runs.gates} gates each"
    )
    return [first, *(f"red in {count} of them: {gate}" for gate, count in runs.red.most_common(5))]


RULE = "rule: "


def _judged(row: Row) -> list[tuple[str, Rate, str]]:
    """Who judges, how often the verdict is red, what else there is to say."""
    unsure = row.inconclusive.share if row.inconclusive else 0.0
    more = f", {percent(unsure)} inconclusive" if unsure >= UNSURE else ""
    judgements = [(row.gate, row.red, more)]
    if row.share is not None:
        judgements.append((f"{RULE}8 % of the mean", row.share, ""))
    if row.limit is not None:
        judgements.append((f"{RULE}perplexity above 20", row.limit, ""))
    return judgements


def to_table(section: Section) -> Table:
    """Return a section as a table of rich."""
    table = Table(title=section.title, title_justify="left", caption="\n".join(section.notes))
    table.caption_justify = "left"
    for number, column in enumerate(section.columns):
        table.add_column(column, justify="left" if number < 2 else "right", overflow="fold")
    for row in section.rows:
        table.add_row(*row)
    return table


def to_markdown(sections: Iterable[Section], summary: Iterable[str]) -> str:
    """Return GitHub Markdown: the summary, then for each section a heading, a table and what was replayed."""
    parts = ["".join(f"- {line}\n" for line in summary)]
    for section in sections:
        align = [":--" if number < 2 else "--:" for number in range(len(section.columns))]
        lines = [section.columns, align, *section.rows]
        body = "".join(f"| {' | '.join(map(_escaped, line))} |\n" for line in lines)
        notes = "".join(f"- {note}\n" for note in section.notes)
        parts.append(f"### {section.title}\n\n{body}\n{notes}")
    return "\n".join(parts)


def _escaped(text: str) -> str:
    return text.replace("*", "\\*")
