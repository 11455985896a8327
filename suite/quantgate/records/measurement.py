"""What one run recorded of one cell, and what that cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field

from quantgate.records.base import FORMAT, Record, Scalar, Scalars
from quantgate.records.metric import Metric


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
    """Metric groups that this machine cannot measure, and why."""
    complete: bool = False
    """False while the measuring process still has metrics to measure."""

    def comparable(self, name: str, measured: Metric) -> tuple[Metric | None, Mapping[str, Scalar]]:
        """Return the value of a metric that `measured` is compared with, and the environment it was measured in."""
        return self.metrics.get(name), self.environment


class Spent(Record):
    """Wall time of one measuring process, as its parent saw it."""

    cell: str
    seconds: float
    """In all."""
    phases: dict[str, float]
    """As in a measurement, and `prepare`, the work before it; empty where the process failed."""
    forward: dict[str, float]
    """Seconds in forward passes, by phase."""


def added(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add numbers of the same name; names keep the order in which they first come."""
    sums: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            sums[name] = sums.get(name, 0.0) + seconds
    return sums
