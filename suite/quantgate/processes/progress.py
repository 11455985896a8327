"""How far a job is: messages of JSON that its process sends to its parent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, TypeAdapter

VARIABLE = "QUANTGATE_PROGRESS_FD"
"""Environment variable of a job's process: the descriptor of the socket that takes its progress."""
INTERVAL = 0.1
"""Seconds between two messages of one phase, at least."""

OnProgress = Callable[[str, float, float], None]
"""Called with the phase, how much of it is done, and how much there is."""

_last = 0.0


class Event(BaseModel):
    """How far a job is."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    phase: str
    done: float
    total: float


class End(BaseModel):
    """A job has ended. status: exit status of its process, or minus the number of the signal that killed it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: int


MESSAGE: TypeAdapter[Event | End] = TypeAdapter(Event | End)
"""Parses what arrives at the parent's end of a server's connection."""


def ignore_progress(phase: str, done: float, total: float) -> None:
    """Do nothing: the default for callers that show no progress."""


def report(phase: str, done: float, total: float) -> None:
    """Send one message of progress, at most ten a second; the first of a phase (`done` is 0) is always sent."""
    global _last
    now = time.monotonic()
    descriptor = os.environ.get(VARIABLE)
    if descriptor is None or (done > 0 and now - _last < INTERVAL):
        return
    _last = now
    os.write(int(descriptor), Event(phase=phase, done=done, total=total).model_dump_json().encode())
