"""The metric groups: what each declares, and the registry of all of them.

A group is one file, `quantgate/measure/metrics/<group>.py`, or a module of another distribution that an entry point of
`quantgate.metrics` names. It defines `GROUP`. The parent process reads it too, so it imports neither torch nor
llama_cpp at its top level.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from quantgate.backends.spec import check_capabilities
from quantgate.config.sentences import allowed
from quantgate.discovery import discover, guarded
from quantgate.errors import InputError
from quantgate.jobs import Needs
from quantgate.records import AGREEMENT, IN_PROCESS, Declared, Kind, Link, Metric, Record, Scalar

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from quantgate.backends.spec import Capability
    from quantgate.measure.session import Session

Better = Literal["lower", "higher"]
TEMPLATE = "template"
"""The subject of the note on a chat template that is not used: the records of all cells of the model have the same."""


Measure = Callable[["Session", Sequence[str]], dict[str, Metric]]


@dataclass(frozen=True)
class Column:
    """One column of the table of cells. values: patterns of metric names; the column shows the mean of their values.
    Metrics that differ in their last part only (`acc`, `acc_norm`) are one value: that of the first pattern that
    matches. last: patterns of values that count where there are no others, such as another mean of these.

    place: columns stand in ascending order of it. keep: a narrow terminal keeps the columns with the highest numbers.
    marks: further metrics whose verdicts mark the column. percent: a share, shown in percent, its change in percentage
    points.
    """

    title: str
    unit: str
    digits: int
    place: int
    keep: int
    values: tuple[str, ...]
    marks: tuple[str, ...] = ()
    percent: bool = False
    last: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        return 100 if self.percent else 1e-6 if self.unit == "MB" else 1


@dataclass(frozen=True, kw_only=True)
class Group:
    """A metric group.

    options: model of the keys that a tier may give the group. `processes` among them: its metrics vary between
    processes; `in_turns`: two processes can measure it round by round (`Session.turns`).
    metrics: what it may give, by name. A tolerance for anything else is refused.
    measure: takes a session and the parts of the group that the cases need (`arc_easy` of `accuracy/arc_easy`; none:
    all), returns the metrics by full name.
    family: groups of one family move together when a computation changes; one common cause explains them.
    order: groups of lower order are measured first; those of the same order by name.
    relative: judged relative to the reference of the same run too.
    has_parts: its metrics are `group/part/...`, and each part has a case of its own.
    alone: nothing else may run on the machine meanwhile, since it measures time.
    reads_reference: needs what the reference's process leaves for it, a file (`Session.left_for`).
    agreement: references of one model in several backends must agree on the metric that has the group's name.
    in_process: the request whose metrics, of the cell that runs the same weights in process, those of a served cell are
    held against; empty: none.
    capabilities: what it needs of a backend; a cell without them has no case.
    needs: by its options, the texts and tasks that it takes from the workload.
    length: options that add up to the tokens of its longest text, where predictions at every position count.
    expected: by its options, the gated metrics with as many samples as they will have, so that a run can say beforehand
    what its samples are too few for.
    as_measured: the options as a record's metrics were measured with, where a tier leaves some of them open.
    """

    options: type[Record]
    metrics: Mapping[str, Declared]
    measure: Measure
    family: str
    order: int = 10
    relative: bool = False
    has_parts: bool = False
    alone: bool = False
    reads_reference: bool = False
    agreement: bool = False
    in_process: str = ""
    capabilities: frozenset[Capability] = frozenset()
    columns: tuple[Column, ...] = ()
    needs: Callable[[Any], Needs] = lambda options: Needs()
    length: tuple[str, ...] = ()
    expected: Callable[[Any], dict[str, Metric]] = lambda options: {}
    as_measured: Callable[[Any, Mapping[str, Metric]], Any] = lambda options, metrics: options

    def __post_init__(self) -> None:
        check_capabilities(self.capabilities)
        if not (isinstance(self.options, type) and issubclass(self.options, Record)):
            raise InputError("options must be a class derived from quantgate.records.Record")
        for name in ("needs", "expected", "as_measured"):
            object.__setattr__(self, name, guarded(f"{name} of a metric group", getattr(self, name)))
        for name, metric in self.metrics.items():
            if not isinstance(metric, Declared) or metric.kind not in get_args(Kind):
                raise InputError(f"metrics: {name!r} must be Declared(KIND). {allowed('', get_args(Kind))}")


@functools.cache
def metric_groups() -> dict[str, Group]:
    """Return all metric groups by name. Raises InputError where one cannot be imported, or no case would judge it."""
    groups = discover("quantgate.measure.metrics", "GROUP", "quantgate.metrics", Group)
    for name, metric in ((name, metric) for name, group in groups.items() for metric in group.metrics):
        if group_name(metric) != name and metric not in (AGREEMENT, IN_PROCESS):
            raise InputError(
                f"metric group {name}: no case would judge {metric!r}: call it '{name}/{metric}'"
            )
    return groups


def group_name(request: str) -> str:
    """Return the name of a request's or a metric's group: `accuracy` of `accuracy/arc_easy`."""
    return request.partition("/")[0]


def group_of(request: str) -> Group:
    """Return the group of a request or of a metric's name. Raises KeyError."""
    return metric_groups()[group_name(request)]


def parse_options(raw: Mapping[str, Mapping[str, Any]]) -> dict[str, Record]:
    """Return options as a tier holds them. Raises KeyError, pydantic.ValidationError."""
    return {group: group_of(group).options.model_validate(options) for group, options in raw.items()}


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of groups, each once, in the order in which they are measured."""
    return sorted(set(names), key=lambda name: (metric_groups()[name].order, name))


def reading_reference(requests: Iterable[str]) -> list[str]:
    """Return the requests that need what the reference's process leaves."""
    return [request for request in requests if group_of(request).reads_reference]


