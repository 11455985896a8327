"""What measures the cells of a plan for the cases that judge them, and how a case comes to its verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from quantgate.config.matrix import Cell
from quantgate.errors import MeasurementError, QuantgateError, unexpected
from quantgate.judge import no_result
from quantgate.judge.compare import (
    Comparison,
    Rules,
    SecondLook,
    confirmed,
    explained,
    moved,
    needs_second_look,
    verdicts,
)
from quantgate.records import Measurement, Scalar, Spent, Verdict
from quantgate.run.plan import Need, groups_of


class Measurer(Protocol):
    """Measures a plan, given when it is made. Methods wait for the cell and raise QuantgateError, the same one each
    time, where it could not be measured.

    Implementations: `quantgate.run.stored.StoredRun` (against baselines), `quantgate.run.against.AgainstRun` (A/B).
    """

    def measurement(self, cell: Cell) -> Measurement:
        """Return the cell's record with everything that the plan asks of it."""
        ...

    def compare(self, cell: Cell, request: str) -> Comparison:
        """Return the cell's record and what it is held against. Raises MeasurementError where the record lacks the
        request."""
        ...

    def again(self, cell: Cell, request: str) -> SecondLook:
        """Measure one request once more in fresh processes."""
        ...

    def reference(self, cell: Cell) -> Comparison | None:
        """Return the comparison of the cell's reference; None: it is the cell itself, or not part of the plan."""
        ...

    def finished(self) -> Mapping[str, Measurement]:
        """Return the records made so far, by cell id, without those of cells that failed."""
        ...

    @property
    def spent(self) -> list[Spent]:
        """The wall time of each process, in their order."""
        ...

    def close(self) -> None:
        """End what still waits for work."""
        ...


class Judged(NamedTuple):
    """What a case comes to. environment: what the cell was measured in; empty where it was not."""

    verdicts: list[Verdict]
    environment: Mapping[str, Scalar]


def judge_case(
    need: Need, measurer: Measurer, rules: Rules, reproduce: str = "", *, second_look: bool = True
) -> Judged:
    """Measure and judge one case. An error, foreseen or not, becomes a verdict.

    reproduce: the command that repeats the case. second_look: whether what seems worse is measured again first.
    """
    cell, request = need.cell, need.request
    environment: Mapping[str, Scalar] = {}
    try:
        comparison = measurer.compare(cell, request)
        environment = comparison.new.environment
        judged = verdicts(comparison, request, rules, reproduce)
        if second_look and needs_second_look(judged, comparison, rules):
            look = measurer.again(cell, request)
            judged = confirmed(judged, comparison, look, request, rules, reproduce)
        if moved(judged) and (reference := _reference(measurer, cell)):
            judged = explained(judged, reference, request, rules, reproduce)
    except Exception as error:
        foreseen = error if isinstance(error, QuantgateError) else unexpected(error)
        judged = [no_result(cell.id, request, str(foreseen), reproduce)]
    return Judged(judged, environment)


def _reference(measurer: Measurer, cell: Cell) -> Comparison | None:
    try:
        return measurer.reference(cell)
    except QuantgateError:
        return None  # the reference's own cases say why


def check_measured(record: Measurement, request: str, why_lacking: Callable[[], str]) -> None:
    """Raise MeasurementError where a record lacks a request: as this machine cannot measure it, or `why_lacking`."""
    [group] = groups_of([request])
    if why := record.unmeasured.get(group):
        raise MeasurementError(why)
    if request not in record.requests:
        raise MeasurementError(why_lacking())
