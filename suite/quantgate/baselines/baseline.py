"""A baseline: an accepted measurement, with the origin of each of its values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from quantgate.judge.anchor import Anchor, Origin
from quantgate.judge.kernels import name_of, nearest
from quantgate.records import Measurement, Metric, Scalar


class Baseline(Measurement):
    """An accepted measurement; `created`, `reason`, `fingerprint` and `environment` are those of the latest update.

    A partial update (`-k perplexity`) replaces what it measured and keeps the rest: `kept` has the origin of each
    metric that comes from an earlier update. `origin` covers both.
    """

    reason: str
    path: Path
    machine: str | None = None
    """The machine whose absolute timings it has."""
    kept: dict[str, Origin] = Field(default_factory=dict)
    others: dict[str, Metric] = Field(default_factory=dict)
    """Ratios of timings and memory peaks on other kernels than those in `metrics`, by `on_kernels`."""
    anchors: dict[str, Anchor] = Field(default_factory=dict)
    """What losses add up from (`quantgate.judge.anchor`), by `on_kernels`; a value without one is its own."""
    digests: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each summary that this was read from, by path: shows whether another run changed it since."""

    @property
    def values(self) -> dict[str, Metric]:
        """All values, on all kernels."""
        return self.metrics | self.others

    @property
    def latest(self) -> Origin:
        """The origin of the latest update."""
        return Origin.model_validate(self.model_dump(include=set(Origin.model_fields)))

    def origin(self, metric: str) -> Origin:
        """Return when, why and in which environment `metric` (a name in `values`) was measured."""
        return self.kept.get(metric) or self.latest

    def as_anchor(self, key: str) -> Anchor:
        """Return a value (a name in `values`) as the anchor of later ones."""
        return Anchor(metric=self.values[key].model_copy(update={"raw": {}}), origin=self.origin(key))

    def comparable(self, name: str, measured: Metric) -> tuple[Metric | None, Mapping[str, Scalar]]:
        """Return the value that `measured` is compared with, chosen by `key_for`, and its environment."""
        key = self.key_for(name, measured)
        return self.values.get(key), self.kept[key].environment if key in self.kept else self.environment

    def key_for(self, name: str, measured: Metric) -> str:
        """Return the name in `values` of what `measured` is compared with: the one on the same kernels, else the one
        whose kernels have most features in common."""
        kinds = {self.metrics[name].kernels: name} if name in self.metrics else {}
        kinds |= {m.kernels: key for key, m in self.others.items() if name_of(key) == name}
        return nearest(kinds, measured.kernels) or name
