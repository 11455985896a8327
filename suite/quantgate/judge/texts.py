"""Judge whether a cell still writes the texts of its baseline, token by token."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from quantgate.config.tolerances import REPRODUCTION, Tolerance
from quantgate.judge.environment import relevant
from quantgate.records import Metric, Status, Verdict


def same_texts(
    cell: str,
    name: str,
    measured: Metric,
    baseline: Metric,
    tolerance: Tolerance,
    environment: Sequence[str] = (),
    reproduce: str = "",
    *,
    unused: Collection[str] = (),
) -> Verdict:
    """Compare the ids of all texts (`raw["ids"]`) with the baseline's; the value is the share of texts that differ.

    In the baseline's own environment none may (`here`). Elsewhere another kernel rounds differently, and of two tokens
    that are nearly as likely another one is written: texts then differ without any loss, which other gates judge.
    Beyond the limit the status is `changed`. Arguments are those of `judge.reproduction`.
    """
    old, new = baseline.raw["ids"], measured.raw["ids"]
    other = [number for number, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    share = len(other) / len(new)
    limit = tolerance.limit(unchanged=not relevant(environment, unused))
    text = f"all {len(new):,} texts equal the baseline's, token by token"
    if other:
        first = other[0]
        place = next(
            (n for n, (a, b) in enumerate(zip(old[first], new[first], strict=False)) if a != b),
            min(len(old[first]), len(new[first])),
        )
        text = (
            f"{len(other):,} of {len(new):,} texts differ from the baseline's: the first is that of prompt "
            f"{first + 1:,}, from token {place + 1:,} on"
        )
    return Verdict(
        cell=cell,
        metric=f"{name}{REPRODUCTION}",
        status=Status.PASS if share <= limit else Status.CHANGED,
        measured=share,
        baseline=0.0,
        unit="fraction",
        change=share,
        change_unit="absolute",
        tolerance=limit,
        environment=list(environment),
        reproduce=reproduce,
        text=text,
    )
