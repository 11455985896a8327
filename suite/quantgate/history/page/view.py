"""What the page of a history says in words and tables, which are read without JavaScript, and what its script needs
beside the packed series."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantgate.history.events import Event, State
from quantgate.history.moves import Move
from quantgate.history.series import ABSENT, STATUSES, History, Series
from quantgate.history.telling import WORDS, in_terms_of, size
from quantgate.measure.groups import columns, families, group_name
from quantgate.records import Status, Verdict, worst
from quantgate.report.page.frontier import SHOWN, Frontier, frontiers
from quantgate.report.page.template import SLUGS
from quantgate.words import listed, plural, quantity


@dataclass(frozen=True)
class Row:
    """A cell of the grid. slots: by family, in the order of the page's families; None: nothing was measured of it."""

    number: int
    cell: str
    tier: str
    status: Status
    slots: list[Slot | None]


@dataclass(frozen=True)
class Slot:
    """A cell's metrics of one family. shown: the metric that its line shows; text: its newest value and change."""

    shown: str
    status: Status
    text: str
    event: bool


@dataclass
class Entry:
    """A cell with its series and, by series, what happened to it."""

    cell: str
    tier: str
    series: list[Series] = field(default_factory=list)
    moves: dict[str, list[tuple[int, Move]]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class View:
    """What the page shows. entries: the cells in the order of the rows."""

    history: History
    events: Sequence[Event]
    entries: list[Entry]
    families: list[str]

    @property
    def open_events(self) -> list[Event]:
        """The events that nobody has looked at."""
        return [event for event in self.events if event.state == State.OPEN]

    @property
    def closed_events(self) -> list[Event]:
        """The others."""
        return [event for event in self.events if event.state != State.OPEN]

    @property
    def outcome(self) -> str:
        """The page in one sentence: what is worse comes before what is better."""
        count = len(self.open_events)
        if not self.history.runs:
            return "No run yet."
        if not count:
            return "Nothing is open."
        first = min(self.open_events, key=lambda event: event.direction != "worse")
        more = f"; and {plural(count - 1, 'further event')}" if count > 1 else ""
        return f"{WORDS[first.direction].capitalize()}: {sentence(first)}{more}."

    @property
    def span(self) -> str:
        """What is shown: `365 runs from 2026-01-01 to 2026-12-31, 20,000 series of 1,000 cells`."""
        runs = self.history.runs
        if not runs:
            return ""
        days = f"from {runs[0].time:%Y-%m-%d} to {runs[-1].time:%Y-%m-%d}"
        return (
            f"{plural(len(runs), 'run')} {days}, {len(self.history.series):,} series of "
            f"{plural(len(self.entries), 'cell')}"
        )


def view(history: History, events: Sequence[Event]) -> View:
    """Arrange a history and its events."""
    entries: dict[tuple[str, str], Entry] = {}
    for series in history.series:
        key = series.tier, series.cell
        entries.setdefault(key, Entry(series.cell, series.tier)).series.append(series)
    for number, event in enumerate(events):
        for move in event.members:
            entries[move.series.tier, move.series.cell].moves[move.series.metric].append((number, move))
    used = {family_of(series.metric) for series in history.series}
    keep = {
        family_of(name): column.keep
        for column in sorted(columns(), key=lambda c: c.keep)
        for name in column.values
    }
    order = sorted(used, key=lambda family: (-keep.get(family, -1), family))
    return View(history, events, list(entries.values()), order)


def family_of(metric: str) -> str:
    """Return the family of a metric; its first part where no group of this installation has that name."""
    group = group_name(metric)
    return families().get(group, group)


def sentence(event: Event) -> str:
    """Return an event in short: `perplexity +1.2 % to +1.4 % in 8 cells since 2026-05-03; also divergence/kl_mean`."""
    first = event.members[0]
    same = [move for move in event.members if move.series.metric == first.series.metric]
    low, high = (size(pick(same, key=lambda move: move.change)) for pick in (min, max))
    change = low if low == high else f"{low} to {high}"
    cells = {move.series.cell for move in same}
    where = first.series.cell if len(cells) == 1 else plural(len(cells), "cell")
    others = [metric for metric in event.metrics if metric != first.series.metric]
    also = f"; also {listed(others)}" if others else ""
    return f"{first.series.metric} {change} in {where} since {event.run.time:%Y-%m-%d}{also}"


def members(event: Event) -> list[tuple[str, str, str]]:
    """Return (tier, cell, metrics with changes) of an event, the largest change first."""
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for move in event.members:
        cells[move.series.tier, move.series.cell].append(f"{move.series.metric} {size(move)}")
    return [(tier, cell, ", ".join(metrics)) for (tier, cell), metrics in cells.items()]


def rows(shown: View) -> list[Row]:
    """Return the grid: one row for each cell."""
    opened = {number for number, event in enumerate(shown.events) if event.state == State.OPEN}
    table = []
    for number, entry in enumerate(shown.entries):
        by_family: dict[str, list[Series]] = defaultdict(list)
        for series in entry.series:
            by_family[family_of(series.metric)].append(series)
        last = {series.metric: newest(series, shown.history.tiers[entry.tier]) for series in entry.series}
        concerned = {m for m, moves in entry.moves.items() if any(event in opened for event, _ in moves)}
        slots = [
            _slot(by_family[family], last, concerned) if family in by_family else None
            for family in shown.families
        ]
        status = worst(slot.status for slot in slots if slot)
        table.append(Row(number, entry.cell, entry.tier, status, slots))
    return table


def newest(series: Series, runs: NDArray[np.intp]) -> int:
    """Return the newest run of the tier that has a verdict on the series; each series has one, that of a point."""
    return int(runs[series.status[runs] != ABSENT][-1])


def _slot(series: Sequence[Series], last: Mapping[str, int], concerned: set[str]) -> Slot:
    statuses = {one.metric: STATUSES[one.status[last[one.metric]]] for one in series}
    order = list(Status)

    def rank(one: Series) -> tuple[int, bool, int]:
        return order.index(statuses[one.metric]), one.metric not in concerned, _place(one.metric)

    first = min(series, key=rank)
    at = last[first.metric]
    value, change = float(first.value[at]), float(first.change[at])
    text = quantity(value, first.unit) if np.isfinite(value) else "not measured"
    if np.isfinite(change) and change:
        text += f" {in_terms_of(first, change)}"
    return Slot(first.metric, statuses[first.metric], text, any(one.metric in concerned for one in series))


def _place(metric: str) -> int:
    """Return the place of a metric among those of the report's columns, at which people look first."""
    shown = [name for column in columns() for name in column.values]
    return shown.index(metric) if metric in shown else len(shown)


def newest_frontiers(shown: View) -> list[Frontier]:
    """Return the charts of size, loss and speed of the newest run of each tier."""
    verdicts = []
    for entry in shown.entries:
        last = shown.history.tiers[entry.tier][-1]
        for one in entry.series:
            if one.metric in SHOWN and one.status[last] != ABSENT:
                value, status = float(one.value[last]), STATUSES[one.status[last]]
                measured = value if np.isfinite(value) else None
                verdicts.append(Verdict(cell=entry.cell, metric=one.metric, status=status, measured=measured))
    return frontiers(verdicts)


def tally(table: Iterable[Row]) -> list[tuple[str, Status, int]]:
    """Return the states of the cells: class, conclusion, number; the worst first."""
    numbers = Counter(row.status for row in table)
    return [(SLUGS[status], status, numbers[status]) for status in Status if numbers[status]]


def meta(shown: View, ranges: Sequence[Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """Return what the script needs beside the packed series. ranges: see `quantgate.history.page.data.Piece`."""
    history = shown.history
    machines = list(dict.fromkeys(run.machine_class for run in history.runs))
    facts: dict[tuple[Any, ...], int] = {}
    cells = []
    for entry, of_series in zip(shown.entries, ranges, strict=True):
        runs = history.tiers[entry.tier]
        lines = []
        for one, (least, most) in zip(entry.series, of_series, strict=True):
            family = shown.families.index(family_of(one.metric))
            fact = (one.metric, one.unit, one.better, one.relative, family)
            now = int(one.status[newest(one, runs)])
            line: list[Any] = [facts.setdefault(fact, len(facts)), now, least, most]
            if marks := [_mark(number, move, runs) for number, move in entry.moves.get(one.metric, ())]:
                line.append(marks)
            lines.append(line)
        cells.append([entry.cell, list(history.tiers).index(entry.tier), lines])
    return {
        "tiers": [[tier, runs.tolist()] for tier, runs in history.tiers.items()],
        "runs": [
            [f"{r.time:%Y-%m-%d %H:%M}", r.commit, machines.index(r.machine_class)] for r in history.runs
        ],
        "machines": [_machine(history, name) for name in machines],
        "families": shown.families,
        "statuses": [[SLUGS[status], str(status)] for status in STATUSES],
        "facts": list(facts),
        "cells": cells,
        "events": [[event.id, event.state == State.OPEN, event.direction] for event in shown.events],
    }


def _mark(number: int, move: Move, runs: NDArray[np.intp]) -> list[Any]:
    """Return a step for the script: event, run (its place in the tier), levels before and after, run of the return."""
    back = ABSENT if move.back is None else int(np.searchsorted(runs, move.back))
    return [number, int(np.searchsorted(runs, move.run)), _digits(move.before), _digits(move.after), back]


def _digits(number: float) -> float | None:
    return float(f"{number:.7g}") if np.isfinite(number) else None


def _machine(history: History, name: str) -> str:
    machine = next(run.machine for run in history.runs if run.machine_class == name)
    return ", ".join(f"{machine[key]}" + (f" {key}" if key in ("cores", "threads") else "")
                     for key in ("name", "cpu", "cores", "threads", "image") if machine.get(key))  # fmt: skip
