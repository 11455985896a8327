"""Pack series for a page: one piece for each cell, small, unpacked by the browser when the cell comes into view.

A piece is the zlib stream, in base64, of these arrays, one after another, each of series x runs in the order of the
cell's series: `value`, `baseline`, `tolerance` (float32), `low`, `high` (uint16), `environment` (uint32), `status`
(uint8).
Numbers are split into planes of bytes, the lowest first, since those compress better. Missing: NaN; 0 in those of whole
numbers, which begin at 1. `low` and `high` are the ends of the value's interval, in steps of `STEPS` - 1 to the range
that `Piece.ranges` gives.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantgate.history.series import Series

STEPS = 65_534
"""Numbers that an end of an interval may have, but for 0, which is none."""


@dataclass(frozen=True)
class Piece:
    """The packed series of one cell. ranges: of each series, the lowest and the highest end of an interval."""

    text: str
    ranges: list[tuple[float, float]]


def pack(series: Sequence[Series], runs: NDArray[np.intp]) -> Piece:
    """Pack the series of one cell, of these runs."""
    value, baseline, tolerance, low, high = (
        np.stack([getattr(one, name)[runs] for one in series]).astype(np.float64)
        for name in ("value", "baseline", "tolerance", "low", "high")
    )
    relative = np.array([one.relative for one in series])[:, None]
    size = np.where(relative, np.abs(baseline), 1.0)
    low, high = baseline + low * size, baseline + high * size
    # What an interval is of: the value of the run, whose baseline may be on the other side.
    low, high = np.fmin(low, value), np.fmax(high, value)
    least, most = np.nan_to_num(np.fmin.reduce(low, axis=1)), np.nan_to_num(np.fmax.reduce(high, axis=1))
    environment = np.stack([one.environment[runs] for one in series]) + 1
    status = np.stack([one.status[runs] for one in series]) + 1
    planes = [
        *(_planes(array.astype("<f4")) for array in (value, baseline, tolerance)),
        *(_planes(_numbered(array, least, most)) for array in (low, high)),
        _planes(environment.astype("<u4")),
        status.astype(np.uint8).tobytes(),
    ]
    packed = zlib.compress(b"".join(planes), 6)
    ranges = [(_short(a), _short(b)) for a, b in zip(least, most, strict=True)]
    return Piece(base64.b64encode(packed).decode(), ranges)


def _numbered(
    array: NDArray[np.float64], least: NDArray[np.float64], most: NDArray[np.float64]
) -> NDArray[np.uint16]:
    """Return numbers from 1 on between `least` and `most` of each row; 0 for NaN."""
    width = np.where(most > least, most - least, 1.0)[:, None]
    steps = np.rint((array - least[:, None]) / width * (STEPS - 1)) + 1
    return np.asarray(np.nan_to_num(steps).clip(0, STEPS), dtype="<u2")


def _planes(array: NDArray[np.generic]) -> bytes:
    """Return all lowest bytes, then all second ones, and so on."""
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1, array.dtype.itemsize).T.tobytes()


def _short(number: float) -> float:
    return float(f"{number:.9g}")
