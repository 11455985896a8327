"""Compare the values of both sides with a bound, and lay out the table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

import numpy as np
from pydantic import Field

from quantgate.proofs.table import Layout
from quantgate.records import Record
from quantgate.words import DASH, lines_of, plural, quantity

Unit = Literal["", "nats", "tokens/s", "s", "x", "relative", "fraction", "items"]


class Outcome(StrEnum):
    """Whether a check, or all checks of a row, are within their bounds; `SHOWN`: there is no bound."""

    WITHIN = "within"
    OUTSIDE = "outside"
    SHOWN = "shown"
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
    """One row of the table. error: why nothing could be compared."""

    name: str
    text: str
    checks: list[Check] = Field(default_factory=list)
    error: str = ""
    seconds: float = 0.0

    @property
    def outcome(self) -> Outcome:
        if self.error:
            return Outcome.ERROR
        outside = any(check.outcome == Outcome.OUTSIDE for check in self.checks)
        return Outcome.OUTSIDE if outside else Outcome.WITHIN


def agreement(
    what: str, ours: Sequence[float], peer: Sequence[float], unit: Unit, limit: float | None
) -> Check:
    """Check that the medians differ by at most `limit`, relative to the peer's."""
    a, b = statistics.median(ours), statistics.median(peer)
    return Check(
        what=what, ours=a, peer=b, unit=unit, difference=abs(a / b - 1), difference_unit="relative", limit=limit,
        ours_all=list(ours), peer_all=list(peer),
    )  # fmt: skip


def share(what: str, ours: Sequence[float], peer: Sequence[float], limit: float) -> Check:
    """Check that our median seconds are at most `limit` times the peer's."""
    a, b = statistics.median(ours), statistics.median(peer)
    return Check(
        what=what, ours=a, peer=b, unit="s", difference=a / b, difference_unit="x", limit=limit,
        ours_all=list(ours), peer_all=list(peer),
    )  # fmt: skip


def gain(what: str, ours: Sequence[float], peer: Sequence[float], limit: float | None) -> Check:
    """Check that the peer's median seconds are at least `limit` times ours."""
    update = {
        "difference": statistics.median(peer) / statistics.median(ours),
        "limit": limit,
        "kind": "at least",
    }
    return share(what, ours, peer, 1.0).model_copy(update=update)


def paired(check: Check) -> Check:
    """Replace the difference of medians by the median ratio of the pairs, whose two runs met the same machine."""
    ratio = statistics.median([a / b for a, b in zip(check.ours_all, check.peer_all, strict=True)])
    difference = ratio if check.difference_unit == "x" else abs(ratio - 1)
    return check.model_copy(update={"difference": difference})


def largest_difference(ours: Sequence[Sequence[float]], peer: Sequence[Sequence[float]]) -> float:
    """Return the largest absolute difference of log-likelihoods [items][choices], in nats."""
    return max(
        float(np.abs(np.subtract(mine, theirs)).max()) for mine, theirs in zip(ours, peer, strict=True)
    )


def other_predictions(
    ours: Sequence[Sequence[float]],
    peer: Sequence[Sequence[float]],
    lengths: Sequence[Sequence[float]],
    tie: float,
) -> int:
    """Count the items whose predicted choice differs between the sides.

    lengths: of the choices; log-likelihoods are divided by them (1 for `acc`, characters for `acc_norm`). tie: nats;
    choices that the peer scores this close to each other count as the same.
    """
    count = 0
    for mine, theirs, size in zip(ours, peer, lengths, strict=True):
        scores, length = np.divide(theirs, size), np.asarray(size)
        here, there = int(np.divide(mine, size).argmax()), int(scores.argmax())
        # The change of the longer choice's log-likelihood that would reverse the order.
        margin = (scores[there] - scores[here]) * max(length[here], length[there])
        count += here != there and margin > tie
    return count


def lines(row: Row) -> list[tuple[str, ...]]:
    """Return a table line for each check; one for a row that has none."""
    if row.outcome == Outcome.ERROR:
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
        case _:
            return f"{value:.2g} {unit}".rstrip()


LAYOUT = Layout[Row](
    headings=("row", "what", "suite", "peer", "difference", "bound", ""),
    lines=lines,
    styles={
        Outcome.WITHIN: "green",
        Outcome.OUTSIDE: "bold red",
        Outcome.SHOWN: "dim",
        Outcome.ERROR: "bold magenta",
    },
    failing=frozenset({Outcome.OUTSIDE, Outcome.ERROR}),
    nouns=("row",),
    noun=lambda row: "row",
    details=lambda row: [f"{row.name}: " + "\n".join(lines_of(row.error))] if row.error else [],
)
