"""Scales, ticks and places of labels of a chart. Pure; a template draws what these functions return."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LETTER, LINE = 7.0, 12.0
"""Width of a letter and height of a line of a label, in units of the drawing."""
GAP = 7.0
"""Between the middle of a point and its label."""
TICKS = 5


@dataclass(frozen=True)
class Scale:
    """Maps values onto pixels. low, high: the ends of the axis as values; begin, end: as pixels."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; one beyond an end is drawn at that end."""
        low, high, at = (self._of(v) for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.begin + (self.end - self.begin) * min(max(share, 0.0), 1.0), 1)

    def _of(self, value: float) -> float:
        return math.log10(max(value, self.low, 1e-300)) if self.log else value

    @property
    def ticks(self) -> list[float]:
        """Round values along the axis: four to eight of them where there is room."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def linear_ticks(low: float, high: float) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten between two values, about `TICKS` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten between two positive values, and their multiples where these are few."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        ticks = [float(f"{f * 10.0**e:.12g}") for e in exponents for f in factors]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) >= 3:
            return ticks
    return linear_ticks(low, high)


def around(values: Iterable[float], *, log: bool = False, share: float = 0.06) -> tuple[float, float]:
    """Return ends of an axis that leave some room around the values."""
    numbers = list(values)
    low, high = min(numbers), max(numbers)
    if log:
        room = max((high / low) ** share, 1.08)
        return low / room, high * room
    room = (high - low) * share or abs(high) * 0.1 or 1.0
    return low - room, high + room


@dataclass(frozen=True)
class Label:
    """A text beside a point. anchor: `start`, `middle` or `end`, as SVG has it."""

    x: float
    y: float
    anchor: str
    text: str


def place_labels(
    wanted: Sequence[tuple[float, float, str]],
    points: Sequence[tuple[float, float]],
    width: float,
    bottom: float = math.inf,
    left: float = 0.0,
) -> list[Label]:
    """Return the labels that can be placed beside their points (x, y, text) without covering a point or another label;
    the first ones come first."""
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    placed = []
    for x, y, text in wanted:
        long = LETTER * len(text)
        for anchor, dx, dy in (("start", GAP, 4), ("end", -GAP, 4), ("middle", 0, -GAP - 1), ("middle", 0, GAP + 9),
                               ("start", 5, -7), ("end", -5, -7), ("start", 5, 14), ("end", -5, 14)):  # fmt: skip
            begin = x + dx - {"start": 0, "end": long, "middle": long / 2}[anchor]
            box = (begin, y + dy - LINE + 3, begin + long, y + dy + 2)
            inside = box[0] >= left and box[2] <= width and box[1] >= 0 and box[3] <= bottom
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                placed.append(Label(round(x + dx, 1), round(y + dy, 1), anchor, text))
                break
    return placed


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
