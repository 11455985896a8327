"""Compare the values of both sides with a bound. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from quantgate.proofs.checks import Check, Unit, layout


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


LAYOUT = layout("row", "suite", "peer")
