"""A measuring process, the files that it and its cell leave, and plain words for what is wrong with them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from quantgate.errors import MeasurementError, QuantgateError, unexpected
from quantgate.jobs import Job
from quantgate.paths import cache_dir
from quantgate.processes.isolate import Assignment
from quantgate.records import Measurement


@dataclass
class Process:
    """A measuring process. record: what it left; None before it has ended."""

    job: Job
    task: Assignment
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
                ended = "its process ended before it had measured everything"
                raise MeasurementError(f"{self.job.output}: is not complete: {ended}")
        for metric in record.metrics.values():
            metric.conditions.update(self.job.conditions)
        self.record = record
        return record


def sibling(path: Path, name: str) -> Path:
    """Return another file of the same cell. No scheme's name contains `~`, so process 2 of `Q4` is not scheme
    `Q4.2`."""
    return path.with_name(f"{path.stem}~{name}.json")


def read_measurement(path: Path) -> Measurement:
    """Read a record. Raises MeasurementError where it is missing, cut off, or of another format."""
    try:
        return Measurement.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise MeasurementError(f"{path}: the process exited normally but left no measurement") from None
    except OSError as error:
        raise MeasurementError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise MeasurementError(f"{path}: is not a measurement of this version: {reason}") from None


@contextmanager
def prefix_errors(place: str) -> Iterator[None]:
    """Prefix errors with the environment that they come from."""
    try:
        yield
    except QuantgateError as error:
        if not place:
            raise
        raise MeasurementError(f"{place}{error}") from error


def file_error(error: OSError) -> MeasurementError:
    """Return the error of a folder that cannot be written or a full disk, with what to do about it."""
    if error.errno is None or error.strerror is None:
        return unexpected(error)
    name = str(error.filename or "a file")
    # Where the cache folder itself cannot be made, the error names the folder above it.
    cached = Path(name).is_relative_to(cache_dir()) or cache_dir().is_relative_to(name)
    where = "QUANTGATE_CACHE" if cached else "--results"
    remedy = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = f"; free some space there, or name another folder with {where}"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = f"; name a folder that can be written with {where}"
    return MeasurementError(f"{name}: {error.strerror}{remedy}")
