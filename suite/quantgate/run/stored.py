"""Measure the cells of a plan, each once and in processes of its own, and hold them against stored baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from pydantic import ValidationError

from quantgate.baselines.store import StoredBaselines
from quantgate.config.matrix import Cell
from quantgate.errors import MeasurementError, QuantgateError
from quantgate.files import write_atomic
from quantgate.judge.compare import Comparison
from quantgate.judge.confirm import MoreProcesses
from quantgate.locks import locked
from quantgate.measure.groups import agreement_group, group_name, group_of, metric_groups, reading_reference
from quantgate.records import Measurement, Metric, Record
from quantgate.report.progress import Progress
from quantgate.run.bench import Bench
from quantgate.run.measurer import check_measured, once
from quantgate.run.merge import merge
from quantgate.run.plan import Plan, groups_of, partners_of, per_process
from quantgate.run.process import read_measurement, sibling
from quantgate.run.relative import add_ratios, agreement, relative_metrics


@dataclass(eq=False)
class StoredRun:
    """One run's measurements, against stored baselines: the `Measurer` of every run that is not A/B. reuse: whether a
    record of an earlier run may stand for a measurement."""

    plan: Plan
    bench: Bench
    progress: Progress
    baselines: StoredBaselines
    reuse: bool = False
    _plain: dict[str, Measurement | QuantgateError] = field(default_factory=dict)
    """By cell, as measured: without what is relative to the reference."""
    _whole: dict[str, Measurement | QuantgateError] = field(default_factory=dict)
    _fresh: dict[tuple[str, str], Measurement | QuantgateError] = field(default_factory=dict)
    """By cell and request, of the processes of a second look."""

    def measurement(self, cell: Cell) -> Measurement:
        """Return the cell's record with everything that the plan asks of it."""
        return once(self._whole, cell.id, lambda: self._with_relatives(cell, self._measured(cell)))

    def finished(self) -> dict[str, Measurement]:
        """Return the records made so far, by cell id."""
        cells = [cell for cell, record in self._plain.items() if isinstance(record, Measurement)]
        return {cell: self.measurement(self.plan.cells[cell]) for cell in cells}

    def compare(self, cell: Cell, request: str) -> Comparison:
        """Return the cell's record and its baseline."""
        record = self.measurement(cell)
        check_measured(record, request, cell, [self.bench])
        return self._comparison(cell, record)

    def reference(self, cell: Cell) -> Comparison | None:
        """Return the comparison of the cell's reference, as measured."""
        record = self._reference(cell)
        return None if record is None else Comparison(record, self.baselines.of(cell.reference))

    def again(self, cell: Cell, request: str) -> MoreProcesses:
        """Measure one request in fresh processes; a timing beside its reference, if that was measured."""
        ids = [cell.id]
        if group_of(request).alone and isinstance(self._plain.get(cell.reference), Measurement):
            ids = list(dict.fromkeys([cell.reference, cell.id]))
        cells = [self.plan.cells[one] for one in ids]
        fresh = {
            one.id: once(self._fresh, (one.id, request), partial(self._start, one, [request], "again"))
            for one in cells
        }
        together = {one.id: merge([self._measured(one), fresh[one.id]]) for one in cells}
        looks = [add_ratios(look[cell.id], look.get(cell.reference), cell) for look in (together, fresh)]
        return MoreProcesses(*(self._comparison(cell, look) for look in looks))

    def _comparison(self, cell: Cell, record: Measurement) -> Comparison:
        failed = self._plain.get(cell.reference)
        why = f"{cell.reference} has no such metric in this run"
        if isinstance(failed, QuantgateError):
            why = str(failed).partition("\n")[0]
        return Comparison(record, self.baselines.of(cell.id), why)

    def _measured(self, cell: Cell) -> Measurement:
        return once(self._plain, cell.id, lambda: self._measure(cell))

    def _reference(self, cell: Cell) -> Measurement | None:
        """Return the record of the cell's reference; None: it is the cell itself, or not part of the plan."""
        if cell.reference == cell.id or cell.reference not in self.plan.cells:
            return None
        return self._measured(self.plan.cells[cell.reference])

    def _with_relatives(self, cell: Cell, record: Measurement) -> Measurement:
        # What reads the reference is relative already: for it alone, one that has left all that is not measured again.
        relative = reading_reference(metric_groups())
        plain = (m for name, m in record.metrics.items() if group_name(name) not in relative)
        if not any(m.kind in ("rounds", "paired") for m in plain):
            return record
        try:
            reference = self._reference(cell)
        except QuantgateError:
            return record  # the reference's own cases say why it failed
        if reference is not None:
            added = relative_metrics(record.metrics, reference.metrics, cell.reference)
        else:
            added = agreement(record.metrics, self._partners_of(cell, record))
        record = record.model_copy(update={"metrics": {**record.metrics, **added}})
        return add_ratios(record, reference, cell)

    def _partners_of(self, cell: Cell, record: Measurement) -> dict[str, Mapping[str, Metric]]:
        """Return the metrics, by cell id, that a reference has to agree with: of its model in other backends."""
        metrics: dict[str, Mapping[str, Metric]] = {}
        for partner in self._partners.get(cell.id, ()) if agreement_group() in record.metrics else ():
            with suppress(QuantgateError):  # the partner's own cases say why it failed
                metrics[partner.id] = self._measured(partner).metrics
        return metrics

    @cached_property
    def _partners(self) -> dict[str, list[Cell]]:
        return partners_of(self.plan.cells.values())

    def _measure(self, cell: Cell) -> Measurement:
        requests = self.plan.requests[cell.id]
        output = self.bench.file(cell)
        failure_file = sibling(output, "error")
        for metrics in self.baselines.metrics([cell.id]).values():
            self.bench.settle(cell.id, metrics)
        # Another process of pytest-xdist may be measuring this cell.
        with locked(output.with_suffix(".lock"), f"measure {cell.id}"):
            record = self._reusable(cell, output, requests)
            if record is not None:
                self.progress.finish(cell.id, 0.0, "reused")
                return record
            self._raise_earlier(failure_file)
            # What fails or is interrupted now must not leave an earlier record that is reused.
            output.unlink(missing_ok=True)
            failure_file.unlink(missing_ok=True)
            try:
                record = self._start(cell, self._possible(cell))
                write_atomic(output, record.model_dump_json(indent=1).encode())
                return record
            except QuantgateError as error:
                failure = _Failure(run=self.bench.run_id, text=str(error))
                with suppress(OSError):  # of a full disk, `error` itself tells
                    write_atomic(failure_file, failure.model_dump_json().encode())
                raise

    def _possible(self, cell: Cell) -> list[str]:
        """Return what of the plan can be measured: whose texts and tasks are there, and for divergence and generation
        what the reference leaves. Where it has yet to leave that, it is measured first."""
        requests = self.bench.possible(cell, self.plan.requests[cell.id])
        if not self.bench.lacks_reference(cell, requests):
            return requests
        needing = reading_reference(requests)
        try:
            reference = self.plan.cells[cell.reference]
            self._measured(reference)
            if self.bench.lacks_reference(cell, requests):  # the file was removed since its record was made
                self._start(reference, needing, "logprobs")
        except QuantgateError:
            return [r for r in requests if r not in needing]
        return requests

    def _start(self, cell: Cell, requests: Sequence[str], name: str = "") -> Measurement:
        """Measure in as many processes as the requests ask for; only what varies between them is repeated."""
        shares = per_process(requests, self.bench.tier.group_options)
        names = [".".join(filter(None, [name, str(n + 1) if n else ""])) for n in range(len(shares))]
        records = []
        with self.progress.measuring(cell.id, groups_of(requests)):
            for number, share in enumerate(shares):
                events = self.progress.of_process(cell.id, number, len(shares))
                following = names[1:] if number == 0 else []
                records.append(self.bench.run(cell, share, names[number], events, following))
            return merge(records)

    def _reusable(self, cell: Cell, output: Path, requests: Sequence[str]) -> Measurement | None:
        """Return a record that may stand for a new one: made in this run by a sister process, or with --reuse."""
        try:
            record = read_measurement(output)
        except MeasurementError:
            return None
        ours = record.run == self.bench.run_id or self.reuse
        # A/B runs time in turns with another process.
        alone = not any(m.beside for m in record.metrics.values())
        return record if ours and alone and not self.bench.differs(record, cell, requests) else None

    def _raise_earlier(self, file: Path) -> None:
        """Raise what a sister process of this run raised when it measured the cell."""
        with suppress(OSError, ValidationError):
            failure = _Failure.model_validate_json(file.read_bytes())
            if failure.run == self.bench.run_id:
                raise MeasurementError(failure.text)


class _Failure(Record):
    """Why there is no record of a cell."""

    run: str
    text: str
