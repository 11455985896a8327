"""Compare numbers with bounds: the rows of a proof that measures two sides, and their table. Pure.

peers and cuda have such rows.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from quantgate.proofs.table import Layout
from quantgate.records import Record
from quantgate.words import DASH, lines_of, plural, quantity

Unit = Literal["", "nats", "tokens/s", "s", "x", "relative", "fraction", "items", "bytes"]


class Outcome(StrEnum):
    """Whether a check, or all checks of a row, are within their bounds; `SHOWN`: there is no bound."""

    WITHIN = "within"
    OUTSIDE = "outside"
    SHOWN = "shown"
    NOT_TRIED = "not tried"
    ERROR = "error"


class Check(Record):
    """One comparison with a bound.

    ours, peer: values of the two sides in `unit`, each the median of all values (`ours_all`, `peer_all`); None where
    only the difference was computed. difference: what is bounded, in `difference_unit`. limit: None for a value that is
    only shown.
    """

    what: str
    ours: float | None = None
    peer: float | None = None
    unit: Unit = ""
    difference: float
    difference_unit: Unit
    limit: float | None = None
    kind: Literal["at most", "at least"] = "at most"
    ours_all: list[float] = Field(default_factory=list)
    peer_all: list[float] = Field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        if self.limit is None:
            return Outcome.SHOWN
        holds = self.difference <= self.limit if self.kind == "at most" else self.difference >= self.limit
        return Outcome.WITHIN if holds else Outcome.OUTSIDE


class Row(Record):
    """One row of the table. error: why nothing could be compared. not_tried: why nothing was measured."""

    name: str
    text: str
    checks: list[Check] = Field(default_factory=list)
    error: str = ""
    not_tried: str = ""
    seconds: float = 0.0

    @property
    def outcome(self) -> Outcome:
        if self.error:
            return Outcome.ERROR
        if self.not_tried:
            return Outcome.NOT_TRIED
        outside = any(check.outcome == Outcome.OUTSIDE for check in self.checks)
        return Outcome.OUTSIDE if outside else Outcome.WITHIN


def lines(row: Row) -> list[tuple[str, ...]]:
    """Return a table line for each check; one for a row that has none."""
    if row.outcome in (Outcome.ERROR, Outcome.NOT_TRIED):
        return [(row.name, row.text, *[DASH] * 4, str(row.outcome))]
    return [_line("" if number else row.name, check) for number, check in enumerate(row.checks)]


def _line(name: str, check: Check) -> tuple[str, ...]:
    bound = DASH if check.limit is None else f"{check.kind} {number(check.limit, check.difference_unit)}"
    return (
        name,
        check.what,
        quantity(check.ours, check.unit),
        quantity(check.peer, check.unit),
        number(check.difference, check.difference_unit),
        bound,
        str(check.outcome),
    )


def number(value: float, unit: Unit) -> str:
    """Write a difference or a bound: `0.0007 %`, `0.05 points`, `2.1e-05 nats`, `2.70 x`, `0 items`."""
    match unit:
        case "relative":
            return f"{value * 100:.2g} %"
        case "fraction":
            return f"{value * 100:.2g} points"
        case "x":
            return f"{value:.3g} x"
        case "items":
            return plural(round(value), "item")
        case "bytes":
            return quantity(value, unit)
        case _:
            return f"{value:.2g} {unit}".rstrip()


def layout(noun: str, ours: str, theirs: str) -> Layout[Row]:
    """Return the table of such rows. noun: what a row is called; ours, theirs: headings of the two sides."""
    return Layout[Row](
        headings=(noun, "what", ours, theirs, "difference", "bound", ""),
        lines=lines,
        styles={
            Outcome.WITHIN: "green",
            Outcome.OUTSIDE: "bold red",
            Outcome.SHOWN: "dim",
            Outcome.NOT_TRIED: "yellow",
            Outcome.ERROR: "bold magenta",
        },
        failing=frozenset({Outcome.OUTSIDE, Outcome.ERROR}),
        nouns=(noun,),
        noun=lambda row: noun,
        details=_details,
    )


def _details(row: Row) -> list[str]:
    texts = [row.error, f"not tried: {row.not_tried}" if row.not_tried else ""]
    return [f"{row.name}: " + "\n".join(lines_of(text)) for text in texts if text]
