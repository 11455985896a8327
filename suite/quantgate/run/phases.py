"""Show in the progress which of a cell's processes works, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from quantgate.config.matrix import Cell
from quantgate.report.progress import Progress
from quantgate.run.plan import groups_of


@contextmanager
def shown(progress: Progress, cell: Cell, processes: Sequence[Sequence[str]]) -> Iterator[None]:
    """Show the cell while the block measures it. processes: the requests of each process, in their order."""
    begin = time.monotonic()
    phases = [
        numbered(phase, number, len(processes))
        for number, requests in enumerate(processes)
        for phase in ["load", *groups_of(requests)]
    ]
    progress.start(cell.id, phases)
    outcome = "error"
    try:
        yield
        outcome = "measured"
    finally:
        progress.finish(cell.id, time.monotonic() - begin, outcome)


def events_of(progress: Progress, cell: Cell, number: int, count: int) -> Callable[[str, float, float], None]:
    """Return what takes the events of process `number` of `count`."""
    return lambda phase, done, total: progress.event(cell.id, numbered(phase, number, count), done, total)


def numbered(phase: str, number: int, count: int) -> str:
    """Return `memory` of the first process, `memory 2/3` of the next one."""
    return f"{phase} {number + 1}/{count}" if number else phase
