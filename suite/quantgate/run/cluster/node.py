"""A node's side: measures cells in a worker process of Ray, which stands there for pytest's process. The measuring
processes are its children, as they are pytest's in a run on one machine."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantgate.cache.kept import intact, keep
from quantgate.cache.prune import bound, sweep
from quantgate.config.matrix import Cell
from quantgate.errors import MeasurementError, QuantgateError
from quantgate.files import writable, write_atomic
from quantgate.locks import locked
from quantgate.machine.environment import Environment, instruction_sets, machine, work_facts
from quantgate.paths import cache_dir
from quantgate.processes.progress import ignore_progress
from quantgate.records import Measurement
from quantgate.report.progress import Progress
from quantgate.run.bench import Bench
from quantgate.run.cell import make_supply, measurable, measure
from quantgate.run.cluster.work import Described, Outcome, Setup, Work
from quantgate.run.measurer import once, with_reasons

LONGEST_LOG = 2**20
"""Bytes of a log that go to the driver, the last ones."""

Left = dict[str, NDArray[np.uint8]]
"""What references left, by the name of the file, which names all that the content depends on, the machine included."""


def describe(variables: Mapping[str, str]) -> Described:
    """Return what this node is, for a driver that sets these variables; keep its cache under its limit."""
    begin = time.time()
    os.environ.update(variables)
    sweep(cache_dir())
    bound(begin)
    return Described(
        facts=work_facts(Environment().libraries),
        machine={**machine(), "isa": instruction_sets()},
        cache=str(cache_dir()),
    )


def measure_cells(
    setup: Setup, works: Sequence[Work], reference_error: str = "", left: Sequence[Any] = ()
) -> tuple[str, list[Outcome], Left]:
    """Measure cells one after the other. Returns the error of the first, the outcomes, and what these cells left for
    others, which is empty where nobody can need it.

    reference_error: why the cells' reference was not measured. left: references to objects with what it left (`Left`).
    """
    place = _place(setup)
    outcomes = [place.outcome(work, reference_error, left) for work in works]
    return outcomes[0].error, outcomes, place.left_by(outcomes)


class _Place:
    """What a worker process keeps between the cells of a run: above all the servers, which have imported libraries."""

    def __init__(self, setup: Setup) -> None:
        os.environ.update(setup.variables)
        self.setup = setup
        self.devices = _devices()
        self._open = ExitStack()
        self.folder = self._folder()
        text: Path | None = None
        if setup.text is not None:
            name, content = setup.text
            text = self.folder / "text" / name
            write_atomic(text, content)
        tier = setup.matrix.tier(setup.tier)
        supply = make_supply(
            setup.matrix, tier, setup.threads, self.folder / "results" / "logs", ignore_progress, text
        )
        self._open.callback(supply.close)
        self.bench = Bench(
            setup.matrix, tier, setup.tier, supply, setup.threads, self.folder / "results", setup.run
        )
        self._open.callback(self.bench.close)
        self.progress = Progress(StringIO(), 0)  # nobody reads it

    def _folder(self) -> Path:
        """Make a folder of this process alone: in the cache, where the next run removes what a killed process left."""
        root = cache_dir()
        if not writable(root):
            return Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="quantgate-")))
        folder = root / "tmp" / f"ray-{self.setup.run[:12]}-{os.getpid()}"
        lock = root / "locks" / f"{folder.name}.lock"
        self._open.callback(lock.unlink, missing_ok=True)
        self._open.enter_context(locked(lock, f"work in {folder}"))
        folder.mkdir(parents=True, exist_ok=True)
        self._open.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def close(self) -> None:
        """End the servers and remove the folder."""
        self._open.close()

    def outcome(self, work: Work, reference_error: str, left: Sequence[Any]) -> Outcome:
        """Measure one cell; an error, foreseen or not, is part of the outcome."""
        cell = self.setup.matrix.cell(work.cell)
        begin = time.monotonic()
        record, error = None, ""
        if self.devices != (devices := _devices()):
            self.bench.close()  # Ray has given this task other GPUs than the servers see
            self.devices = devices
        try:
            record = once({}, cell.id, partial(self._measure, cell, work, reference_error, left))
        except QuantgateError as raised:
            error = str(raised)
        return Outcome(
            cell=cell.id,
            node=_node(),
            folder=str(self.folder / "results"),
            record=record,
            error=error,
            logs=self._logs(),
            seconds=time.monotonic() - begin,
        )

    def left_by(self, outcomes: Sequence[Outcome]) -> Left:
        """Read what references among these cells have left for others."""
        left: Left = {}
        for one in outcomes if self.setup.share else ():
            cell = self.setup.matrix.cell(one.cell)
            if one.record is not None and cell.id == cell.reference:
                for path in self.bench.left(cell, one.record.requests).values():
                    left[path.name] = np.fromfile(path, np.uint8)
        return left

    def _measure(self, cell: Cell, work: Work, reference_error: str, left: Sequence[Any]) -> Measurement:
        bench = self.bench
        if work.options is not None:
            bench.settled[cell.id] = work.options
        with ExitStack() as stack:
            if bench.lacks_reference(cell, work.requests):
                # Of several workers of a node, one makes or fetches it.
                first = next(iter(bench.left(cell, work.requests).values()))
                what = f"take what {cell.reference} left"
                stack.enter_context(locked(cache_dir() / "locks" / f"{first.name}.lock", what))
            have_reference = partial(self._have_reference, cell, work, reference_error, left)
            requests, reasons = measurable(
                bench, self.progress, cell, work.requests, have_reference=have_reference
            )
        return with_reasons(measure(bench, self.progress, cell, requests, work.name), reasons)

    def _have_reference(self, cell: Cell, work: Work, reference_error: str, left: Sequence[Any]) -> None:
        """Take what the reference left on another node, if it was on a machine of this kind; else it is made here."""
        if reference_error:
            raise MeasurementError(reference_error)
        paths = [path for path in self.bench.left(cell, work.requests).values() if not intact(path)]
        files = _fetched(left) if paths and left else {}
        for path in paths:
            if path.name in files:
                write_atomic(path, files[path.name].tobytes())
                keep(path)

    def _logs(self) -> dict[str, bytes]:
        """Return the ends of the logs that were written, and remove what lies around."""
        results = self.folder / "results"
        logs = {}
        for file in sorted(results.rglob("*.log")):
            with file.open("rb") as log:
                log.seek(max(0, file.stat().st_size - LONGEST_LOG))
                logs[str(file.relative_to(results))] = log.read()
        for kind in results.glob("*"):
            if kind.name != "logprobs":  # what references leave where the cache is read-only
                shutil.rmtree(kind, ignore_errors=True)
        return logs


_places: list[_Place] = []
"""One at most: that of the run that this process works for."""


def _place(setup: Setup) -> _Place:
    if not _places or _places[0].setup.run != setup.run:
        _leave()
        _places.append(_Place(setup))
    return _places[0]


@atexit.register
def _leave() -> None:
    while _places:
        _places.pop().close()


def _node() -> str:
    """Return Ray's id of this node; empty outside of Ray."""
    ray = sys.modules.get("ray")
    return str(ray.get_runtime_context().get_node_id()) if ray and ray.is_initialized() else ""


def _devices() -> str | None:
    """Return the GPUs that Ray has given to this task."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def _fetched(left: Sequence[Any]) -> Left:
    """Return what lies in Ray's object store; without what is lost."""
    import ray

    files: Left = {}
    for one in left:
        with suppress(ray.exceptions.RayError):
            files.update(ray.get(one))
    return files
