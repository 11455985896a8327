"""Continue a text greedily, for libraries that process it and then go on token by token (capability `steps`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quantgate.backends.base import Stops
from quantgate.errors import MeasurementError


class Steps(Protocol):
    """What of the capability `steps` it takes; `quantgate.backends.base.Backend` says what the methods do."""

    def reserve(self, tokens: int, sequences: int) -> None: ...
    def prefill(self, ids: Sequence[int]) -> None: ...
    def decode(self, ids: Sequence[int]) -> None: ...
    def next_logits(self) -> NDArray[np.float32]: ...


def continue_greedily(backend: Steps, ids: Sequence[int], limit: int, stops: Stops) -> list[int]:
    """Return what a model writes after `ids`: the likeliest token each time, of equally likely ones that of the lowest
    number, up to where `stops` are reached, or `limit` tokens. Raises MeasurementError where a logit is no number."""
    backend.reserve(len(ids) + limit, 1)
    backend.prefill(ids)
    written: list[int] = []
    while True:
        logits = backend.next_logits()
        token = int(logits.argmax())  # NaN counts as the largest
        if math.isnan(logits[token]):
            raise MeasurementError(f"a logit after {len(ids) + len(written)} tokens is not a number")
        written.append(token)
        if len(written) == limit or stops.reached(written):
            return written
        backend.decode([token])
