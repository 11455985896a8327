"""Did everything drift, or this scheme alone? A cell's change beside that of its reference."""

from __future__ import annotations

import math

from quantgate.records import Status, Verdict

MOVED = (Status.REGRESSION, Status.CHANGED)
"""Verdicts that are a change for the worse, or a change that nobody wanted."""


def drift(cell: Verdict, reference: Verdict | None) -> str:
    """What the reference did in the same run, in one line; both verdicts are on the same metric.

    The share of the cell's change (on the log scale if relative) that its reference shows as well decides: at least
    three quarters, everything drifted; at most one quarter, this scheme alone; in between, some of both.
    """
    if reference is None or reference.change is None or cell.change is None:
        return "whether the reference moved as well is not known: it was not judged"
    own, other = size(cell), size(reference)
    if cell.status not in MOVED and abs(other) > abs(own):
        return "the reference got better, and this scheme did not or by less"
    share = other / own if own else 0.0
    if share > 4 / 3:
        return "the reference moved as well, by more: everything drifted"
    if share >= 3 / 4:
        return "the reference moved as well, by the same: everything drifted"
    if share > 1 / 4:
        return "the reference moved as well, but by less: some of it is a drift of everything"
    if share >= -1 / 4:
        return "the reference did not move: this scheme alone"
    return "the reference moved the other way: this scheme alone"


def size(verdict: Verdict) -> float:
    """A change as a number that adds up: the logarithm of a relative one."""
    change = verdict.change or 0.0
    return math.log1p(change) if verdict.change_unit == "relative" and change > -1 else change
