"""The records that are written to disk and read again, validated.

A measuring process leaves a `Measurement` of one cell; the judge turns it into a `Verdict` for each metric. A baseline
is a `Measurement` that a person accepted, with the reason (`quantgate.baselines.file`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

FORMAT = 5
"""Version of the records on disk. A file with a larger one was written by a newer quantgate."""

QUANTIZED_SHARE = "memory/quantized_share"
"""The metric that `minimum_share` of a scheme bounds."""
AGREEMENT = "agreement/references"
"""The metric that compares the full-precision cells of a model's backends with each other."""
IN_PROCESS = "agreement/in_process"
"""The metric that compares a served cell with the one that runs the same weights in process."""
KERNELS = "kernels"
"""The condition that names the instruction sets for which a library's kernels were built or chosen."""

Scalar = str | int | float | bool | None


def _without_none(table: dict[str, Scalar]) -> dict[str, Scalar]:
    return {key: value for key, value in table.items() if value is not None}


Scalars = Annotated[dict[str, Scalar], AfterValidator(_without_none)]
"""Scalars by name. A key of None is dropped: TOML cannot hold it, and an absent key means the same."""

Kind = Literal["paired", "rounds", "exact", "level", "ratio"]
"""See `Metric`."""
Link = Literal["identity", "exp"]

Rounding = Literal["none", "half", "weights", "activations"]
"""What a scheme rounds: nothing (32 bits throughout); activations to 16 bits; weights alone, computing in 32 bits;
activations to 8 bits or fewer digits than fp16. How far two machines may differ depends on it."""


class Record(BaseModel):
    """Base class: immutable; refuses unknown keys and non-finite floats."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Declared(NamedTuple):
    """A metric that a group can measure (`quantgate.measure.groups.Group.metrics`). `{tasks}` in a name stands for each
    entry of that option of the group.

    share: whether it is a share of right answers, which has a recovery. ratio: whether a timing is compared with the
    reference's (both: `quantgate.run.relative`). held: whether only a cell that is held against a reference has it.
    repeats: whether what does not vary by its kind is equal to the last digit when the same machine measures twice."""

    kind: Kind
    link: Link = "identity"
    share: bool = False
    ratio: bool = True
    held: bool = False
    repeats: bool = True


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
    """For rounds: whether the two sides took turns: round k of process i followed round k of the one beside it."""
    weights: list[float] | None = None
    answers: bool = False
    """For paired metrics: whether each sample is an answer, right (1) or wrong (0); then the judge counts flips."""
    conditions: Scalars = Field(default_factory=dict)
    """Whatever must be equal before two values may be compared (hash of tokens, n_ctx ...)."""
    raw: dict[str, Any] = Field(default_factory=dict)
    """Further values, kept beside the baseline and never judged here (log-likelihoods of all choices). For rounds and
    levels, a list has one entry per process; `doubts`, too: why the gates are inconclusive; empty: no reason."""

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
        return self.kind in ("rounds", "level", "ratio")

    @property
    def unit_count(self) -> int:
        """The number of units whose samples are paired; 0 of other kinds."""
        return len(self.samples or ()) if self.kind == "paired" else 0

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
        return len(self.per_process)


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


class Measurement(Record):
    """Everything that one run recorded of one cell."""

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    cell: str
    tier: str
    fingerprint: str
    """Hash of the work (cell, workload, code, library versions): equal work has equal fingerprints, and its record can
    be reused."""
    run: str = ""
    """Name of the pytest run that measured it."""
    requests: list[str] = Field(default_factory=list)
    created: str
    seconds: float = 0.0
    environment: Scalars = Field(default_factory=dict)
    """Whatever can change a number: versions, machine, hashes."""
    notes: dict[str, str] = Field(default_factory=dict)
    """Deviations from the usual way of measuring: a sentence by subject."""
    metrics: dict[str, Metric] = Field(default_factory=dict)
    """By name, `<group>` or `<group>/<part>`: `perplexity`, `accuracy/arc_easy/acc`, `throughput/decode`."""
    phases: dict[str, float] = Field(default_factory=dict)
    """Wall time in seconds of each phase of the measuring processes: `start` (until loading began), `load`, metric
    groups."""
    forward: dict[str, float] = Field(default_factory=dict)
    """Seconds in forward passes, by phase."""
    scoring: dict[str, float] = Field(default_factory=dict)
    """Seconds of scoring alone, by task."""
    unmeasured: dict[str, str] = Field(default_factory=dict)
    """Metric groups, and parts of them, that cannot be measured here, and why."""
    complete: bool = False
    """False while the measuring process still has metrics to measure."""

    def comparable(self, name: str, measured: Metric) -> tuple[Metric | None, Mapping[str, Scalar]]:
        """Return the value of a metric that `measured` is compared with, and the environment it was measured in."""
        return self.metrics.get(name), self.environment


def added(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add numbers of the same name; names keep the order in which they first come."""
    sums: dict[str, float] = {}
    for part in parts:
        for name, number in part.items():
            sums[name] = sums.get(name, 0.0) + number
    return sums


