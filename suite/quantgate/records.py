"""The records that pass between the parts: what is written to disk is one of these, validated.

Flow: `Job` (parent to measuring process) -> `Measurement` (one cell, on disk) -> `Verdict` (judge).
A baseline is a `Measurement` that a person accepted, with its provenance (`quantgate.baselines.store`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

FORMAT = 3
"""Version of the records on disk; a file with a larger one was written by a newer quantgate."""

Scalar = str | int | float | bool | None

QUANTIZED_SHARE = "memory/quantized_share"
"""The metric that a scheme's `minimum_share` is about."""

AGREEMENT = "agreement/references"
"""The metric that holds the full-precision cells of a model's backends against each other."""


class Record(BaseModel):
    """Base: immutable, unknown keys refused, non-finite floats refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def having(self, fields: Mapping[str, Any]) -> Self:
        """`model_copy(update=fields)` in half its time. Nothing is validated: for what was computed here from
        validated records."""
        return self.trusted({**self.__dict__, **fields})

    @classmethod
    def trusted(cls, values: dict[str, Any]) -> Self:
        """The record of `values`, which has every field and becomes the record's own. Nothing is validated, as ten
        thousand cells have 350,000 verdicts: for what was computed here from validated records."""
        record, put = object.__new__(cls), object.__setattr__
        put(record, "__dict__", values)
        put(record, "__pydantic_fields_set__", _fields(cls))
        put(record, "__pydantic_extra__", None)
        put(record, "__pydantic_private__", None)
        return record


@cache
def _fields(record: type[Record]) -> set[str]:
    return set(record.model_fields)


Kind = Literal["paired", "rounds", "exact", "level", "ratio"]
"""See `Metric`."""
Link = Literal["identity", "exp"]


Rounding = Literal["none", "half", "weights", "activations"]
"""What a scheme rounds: nothing (32 bits throughout); activations to 16 bits; weights alone, computing in 32 bits;
activations to 8 bits or fewer digits than fp16. How far two machines may differ depends on it."""


class Declared(NamedTuple):
    """What a metric group says of a metric that it may give, in its `METRICS`, by name. `{tasks}` in a name stands for
    each entry of that key of the group's `Options`.

    share: of right answers; it has a recovery (`quantgate.run.relative`).
    """

    kind: Kind
    link: Link = "identity"
    share: bool = False


class Estimate(Record):
    """A number, how far it may be trusted, and how it is judged: what a person reads of a metric."""

    value: float
    stderr: float | None = None
    detectable: float | None = None
    """Of a baseline: the smallest change for the worse that its gate detects with 95 % power in another environment, in
    the terms of the tolerance."""
    unit: str
    better: Literal["lower", "higher"]
    kind: Kind
    link: Link = "identity"


class Metric(Estimate):
    """One measured number, with everything the judge needs to hold it against another.

    kind:
      "paired"  `samples` belong one by one to the units (windows, items) of the workload, with
                `weights` (scored tokens; None: all 1); value = link(weighted mean of samples).
      "rounds"  `samples` are repeated timings of the same work in seconds, `processes` of them in each process;
                value, in `unit`, is that of the median of the processes' medians.
      "exact"   what does not vary between runs and has no units to pair (bytes, mismatches, a quantile).
      "level"   a scalar that varies a little between runs (peak memory): `samples` has one value per process,
                value is their median.
      "ratio"   one measurement relative to another of the same run (throughput against reference); `samples`
                has one ratio per process where both sides have several.

    conditions: whatever must be equal before two values may be compared (hash of tokens, n_ctx ...).
    raw: further values kept beside the baseline (log-likelihood of every choice); never judged here. Of rounds
    and levels, a list in it has one entry per process.
    """

    samples: list[float] | None = None
    processes: list[int] | None = None
    """Of rounds: how many of `samples`, in their order, each process timed; None: one process timed all."""
    beside: str | None = None
    """Of an A/B run: its name. Process i was measured beside process i of the other side's metric."""
    in_turns: bool = False
    """Of rounds that were measured so: round k of process i and round k of the one beside it followed one another."""
    weights: list[float] | None = None
    answers: bool = False
    """Of paired: whether each sample is an answer, right (1) or wrong (0). Then flips are counted."""
    conditions: dict[str, Scalar] = Field(default_factory=dict)
    raw: dict[str, Any] = Field(default_factory=dict)

    @property
    def relative(self) -> bool:
        """Whether it holds the cell against its reference in the same run: a ratio of timings, a loss."""
        return self.kind == "ratio" or "relative to" in self.conditions

    @property
    def kernels(self) -> str:
        """The kind of kernels that it was measured on; empty where it does not depend on them."""
        return str(self.conditions.get(KERNELS) or "")

    @property
    def nested(self) -> bool:
        """Whether it varies from process to process, so that one process alone says nothing of noise."""
        return self.kind in NESTED

    @property
    def rounds(self) -> list[list[float]]:
        """Of rounds: those of each process, in seconds."""
        samples = self.samples or []
        ends = [0, *accumulate(self.processes or [len(samples)])]
        return [samples[a:b] for a, b in pairwise(ends) if b > a]

    @property
    def medians(self) -> list[float]:
        """Of rounds: the median round of each process, in seconds."""
        return list(map(statistics.median, self.rounds))

    @property
    def per_process(self) -> list[float]:
        """One value per process, in `unit`. Of other kinds: the value."""
        if not self.samples or not self.nested:
            return [self.value]
        if self.kind != "rounds":
            return self.samples
        medians = self.medians
        middle = statistics.median(medians)
        rate = self.better == "higher"  # work by time: the longer, the less
        return [self.value * (middle / m if rate else m / middle) for m in medians]

    @property
    def process_count(self) -> int:
        """How many processes measured it."""
        if not self.samples or not self.nested:
            return 1
        return len(self.samples) if self.kind != "rounds" else len(self.processes or [0])


