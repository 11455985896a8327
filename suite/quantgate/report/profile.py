"""Where a run's wall time went (`--quantgate-profile`): by cell and phase, and how much of it ran the model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from quantgate.jobs import Spent
from quantgate.records import added
from quantgate.report import by_cell

BEYOND = ("prepare", "start", "rest")
"""Phases of a process in which nothing is measured."""


def phases_of(spent: Sequence[Spent]) -> dict[str, float]:
    """Return seconds by phase, all processes together. `rest` is the time outside of all phases: ending the process and
    reading its record."""
    sums = added([dict.fromkeys(("prepare", "start", "load"), 0.0), *(one.phases for one in spent)])
    rest = math.fsum(one.seconds for one in spent) - math.fsum(sums.values())
    return {**sums, "rest": rest}


def beyond(spent: Sequence[Spent]) -> tuple[list[float], list[float]]:
    """Return the seconds of each cell outside of measuring: for the cells that are the first of their model's backend,
    and for the others."""
    first: dict[str, float] = {}
    others: list[float] = []
    for cell, processes in by_cell(spent).items():
        phases, backend = phases_of(processes), cell.rpartition("/")[0]
        seconds = math.fsum(phases[name] for name in BEYOND)
        if backend in first:
            others.append(seconds)
        else:
            first[backend] = seconds
    return list(first.values()), others


def render_profile(spent: Sequence[Spent], cases: float, run: float, console: Console) -> None:
    """Print the table, at its full width. cases: seconds of pytest's cases, judging included; run: seconds since
    pytest's process was started."""
    table, width = _table(spent), console.width
    unlimited = console.options.update(max_width=10_000)
    # A line that is too long is better than a truncated number.
    console.width = max(width, Measurement.get(console, unlimited, table).maximum)
    console.print()
    console.print(table, crop=False)
    console.width = width
    processes = math.fsum(one.seconds for one in spent)
    forward = math.fsum(s for one in spent for s in one.forward.values())
    shares = f"measuring processes {processes:.1f} s, judging {cases - processes:.1f} s"
    lines = [
        f"wall time {run:.1f} s: {shares}, pytest and reports {run - cases:.1f} s",
        f"in forward passes {forward:.1f} s ({100 * forward / run:.1f} %), outside {run - forward:.1f} s "
        f"({100 - 100 * forward / run:.1f} %)",
    ]
    first, others = beyond(spent)
    for costs, which in ((first, "the first of its backend"), (others, "any other")):
        if costs:
            lines.append(
                f"beyond its measurement ({', '.join(BEYOND)}) a cell took {statistics.median(costs):.2f} s "
                f"({which}; median of {len(costs)})"
            )
    console.print(Text("\n".join(lines)))


def _table(spent: Sequence[Spent]) -> Table:
    """Return a row for each cell, one for all of them, and one for the forward passes among these."""
    names, forward = list(phases_of(spent)), added(one.forward for one in spent)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("seconds")
    for title in ("processes", *names, "all", "forward"):
        table.add_column(title, justify="right")

    def add(title: str, processes: Sequence[Spent], style: str = "") -> None:
        phases = phases_of(processes)
        values = [phases.get(name, 0.0) for name in names]
        values.append(math.fsum(one.seconds for one in processes))
        values.append(math.fsum(s for one in processes for s in one.forward.values()))
        table.add_row(title, str(len(processes)), *map(_seconds, values), style=style)

    for cell, processes in by_cell(spent).items():
        add(cell, processes)
    if spent:
        table.add_section()
    add("all", spent, "bold")
    values = [forward.get(name, 0.0) for name in names]
    table.add_row("in forward passes", "", *map(_seconds, values), "", _seconds(math.fsum(values)))
    return table


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 0.05 else "-"
