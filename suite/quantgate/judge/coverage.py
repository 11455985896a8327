"""How many of a run's gates were judged, and why the others were not. Pure.

A gate is a metric that has a tolerance, and each reproduction of one; what is only recorded is none, nor is an absolute
timing without a named machine. It is judged where its verdict says something of the model: `pass`, `improvement`,
`regression`, `changed`. `inconclusive`, `no baseline`, `not comparable` and `error` say that nobody knows, but for an
`error` that says that the value is wrong whatever the baseline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from quantgate.judge.drift import MOVED
from quantgate.records import Status, Verdict

JUDGED = (*MOVED, Status.IMPROVEMENT, Status.PASS)


@dataclass(frozen=True)
class Coverage:
    """gates: how many there were. judged: how many of them. others: of those not judged, why, and of which metric
    groups how many."""

    gates: int
    judged: int
    others: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of the gates, how many were judged; 1 where there was none to judge."""
        return self.judged / self.gates if self.gates else 1.0

    @property
    def text(self) -> str:
        """`171 of 193 gates judged; not judged: 12 inconclusive (throughput 8, memory 4), ...`."""
        text = f"{self.judged:,} of {self.gates:,} gates judged"
        reasons = [
            f"{sum(groups.values()):,} {reason} ({', '.join(f'{g} {n:,}' for g, n in groups.items())})"
            for reason, groups in self.others.items()
        ]
        return f"{text}; not judged: {', '.join(reasons)}" if reasons else text


def coverage(verdicts: Iterable[Verdict]) -> Coverage:
    """Of the verdicts of a run."""
    gates = [v for v in verdicts if v.status != Status.PASS or v.tolerance is not None]
    others: dict[str, Counter[str]] = {}
    for verdict in sorted(gates, key=lambda v: list(Status).index(v.status)):
        if verdict.status not in JUDGED and not verdict.wrong:
            others.setdefault(_reason(verdict), Counter())[verdict.metric.partition("/")[0]] += 1
    judged = len(gates) - sum(counter.total() for counter in others.values())
    return Coverage(
        len(gates), judged, {reason: dict(found.most_common()) for reason, found in others.items()}
    )


def _reason(verdict: Verdict) -> str:
    """Of what cannot be compared, the condition that differs: `not comparable, kernels differs`."""
    if verdict.status != Status.NOT_COMPARABLE:
        return str(verdict.status)
    return f"{verdict.status}, {verdict.text.partition(':')[0]}"