def case_of(metric: str) -> str:
    """Return the request of the case that judges a metric: `accuracy/arc_easy` of `accuracy/arc_easy/acc`,
    `throughput/decode` of `throughput/decode_ratio`; the metric's first part where no group has this name."""
    if metric in (AGREEMENT, IN_PROCESS):
        return agreement_group()
    name, _, rest = metric.partition("/")
    group = metric_groups().get(name)
    if group is None or not group.has_parts or not rest:
        return name
    return f"{name}/{rest.partition('/')[0].removesuffix('_ratio')}"


def unused_template(options: Mapping[str, Mapping[str, Any]], requests: Iterable[str]) -> dict[str, str]:
    """Return the note on a model with a chat template whose tasks or prompts are asked without; empty where they are
    not, or none of them is requested. options: of all groups of the tier, so that all cells of a model have the same.
    """
    plain = [
        group for group, one in parse_options(options).items() if group_of(group).needs(one).asks_plainly
    ]
    if not {group_name(request) for request in requests} & {*plain}:
        return {}
    verb = "does" if len(plain) == 1 else "do"
    note = f"the model has a chat template, which {' and '.join(plain)} {verb} not use; chat = true uses it"
    return {TEMPLATE: note}


def agreement_group() -> str:
    """Return the name of the group whose case judges whether references agree."""
    return next(name for name, group in metric_groups().items() if group.agreement)


def families() -> dict[str, str]:
    """Return the family of each group by its name."""
    return {name: group.family for name, group in metric_groups().items()}


def columns() -> tuple[Column, ...]:
    """Return the columns of all groups in their order."""
    every = (column for group in metric_groups().values() for column in group.columns)
    return tuple(sorted(every, key=lambda column: column.place))


def exact(
    value: float, conditions: dict[str, Scalar], *, unit: str, better: Better = "lower", **further: Any
) -> Metric:
    """Return a metric that does not vary between runs. further: other fields of `Metric`."""
    return Metric(kind="exact", value=value, unit=unit, better=better, conditions=conditions, **further)


def level(
    value: float, conditions: dict[str, Scalar], *, unit: str, better: Better = "lower", **further: Any
) -> Metric:
    """Return a metric of which each process has one value. further: other fields of `Metric`."""
    fields = {"samples": [value], "conditions": conditions, **further}
    return Metric(kind="level", value=value, unit=unit, better=better, **fields)


def rounds(
    seconds: Sequence[float],
    conditions: dict[str, Scalar],
    *,
    work: float = 0,
    unit: str = "s",
    **further: Any,
) -> Metric:
    """Return the metric of timings of the same work in one process; its value is their median, or the rate at which
    `work` was done, in `unit`. further: other fields of `Metric`."""
    median = statistics.median(seconds)
    return Metric(
        kind="rounds",
        value=work / median if work else median,
        unit=unit,
        better="higher" if work else "lower",
        samples=list(seconds),
        processes=[len(seconds)],
        conditions=conditions,
        **further,
    )


def of_blocks(
    sums: NDArray[np.float64],
    sizes: NDArray[np.int64],
    conditions: dict[str, Scalar],
    *,
    unit: str,
    better: Better = "lower",
    link: Link = "identity",
    value: float | None = None,
    **further: Any,
) -> Metric:
    """Return the paired metric sum(sums) / sum(sizes), or its exponential (`link`); its samples are those of blocks.
    value: in place of that quotient, where it was summed up more exactly. further: other fields of `Metric`."""
    value, slope = float(sums.sum() / sizes.sum()) if value is None else value, 1.0
    if link == "exp":
        value = slope = math.exp(value)  # delta method
    return Metric(
        kind="paired",
        value=value,
        unit=unit,
        better=better,
        stderr=slope * ratio_stderr(sums, sizes),
        link=link,
        samples=(sums / sizes).tolist(),
        weights=sizes.astype(float).tolist(),
        conditions=conditions,
        **further,
    )


def ratio_stderr(sums: NDArray[np.float64], sizes: NDArray[np.int64]) -> float:
    """Return the standard error of sum(sums) / sum(sizes), a ratio of means: Cochran (1977), section 2.11."""
    n = len(sums)
    rest = sums - sizes * (sums.sum() / sizes.sum())
    return float(math.sqrt(n / (n - 1) * (rest**2).sum()) / sizes.sum())


def with_blocks(sizes: list[int], windows: int, *, unit: str, link: Link = "identity") -> Metric:
    """Return a metric as it will be, with blocks of these sizes and values that stand for none (`Group.expected`)."""
    return Metric(
        kind="paired", value=1.0, unit=unit, better="lower", link=link, samples=[0.0] * len(sizes),
        weights=[float(size) for size in sizes], conditions={"windows": windows},
    )  # fmt: skip


def paired(
    samples: ArrayLike, conditions: dict[str, Scalar], *, unit: str, better: Better, **further: Any
) -> Metric:
    """Return the metric that is the mean of its samples, one for each unit of the workload.

    further: other fields of `Metric`. With `weights`, the mean is a weighted one; with the link `exp`, the value is the
    exponential of the mean, and its standard error follows by the delta method.
    """
    values = np.asarray(samples, dtype=float)
    value = float(np.average(values, weights=further.get("weights")))
    stderr = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    if further.get("link") == "exp":
        value = math.exp(min(value, 600.0))  # exp(709) is the largest float
        stderr *= value
    fields = {"samples": values.tolist(), "stderr": stderr, "conditions": conditions, **further}
    return Metric(kind="paired", value=value, unit=unit, better=better, **fields)
