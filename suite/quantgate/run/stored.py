"""Measure the cells of a plan, each once and in processes of its own, and hold them against stored baselines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from quantgate.baselines.reader import StoredBaselines
from quantgate.config.matrix import Cell, Tier
from quantgate.errors import AssetError, InputError, MeasurementError, QuantgateError
from quantgate.files import write_atomic
from quantgate.judge.compare import Comparison, MoreProcesses
from quantgate.locks import locked
from quantgate.measure.groups import agreement_group, group_name, group_of, metric_groups, with_logprobs
from quantgate.records import Measurement, Record, Spent
from quantgate.report.progress import Progress
from quantgate.run.bench import Bench, Settings
from quantgate.run.measurer import check_measured
from quantgate.run.merge import add_ratios, merge
from quantgate.run.once import once
from quantgate.run.phases import events_of, shown
from quantgate.run.plan import Partners, Plan, per_process
from quantgate.run.record_files import read_measurement, sibling
from quantgate.run.relative import agreement, relative_metrics


class StoredRun:
    """One run's measurements, against stored baselines: the `Measurer` of every run that is not A/B."""

    def __init__(
        self,
        tier: Tier,
        settings: Settings,
        plan: Plan,
        bench: Bench,
        progress: Progress,
        baselines: StoredBaselines,
    ) -> None:
        self._tier = tier
        self._settings = settings
        self._plan = plan
        self._partners = Partners(plan.cells.values())
        self._progress = progress
        self._baselines = baselines
        self._bench = bench
        self._plain: dict[str, Measurement | QuantgateError] = {}
        """By cell, as measured: without what is relative to the reference."""
        self._whole: dict[str, Measurement | QuantgateError] = {}
        self._fresh: dict[tuple[str, str], Measurement] = {}
        """By cell and request, of the processes of a second look."""

    @property
    def spent(self) -> list[Spent]:
        """The wall time of each process, in their order."""
        return self._bench.spent

    def close(self) -> None:
        """End what still waits for work."""
        self._bench.close()

    def measurement(self, cell: Cell) -> Measurement:
        """Return the cell's record with everything that the plan asks of it."""
        return once(self._whole, cell.id, lambda: self._with_relatives(cell, self._measured(cell)))

    def finished(self) -> dict[str, Measurement]:
        """Return the records made so far, by cell id."""
        cells = [cell for cell, record in self._plain.items() if isinstance(record, Measurement)]
        return {cell: self.measurement(self._plan.cells[cell]) for cell in cells}

    def compare(self, cell: Cell, request: str) -> Comparison:
        """Return the cell's record and its baseline."""
        record = self.measurement(cell)
        check_measured(
            record,
            request,
            lambda: (
                self._bench.lacking(cell, request) or f"not measured: the reference {cell.reference} failed"
            ),
        )
        return self._comparison(cell, record)

    def reference(self, cell: Cell) -> Comparison | None:
        """Return the comparison of the cell's reference, as measured."""
        record = self._reference(cell)
        return None if record is None else Comparison(record, self._baselines.of(cell.reference))

    def again(self, cell: Cell, request: str) -> MoreProcesses:
        """Measure one request in fresh processes; a timing beside its reference, if that was measured."""
        beside = group_of(request).alone and isinstance(self._plain.get(cell.reference), Measurement)
        cells = [cell.reference, cell.id] if beside else [cell.id]
        fresh = {
            one: self._measured_again(self._plan.cells[one], request)
            for one in dict.fromkeys(cells)
            if one in self._plan.cells
        }
        together = {
            one: merge([self._measured(self._plan.cells[one]), record]) for one, record in fresh.items()
        }
        looks = [add_ratios(look[cell.id], look.get(cell.reference), cell) for look in (together, fresh)]
        return MoreProcesses(*(self._comparison(cell, look) for look in looks))

    def _comparison(self, cell: Cell, record: Measurement) -> Comparison:
        failed = self._plain.get(cell.reference)
        why = f"{cell.reference} has no such metric in this run"
        if isinstance(failed, QuantgateError):
            why = str(failed).partition("\n")[0]
        return Comparison(record, self._baselines.of(cell.id), why)

    def _measured(self, cell: Cell) -> Measurement:
        return once(self._plain, cell.id, lambda: self._measure(cell))

    def _measured_again(self, cell: Cell, request: str) -> Measurement:
        key = (cell.id, request)
        if key not in self._fresh:
            self._fresh[key] = self._start(cell, [request], "again")
        return self._fresh[key]

    def _reference(self, cell: Cell) -> Measurement | None:
        """Return the record of the cell's reference; None: it is the cell itself, or not part of the plan."""
        if cell.reference == cell.id or cell.reference not in self._plan.cells:
            return None
        return self._measured(self._plan.cells[cell.reference])

    def _with_relatives(self, cell: Cell, record: Measurement) -> Measurement:
        # Divergence is relative already: for it alone, a reference whose log-probabilities are there is not measured.
        relative = with_logprobs(metric_groups())
        plain = (m for name, m in record.metrics.items() if group_name(name) not in relative)
        if not any(m.kind in ("rounds", "paired") for m in plain):
            return record
        try:
            reference = self._reference(cell)
        except QuantgateError:
            return record  # the reference's own cases say why it failed
        if reference is None:
            return self._with_agreement(cell, record)
        added = relative_metrics(record.metrics, reference.metrics, cell.reference)
        record = record.model_copy(update={"metrics": {**record.metrics, **added}})
        return add_ratios(record, reference, cell)

    def _with_agreement(self, cell: Cell, record: Measurement) -> Measurement:
        """Hold a reference against those of the same model in other backends."""
        others = {}
        for partner in self._partners.of(cell) if agreement_group() in record.metrics else ():
            with suppress(QuantgateError):  # its own cases say why it failed
                others[partner.id] = self._measured(partner).metrics
        agreed = agreement(record.metrics, others)
        return record.model_copy(update={"metrics": {**record.metrics, **agreed}}) if agreed else record

    def _measure(self, cell: Cell) -> Measurement:
        requests = self._plan.requests[cell.id]
        output = self._bench.file(cell)
        for metrics in self._baselines.metrics([cell.id]).values():
            self._bench.settle(cell.id, metrics)
        # Another process of pytest-xdist may be measuring this cell.
        with locked(output.with_suffix(".lock"), f"measure {cell.id}"):
            record = self._reusable(cell, output, requests)
            if record is not None:
                self._progress.finish(cell.id, 0.0, "reused")
                return record
            self._raise_earlier(output)
            # What fails or is interrupted now must not leave an earlier record that is reused.
            output.unlink(missing_ok=True)
            sibling(output, "error").unlink(missing_ok=True)
            try:
                record = self._start(cell, self._possible(cell))
                write_atomic(output, record.model_dump_json(indent=1).encode())
                return record
            except QuantgateError as error:
                failure = _Failure(run=self._settings.run, type=type(error).__name__, text=str(error))
                with suppress(OSError):  # of a full disk, `error` itself tells
                    write_atomic(sibling(output, "error"), failure.model_dump_json().encode())
                raise

    def _possible(self, cell: Cell) -> list[str]:
        """Return what of the plan can be measured: whose texts and tasks are there, and for divergence the
        log-probabilities of the reference. Where the reference has yet to leave them, it is measured first."""
        requests = self._bench.possible(cell, self._plan.requests[cell.id])
        if not self._bench.lacks_reference(cell, requests):
            return requests
        needing = with_logprobs(requests)
        try:
            reference = self._plan.cells[cell.reference]
            self._measured(reference)
            if self._bench.lacks_reference(cell, requests):  # the file was removed since its record was made
                self._start(reference, needing, "logprobs")
        except QuantgateError:
            return [r for r in requests if r not in needing]
        return requests

    def _start(self, cell: Cell, requests: Sequence[str], name: str = "") -> Measurement:
        """Measure in as many processes as the requests ask for; only what varies between them is repeated."""
        processes = per_process(requests, self._tier.group_options)
        names = [".".join(filter(None, [name, str(n + 1) if n else ""])) for n in range(len(processes))]
        with shown(self._progress, cell, processes):
            return merge(
                [
                    self._bench.run(
                        cell,
                        share,
                        names[number],
                        events_of(self._progress, cell, number, len(processes)),
                        names[1:] if not number else (),
                    )
                    for number, share in enumerate(processes)
                ]
            )

    def _reusable(self, cell: Cell, output: Path, requests: Sequence[str]) -> Measurement | None:
        """Return a record that may stand for a new one: made in this run by a sister process, or with --reuse."""
        try:
            record = read_measurement(output)
        except MeasurementError:
            return None
        ours = record.run == self._settings.run or self._settings.reuse
        # A/B runs time in turns with another process.
        alone = not any(m.beside for m in record.metrics.values())
        return record if ours and alone and not self._bench.differs(record, cell, requests) else None

    def _raise_earlier(self, output: Path) -> None:
        """Raise what a sister process of this run raised when it measured the cell."""
        try:
            failure = _Failure.model_validate_json(sibling(output, "error").read_bytes())
        except (OSError, ValidationError):
            return
        if failure.run == self._settings.run:
            raise _ERRORS[failure.type](failure.text)


_ERRORS: dict[str, type[QuantgateError]] = {e.__name__: e for e in (AssetError, InputError, MeasurementError)}


class _Failure(Record):
    """Why there is no record of a cell."""

    run: str
    type: Literal["AssetError", "InputError", "MeasurementError"]
    text: str
