"""Compare the cells of a plan, each measured once, with stored baselines and with each other."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from quantgate.baselines.store import StoredBaselines
from quantgate.config.matrix import Cell
from quantgate.errors import QuantgateError
from quantgate.judge.compare import Comparison
from quantgate.judge.confirm import MoreProcesses
from quantgate.measure.groups import agreement_group, group_name, group_of, metric_groups, reading_reference
from quantgate.records import IN_PROCESS, Measurement, Metric
from quantgate.run.measurer import Cells, check_measured, once
from quantgate.run.merge import merge
from quantgate.run.plan import Plan, partners_of
from quantgate.run.relative import add_ratios, agreement, another_kind, relative_metrics, served_speed


@dataclass(eq=False)
class StoredRun:
    """One run's measurements, against stored baselines: the `Measurer` of every run that is not A/B. cells: measures
    them, on this machine or on others."""

    plan: Plan
    cells: Cells
    baselines: StoredBaselines
    _plain: dict[str, Measurement | QuantgateError] = field(default_factory=dict)
    """By cell, as measured: without what is relative to the reference."""
    _whole: dict[str, Measurement | QuantgateError] = field(default_factory=dict)

    def measurement(self, cell: Cell) -> Measurement:
        return once(self._whole, cell.id, lambda: self._with_relatives(cell, self._measured(cell)))

    def finished(self) -> dict[str, Measurement]:
        """Return the records made so far, by cell id. Measures nothing: the run may have been interrupted."""
        records = {**self._plain, **self._whole}
        return {cell: record for cell, record in records.items() if isinstance(record, Measurement)}

    def compare(self, cell: Cell, request: str) -> Comparison:
        """Return the cell's record and its baseline."""
        record = self.measurement(cell)
        check_measured(record, request)
        return self._comparison(cell, record)

    def reference(self, cell: Cell) -> Comparison | None:
        """Return the comparison of the cell's reference, as measured."""
        record = self._reference(cell)
        return None if record is None else self._held(record, cell.reference)

    def again(self, cell: Cell, request: str) -> MoreProcesses:
        """Measure one request in fresh processes; a timing beside those that it is held against, if they were
        measured: its reference, and the cell that runs a served one's weights in process."""
        ids, group = [cell.id], group_of(request)
        if group.alone and self._has(cell.reference, request):
            ids = list(dict.fromkeys([cell.reference, cell.id]))
        fresh = dict(self.cells.again([self.plan.cells[one] for one in ids], request))
        if self._has(cell.in_process, group.in_process):
            fresh |= self.cells.again([self.plan.cells[cell.in_process]], group.in_process)
        together = {one: merge([self._measured(self.plan.cells[one]), new]) for one, new in fresh.items()}
        return MoreProcesses(*(self._comparison(cell, _beside(cell, look)) for look in (together, fresh)))

    def _has(self, cell: str, request: str) -> bool:
        """Return whether a cell, by its id, was measured, and asked for this request."""
        return request in self.plan.requests.get(cell, ()) and isinstance(self._plain.get(cell), Measurement)

    def _comparison(self, cell: Cell, record: Measurement) -> Comparison:
        reference = self._plain.get(cell.reference)
        why = f"{cell.reference} has no such metric in this run"
        if isinstance(reference, QuantgateError):
            why = str(reference).partition("\n")[0]
        elif reference is not None:
            why = self._unlike(record, reference) or why
        return self._held(record, cell.id, no_reference=why, apart=self.cells.apart(cell))

    def _held(self, record: Measurement, cell: str, **more: str) -> Comparison:
        """Return a record beside the cell's baseline and the anchors of that."""
        baseline = self.baselines.of(cell)
        return Comparison(record, baseline, anchors=baseline.anchors if baseline else {}, **more)

    def _unlike(self, record: Measurement, other: Measurement) -> str:
        """Return why a cell is not compared with another, which other versions or another kind of machine measured;
        empty where it is."""
        ours, theirs = (self.cells.apart(self.plan.cells[one.cell]) for one in (record, other))
        if ours != theirs:
            return theirs or f"it was measured elsewhere than {other.cell}"
        return another_kind(record, other)

    def _measured(self, cell: Cell) -> Measurement:
        return once(self._plain, cell.id, lambda: self.cells.measured(cell))

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
        reference: Measurement | None = None
        with suppress(QuantgateError):  # the reference's own cases say why it failed
            reference = self._reference(cell)
        if reference is not None and self._unlike(record, reference):
            reference = None
        if reference is not None:
            added = relative_metrics(record.metrics, reference.metrics, cell.reference)
        else:
            added = agreement(record.metrics, self._partners_of(cell, record))
        added = {**added, **self._in_process(cell, record)}
        record = record.model_copy(update={"metrics": {**record.metrics, **added}})
        return add_ratios(record, reference, cell)

    def _in_process(self, cell: Cell, record: Measurement) -> dict[str, Metric]:
        """Hold a served cell against the one that runs the same weights in process."""
        if cell.in_process not in self.plan.cells:
            return {}
        with suppress(QuantgateError):  # that cell's own cases say why it failed
            other = self._measured(self.plan.cells[cell.in_process])
            why = "the server computes something else with the same weights and tokens"
            agrees = agreement(record.metrics, {other.cell: other.metrics}, IN_PROCESS, why)
            return {**agrees, **({} if self._unlike(record, other) else served_speed(record, other))}
        return {}

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


def _beside(cell: Cell, look: Mapping[str, Measurement]) -> Measurement:
    """Return a cell's record of a second look with its timings relative to those of the other cells of that look."""
    record = add_ratios(look[cell.id], look.get(cell.reference), cell)
    other = look.get(cell.in_process)
    if other is None or another_kind(record, other):
        return record
    return record.model_copy(update={"metrics": {**record.metrics, **served_speed(record, other)}})
