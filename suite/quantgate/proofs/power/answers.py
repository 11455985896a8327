"""Scenarios of answers written to tasks: items drawn from the committed baselines, right answers lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from quantgate.proofs.power.noise import Cells
from quantgate.proofs.power.paired import Array, Pair, with_samples
from quantgate.proofs.power.study import Replay, Scenario
from quantgate.records import Metric

POOLED = "answers/pooled/solved"
LOST = (0.01, 0.03, 0.05)
ITEMS = (100, 500, 1000)
"""How many a tier might ask: a flip decides by its number alone, whatever the task."""


def answers(cells: Cells) -> list[Scenario]:
    """Effects 0 and `LOST` (points as a share) on as many items: right answers that become wrong, none the other way.
    Every item is lost with the same probability, so that a run loses more or less than that."""
    solved = {cell: metrics[POOLED] for cell, metrics in cells.items() if POOLED in metrics}
    source = f"baselines of {len(solved)} cells"

    def scenario(effect: float, items: int) -> Scenario:
        run = partial(_replays, solved, effect, items)
        return Scenario("answers", effect, f"{items:,} items", source, len(solved), run, everywhere=False)

    return [scenario(effect, items) for items in ITEMS for effect in (0.0, *LOST)] if solved else []


def _replays(
    solved: Mapping[str, Metric], effect: float, items: int, count: int, random: np.random.Generator
) -> Iterator[Replay]:
    for cell, metric in solved.items():
        for _ in range(count):
            old = random.choice(metric.samples or [0.0], size=items)
            lost = random.random(items) < effect / max(metric.value, effect)
            yield Replay(cell, {POOLED: _pair(metric, old, np.where(lost, 0.0, old))})


def _pair(metric: Metric, old: Array, new: Array) -> Pair:
    return with_samples(metric, old, None), with_samples(metric, new, None)
