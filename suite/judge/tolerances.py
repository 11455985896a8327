"""How much worse a metric may get: reads fixtures/tolerances.toml."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, model_validator

from suite.matrix import FIXTURES
from suite.records import Record
from suite.toml_input import read_toml, validate

TOLERANCES = FIXTURES / "tolerances.toml"


class Tolerance(Record):
    """One entry. Exactly one of `relative` (0.01 = 1 % of the baseline) and `absolute` (in the metric's unit).

    floor: an absolute change, in the metric's unit, below which a relative tolerance does not bite.
    noise: for paired metrics, the largest standard deviation of the paired differences between units that a
    harmless change shows. A candidate whose differences spread wider gets no wider error bar for it.
    """

    metric: str
    cell: str = "*"
    relative: float | None = Field(default=None, ge=0)
    absolute: float | None = Field(default=None, ge=0)
    floor: float = Field(default=0.0, ge=0)
    noise: float | None = Field(default=None, gt=0)
    reason: str = ""

    @model_validator(mode="after")
    def _one(self) -> Tolerance:
        if (self.relative is None) == (self.absolute is None):
            raise ValueError("give exactly one of relative, absolute")
        if self.cell != "*" and not self.reason:
            raise ValueError("an exception for a cell needs a reason")
        return self


class Tolerances(Record):
    """All entries, and the significance level of one gate (one-sided chance of a false alarm)."""

    alpha: float = Field(gt=0, lt=0.5)
    tolerance: list[Tolerance]

    def of(self, metric: str, cell: str) -> Tolerance | None:
        """The last entry that matches both; None: the metric is recorded, not gated."""
        found = [t for t in self.tolerance if fnmatchcase(metric, t.metric) and fnmatchcase(cell, t.cell)]
        return found[-1] if found else None


def load_tolerances(path: Path = TOLERANCES) -> Tolerances:
    """Read and validate. Raises InputError naming file, key and what is allowed."""
    return validate(Tolerances, read_toml(path), path)
