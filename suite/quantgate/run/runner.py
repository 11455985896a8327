"""Measures the cells of a plan, each once, each in processes of its own; keeps what they left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from quantgate.config.matrix import Cell, Matrix, Tier
from quantgate.errors import AssetError, InputError, MeasurementError, QuantgateError
from quantgate.files import write_atomic
from quantgate.locks import locked
from quantgate.measure.groups import agreement_group, group_name, group_of, metric_groups, with_logprobs
from quantgate.records import Measurement, Metric, Record, Spent
from quantgate.report.progress import Progress
from quantgate.run.bench import Bench, Settings, read_measurement, remembered, sibling
from quantgate.run.merge import add_ratios, merge
from quantgate.run.plan import Plan, groups_of, partners, per_process
from quantgate.run.relative import agreement, relative_metrics
from quantgate.supply.supply import Supply

__all__ = ["Runner", "Settings"]


class Runner:
    """One pytest run's measurements. `measurement` gives a cell's record or raises why there is none."""

    def __init__(
        self, matrix: Matrix, tier: Tier, settings: Settings, plan: Plan, supply: Supply, progress: Progress
    ) -> None:
        self._tier = tier
        self._settings = settings
        self._plan = plan
        self._progress = progress
        self._bench = Bench(matrix, tier, settings, supply)
        self._done: dict[str, Measurement | QuantgateError] = {}
        """As measured, without what is relative to the reference."""
        self._again: dict[tuple[str, str], Measurement] = {}
        self.current = ""
        """Id of the cell that is worked on."""

    def settle(self, baselines: Mapping[str, Mapping[str, Metric]]) -> None:
        """Take what the tier leaves open as the metrics of the baselines, by cell, were measured."""
        for cell, metrics in baselines.items():
            self._bench.settle(cell, metrics)

    @property
    def spent(self) -> list[Spent]:
        """The wall time of each process."""
        return self._bench.spent

    def close(self) -> None:
        """End what still waits for work."""
        self._bench.close()

    def measurement(self, cell: Cell) -> Measurement:
        """The cell's record with all that the plan asks of it. Raises QuantgateError, the same one each time."""
        return self._with_relatives(cell, self._own(cell))

    def finished(self) -> dict[str, Measurement]:
        """The records of this run, by cell id."""
        cells = [cell for cell, found in self._done.items() if isinstance(found, Measurement)]
        return {cell: self.measurement(self._plan.cells[cell]) for cell in cells}

    def again(self, cell: Cell, request: str) -> tuple[Measurement, Measurement]:
        """One request measured once more in fresh processes, for a timing that of the reference too (if it was
        measured): the record with the samples of the first processes and of the fresh ones together, and the
        fresh ones alone."""
        beside = group_of(request).alone and isinstance(self._done.get(cell.reference), Measurement)
        cells = [cell.reference, cell.id] if beside else [cell.id]
        fresh = {
            one: self._fresh(self._plan.cells[one], request)
            for one in dict.fromkeys(cells)
            if one in self._plan.cells
        }
        together = {one: merge([self._own(self._plan.cells[one]), record]) for one, record in fresh.items()}
        return (
            add_ratios(together[cell.id], together.get(cell.reference), cell),
            add_ratios(fresh[cell.id], fresh.get(cell.reference), cell),
        )

    def unmeasured(self, cell: Cell, request: str) -> str:
        """Why the cell's record lacks a request of the plan."""
        return self._bench.lacking(cell, request) or f"not measured: the reference {cell.reference} failed"

    def _fresh(self, cell: Cell, request: str) -> Measurement:
        key = (cell.id, request)
        if key not in self._again:
            self._again[key] = self._start(cell, [request], "again")
        return self._again[key]

    def _own(self, cell: Cell) -> Measurement:
        return remembered(self._done, cell.id, lambda: self._measure(cell))

    def reference(self, cell: Cell) -> Measurement | None:
        """The record of the cell's reference; None: the plan has none, or it is the cell itself.

        Raises QuantgateError where it could not be measured.
        """
        if cell.reference == cell.id or cell.reference not in self._plan.cells:
            return None
        return self._own(self._plan.cells[cell.reference])

    def _with_relatives(self, cell: Cell, measured: Measurement) -> Measurement:
        # Divergence is relative already: for it alone, a reference whose log-probabilities are there is not measured.
        relative = with_logprobs(metric_groups())
        plain = (m for name, m in measured.metrics.items() if group_name(name) not in relative)
        if not any(m.kind in ("rounds", "paired") for m in plain):
            return measured
        try:
            reference = self.reference(cell)
        except QuantgateError:
            return measured  # the reference's own cases say why it failed
        if reference is None:
            return self._with_agreement(cell, measured)
        against = relative_metrics(measured.metrics, reference.metrics, cell.reference)
        measured = measured.model_copy(update={"metrics": {**measured.metrics, **against}})
        return add_ratios(measured, reference, cell)

    def _with_agreement(self, cell: Cell, measured: Measurement) -> Measurement:
        """Of a reference: held against those of the other backends."""
        others = {}
        for partner in (
            partners(cell, self._plan.cells.values()) if agreement_group() in measured.metrics else ()
        ):
            with suppress(QuantgateError):  # its own cases say why it failed
                others[partner.id] = self._own(partner).metrics
        found = agreement(measured.metrics, others)
        return measured.model_copy(update={"metrics": {**measured.metrics, **found}}) if found else measured

    def _measure(self, cell: Cell) -> Measurement:
        requests = self._plan.requests[cell.id]
        output = self._bench.file(cell)
        # Another process of pytest-xdist may be measuring this cell.
        with locked(output.with_suffix(".lock"), f"measure {cell.id}"):
            found = self._stored(cell, output, requests)
            if found is not None:
                self._progress.finish(cell.id, 0.0, "reused")
                return found
            self._earlier_error(output)
            # What fails or is interrupted now shall not be reused as it was before.
            output.unlink(missing_ok=True)
            sibling(output, "error").unlink(missing_ok=True)
            try:
                record = self._start(cell, self._possible(cell))
                write_atomic(output, record.model_dump_json(indent=1).encode())
                return record
            except QuantgateError as error:
                failure = _Failure(run=self._settings.run, type=type(error).__name__, text=str(error))
                with suppress(OSError):  # a full disk is told once
                    write_atomic(sibling(output, "error"), failure.model_dump_json().encode())
                raise

    def _possible(self, cell: Cell) -> list[str]:
        """What the plan asks of the cell, without what takes a text or task that cannot be had. Divergence needs what
        the reference's process leaves, which is measured where that is not there yet; where it failed, the cell goes
        without."""
        self.current = cell.id
        requests = self._bench.possible(cell, self._plan.requests[cell.id])
        needing = with_logprobs(requests)
        if not self._bench.lacks_reference(cell, requests):
            return requests
        try:
            reference = self._plan.cells[cell.reference]
            self._own(reference)
            if self._bench.lacks_reference(cell, requests):  # the file was removed since its record was made
                self._start(reference, needing, "logprobs")
        except QuantgateError:
            return [r for r in requests if r not in needing]
        return requests

    def _start(self, cell: Cell, requests: Sequence[str], name: str = "") -> Measurement:
        """Measure in as many processes as the requests ask for; only what varies between them is repeated."""
        asked = per_process(requests, self._tier.group_options)
        names = [".".join(filter(None, [name, str(n + 1) if n else ""])) for n in range(len(asked))]
        self.current = cell.id
        with shown(self._progress, cell, asked):
            return merge(
                [
                    self._bench.run(
                        cell,
                        wanted,
                        names[number],
                        numbered(self._progress, cell, number, len(asked)),
                        names[1:] if not number else (),
                    )
                    for number, wanted in enumerate(asked)
                ]
            )

    def _stored(self, cell: Cell, output: Path, requests: Sequence[str]) -> Measurement | None:
        """A record that may stand for a new measurement: of this run (made by a sister process), or with --reuse."""
        try:
            record = read_measurement(output)
        except MeasurementError:
            return None
        ours = record.run == self._settings.run or self._settings.reuse
        whole = not self._bench.differs(record, cell, requests)
        alone = not any(m.beside for m in record.metrics.values())  # those of an A/B run are timed in turns
        return record if ours and whole and alone else None

    def _earlier_error(self, output: Path) -> None:
        """Raise what a sister process of this run found when it measured the cell."""
        try:
            found = _Failure.model_validate_json(sibling(output, "error").read_bytes())
        except (OSError, ValidationError):
            return
        if found.run == self._settings.run:
            raise _ERRORS[found.type](found.text)


