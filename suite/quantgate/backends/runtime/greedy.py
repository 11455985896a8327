"""Continue a text greedily, for libraries that process it and then go on token by token (capability `steps`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantgate.backends.base import Steps, Stops
from quantgate.errors import MeasurementError


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
