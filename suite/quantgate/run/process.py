"""A measuring process and the record that it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from quantgate.errors import MeasurementError, QuantgateError
from quantgate.processes.isolate import Assignment
from quantgate.records import Job, Measurement
from quantgate.run.record_files import read_measurement


@dataclass
class Process:
    """A measuring process. limit: seconds that it may take. record: what it left; None before it has ended."""

    job: Job
    task: Assignment
    limit: float
    record: Measurement | None = None

    def read(self) -> Measurement:
        """Read the record. Raises MeasurementError where there is none, or where another job left it."""
        with prefix_errors(self.task.place):
            record = read_measurement(self.job.output)
            for key in ("run", "cell", "tier", "fingerprint", "requests"):
                value, expected = getattr(record, key), getattr(self.job, key)
                if value != expected:
                    raise MeasurementError(
                        f"{self.job.output}: is not the record of this process: its {key} is {value!r}, not "
                        f"{expected!r}; does another run write to {self.job.output.parent}?"
                    )
            if not record.complete:
                raise MeasurementError(f"{self.job.output}: is not complete")
        self.record = record
        return record


@contextmanager
def prefix_errors(place: str) -> Iterator[None]:
    """Prefix errors with the environment that they come from."""
    try:
        yield
    except QuantgateError as error:
        if not place:
            raise
        raise MeasurementError(f"{place}{error}") from error
