"""Build scenarios of tokens/s and memory from recorded processes of unchanged code, with effects of known size.

As in a run, a value that seems worse is measured again in as many fresh processes.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from quantgate.config.matrix import Cell
from quantgate.proofs.power.nested import Run, as_ab, draw, neighbours, split, spread_out, times, two_sides
from quantgate.proofs.power.noise import Cells, Noise
from quantgate.proofs.power.paired import Pair
from quantgate.proofs.power.study import Replay, Scenario
from quantgate.records import Measurement
from quantgate.run.merge import merge
from quantgate.run.relative import add_ratios

SPEED = (0.0, 0.03, 0.05, 0.10, 0.20)
MEMORY = (0.0, 0.01, 0.05)
PAIRS = (5, 10, 20)
"""Processes a side of a replayed A/B."""

T = TypeVar("T")
Runs = Mapping[str, list[Run]]
"""Recorded runs by cell, their processes spread out (`nested.spread_out`)."""


def recorded(noise: Noise, group: str, number: int, cells: Container[str]) -> dict[str, list[Run]]:
    """Return the runs of at least `number` processes, of those of the cells that have enough of them for a baseline and
    two looks at a later measurement."""
    runs: dict[str, list[Run]] = {}
    for sitting in noise.sittings:
        for cell, record in sitting.cells.items():
            if cell in cells and len(parts := split(record, group)) >= number:
                runs.setdefault(cell, []).append(spread_out(parts))
    return {
        cell: cell_runs
        for cell, cell_runs in runs.items()
        if len(cell_runs) > 2 or min(map(len, cell_runs)) >= 2 * number
    }


def source(runs: Runs, what: str) -> str:
    """Describe the replayed runs for the table."""
    sizes = [len(run) for cell_runs in runs.values() for run in cell_runs]
    return f"{what} of {sum(sizes)} processes: {len(runs)} cells in up to {max(map(len, runs.values()))} runs"


def memory(cells: Cells, noise: Noise, number: int) -> list[Scenario]:
    """Effects `MEMORY` on exact sizes, and on peaks of `number` processes against a stored baseline."""
    sizes = {
        cell: {n: m for n, m in metrics.items() if m.kind == "exact" and n.startswith("memory/")}
        for cell, metrics in cells.items()
    }
    ways = [("exact sizes", f"baselines of {len(sizes)} cells", len(sizes), partial(_sizes, sizes))]
    if runs := recorded(noise, "memory", number, cells):
        words = f"peaks, {number} processes"
        ways.append((words, source(runs, "peaks"), len(runs), partial(_stored, runs, number)))
    return [
        Scenario("memory", effect, spread, words, count, partial(replays, 1 + effect))
        for effect in MEMORY
        for spread, words, count, replays in ways
    ]


def tokens_per_second(noise: Noise, cells: Mapping[str, Cell], number: int) -> list[Scenario]:
    """Effects `SPEED`: with `number` processes on the ratio to the reference of the same run, as every machine gates
    it, and against the stored baseline of a named machine; and by A/B of one cell's timings, side by side."""
    runs = recorded(noise, "throughput", number, cells)
    if not runs:
        return []
    words = source(runs, "timings")
    rated = [cells[c] for c in runs if cells[c].reference in runs and cells[c].reference != c]
    long = {
        cell: enough
        for cell, cell_runs in runs.items()
        if (enough := [run for run in cell_runs if len(run) >= 4])
    }
    scenarios = []
    for effect in SPEED:
        way = partial(Scenario, "tokens/s", effect)
        factor = 1 / (1 - effect)
        if rated:
            scenarios.append(way(RATIO, words, len(rated), partial(_ratios, runs, rated, number, factor)))
        name, run = f"named machine, {number} processes", partial(_stored, runs, number, factor)
        scenarios.append(way(name, words, len(runs), run, everywhere=False))
        for pairs in PAIRS if long else ():
            name, run = f"A/B of one cell, {pairs} pairs", partial(_beside, long, pairs, factor)
            scenarios.append(
                way(name, source(long, "timings"), len(long), run, gates=TIMINGS, everywhere=False)
            )
    return scenarios


TIMINGS = 4
"""Timings of a cell: the gates of `pytest --against ... -k <cell> -m throughput`."""
RATIO = "relative to the reference"


def _sizes(cells: Cells, factor: float, count: int, random: np.random.Generator) -> Iterator[Replay]:
    for cell, metrics in cells.items():
        pairs = {n: (m, m.model_copy(update={"value": m.value * factor})) for n, m in metrics.items()}
        yield from (Replay(cell, pairs) for _ in range(count))


def _stored(
    runs: Runs, number: int, factor: float, count: int, random: np.random.Generator
) -> Iterator[Replay]:
    for cell, cell_runs in runs.items():
        worse = [[times(process, factor) for process in run] for run in cell_runs]
        for _ in range(count):
            old, new = two_sides(len(cell_runs), random)
            baseline = draw([cell_runs[i] for i in old], number, random)
            measured = draw([worse[i] for i in new], 2 * number, random)
            yield _twice(cell, baseline, measured, number, _pairs)


def _beside(
    runs: Runs, number: int, factor: float, count: int, random: np.random.Generator
) -> Iterator[Replay]:
    for cell, cell_runs in runs.items():
        for i in range(count):
            one, other = neighbours(cell_runs[i % len(cell_runs)], 2 * number, random)
            slow = [times(process, factor) for process in other]
            first, again = (
                partial(_side_by_side, one[part], slow[part]) for part in (slice(number), slice(number, None))
            )
            yield Replay(cell, first(), again, against=True)


def _ratios(
    runs: Runs, cells: Sequence[Cell], number: int, factor: float, count: int, random: np.random.Generator
) -> Iterator[Replay]:
    for cell in cells:
        mine, others = runs[cell.id], runs[cell.reference]
        worse = [[times(process, factor) for process in run] for run in mine]
        for _ in range(count):
            sides = two_sides(min(len(mine), len(others)), random)
            old, new = (
                list(zip(*(draw([pool[i] for i in side], count, random) for pool in pools), strict=True))
                for side, pools, count in (
                    (sides[0], (mine, others), number),
                    (sides[1], (worse, others), 2 * number),
                )
            )
            yield _twice(cell.id, old, new, number, partial(_ratio_pairs, cell))


def _twice(
    cell: str, old: list[T], new: list[T], first: int, compare: Callable[[list[T], list[T]], dict[str, Pair]]
) -> Replay:
    """Return a replay against a stored baseline: the first look takes the first processes, the second all of them, and
    the fresh ones alone."""
    return Replay(
        cell, compare(old, new[:first]), partial(compare, old, new), partial(compare, old, new[first:])
    )


def _pairs(old: list[Measurement], new: list[Measurement]) -> dict[str, Pair]:
    return _by_name(merge(old), merge(new))


def _side_by_side(old: list[Measurement], new: list[Measurement]) -> dict[str, Pair]:
    return _by_name(as_ab(merge(old)), as_ab(merge(new)))


def _ratio_pairs(
    cell: Cell, old: list[tuple[Measurement, Measurement]], new: list[tuple[Measurement, Measurement]]
) -> dict[str, Pair]:
    before, after = (
        add_ratios(merge([mine for mine, _ in side]), merge([other for _, other in side]), cell)
        for side in (old, new)
    )
    return {name: pair for name, pair in _by_name(before, after).items() if pair[0].kind == "ratio"}


def _by_name(baseline: Measurement, measured: Measurement) -> dict[str, Pair]:
    return {name: (baseline.metrics[name], metric) for name, metric in measured.metrics.items()}