NESTED = ("rounds", "level", "ratio")
"""Kinds that are measured in several processes."""
KERNELS = "kernels"
"""The condition that names the kind of kernels."""


def same_work(one: Metric, other: Metric) -> bool:
    """Whether two metrics differ in nothing but the kernels that they were measured on."""
    conditions = [{k: v for k, v in m.conditions.items() if k != KERNELS} for m in (one, other)]
    return one.kind == other.kind and conditions[0] == conditions[1]


class Disturbance(Record):
    """What else the machine did while something was timed. Shares are of the processor time of all cores, 0 to 1.

    others: work of other processes. steal: taken by the hypervisor. load: of the last minute, when it began.
    mhz: clock of the cores, where readable. throttled: thermal events, where readable. pauses: by the quota of a
    control group, `paused` seconds of all threads; none without a quota.
    """

    others: float
    steal: float
    load: float
    mhz: float | None = None
    throttled: int | None = None
    pauses: int = 0
    paused: float = 0.0


class Measurement(Record):
    """Everything one run recorded of one cell.

    metrics: by name, `<group>` or `<group>/<part>`: `perplexity`, `accuracy/arc_easy/acc`,
    `memory/weight_bytes`, `throughput/decode`.
    environment: versions of whatever can change a number, machine, hashes.
    complete: False while the measuring process has metrics left to do.
    """

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    cell: str
    tier: str
    fingerprint: str
    """Hash of the job (cell, workload, code, library versions): equal for equal work, see `plan`."""
    run: str = ""
    """Name of the pytest run that measured it."""
    requests: list[str] = Field(default_factory=list)
    created: str
    seconds: float = 0.0
    environment: dict[str, Scalar] = Field(default_factory=dict)
    notes: dict[str, str] = Field(default_factory=dict)
    """How it was measured where that is not the usual way, a sentence by subject."""
    metrics: dict[str, Metric] = Field(default_factory=dict)
    phases: dict[str, float] = Field(default_factory=dict)
    """Wall time in seconds of each phase of the measuring processes: `start` (until loading began), `load`, metric
    groups."""
    forward: dict[str, float] = Field(default_factory=dict)
    """Of each phase, seconds in forward passes."""
    scoring: dict[str, float] = Field(default_factory=dict)
    """Of each task, seconds of scoring alone."""
    unmeasured: dict[str, str] = Field(default_factory=dict)
    """Metric groups that this machine cannot measure, and why."""
    complete: bool = False

    def comparable(self, name: str, measured: Metric) -> tuple[Metric | None, Mapping[str, Scalar]]:
        """Return the value of a metric that `measured` is compared with, and the environment it was measured in."""
        return self.metrics.get(name), self.environment


