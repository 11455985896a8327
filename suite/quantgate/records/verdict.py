"""What the judge concludes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

from pydantic import Field

from quantgate.records.base import Record


class Status(StrEnum):
    """The possible conclusions, the worst first; a case takes the worst of its metrics."""

    REGRESSION = "regression"
    CHANGED = "changed"
    ERROR = "error"
    NOT_COMPARABLE = "not comparable"
    NO_BASELINE = "no baseline"
    INCONCLUSIVE = "inconclusive"
    IMPROVEMENT = "improvement"
    PASS = "pass"  # noqa: S105


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
    """Why the value is wrong whatever the baseline, and cannot become one (`quantgate.judge.expected`)."""
    reference: str = ""
    """Whether the reference cell moved as well in the same run: everything drifted, or this scheme alone."""
