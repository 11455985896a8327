"""The comparison as a table: on the terminal, as Markdown, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantgate.proofs.peers.outcome import FAILING, Check, Outcome, Row, Unit
from quantgate.words import DASH, duration, lines_of, plural, quantity

STYLES = {
    Outcome.WITHIN: "green",
    Outcome.SHOWN: "dim",
    Outcome.OUTSIDE: "bold red",
    Outcome.ERROR: "bold magenta",
}
HEADINGS = ("row", "what", "suite", "peer", "difference", "bound", "")


def render(rows: Sequence[Row], notes: Sequence[str], console: Console) -> None:
    """Print the table, the notes, the errors in full and the counts."""
    table = Table(*HEADINGS)
    for row in rows:
        for number, (*cells, outcome) in enumerate(lines(row)):
            last = number == len(lines(row)) - 1
            table.add_row(*map(Text, cells), Text(outcome, STYLES[Outcome(outcome)]), end_section=last)
    console.print(table)
    for line in (*notes, *errors(rows)):
        console.print(Text(line))
    console.print(Text(in_one_line(rows), "bold red" if failed(rows) else "green"))


def to_markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """A GitHub table; notes, errors and counts below it."""
    table = [HEADINGS, ("---",) * len(HEADINGS), *(line for row in rows for line in lines(row))]
    cells = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in table]
    return "\n\n".join(["\n".join(cells), *notes, *errors(rows), in_one_line(rows)]) + "\n"


def to_json(rows: Sequence[Row]) -> bytes:
    """Every row with all values that were taken."""
    return TypeAdapter(list[Row]).dump_json(list(rows), indent=1)


def failed(rows: Sequence[Row]) -> bool:
    """Whether a row is outside its bound, or could not be compared for an error."""
    return any(row.outcome in FAILING for row in rows)


def in_one_line(rows: Sequence[Row]) -> str:
    """`18 rows: 15 within, 2 outside, 1 error; 41 min 07 s`."""
    counts = Counter(row.outcome for row in rows)
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    return f"{plural(len(rows), 'row')}: {parts}; {duration(sum(row.seconds for row in rows))}"


def lines(row: Row) -> list[tuple[str, ...]]:
    """One line for each check; one for a row without any."""
    if row.outcome == Outcome.ERROR:
        return [(row.name, row.text, *[DASH] * 4, str(row.outcome))]
    return [_line("" if number else row.name, check) for number, check in enumerate(row.checks)]


def _line(name: str, check: Check) -> tuple[str, ...]:
    bound = DASH if check.limit is None else f"{check.kind} {number(check.limit, check.found_unit)}"
    return (
        name,
        check.what,
        quantity(check.ours, check.unit),
        quantity(check.peer, check.unit),
        number(check.found, check.found_unit),
        bound,
        str(check.outcome),
    )


def number(value: float, unit: Unit) -> str:
    """A difference or a bound: `0.0007 %`, `0.05 points`, `2.1e-05 nats`, `2.70 x`, `0 items`."""
    match unit:
        case "relative":
            return f"{value * 100:.2g} %"
        case "fraction":
            return f"{value * 100:.2g} points"
        case "x":
            return f"{value:.3g} x"
        case "items":
            return plural(round(value), "item")
        case _:
            return f"{value:.2g} {unit}".rstrip()


def errors(rows: Sequence[Row]) -> list[str]:
    """What kept rows from being compared, in full."""
    return [f"{row.name}: " + "\n".join(lines_of(row.error)) for row in rows if row.error]
