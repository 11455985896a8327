"""How much worse a metric may get: reads fixtures/tolerances.toml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, PrivateAttr, model_validator

from quantgate.config.toml_input import read_toml, validate
from quantgate.errors import InputError
from quantgate.paths import FIXTURES
from quantgate.records import Record, Rounding

REPRODUCTION = "/reproduction"
TOLERANCES = FIXTURES / "tolerances.toml"


class Tolerance(Record):
    """One entry. It has exactly one of `relative` (0.01 = 1 % of the baseline) and `absolute` (in the metric's unit);
    with `expected`, at most one."""

    metric: str
    """Pattern of metric names."""
    cell: str = "*"
    """Pattern of cell ids; one other than `*` needs a reason."""
    tier: str | None = None
    """The tier that the entry is for; None: all."""
    rounding: Rounding | None = None
    """What the cell's scheme rounds (`rounding` in matrix.toml); None: anything."""
    here: float | None = Field(default=None, ge=0)
    """Replaces `relative` or `absolute` where the environment is that of the baseline: there the same code gives the
    same numbers, elsewhere kernels round differently."""
    elsewhere: float | None = Field(default=None, ge=0)
    """For ratios of timings and memory peaks, replaces `relative` or `absolute` where the baseline was measured on
    other kernels; without it, they are not judged there."""
    relative: float | None = Field(default=None, ge=0)
    absolute: float | None = Field(default=None, ge=0)
    expected: float | None = None
    """The right value, from the first run on and regardless of the baseline; `relative` or `absolute` is how far from
    it a value may be. Such an entry stands beside the one that the baseline is compared by."""
    floor: float = Field(default=0.0, ge=0)
    """Changes below this, in the metric's unit, pass whatever `relative` says. For a baseline of 0, which has no
    shares, it is all that is allowed."""
    noise: float | None = Field(default=None, gt=0)
    """For paired metrics, the cap of the standard deviation of the paired differences between units, so that a broken
    candidate cannot hide behind its own variance. For metrics measured in several processes, the standard deviation of
    their logarithm between processes."""
    against: bool = False
    """Whether the entry is for A/B runs (`--against`) only, where both sides are measured beside one another."""
    reason: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Tolerance:
        if self.expected is not None:
            if self.relative is not None and self.absolute is not None:
                raise ValueError("give at most one of relative, absolute beside expected")
            if any((self.here is not None, self.elsewhere is not None, self.noise, self.floor, self.against)):
                raise ValueError(
                    "expected needs no baseline: leave out here, elsewhere, noise, floor and against"
                )
        elif (self.relative is None) == (self.absolute is None):
            raise ValueError("give exactly one of relative, absolute")
        if self.cell != "*" and not self.reason:
            raise ValueError("an exception for a cell needs a reason")
        if self.metric.endswith(REPRODUCTION) and (self.absolute is None or self.here is None):
            raise ValueError("reproduction is judged in nats: give absolute and here")
        if self.here is not None and self.here > self.limit(unchanged=False):
            raise ValueError(
                "here, for the baseline's own environment, is wider than the tolerance for any other"
            )
        if self.elsewhere is not None and self.elsewhere < self.limit(unchanged=False):
            raise ValueError("elsewhere is narrower than the tolerance on the baseline's own kernels")
        return self

    def meets(self, metric: str) -> bool:
        """Whether the entry is for a metric of this name; `perplexity*` does not include reproductions."""
        same = self.metric.endswith(REPRODUCTION) == metric.endswith(REPRODUCTION)
        return same and fnmatchcase(metric, self.metric)

    def of_zero(self) -> Tolerance:
        """Return the tolerance for a baseline of 0: a share of nothing is nothing, so `relative` and its `here` become
        an absolute 0, and `floor` stays."""
        if self.relative is None:
            return self
        return self.model_copy(update={"relative": None, "absolute": 0.0, "here": None})

    def on_other_kernels(self) -> Tolerance | None:
        """Return the tolerance where the baseline was measured on other kernels; None: there is none."""
        if self.elsewhere is None:
            return None
        terms = "relative" if self.relative is not None else "absolute"
        return self.model_copy(update={terms: self.elsewhere, "here": None})

    def limit(self, *, unchanged: bool) -> float:
        """Return how much worse the metric may get; unchanged: the environment is that of the baseline."""
        if unchanged and self.here is not None:
            return self.here
        return float(self.relative if self.relative is not None else self.absolute or 0.0)


class Tolerances(Record):
    """All entries, and the probability that a whole run raises any false alarm (`judge.gate_level`)."""

    run_alpha: float = Field(gt=0, lt=0.5)
    tolerance: list[Tolerance]

    _roundings: Mapping[str, Rounding] = PrivateAttr(default_factory=dict)
    _of_metric: dict[str, list[Tolerance]] = PrivateAttr(default_factory=dict)
    """Entries by name of a metric, filled as names come up: all cells have the same few, and going through all entries
    for each of 2,000 cells would take a minute."""

    def for_tier(self, tier: str, roundings: Mapping[str, Rounding] | None = None) -> Tolerances:
        """Return the entries that apply in `tier`. roundings: what the scheme of each cell rounds; a cell that is not
        in it rounds activations, which is the widest."""
        chosen = Tolerances(
            run_alpha=self.run_alpha, tolerance=[t for t in self.tolerance if t.tier in (None, tier)]
        )
        chosen._roundings = roundings or {}
        return chosen

    def of(self, metric: str, cell: str, *, against: bool = False) -> Tolerance | None:
        """Return the last entry that matches metric and cell; against: whether entries for A/B runs count. None: the
        metric is recorded, not gated."""
        return next(
            (e for e in self._matching(metric, cell) if e.expected is None and (against or not e.against)),
            None,
        )

    def of_expected(self, metric: str, cell: str) -> Tolerance | None:
        """Return the last entry with `expected` that matches metric and cell."""
        return next((entry for entry in self._matching(metric, cell) if entry.expected is not None), None)

    def of_reproduction(self, metric: str, cell: str, *, against: bool = False) -> Tolerance | None:
        """Return the last entry for the reproduction of a paired metric."""
        return self.of(metric + REPRODUCTION, cell, against=against)

    def _matching(self, metric: str, cell: str) -> Iterator[Tolerance]:
        """Yield the entries that match metric and cell, the last first."""
        if metric not in self._of_metric:
            self._of_metric[metric] = [entry for entry in reversed(self.tolerance) if entry.meets(metric)]
        rounding = self._roundings.get(cell, "activations")
        for entry in self._of_metric[metric]:
            if entry.rounding in (None, rounding) and fnmatchcase(cell, entry.cell):
                yield entry


def load_tolerances(path: Path = TOLERANCES) -> Tolerances:
    """Read and validate. Raises InputError naming file, key and what is allowed."""
    tolerances = validate(Tolerances, read_toml(path), path, strict=True)
    if not tolerances.tolerance:
        raise InputError(f"{path}: tolerance: must not be empty, as nothing would be gated")
    return tolerances
