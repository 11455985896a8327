"""How many of a run's gates were judged, and why the others were not.

A gate is a metric that has a tolerance, and each reproduction of one. A metric that is only recorded is none, nor is an
absolute timing without a named machine. A gate is judged where its verdict says something about the model: `pass`,
`improvement`, `regression`, `changed`, and an `error` of an absolute gate. `inconclusive`, `no baseline`,
`not comparable` and other errors say nothing about it. A case that is skipped (the library of its cell is missing, the
machine too small) counts as one gate that is not judged, as a case that meets an error does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from quantgate.records import MOVED, Status, Verdict

JUDGED = (*MOVED, Status.IMPROVEMENT, Status.PASS)


@dataclass(frozen=True)
class Coverage:
    """Numbers of gates. others: those not judged, by reason and metric group. recorded: the number of metrics that are
    no gates."""

    gates: int
    judged: int
    others: dict[str, dict[str, int]] = field(default_factory=dict)
    recorded: int = 0

    @property
    def share(self) -> float:
        """The share of gates that were judged; 0 where there is none among the metrics, 1 where there are no metrics
        either."""
        return self.judged / self.gates if self.gates else float(not self.recorded)

    @property
    def text(self) -> str:
        """`171 of 193 gates judged; not judged: 12 inconclusive (throughput 8, memory 4), ...`."""
        text = f"{self.judged:,} of {self.gates:,} gates judged"
        reasons = [
            f"{sum(groups.values()):,} {reason} ({', '.join(f'{g} {n:,}' for g, n in groups.items())})"
            for reason, groups in self.others.items()
        ]
        return f"{text}; not judged: {', '.join(reasons)}" if reasons else text


def coverage(verdicts: Iterable[Verdict], left_out: Mapping[str, int] = MappingProxyType({})) -> Coverage:
    """Count the gates of a run. left_out: by metric group, the cases that were skipped."""
    every = list(verdicts)
    gates = [v for v in every if v.status != Status.PASS or v.tolerance is not None]
    others: dict[str, Counter[str]] = {}
    for verdict in sorted(gates, key=lambda v: list(Status).index(v.status)):
        if verdict.status in JUDGED or verdict.wrong:
            continue
        reason = str(verdict.status)
        if verdict.status == Status.NOT_COMPARABLE:
            reason += f", {verdict.text.partition(':')[0]}"  # the condition: `kernels differs`
        others.setdefault(reason, Counter())[verdict.metric.partition("/")[0]] += 1
    judged = len(gates) - sum(counter.total() for counter in others.values())
    if skipped := Counter(left_out):
        others["skipped"] = skipped
    return Coverage(
        len(gates) + skipped.total(),
        judged,
        {why: dict(groups.most_common()) for why, groups in others.items()},
        recorded=len(every) - len(gates),
    )
