"""A/B: measure two environments on this machine in pairs of processes, so that its disturbances fall on both: timings
round by round in turns (`quantgate.processes.turns`), memory peaks one process after the other, each alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from quantgate.config.matrix import Cell
from quantgate.errors import QuantgateError
from quantgate.files import write_atomic
from quantgate.judge.compare import Comparison
from quantgate.judge.confirm import FreshPairs
from quantgate.records import Measurement
from quantgate.report.progress import Progress
from quantgate.run.bench import Bench, run_beside
from quantgate.run.cell import measurable
from quantgate.run.measurer import check_measured, once, with_reasons
from quantgate.run.merge import merge
from quantgate.run.plan import Plan, groups_of, in_turns, repeated

Side = Literal["old", "new"]


@dataclass(eq=False)
class AgainstRun:
    """One run's measurements of both environments: the `Measurer` of an A/B run."""

    plan: Plan
    benches: dict[Side, Bench]
    progress: Progress
    pairs: int
    _done: dict[str, Comparison | QuantgateError] = field(default_factory=dict)
    _again: dict[tuple[str, str], Comparison | QuantgateError] = field(default_factory=dict)

    def measurement(self, cell: Cell) -> Measurement:
        """Return the new side's record."""
        return self._sides(cell).new

    def finished(self) -> dict[str, Measurement]:
        """Return the new side's records made so far, by cell id."""
        return {cell: sides.new for cell, sides in self._done.items() if isinstance(sides, Comparison)}

    def compare(self, cell: Cell, request: str) -> Comparison:
        """Return the new side's record and the old side's."""
        sides = self._sides(cell)
        check_measured(sides.new, request)
        return sides

    def reference(self, cell: Cell) -> None:
        """Return None: each cell is compared with itself in the other environment."""

    def again(self, cell: Cell, request: str) -> FreshPairs:
        """Measure both sides anew, in as many pairs as before."""
        pairs = once(self._again, (cell.id, request), lambda: self._measure(cell, [request], "again"))
        return FreshPairs(pairs)

    def _sides(self, cell: Cell) -> Comparison:
        return once(self._done, cell.id, lambda: self._measure(cell, self.plan.requests[cell.id], ""))

    def _measure(self, cell: Cell, requests: Sequence[str], name: str) -> Comparison:
        """Measure one process of each side first, for what does not vary between processes (or only to load: the
        checkpoint and the libraries are in the page cache afterwards), then the pairs: what is timed in turns in two
        processes at the same time, anything else in two that have the machine for themselves."""
        bench = self.benches["new"]
        run, options = f"{bench.run_id} {name}".strip(), bench.tier.group_options
        requests, reasons = self._measurable(cell, requests)
        if not requests:
            return Comparison(with_reasons(bench.empty(cell), reasons), self.benches["old"].empty(cell))
        varying = repeated(requests, options)
        timed = in_turns(varying, options)
        alone = [r for r in varying if r not in timed]
        steps: list[tuple[Sequence[Side], list[str]]] = [
            ((side,), [r for r in requests if r not in varying]) for side in ("old", "new")
        ]
        for pair in alternation(self.pairs, f"{run} {cell.id}") if varying else ():
            steps += [((side,), alone) for side in pair if alone]
            steps += [(pair, timed)] if timed else []
        parts: dict[Side, list[Measurement]] = {"old": [], "new": []}
        with self.progress.measuring(cell.id, groups_of(requests)):
            for number, (sides, share) in enumerate(steps):
                labels = [".".join(filter(None, [name, side, str(len(parts[side]) or "")])) for side in sides]
                benches = [(self.benches[side], label) for side, label in zip(sides, labels, strict=True)]
                events = self.progress.of_process(cell.id, number, len(steps))
                for side, record in zip(sides, run_beside(benches, cell, share, events), strict=True):
                    parts[side].append(record)
                    for one in self.benches.values():  # the other side takes the same
                        one.settle(cell.id, record.metrics)
        merged = {side: with_reasons(beside(merge(parts[side]), run), reasons) for side in parts}
        if not name:
            for side, file in (("new", ""), ("old", "old")):
                write_atomic(bench.file(cell, file), merged[side].model_dump_json(indent=1).encode())
        return Comparison(merged["new"], merged["old"])

    def _measurable(self, cell: Cell, requests: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Return the requests that both sides can measure and, by request, why they cannot measure the rest. For those
        that read what a reference leaves, each side measures its reference first."""
        possible, reasons = list(requests), dict[str, str]()
        for side, bench in self.benches.items():
            possible, why = measurable(bench, self.progress, cell, possible, f"{side}.logprobs")
            reasons |= why
        return possible, reasons


def alternation(pairs: int, seed: str) -> list[tuple[Side, Side]]:
    """Draw which side of each pair begins: runs first, or works first in the first turn.

    Each side begins equally often (with an odd number of pairs, once more or less), so that a drift of the machine and
    what the first process leaves behind for the second cancel in the mean. The order is random for each `seed`, so that
    periodic disturbances do not fall on one side (Fisher, The Design of Experiments, 1935, chapter 3)."""
    orders: list[tuple[Side, Side]] = [("old", "new"), ("new", "old")]
    drawn = [orders[number % 2] for number in range(pairs)]
    random.Random(seed).shuffle(drawn)  # noqa: S311 - no secret
    return drawn


def beside(record: Measurement, run: str) -> Measurement:
    """Mark that process i of each nested metric ran beside process i of the other side."""
    metrics = {
        name: metric.model_copy(update={"beside": run}) if metric.nested else metric
        for name, metric in record.metrics.items()
    }
    return record.model_copy(update={"metrics": metrics})
