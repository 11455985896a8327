"""How much worse a metric may get: reads fixtures/tolerances.toml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from pydantic import Field, PrivateAttr, model_validator

from quantgate.config.toml_input import read_toml, validate
from quantgate.paths import FIXTURES
from quantgate.records import Record, Rounding

REPRODUCTION = "/reproduction"
TOLERANCES = FIXTURES / "tolerances.toml"


class Tolerance(Record):
    """One entry. Exactly one of `relative` (0.01 = 1 % of the baseline) and `absolute` (in the metric's unit).

    floor: an absolute change, in the metric's unit, below which a relative tolerance does not bite. Of a baseline of 0,
    which has no shares, it is all that is allowed.
    noise: for paired metrics, the standard deviation of the paired differences between units beyond which the error
    bar grows no further: a broken candidate gets no wider one for its own spread. For metrics measured in several
    processes, the standard deviation of their logarithm between processes.
    tier: the tier it is for; without one, for all. rounding: for cells whose scheme rounds this (`rounding` of a scheme
    in matrix.toml); without one, for all.
    here: what holds instead of `relative` or `absolute` where nothing in the environment has changed since the
    baseline. There the same code gives the same numbers; elsewhere kernels round otherwise.
    elsewhere: of ratios of timings and memory peaks, what holds instead of `relative` or `absolute` where the baseline
    has no value on the kernels at hand; without it, they are not judged there.
    expected: the value that is right, from the first run on and whatever the baseline says; `relative` or `absolute`
    is how far from it a value may be (without one: nothing). Such an entry stands beside the one that holds the
    baseline.
    against: counts in A/B runs (`--against`) only, where both sides are measured beside one another.
    """

    metric: str
    cell: str = "*"
    tier: str | None = None
    rounding: Rounding | None = None
    here: float | None = Field(default=None, ge=0)
    elsewhere: float | None = Field(default=None, ge=0)
    relative: float | None = Field(default=None, ge=0)
    absolute: float | None = Field(default=None, ge=0)
    expected: float | None = None
    floor: float = Field(default=0.0, ge=0)
    noise: float | None = Field(default=None, gt=0)
    against: bool = False
    reason: str = ""

    @model_validator(mode="after")
    def _one(self) -> Tolerance:
        if self.expected is not None:
            if self.relative is not None and self.absolute is not None:
                raise ValueError("give at most one of relative, absolute beside expected")
            if self.here is not None or self.noise is not None or self.floor or self.against:
                raise ValueError("expected needs no baseline: leave here, noise, floor and against out")
        elif (self.relative is None) == (self.absolute is None):
            raise ValueError("give exactly one of relative, absolute")
        if self.cell != "*" and not self.reason:
            raise ValueError("an exception for a cell needs a reason")
        if self.metric.endswith(REPRODUCTION) and (self.absolute is None or self.here is None):
            raise ValueError("reproduction is held in nats: give absolute and here")
        if self.elsewhere is not None and self.elsewhere < self.limit(unchanged=False):
            raise ValueError("elsewhere is narrower than the tolerance on the baseline's own kernels")
        return self

    def meets(self, metric: str) -> bool:
        """Whether it is for a metric of this name; a pattern such as `perplexity*` means no reproduction."""
        meant = self.metric.endswith(REPRODUCTION) == metric.endswith(REPRODUCTION)
        return meant and fnmatchcase(metric, self.metric)

    def of_zero(self) -> Tolerance:
        """The tolerance where the baseline is 0: a share of nothing is nothing, so `relative` and its `here` become an
        absolute 0, and `floor` stays."""
        if self.relative is None:
            return self
        return self.model_copy(update={"relative": None, "absolute": 0.0, "here": None})

    def on_other_kernels(self) -> Tolerance | None:
        """What holds where the baseline has no value on the kernels at hand; None: nothing does."""
        if self.elsewhere is None:
            return None
        terms = "relative" if self.relative is not None else "absolute"
        return self.model_copy(update={terms: self.elsewhere, "here": None})

    def limit(self, *, unchanged: bool) -> float:
        """How much worse the metric may get; `unchanged`: in the baseline's own environment."""
        if unchanged and self.here is not None:
            return self.here
        return float(self.relative if self.relative is not None else self.absolute or 0.0)


class Tolerances(Record):
    """All entries, and the chance that a whole run raises any false alarm (see `sensitivity.gate_level`)."""

    run_alpha: float = Field(gt=0, lt=0.5)
    tolerance: list[Tolerance]

    _roundings: Mapping[str, Rounding] = PrivateAttr(default_factory=dict)

    def for_tier(self, tier: str, roundings: Mapping[str, Rounding] | None = None) -> Tolerances:
        """Those that hold in `tier`; roundings: what the scheme of each cell rounds. Of a cell that is not in it:
        activations."""
        mine = [t for t in self.tolerance if t.tier in (None, tier)]
        chosen = Tolerances(run_alpha=self.run_alpha, tolerance=mine)
        chosen._roundings = roundings or {}
        return chosen

    def of(self, metric: str, cell: str, *, against: bool = False) -> Tolerance | None:
        """The last entry that matches both (in an A/B run: also of those `against`); None: the metric is recorded,
        not gated."""
        entries = self._of_metric.get((metric, against))
        if entries is None:
            entries = self._of_metric[metric, against] = list(self._matching(metric, against=against))
        patterns = self._of_cell.get(cell)
        if patterns is None:
            patterns = {pattern for pattern in self._patterns if fnmatchcase(cell, pattern)}
            self._of_cell[cell] = patterns
        for pattern, tolerance in entries:
            if pattern in patterns and tolerance.rounding in (None, self._rounding_of(cell)):
                return tolerance
        return None

    def of_expected(self, metric: str, cell: str) -> Tolerance | None:
        """The last entry with `expected` that matches both."""
        for entry in self._expected:
            rounds = entry.rounding in (None, self._rounding_of(cell))
            if rounds and fnmatchcase(metric, entry.metric) and fnmatchcase(cell, entry.cell):
                return entry
        return None

    def _rounding_of(self, cell: str) -> Rounding:
        return self._roundings.get(cell, "activations")

    def of_reproduction(self, metric: str, cell: str) -> Tolerance | None:
        """The last entry for the reproduction of a paired metric."""
        return self.of(metric + REPRODUCTION, cell, against=True)

    def _matching(self, metric: str, *, against: bool) -> Iterator[tuple[str, Tolerance]]:
        """Entries that match the metric, by their pattern of cells, the last first."""
        for entry in reversed(self.tolerance):
            meant = entry.expected is None and entry.meets(metric)
            if meant and (against or not entry.against):
                yield entry.cell, entry

    @cached_property
    def _expected(self) -> list[Tolerance]:
        return [entry for entry in reversed(self.tolerance) if entry.expected is not None]

    @cached_property
    def _patterns(self) -> set[str]:
        return {entry.cell for entry in self.tolerance}

    @cached_property
    def _of_metric(self) -> dict[tuple[str, bool], list[tuple[str, Tolerance]]]:
        """Entries found so far: each cell asks for the same few metrics."""
        return {}

    @cached_property
    def _of_cell(self) -> dict[str, set[str]]:
        """Patterns that match a cell, found so far: each metric asks for the same few patterns."""
        return {}


def load_tolerances(path: Path = TOLERANCES) -> Tolerances:
    """Read and validate. Raises InputError naming file, key and what is allowed."""
    return validate(Tolerances, read_toml(path), path)
