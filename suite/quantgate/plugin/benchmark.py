"""Hand recorded timings to pytest-benchmark: its table, its JSON, its comparison."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from quantgate.config.matrix import Cell
from quantgate.records import Metric


@dataclass
class Replay:
    """A timer that gives recorded rounds, in seconds: pytest-benchmark reads it before and after each round."""

    rounds: list[float] = field(default_factory=list)
    _reads: int = 0

    def __call__(self) -> float:
        index, second = divmod(self._reads, 2)
        self._reads += 1
        return self.rounds[index] if second and index < len(self.rounds) else 0.0


class NoBenchmark:
    """Stands in for pytest-benchmark where that is switched off (`-p no:benchmark`)."""

    @pytest.fixture
    def benchmark(self) -> None:
        """Report nothing."""


def report_rounds(benchmark: Any, replay: Replay, cell: Cell, name: str, metric: Metric) -> None:
    """Show the rounds of a metric as those of `benchmark`, whose timer is `replay`."""
    if not hasattr(benchmark, "extra_info"):
        return  # no pytest-benchmark: switched off, or another fixture of this name
    replay.rounds = metric.samples or []
    benchmark.group = name.rpartition("/")[2]
    benchmark.extra_info.update(
        {
            "cell": cell.id,
            metric.unit: metric.value,
            "bits": cell.bits,
            "rounds per process": metric.processes,
            **metric.conditions,
        }
    )
    benchmark.pedantic(lambda: None, rounds=len(replay.rounds), iterations=1)