class Spent(Record):
    """Wall time of one measuring process, seen by the run that asked for it.

    seconds: in all. phases: as of a measurement, and `prepare`, what went before; none of a process that failed.
    forward: of each phase, seconds in forward passes.
    """

    cell: str
    seconds: float
    phases: dict[str, float]
    forward: dict[str, float]


def added(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sums by name, in the order in which names first come."""
    sums: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            sums[name] = sums.get(name, 0.0) + seconds
    return sums


class Status(StrEnum):
    """What the judge can say. Order: the worst first (a case takes the worst of its metrics)."""

    REGRESSION = "regression"
    CHANGED = "changed"
    ERROR = "error"
    NOT_COMPARABLE = "not comparable"
    NO_BASELINE = "no baseline"
    INCONCLUSIVE = "inconclusive"
    IMPROVEMENT = "improvement"
    PASS = "pass"  # noqa: S105


def worst(statuses: Iterable[Status]) -> Status:
    """The first in the order of `Status`; `pass` for none."""
    return min(statuses, key=list(Status).index, default=Status.PASS)


class Verdict(Record):
    """What the judge says of one metric of one cell."""

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
    """Of a reproduction that passes: not equal to the last digit, though nothing in the environment has changed."""
    by_machine: bool = False
    """Of `not comparable`: only the machine differs (kernels, threads), which is nobody's fault."""
    text: str = ""
    """Why: one line."""
    environment: list[str] = Field(default_factory=list)
    """What changed in the environment since the baseline: `torch 2.12.0 -> 2.13.0`."""
    reproduce: str = ""
    """The command that shows it again."""
    confirmed: str = ""
    """For timings and memory peaks: what the second measurement said."""
    wrong: str = ""
    """Why the value is wrong whatever the baseline: it can become none. See `quantgate.judge.expected`."""
    reference: str = ""
    """What the cell's reference did in the same run: whether everything drifted or this scheme alone."""


class Job(Record):
    """What a measuring process is asked to do. All paths are absolute and exist."""

    kind: Literal["measure"] = "measure"
    cell: str
    tier: str
    fingerprint: str
    run: str = ""
    backend: str
    scheme_options: dict[str, Any]
    weights: Path
    """Checkpoint as this backend takes it: a folder with safetensors, or a GGUF file."""
    source_hash: str
    """Identity of the source checkpoint (before quantization); a condition of every comparison."""
    workload: Path
    """Folder with the tokenized texts and items (`quantgate.supply.workload`)."""
    requests: list[str]
    """Metric requests: `perplexity`, `accuracy/arc_easy`, `memory`, `throughput/decode` ..."""
    options: dict[str, dict[str, Any]]
    """Per metric group: the tier's settings (n_ctx, rounds, budget ...)."""
    threads: int
    first: bool = True
    """Of a process that works in turns with another one: whether it begins each of them
    (`quantgate.processes.turns`)."""
    asked: float = Field(default_factory=time.monotonic)
    """When the process was asked for, by the clock that all processes of a machine share."""
    reference: str = ""
    """Id of the cell that this one is held against; its own id: it is a reference."""
    logprobs: Path | None = None
    """The reference's log-probabilities (`quantgate.measure.logprobs`): a reference writes them, other cells read
    them."""
    output: Path


class Needs(Record):
    """What a metric group needs of the workload: tokens of texts, items of tasks, characters of lines, programs to
    write, by name; and how many examples stand before each item."""

    texts: dict[str, int] = Field(default_factory=dict)
    tasks: dict[str, int] = Field(default_factory=dict)
    fewshot: int = 0
    lines: dict[str, int] = Field(default_factory=dict)
    programs: dict[str, int] = Field(default_factory=dict)


class Preparation(Record):
    """What a process is asked to make in the cache, once: a checkpoint in some scheme, a tokenized workload."""

    kind: Literal["prepare"] = "prepare"
    title: str
    maker: str
    """`module:function`, called as function(output, report=..., **arguments)."""
    arguments: dict[str, Any]
    output: Path