@contextmanager
def shown(progress: Progress, cell: Cell, asked: Sequence[Sequence[str]]) -> Iterator[None]:
    """Show in `progress` that a cell is measured by processes that are asked for these requests."""
    begin = time.monotonic()
    phases = [
        in_process(phase, number, len(asked))
        for number, requests in enumerate(asked)
        for phase in ["load", *groups_of(requests)]
    ]
    progress.start(cell.id, phases)
    outcome = "error"
    try:
        yield
        outcome = "measured"
    finally:
        progress.finish(cell.id, time.monotonic() - begin, outcome)


def numbered(progress: Progress, cell: Cell, number: int, count: int) -> Callable[[str, float, float], None]:
    """Takes the events of process `number` of `count`."""
    return lambda phase, done, total: progress.event(cell.id, in_process(phase, number, count), done, total)


def in_process(phase: str, number: int, count: int) -> str:
    """`memory`, `memory 2/3`."""
    return f"{phase} {number + 1}/{count}" if number else phase


_ERRORS: dict[str, type[QuantgateError]] = {e.__name__: e for e in (AssetError, InputError, MeasurementError)}


class _Failure(Record):
    """Why there is no record of a cell."""

    run: str
    type: Literal["AssetError", "InputError", "MeasurementError"]
    text: str
