"""A/B: two environments measured here in pairs of processes, so that what the machine does meanwhile falls on both:
timings round by round in turns (`quantgate.processes.turns`), memory peaks one process after the other, each alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from quantgate.config.matrix import Cell, Tier
from quantgate.errors import QuantgateError
from quantgate.files import write_atomic
from quantgate.measure.groups import with_logprobs
from quantgate.records import Measurement, Spent
from quantgate.report.progress import Progress
from quantgate.run.bench import Bench, measured, remembered
from quantgate.run.merge import merge
from quantgate.run.plan import Plan, in_turns, repeated
from quantgate.run.runner import numbered, shown

Side = Literal["old", "new"]
Sides = tuple[Measurement, Measurement]
"""New and old, in the order in which they are judged."""


class Against:
    """One pytest run's measurements of both environments; in place of a `Runner`."""

    def __init__(
        self, tier: Tier, plan: Plan, benches: dict[Side, Bench], progress: Progress, pairs: int, run: str
    ) -> None:
        self._tier = tier
        self._plan = plan
        self._benches = benches
        self._progress = progress
        self._pairs = pairs
        self._run = run
        self._done: dict[str, Sides | QuantgateError] = {}
        self._again: dict[tuple[str, str], Sides] = {}
        self.current = ""
        """Id of the cell that is worked on."""

    @property
    def spent(self) -> list[Spent]:
        """The wall time of each process."""
        return [spent for bench in self._benches.values() for spent in bench.spent]

    def close(self) -> None:
        """End what still waits for work."""
        for bench in self._benches.values():
            bench.close()

    def sides(self, cell: Cell) -> Sides:
        """Both sides with all that the plan asks of the cell. Raises QuantgateError, the same one each time."""
        return remembered(self._done, cell.id, lambda: self._measure(cell, self._plan.requests[cell.id], ""))

    def measurement(self, cell: Cell) -> Measurement:
        """The new side alone."""
        return self.sides(cell)[0]

    def finished(self) -> dict[str, Measurement]:
        """The new side's records of this run, by cell id."""
        return {cell: found[0] for cell, found in self._done.items() if not isinstance(found, QuantgateError)}

    def old(self) -> dict[str, Measurement]:
        """The old side's records of this run, by cell id."""
        return {cell: found[1] for cell, found in self._done.items() if not isinstance(found, QuantgateError)}

    def unmeasured(self, cell: Cell, request: str) -> str:
        """Why the cell's records lack a request of the plan."""
        reasons = [bench.lacking(cell, request) for bench in self._benches.values()]
        return next(filter(None, reasons), f"not measured: the reference {cell.reference} failed")

    def reference(self, cell: Cell) -> None:
        """An A/B run holds each cell against itself in the other environment, and measures no reference for it."""

    def again(self, cell: Cell, request: str) -> Sides:
        """Both sides measured anew: as many fresh pairs, nothing of the first ones in them."""
        key = (cell.id, request)
        if key not in self._again:
            self._again[key] = self._measure(cell, [request], "again")
        return self._again[key]

    def _measure(self, cell: Cell, requests: Sequence[str], name: str) -> Sides:
        """First a process of each side that measures what does not vary between processes (or only loads: the
        checkpoint and the libraries are in the page cache afterwards), then the pairs: what is timed in turns, by two
        processes that live at the same time; anything else by two that have the machine for themselves."""
        self.current = cell.id
        run = f"{self._run} {name}".strip()
        requests = self._possible(cell, requests)
        varying = repeated(requests, self._tier.group_options)
        timed = in_turns(varying, self._tier.group_options)
        alone = [r for r in varying if r not in timed]
        steps: list[tuple[Sequence[Side], list[str]]] = [
            ((side,), [r for r in requests if r not in varying]) for side in ("old", "new")
        ]
        for pair in alternation(self._pairs, f"{run} {cell.id}") if varying else ():
            steps += [((side,), alone) for side in pair if alone]
            steps += [(pair, timed)] if timed else []
        parts: dict[Side, list[Measurement]] = {"old": [], "new": []}
        with shown(self._progress, cell, [asked for _, asked in steps]):
            for number, (sides, asked) in enumerate(steps):
                labels = [".".join(filter(None, [name, side, str(len(parts[side]) or "")])) for side in sides]
                benches = [self._benches[side] for side in sides]
                events = numbered(self._progress, cell, number, len(steps))
                records = measured(list(zip(benches, labels, strict=True)), cell, asked, events)
                for side, record in zip(sides, records, strict=True):
                    parts[side].append(record)
                    for bench in self._benches.values():  # the other side takes the same
                        bench.settle(cell.id, record.metrics)
        found = {side: beside(merge(parts[side]), run) for side in parts}
        if not name:
            for side, file in (("new", ""), ("old", "old")):
                path = self._benches["new"].file(cell, file)
                write_atomic(path, found[side].model_dump_json(indent=1).encode())
        return found["new"], found["old"]

    def _possible(self, cell: Cell, requests: Sequence[str]) -> list[str]:
        """Divergence needs what each side's reference leaves; where one fails, the cell goes without."""
        for bench in self._benches.values():
            requests = bench.possible(cell, requests)
        needing = with_logprobs(requests)
        try:
            for side, bench in self._benches.items():
                if bench.lacks_reference(cell, requests):
                    bench.run(bench.reference(cell), needing, f"{side}.logprobs")
        except QuantgateError:
            return [r for r in requests if r not in needing]
        return list(requests)


def alternation(pairs: int, seed: str) -> list[tuple[Side, Side]]:
    """Which side of each pair begins: runs first, or works first in the first turn. Each side does so equally often
    (of an odd number, once more or less), so a drift of the machine, and whatever the first leaves behind for the
    second, cancel in the mean. Which pair begins with which side is drawn anew for each `seed`: what the machine does
    in a rhythm of its own falls on neither side for long (Fisher, The Design of Experiments, 1935, chapter 3)."""
    orders: list[tuple[Side, Side]] = [("old", "new"), ("new", "old")]
    drawn = [orders[number % 2] for number in range(pairs)]
    random.Random(seed).shuffle(drawn)  # noqa: S311 - no secret
    return drawn


def beside(measured: Measurement, run: str) -> Measurement:
    """Mark that process i of each nested metric ran beside process i of the other side."""
    metrics = {
        name: metric.model_copy(update={"beside": run}) if metric.nested else metric
        for name, metric in measured.metrics.items()
    }
    return measured.model_copy(update={"metrics": metrics})
