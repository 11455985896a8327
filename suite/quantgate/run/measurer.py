"""What measures the cells of a plan: the protocol, and what its two implementations have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from quantgate.config.matrix import Cell
from quantgate.errors import MeasurementError, QuantgateError, unexpected
from quantgate.judge.compare import Comparison
from quantgate.judge.confirm import SecondLook
from quantgate.measure.groups import group_name
from quantgate.records import Measurement
from quantgate.run.process import file_error

K = TypeVar("K")
T = TypeVar("T")


class Measurer(Protocol):
    """Measures a plan, given when it is made. Methods wait for the cell and raise QuantgateError, the same one each
    time, where it could not be measured. The caller that makes its benches closes them.

    Implementations: `quantgate.run.stored.StoredRun` (against baselines), `quantgate.run.against.AgainstRun` (A/B).
    """

    def measurement(self, cell: Cell) -> Measurement:
        """Return the cell's record with everything that the plan asks of it."""

    def compare(self, cell: Cell, request: str) -> Comparison:
        """Return the cell's record and what it is compared with. Raises MeasurementError where the record lacks the
        request."""

    def again(self, cell: Cell, request: str) -> SecondLook:
        """Measure one request once more in fresh processes."""

    def reference(self, cell: Cell) -> Comparison | None:
        """Return the comparison of the cell's reference; None: it is the cell itself, or not part of the plan."""

    def finished(self) -> Mapping[str, Measurement]:
        """Return the records made so far, by cell id, without those of cells that failed."""


class Cells(Protocol):
    """Measures the cells of a plan, each once, somewhere. Methods wait for a measurement and raise QuantgateError, the
    same one each time, where there is none.

    Implementations: `quantgate.run.local.LocalCells`, `quantgate.run.cluster.cells.ClusterCells`.
    """

    def measured(self, cell: Cell) -> Measurement:
        """Return the cell's record as its processes left it, without what is relative to the reference."""

    def again(self, cells: Sequence[Cell], request: str) -> Mapping[str, Measurement]:
        """Measure one request of each cell in fresh processes of one machine, one cell after the other; return the
        records by cell id."""

    def apart(self, cell: Cell) -> str:
        """Return why the cell's record cannot be compared with others; empty where it can."""


def with_reasons(record: Measurement, reasons: Mapping[str, str]) -> Measurement:
    """Return the record with the reasons, by request, why these were not measured."""
    return record.model_copy(update={"unmeasured": {**record.unmeasured, **reasons}})


def check_measured(record: Measurement, request: str) -> None:
    """Raise MeasurementError where a record lacks a request, with the reason."""
    for name in (group_name(request), request):
        if why := record.unmeasured.get(name):
            raise MeasurementError(why)
    if request not in record.requests:
        raise MeasurementError(f"{request}: the record of {record.cell} lacks it, without a reason")


def once(results: dict[K, T | QuantgateError], key: K, compute: Callable[[], T]) -> T:
    """Return `results[key]`, computed where it is missing. Raises QuantgateError, the same one each time."""
    if key not in results:
        try:
            results[key] = compute()
        except QuantgateError as error:
            results[key] = error
        except OSError as error:
            results[key] = file_error(error)
        except Exception as error:
            results[key] = unexpected(error)
    result = results[key]
    if isinstance(result, QuantgateError):
        raise result
    return result
