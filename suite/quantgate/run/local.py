"""Measure a run's cells on this machine, one after the other, in pytest's own processes: the `Cells` of a run without
other machines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from quantgate.baselines.store import StoredBaselines
from quantgate.config.matrix import Cell
from quantgate.errors import MeasurementError, QuantgateError
from quantgate.files import write_atomic
from quantgate.locks import locked
from quantgate.records import Measurement, Record
from quantgate.report.progress import Progress
from quantgate.run.bench import Bench
from quantgate.run.cell import measurable, measure
from quantgate.run.measurer import once, with_reasons
from quantgate.run.plan import Plan
from quantgate.run.process import read_measurement, sibling


@dataclass(eq=False)
class LocalCells:
    """Measures each cell when it is asked for. reuse: whether a record of an earlier run may stand for a measurement.
    baselines: with whose options a cell is measured where the tier leaves them open."""

    plan: Plan
    bench: Bench
    progress: Progress
    baselines: StoredBaselines
    reuse: bool = False
    _measured: dict[str, Measurement | QuantgateError] = field(default_factory=dict)
    _fresh: dict[tuple[str, str], Measurement | QuantgateError] = field(default_factory=dict)
    """By cell and request, of the processes of a second look."""

    def measured(self, cell: Cell) -> Measurement:
        """Return the cell's record as its processes left it."""
        return once(self._measured, cell.id, lambda: self._measure(cell))

    def again(self, cells: Sequence[Cell], request: str) -> dict[str, Measurement]:
        """Measure one request of each cell in fresh processes, one cell after the other; return the records by id."""
        start = partial(measure, self.bench, self.progress)
        return {
            cell.id: once(self._fresh, (cell.id, request), partial(start, cell, [request], "again"))
            for cell in cells
        }

    def apart(self, cell: Cell) -> str:
        """Return why the cell's record cannot be compared: never, on one machine."""
        return ""

    def _measure(self, cell: Cell) -> Measurement:
        requests = self.plan.requests[cell.id]
        output = self.bench.file(cell)
        failure_file = sibling(output, "error")
        for metrics in self.baselines.metrics([cell.id]).values():
            self.bench.settle(cell.id, metrics)
        # Another process of pytest-xdist may be measuring this cell.
        with locked(output.with_suffix(".lock"), f"measure {cell.id}"):
            record = reusable(self.bench, cell, requests, reuse=self.reuse)
            if record is not None:
                self.progress.finish(cell.id, 0.0, "reused")
                return record
            self._raise_earlier(failure_file)
            # What fails or is interrupted now must not leave an earlier record that is reused.
            output.unlink(missing_ok=True)
            failure_file.unlink(missing_ok=True)
            try:
                possible, reasons = measurable(
                    self.bench, self.progress, cell, requests,
                    have_reference=lambda: self.measured(self.plan.cells[cell.reference]),
                )  # fmt: skip
                record = with_reasons(measure(self.bench, self.progress, cell, possible), reasons)
                write_atomic(output, record.model_dump_json(indent=1).encode())
                return record
            except QuantgateError as error:
                failure = _Failure(run=self.bench.run_id, text=str(error))
                with suppress(OSError):  # of a full disk, `error` itself tells
                    write_atomic(failure_file, failure.model_dump_json().encode())
                raise

    def _raise_earlier(self, file: Path) -> None:
        """Raise what a sister process of this run raised when it measured the cell."""
        with suppress(OSError, ValidationError):
            failure = _Failure.model_validate_json(file.read_bytes())
            if failure.run == self.bench.run_id:
                raise MeasurementError(failure.text)


def reusable(bench: Bench, cell: Cell, requests: Sequence[str], *, reuse: bool) -> Measurement | None:
    """Return a record that may stand for a new one: made in this run by a sister process, or, with `reuse`, earlier.
    What a sister process could not measure, since a text or a task is missing, this one cannot either."""
    try:
        record = read_measurement(bench.file(cell))
    except MeasurementError:
        return None
    # A/B runs time in turns with another process.
    if any(m.beside for m in record.metrics.values()):
        return None
    if record.run == bench.run_id:
        requests = [request for request in requests if request not in record.unmeasured]
    elif not reuse:
        return None
    return record if bench.stands(record, cell, requests) else None


class _Failure(Record):
    """Why there is no record of a cell."""

    run: str
    text: str
