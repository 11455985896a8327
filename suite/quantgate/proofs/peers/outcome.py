"""What a row says: the values of both sides, their difference, the bound, and whether it holds. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

import numpy as np
from pydantic import Field

from quantgate.records import Record

Unit = Literal["", "nats", "tokens/s", "s", "x", "relative", "fraction", "items"]


class Outcome(StrEnum):
    """Of a check or a row."""

    WITHIN = "within"
    OUTSIDE = "outside"
    SHOWN = "shown"
    """Without a bound."""
    ERROR = "error"


FAILING = (Outcome.OUTSIDE, Outcome.ERROR)
"""With one of these the run ends with exit status 1."""


class Check(Record):
    """One number that is held against its bound.

    ours, peer: values of the two sides in `unit`, each the median of what was taken (`ours_all`, `peer_all`); None
    where the difference is all there is. found: what the bound is for, in `found_unit`. limit: None: shown only.
    """

    what: str
    ours: float | None = None
    peer: float | None = None
    unit: Unit = ""
    found: float
    found_unit: Unit
    limit: float | None = None
    kind: Literal["at most", "at least"] = "at most"
    ours_all: list[float] = Field(default_factory=list)
    peer_all: list[float] = Field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        if self.limit is None:
            return Outcome.SHOWN
        holds = self.found <= self.limit if self.kind == "at most" else self.found >= self.limit
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
    """The medians are at most `limit` apart, as a share of the peer's; None: shown only."""
    a, b = statistics.median(ours), statistics.median(peer)
    return Check(
        what=what, ours=a, peer=b, unit=unit, found=abs(a / b - 1), found_unit="relative", limit=limit,
        ours_all=list(ours), peer_all=list(peer),
    )  # fmt: skip


def share(what: str, ours: Sequence[float], peer: Sequence[float], limit: float) -> Check:
    """Median seconds of ours are at most `limit` times the peer's."""
    a, b = statistics.median(ours), statistics.median(peer)
    return Check(
        what=what, ours=a, peer=b, unit="s", found=a / b, found_unit="x", limit=limit,
        ours_all=list(ours), peer_all=list(peer),
    )  # fmt: skip


def paired(check: Check) -> Check:
    """The same by the median ratio of a pair: for sides that met the same machine pair by pair."""
    ratio = statistics.median([a / b for a, b in zip(check.ours_all, check.peer_all, strict=True)])
    return check.model_copy(update={"found": ratio if check.found_unit == "x" else abs(ratio - 1)})


def gain(what: str, ours: Sequence[float], peer: Sequence[float], limit: float | None) -> Check:
    """Median seconds of the peer are at least `limit` times ours."""
    return share(what, ours, peer, 1.0).model_copy(
        update={
            "found": statistics.median(peer) / statistics.median(ours),
            "limit": limit,
            "kind": "at least",
        }
    )


def largest_difference(ours: Sequence[Sequence[float]], peer: Sequence[Sequence[float]]) -> float:
    """Of the log-likelihoods of all choices [items][choices], in nats."""
    return max(
        float(np.abs(np.subtract(mine, theirs)).max()) for mine, theirs in zip(ours, peer, strict=True)
    )


def other_predictions(
    ours: Sequence[Sequence[float]],
    peer: Sequence[Sequence[float]],
    lengths: Sequence[Sequence[float]],
    tie: float,
) -> int:
    """Items whose predicted choice is another one, and is no tie. lengths: of the choices, by which log-likelihoods
    are divided (1: `acc`; characters: `acc_norm`). tie: choices that the peer has within so many nats are
    not told apart."""
    other = 0
    for mine, theirs, size in zip(ours, peer, lengths, strict=True):
        scores, length = np.divide(theirs, size), np.asarray(size)
        here, there = int(np.divide(mine, size).argmax()), int(scores.argmax())
        # By as much of the longer choice's log-likelihood the order of the two would turn.
        apart = (scores[there] - scores[here]) * max(length[here], length[there])
        other += here != there and apart > tie
    return other
