"""Metrics: measured numbers, with everything that the judge needs to compare one with another."""

from __future__ import annotations

import statistics
from itertools import accumulate, pairwise
from typing import Any, Literal, NamedTuple

from pydantic import Field

from quantgate.records.base import Record, Scalars

QUANTIZED_SHARE = "memory/quantized_share"
"""The metric that `minimum_share` of a scheme bounds."""

AGREEMENT = "agreement/references"
"""The metric that compares the full-precision cells of a model's backends with each other."""

KERNELS = "kernels"
"""The condition that names the instruction sets for which a library's kernels were built or chosen."""

Kind = Literal["paired", "rounds", "exact", "level", "ratio"]
"""See `Metric`."""
Link = Literal["identity", "exp"]

NESTED = ("rounds", "level", "ratio")
"""Kinds that are measured in several processes."""

Rounding = Literal["none", "half", "weights", "activations"]
"""What a scheme rounds: nothing (32 bits throughout); activations to 16 bits; weights alone, computing in 32 bits;
activations to 8 bits or fewer digits than fp16. How far two machines may differ depends on it."""


class Declared(NamedTuple):
    """A metric that a group can measure (`quantgate.measure.groups.Group.metrics`). `{tasks}` in a name stands for each
    entry of that option of the group.

    share: whether it is a share of right answers, which has a recovery (`quantgate.run.relative`).
    """

    kind: Kind
    link: Link = "identity"
    share: bool = False


class Estimate(Record):
    """A number, its uncertainty and its kind: the part of a metric that people read in a baseline."""

    value: float
    stderr: float | None = None
    detectable: float | None = None
    """For a baseline: the smallest change for the worse that its gate detects with 95 % power in another environment,
    in the terms of the tolerance."""
    unit: str
    better: Literal["lower", "higher"]
    kind: Kind
    link: Link = "identity"


class Metric(Estimate):
    """One measured number, with everything that the judge needs to compare it with another.

    kind:
      "paired"  One sample for each unit of the workload (window, item), with `weights` (scored tokens; None: all 1);
                value = link(weighted mean of samples).
      "rounds"  Repeated timings of the same work in seconds; value, in `unit`, is that of the median of the processes'
                medians.
      "exact"   A number that does not vary between runs and has no units to pair (bytes, mismatches, a quantile).
      "level"   A number that varies a little between runs (peak memory): one sample per process, value is their median.
      "ratio"   One measurement relative to another of the same run (throughput relative to the reference); one sample
                per process where both sides have several.
    """

    samples: list[float] | None = None
    processes: list[int] | None = None
    """For rounds: the number of samples that each process timed, in their order; None: one process timed all."""
    beside: str | None = None
    """For A/B runs: the run's name. Process i was measured beside process i of the other side's metric."""
    in_turns: bool = False
    """For rounds: whether the two sides took turns, so that round k of process i followed round k of the one beside
    it."""
    weights: list[float] | None = None
    answers: bool = False
    """For paired metrics: whether each sample is an answer, right (1) or wrong (0); then the judge counts flips."""
    conditions: Scalars = Field(default_factory=dict)
    """Whatever must be equal before two values may be compared (hash of tokens, n_ctx ...)."""
    raw: dict[str, Any] = Field(default_factory=dict)
    """Further values, kept beside the baseline and never judged here (log-likelihoods of all choices). For rounds and
    levels, a list has one entry per process."""

    @property
    def relative(self) -> bool:
        """Whether it compares the cell with its reference in the same run: a ratio of timings, a loss."""
        return self.kind == "ratio" or "relative to" in self.conditions

    @property
    def kernels(self) -> str:
        """The kernels that it was measured on; empty where it does not depend on them."""
        return str(self.conditions.get(KERNELS) or "")

    @property
    def nested(self) -> bool:
        """Whether it varies from process to process, so that a single process says nothing about noise."""
        return self.kind in NESTED

    @property
    def rounds(self) -> list[list[float]]:
        """For rounds: the timings of each process, in seconds."""
        samples = self.samples or []
        ends = [0, *accumulate(self.processes or [len(samples)])]
        return [samples[a:b] for a, b in pairwise(ends) if b > a]

    @property
    def medians(self) -> list[float]:
        """For rounds: the median timing of each process, in seconds."""
        return list(map(statistics.median, self.rounds))

    @property
    def per_process(self) -> list[float]:
        """One value per process, in `unit`; for kinds that are not nested, the value alone."""
        if not self.samples or not self.nested:
            return [self.value]
        if self.kind != "rounds":
            return self.samples
        medians = self.medians
        middle = statistics.median(medians)
        rate = self.better == "higher"  # work per time: the longer it takes, the lower the rate
        return [self.value * (middle / m if rate else m / middle) for m in medians]

    @property
    def process_count(self) -> int:
        """The number of processes that measured it."""
        if not self.samples or not self.nested:
            return 1
        return len(self.samples) if self.kind != "rounds" else len(self.processes or [0])


def same_work(one: Metric, other: Metric) -> bool:
    """Whether two metrics differ in nothing but the kernels that they were measured on."""
    conditions = [{k: v for k, v in m.conditions.items() if k != KERNELS} for m in (one, other)]
    return one.kind == other.kind and conditions[0] == conditions[1]


class Disturbance(Record):
    """What else the machine did during a timing. Shares are of the processor time of all cores, 0 to 1."""

    others: float
    """Share taken by other processes."""
    steal: float
    """Share taken by the hypervisor."""
    load: float
    """Load average of the last minute, when the timing began."""
    mhz: float | None = None
    """Clock of the cores; None: not readable."""
    throttled: int | None = None
    """Thermal events; None: not readable."""
    pauses: int = 0
    """How often the quota of a control group paused the process; 0 without a quota."""
    paused: float = 0.0
    """Seconds of all threads in these pauses."""
