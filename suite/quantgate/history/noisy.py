"""Find steps and ramps in series that vary from night to night: ratios, peaks, timings of a named machine. Pure.

The nights are taken one by one, as they came. What is seen in a night depends on the nights up to it alone, so another
night, a year later or in a test, changes nothing of what was seen before: an event keeps its identity.

Two detectors judge each night the segment since the last step, both at a level that is calibrated by simulation
(`quantgate.history.levels`):

  steps  The largest difference between the mean of the last 3, 4, 5 ... nights and that of those before them, in
         standard errors: binary segmentation (Scott and Knott, Biometrics 30 (1974) 507-512), night by night.
  ramps  The cumulative sum of Page (Biometrika 41 (1954) 100-115) against the level of the segment's first nights. That
         level stays; a rolling one would move along.

The standard deviation comes from differences of nights that are a few apart, which a step moves by a few; the
correlation of neighbours, from how much smaller the differences of neighbours are. Values beyond `CLIP` standard
deviations count as that, so a bad night or two are no step. A series that hardly varies, as a peak that repeats to the
byte, counts as one with a standard deviation of a third of the least step: else nothing of a step would be left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quantgate.history.levels import Levels

Floats = NDArray[np.float64]

WARM = 12
"""Nights that a series needs before anything is seen in it."""
HEAD = 10
"""The least nights before a step."""
TAIL = 3
"""The least nights after a step."""
REFERENCE = 60
"""Nights whose mean is the level that ramps are held against."""
SLACK = 0.5
"""What the cumulative sum forgives each night, in standard deviations."""
CLIP = 3.5
LAGS = (1, 3, 4, 5, 6)
"""Neighbours, and nights so far apart that their correlation is next to nothing."""
PRIOR, NIGHTS = 0.2, 30
"""A correlation of neighbours that counts as so many nights: few nights say little of it."""
RETURNED = 6.0
"""Logarithm of the odds at which a level counts as back."""
LENGTHS = np.array([3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 57, 68, 80,
                    96, 114, 136, 160, 190, 226, 270, 320])  # fmt: skip
"""Nights after a step that are tried each night."""


@dataclass
class Shift:
    """A level that moved. Positions count the values of the series.

    series: its row. onset: the first value on the new level, between `first` and `last` for all that is known. seen:
    the value at which it was seen. before, after: levels. back: where the level was back within half of the step; None:
    it stays.
    """

    series: int
    onset: int
    first: int
    last: int
    seen: int
    before: float
    after: float
    back: int | None = None


def shifts(values: Floats, levels: Levels, minimum: float) -> list[Shift]:
    """Return the shifts of all series by where they were seen.

    values: a row for each series, its values in their order; NaN after the last one. minimum: the least difference of
    two levels that counts, in the terms of the values.
    """
    if values.shape[1] <= WARM:
        return []
    scan = Scan(values, levels, minimum)
    for position in range(WARM, values.shape[1]):
        scan.take(position)
    return scan.shifts


@dataclass(eq=False)
class Scan:
    """The state of all series after some nights, a row each. size: the largest difference of the last night, in
    standard errors. up, down: the cumulative sums."""

    values: Floats
    levels: Levels
    minimum: float
    shifts: list[Shift] = field(default_factory=list)

    def __post_init__(self) -> None:
        values, count = self.values, len(self.values)
        head = values[:, :WARM]
        steps = {lag: np.abs(head[:, lag:] - head[:, :-lag]) for lag in LAGS}
        self.sums = {
            lag: np.minimum(step, 4 * np.median(step, axis=1, keepdims=True)).sum(axis=1)
            for lag, step in steps.items()
        }
        self.begin = np.zeros(count, dtype=np.intp)
        self.cumulated = np.zeros((count, values.shape[1] + 1))
        sigma, _ = self._sigmas(WARM)
        center = np.median(head, axis=1, keepdims=True)
        reach = CLIP * sigma[:, None]
        self.cumulated[:, 1 : WARM + 1] = np.cumsum(np.clip(head, center - reach, center + reach), axis=1)
        self.size, self.up, self.down = np.zeros(count), np.zeros(count), np.zeros(count)
        self.pending: dict[int, list[Shift]] = {}  # by row, those that are not back, in their order
        self.odds = np.zeros(count)  # that the last of them is back

    def _sigmas(self, count: int) -> tuple[Floats, Floats]:
        """Return the standard deviation of a value, and that of a mean times the root of its number (which neighbours
        that are correlated make larger), after `count` values."""
        near, *far = (self.sums[lag] / (count - lag) for lag in LAGS)
        apart = np.mean(far, axis=0)
        # The mean of |difference| of two normal values is 2 sigma sqrt((1 - rho) / pi), rho being their correlation.
        with np.errstate(divide="ignore", invalid="ignore"):
            measured = np.nan_to_num(1 - (near / apart) ** 2)
        rho = np.clip((count * measured + NIGHTS * PRIOR) / (count + NIGHTS), 0.0, 0.6)
        sigma = np.maximum(apart * np.sqrt(np.pi) / 2, self.minimum / TAIL)
        return sigma, sigma * np.sqrt((1 + rho) / (1 - rho))

    def take(self, position: int) -> None:
        """Judge the series after their value at `position`."""
        new = self.values[:, position]
        live = ~np.isnan(new)
        sigma, wide = self._sigmas(position)
        self._measure(position, new, live)
        cumulated, rows = self.cumulated, np.arange(len(new))
        length = position - self.begin
        at_begin = cumulated[rows, self.begin]
        center = (cumulated[:, position] - at_begin) / np.maximum(length, 1)
        center = np.where(length < TAIL, new, center)
        clipped = np.clip(new, center - CLIP * sigma, center + CLIP * sigma)
        cumulated[:, position + 1] = cumulated[:, position] + np.where(live, clipped, 0.0)
        self.size, difference = self._largest(position, length + 1, at_begin, wide)
        ramp = self._ramp(position, clipped, wide, live)
        step = (self.size > self.levels.step(position)) & (np.abs(difference) >= self.minimum)
        returned = {
            one for one in list(self.pending) if live[one] and self._is_back(one, position, float(sigma[one]))
        }
        for row in np.flatnonzero(live & (sigma > 0) & (step | ramp)).tolist():
            if row not in returned:
                self._see(row, position, float(wide[row]))

    def _measure(self, position: int, new: Floats, live: NDArray[np.bool_]) -> None:
        for lag in LAGS:
            step = np.abs(new - self.values[:, position - lag])
            limit = 4 * self.sums[lag] / (position - lag)
            self.sums[lag] += np.where(live, np.minimum(np.nan_to_num(step), limit), 0.0)

    def _largest(
        self, position: int, length: NDArray[np.intp], at_begin: Floats, wide: Floats
    ) -> tuple[Floats, Floats]:
        """Return the largest difference between last values and those before, in standard errors, and in the values'
        terms."""
        tails = LENGTHS[position + 1 - HEAD >= LENGTHS]
        ends = self.cumulated[:, position + 1, None]
        middles = self.cumulated[:, position + 1 - tails]
        heads = length[:, None] - tails[None, :]
        usable = heads >= HEAD
        heads = np.where(usable, heads, 1)
        difference = (ends - middles) / tails - (middles - at_begin[:, None]) / heads
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.abs(difference) / (wide[:, None] * np.sqrt(1 / tails + 1 / heads))
        size = np.where(usable, np.nan_to_num(size), 0.0)
        best = size.argmax(axis=1)
        rows = np.arange(len(best))
        return size[rows, best], difference[rows, best]

    def _ramp(
        self, position: int, clipped: Floats, wide: Floats, live: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Return where the cumulative sum is beyond its level, and the segment has moved by the minimum."""
        rows = np.arange(len(clipped))
        ready = live & (position - self.begin >= REFERENCE)
        edge = np.minimum(self.begin + REFERENCE, position)
        level = (self.cumulated[rows, edge] - self.cumulated[rows, self.begin]) / REFERENCE
        with np.errstate(divide="ignore", invalid="ignore"):
            away = np.where(ready, np.nan_to_num((clipped - level) / wide), 0.0)
        self.up = np.maximum(0.0, self.up + away - SLACK * ready)
        self.down = np.maximum(0.0, self.down - away - SLACK * ready)
        beyond = ready & (np.maximum(self.up, self.down) > self.levels.ramp(position))
        recent = (self.cumulated[:, position + 1] - self.cumulated[:, max(position + 1 - HEAD, 0)]) / HEAD
        return np.asarray(beyond & (np.abs(recent - level) >= self.minimum), dtype=np.bool_)

    def _see(self, row: int, position: int, wide: float) -> None:
        """Record a shift, and begin a new segment at its onset."""
        begin, end = int(self.begin[row]), position + 1
        splits = np.arange(begin + HEAD, end - TAIL + 1)
        total = self.cumulated[row, begin : end + 1] - self.cumulated[row, begin]
        heads, tails = splits - begin, end - splits
        difference = (total[-1] - total[heads]) / tails - total[heads] / heads
        score = (difference / wide) ** 2 / (1 / heads + 1 / tails)
        best = int(score.argmax())
        near = splits[score > score[best] - 6.0]  # half of it is the log likelihood: 95 % and some more
        onset = int(splits[best])
        raw = self.values[row, onset:end]
        after = float(np.median(raw))
        self._begin(row, onset, np.clip(raw, after - CLIP * wide, after + CLIP * wide))
        earlier = self.pending.setdefault(row, [])
        self.odds[row] = 0.0
        for number, one in enumerate(earlier):
            if 2 * abs(after - one.before) < abs(one.after - one.before):
                for back in earlier[number:]:  # the later ones, too, were on the way
                    back.back = position
                del earlier[number:]
                return
        before = float(total[heads[best]] / heads[best])
        shift = Shift(row, onset, int(near[0]), int(near[-1]), position, before, after)
        self.shifts.append(shift)
        earlier.append(shift)

    def _is_back(self, row: int, position: int, sigma: float) -> bool:
        """Return whether the level of before is back: by the logarithm of its odds against the new level, since the
        last night that spoke for the new one (Wald's sequential test). Then a new segment begins there."""
        if not self.pending[row]:
            return False
        shift = self.pending[row][-1]
        begin = int(self.begin[row])
        shift.after = float((self.cumulated[row, position] - self.cumulated[row, begin]) / (position - begin))
        away = (shift.after + shift.before) / 2 - float(self.values[row, position])
        gain = (shift.after - shift.before) * away / sigma**2 if sigma else 0.0
        # Not in fewer than `TAIL` nights.
        self.odds[row] = max(0.0, self.odds[row] + min(max(gain, -3.0), RETURNED / TAIL + 0.01))
        if self.odds[row] <= RETURNED:
            return False
        shift.back = position
        self.pending[row].pop()
        self.odds[row] = 0.0
        self._begin(row, position + 1 - TAIL, self.values[row, position + 1 - TAIL : position + 1])
        return True

    def _begin(self, row: int, onset: int, kept: Floats) -> None:
        """Begin a segment at `onset`, whose values are `kept`."""
        self.cumulated[row, onset + 1 : onset + 1 + len(kept)] = self.cumulated[row, onset] + np.cumsum(kept)
        self.begin[row], self.up[row], self.down[row] = onset, 0.0, 0.0


def packed(rows: Sequence[Floats]) -> Floats:
    """Return series of several lengths as rows of one array, NaN after their last values."""
    width = max(map(len, rows), default=0)
    array = np.full((len(rows), width), np.nan)
    for number, row in enumerate(rows):
        array[number, : len(row)] = row
    return array