class Status(StrEnum):
    """The possible conclusions of the judge, the worst first; a case takes the worst of its metrics."""

    REGRESSION = "regression"
    DRIFT = "drift"
    CHANGED = "changed"
    ERROR = "error"
    NOT_COMPARABLE = "not comparable"
    NO_BASELINE = "no baseline"
    INCONCLUSIVE = "inconclusive"
    IMPROVEMENT = "improvement"
    PASS = "pass"  # noqa: S105


MOVED = (Status.REGRESSION, Status.DRIFT, Status.CHANGED)
"""The conclusions that fail a case because a value moved."""


def worst(statuses: Iterable[Status]) -> Status:
    """Return the first in the order of `Status`; `pass` where there are none."""
    return min(statuses, key=list(Status).index, default=Status.PASS)


class Verdict(Record):
    """The judge's conclusion on one metric of one cell."""

    cell: str
    metric: str
    status: Status
    measured: float | None = None
    baseline: float | None = None
    unit: str = ""
    change: float | None = None
    """Signed change in the tolerance's terms (`change_unit`): relative (0.01 = 1 %) or absolute."""
    change_low: float | None = None
    change_high: float | None = None
    """Interval of `change`; None where the metric has no samples."""
    change_unit: Literal["relative", "absolute"] = "relative"
    tolerance: float | None = None
    detectable: float | None = None
    """Smallest change for the worse that this sample shows with 95 % power, in the same terms."""
    unequal: bool = False
    """For a reproduction that passes: the samples are not identical although the environment is unchanged."""
    by_machine: bool = False
    """For `not comparable`: only the machine differs (kernels, threads), so the case is skipped and does not fail."""
    text: str = ""
    """The cause, in one line."""
    environment: list[str] = Field(default_factory=list)
    """What changed in the environment since the baseline: `torch 2.12.0 -> 2.13.0`."""
    reproduce: str = ""
    """The command that repeats the case."""
    confirmed: str = ""
    """For timings and memory peaks: the result of the second measurement."""
    wrong: str = ""
    """Why the value is wrong regardless of the baseline, and cannot become one (`quantgate.judge.expected`)."""
    reference: str = ""
    """Whether the reference cell moved as well in the same run: everything moved, or this scheme alone."""
    kind: Kind | None = None
    """Of the metric, as `better`, `stderr`, `samples` (their number), `conditions` and `weights` (hashes): what the
    history keeps of it. None, or empty, where nothing was measured."""
    better: Literal["lower", "higher"] | None = None
    stderr: float | None = None
    samples: int | None = None
    conditions: str = ""
    weights: str = ""

    @property
    def size(self) -> float:
        """The change as a number that adds up: the logarithm of a relative one."""
        change = self.change or 0.0
        return math.log1p(change) if self.change_unit == "relative" and change > -1 else change
