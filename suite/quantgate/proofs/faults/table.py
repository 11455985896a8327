"""The proof as a table: on the terminal, as Markdown, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantgate.proofs.faults.outcome import FAILING, Outcome, Row
from quantgate.words import duration, plural

STYLES = {
    Outcome.CAUGHT: "green",
    Outcome.CLEAN: "green",
    Outcome.SAID: "green",
    Outcome.ELSEWHERE: "yellow",
    Outcome.MISSED: "bold red",
    Outcome.BROKEN: "bold magenta",
    Outcome.FALSE_ALARM: "bold red",
}
HEADINGS = (
    "fault",
    "cell",
    "gates that must turn red",
    "gates that did, and by how much",
    "after an upgrade",
    "verdict",
)


def render(rows: Sequence[Row], console: Console) -> None:
    """Print the table and the counts."""
    table = Table(*HEADINGS, show_lines=True)
    for row in rows:
        *cells, verdict = _cells(row)
        table.add_row(*(Text(cell) for cell in cells), Text(verdict, STYLES[row.outcome]))
    console.print(table)
    console.print(Text(in_one_line(rows), "bold red" if failed(rows) else "green"))


def to_markdown(rows: Sequence[Row]) -> str:
    """A GitHub table, the counts below it."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(tuple(_cells(row)) for row in rows)]
    cells = (
        "| " + " | ".join(c.replace("\n", "<br>").replace("|", "\\|") for c in line) + " |" for line in lines
    )
    return "\n".join([*cells, "", in_one_line(rows), ""])


def to_json(rows: Sequence[Row]) -> bytes:
    """Every row with all its verdicts."""
    return TypeAdapter(list[Row]).dump_json(list(rows), indent=1)


def failed(rows: Sequence[Row]) -> bool:
    """Whether a fault was missed, could not be tried, or a run without one was red."""
    return any(row.outcome in FAILING for row in rows)


def in_one_line(rows: Sequence[Row]) -> str:
    """`48 faults: 46 caught, 1 caught by another gate, 1 missed; 6 controls: 6 clean; 12 min 4 s`."""
    faults = Counter(row.outcome for row in rows if row.kind != "control")
    controls = Counter(row.outcome for row in rows if row.kind == "control")
    parts = [
        f"{plural(counts.total(), noun)}: " + ", ".join(f"{counts[o]} {o}" for o in Outcome if counts[o])
        for noun, counts in (("fault", faults), ("control", controls))
        if counts
    ]
    return "; ".join([*parts, duration(sum(row.seconds for row in rows))])


def _cells(row: Row) -> list[str]:
    return [
        row.text,
        row.cell,
        "\n".join(row.gates) or "none",
        "\n".join(row.red) or (f"none: {row.note}" if row.note else "none"),
        "-" if row.upgraded is None else "\n".join(row.upgraded) or "none",
        str(row.outcome),
    ]
