"""Did everything drift, or this scheme alone? A cell's change beside that of its reference."""

from __future__ import annotations

import math

from quantgate.records import Status, Verdict

MOVED = (Status.REGRESSION, Status.CHANGED)
"""The verdicts that fail a case because a value moved."""


def drift(cell: Verdict, reference: Verdict | None) -> str:
    """Return in one line what the reference did in the same run; both verdicts are on the same metric.

    What decides is the reference's change as a share of the cell's (on the log scale if relative): from three quarters
    on everything drifted; up to one quarter this scheme alone did; in between, some of both.
    """
    if reference is None or reference.change is None or cell.change is None:
        return "the reference was not judged: it may have moved as well"
    change, other = size(cell), size(reference)
    if cell.status not in MOVED and abs(other) > abs(change):
        return "the reference got better, this scheme did not or by less"
    share = other / change if change else 0.0
    if share > 4 / 3:
        return "the reference moved as well, by more: everything drifted"
    if share >= 3 / 4:
        return "the reference moved as well, by as much: everything drifted"
    if share > 1 / 4:
        return "the reference moved as well, but by less: part of the change is a drift of everything"
    if share >= -1 / 4:
        return "the reference did not move: this scheme alone"
    return "the reference moved the other way: this scheme alone"


def size(verdict: Verdict) -> float:
    """Return a change as a number that adds up: the logarithm of a relative one."""
    change = verdict.change or 0.0
    return math.log1p(change) if verdict.change_unit == "relative" and change > -1 else change
