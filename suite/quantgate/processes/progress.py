"""How far a job is: lines of JSON that its process writes to a pipe and its parent reads."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator

from pydantic import BaseModel, ConfigDict, ValidationError

VARIABLE = "QUANTGATE_PROGRESS_FD"
"""Environment variable of a job's process: the descriptor that takes its progress."""
INTERVAL = 0.1
"""Seconds between two lines of one phase, at least."""
LONGEST_LINE = 2**16

OnProgress = Callable[[str, float, float], None]
"""Called with the phase, how much of it is done, and how much there is."""

_last = 0.0


def ignore_progress(phase: str, done: float, total: float) -> None:
    """Do nothing: the default for callers that show no progress."""


def report(phase: str, done: float, total: float) -> None:
    """Write one line of progress, at most ten a second; the first of a phase (`done` is 0) is always written."""
    global _last
    now = time.monotonic()
    descriptor = os.environ.get(VARIABLE)
    if descriptor is None or (done > 0 and now - _last < INTERVAL):
        return
    _last = now
    line = json.dumps({"phase": phase, "done": done, "total": total}) + "\n"
    os.write(int(descriptor), line.encode())


class Event(BaseModel):
    """One line of progress."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    phase: str
    done: float
    total: float


class GarbledError(Exception):
    """Something other than lines of progress was written; the text shows how it begins."""


class Reader:
    """Puts lines together from the pieces in which a pipe delivers them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that `data` completes. Raises GarbledError."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                yield Event.model_validate_json(line)
            except ValidationError:
                raise _garbled(line) from None
        if len(self._rest) > LONGEST_LINE:
            raise _garbled(self._rest)


def _garbled(line: bytes) -> GarbledError:
    return GarbledError(f"{line[:60]!r}{'...' if len(line) > 60 else ''}")
