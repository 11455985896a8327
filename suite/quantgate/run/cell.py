"""Measure one cell in processes of this machine: pytest's process does so, and a worker on another node."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from quantgate.config.matrix import Cell, Matrix, Tier
from quantgate.config.resources import Offer
from quantgate.errors import QuantgateError
from quantgate.machine.environment import Environment, cuda_devices
from quantgate.machine.quota import cores as quota
from quantgate.machine.quota import memory_bytes, usable_cores
from quantgate.measure.groups import reading_reference
from quantgate.processes.progress import OnProgress
from quantgate.records import Measurement
from quantgate.report.progress import Progress
from quantgate.run.bench import Bench
from quantgate.run.merge import merge
from quantgate.run.plan import groups_of, lengths_of, needs_of, per_process
from quantgate.supply.supply import Supply


def measure(
    bench: Bench, progress: Progress, cell: Cell, requests: Sequence[str], name: str = ""
) -> Measurement:
    """Measure in as many processes as the requests ask for; only what varies between them is repeated. Without any
    request no process is started. Raises QuantgateError.

    name: tells these processes from others of the cell, in the names of their files.
    """
    if not requests:
        return bench.empty(cell)
    shares = per_process(requests, bench.tier.group_options)
    names = [".".join(filter(None, [name, str(n + 1) if n else ""])) for n in range(len(shares))]
    records = []
    with progress.measuring(cell.id, groups_of(requests)):
        for number, share in enumerate(shares):
            events = progress.of_process(cell.id, number, len(shares))
            following = names[1:] if number == 0 else []
            records.append(bench.run(cell, share, names[number], events, following))
        return merge(records)


def measurable(
    bench: Bench,
    progress: Progress,
    cell: Cell,
    requests: Sequence[str],
    name: str = "logprobs",
    have_reference: Callable[[], object] = lambda: None,
) -> tuple[list[str], dict[str, str]]:
    """Return what can be measured: whose texts and tasks are there, and of what reads the reference, for what that has
    left; and, by request, why the rest cannot.

    have_reference: makes sure that the reference is measured, as far as this run does so; raises QuantgateError where
    that fails. name: as in `measure`, of the process that measures the reference where this has left nothing.
    """
    reasons = bench.missing(cell, requests)
    possible = [request for request in requests if request not in reasons]
    if bench.lacks_reference(cell, possible):
        try:
            have_reference()
            if bench.lacks_reference(cell, possible):  # the file was removed since its record was made
                measure(bench, progress, bench.reference(cell), reading_reference(possible), name)
        except QuantgateError:
            why = f"not measured: the reference {cell.reference} failed"
            reasons |= dict.fromkeys(reading_reference(possible), why)
    return [request for request in requests if request not in reasons], reasons


def make_supply(
    matrix: Matrix,
    tier: Tier,
    threads: int,
    logs: Path,
    on_progress: OnProgress,
    text: Path | None,
    environment: Environment | None = None,
) -> Supply:
    """Return what gives the cells of a tier their checkpoints, texts and tasks; close it. Arguments: as `Supply`."""
    options = tier.group_options
    return Supply(
        matrix, tier, threads, logs, on_progress, text, needs_of(options), lengths_of(options), environment
    )


@functools.cache
def here() -> Offer:
    """Return what this machine has for a cell."""
    memory = round(memory_bytes() / 1e9, 1)
    return Offer("this machine", usable_cores(quota()), cuda_devices(), memory)
