"""The segmentation of noisy series, held against an independent one: ruptures (extra `changes`)."""

from __future__ import annotations

import numpy as np
import pytest
from quantgate.history.levels import Levels
from quantgate.history.noisy import shifts

from selftest.history.test_noisy import SPREAD, noise

ruptures = pytest.importorskip("ruptures", reason="the extra `changes` is not installed")


def breaks(row: np.ndarray[tuple[int], np.dtype[np.float64]], level: float) -> list[int]:
    """Change points of a series by an exact search with squared errors, each of which has to save as much as a step of
    `level` standard errors."""
    sigma = np.median(np.abs(np.diff(row))) * 1.4826 / np.sqrt(2)
    model = ruptures.KernelCPD(kernel="linear", min_size=3).fit(row[:, None])
    return [int(point) for point in model.predict(pen=float((level * sigma) ** 2))][:-1]


@pytest.mark.parametrize("size", [2.5, 4.0, 8.0])
def test_the_same_steps(size: float) -> None:
    levels = Levels.of(100)
    values = noise(30, 200, seed=5)
    values[:15, 60:] += size * SPREAD
    values[:10, 140:] += size * SPREAD
    mine: dict[int, list[int]] = {row: [] for row in range(30)}
    for shift in shifts(values, levels, 0.005):
        mine[shift.series].append(shift.onset)
    theirs = {row: breaks(values[row], levels.steps) for row in range(30)}
    assert [len(theirs[row]) for row in range(30)] == [2] * 10 + [1] * 5 + [0] * 15
    assert [len(mine[row]) for row in range(30)] == [2] * 10 + [1] * 5 + [0] * 15
    away = [abs(a - b) for row in range(15) for a, b in zip(mine[row], theirs[row], strict=True)]
    assert np.mean([one <= 2 for one in away]) >= 0.9
