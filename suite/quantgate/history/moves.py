"""Find what moved in a history: steps of series that repeat to the last digit, shifts of noisy ones. Pure.

Quality is computed, not timed: in one environment it repeats to the last digit, so any step is exact, and its cause is
what differs between two environments. Ratios, peaks and timings vary; `quantgate.history.noisy` judges them. Both
compare values of one class of machine and of equal conditions only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quantgate.config.tolerances import REPRODUCTION
from quantgate.history.levels import Levels
from quantgate.history.noisy import WARM, Shift, packed, shifts
from quantgate.history.series import ABSENT, History, Series
from quantgate.judge.anchor import ANCHOR
from quantgate.judge.environment import changed_environment
from quantgate.measure.groups import group_name, metric_groups

Direction = Literal["worse", "better", "unequal"]
"""unequal: too small to matter, but nothing recorded explains it: the computation does not repeat itself."""

EXACT = ("paired", "exact", "")
"""Kinds of metrics that repeat to the last digit. Empty: a reproduction, which has none."""
VISIBLE = 0.05
"""Share of the tolerance from which an exact step is a move. Smaller ones add up until they are one. A reproduction has
no better and worse: there it is the whole tolerance."""
MINIMUM = 0.005
"""Least relative step of a noisy series."""


@dataclass
class Move:
    """One series that moved. Runs are indices of `History.runs`.

    run: the first on the new level, between `first` and `last` for all that is known. since: the run on the old level
    whose environment is compared. seen: the run that showed it. before, after: values or levels. change: relative, or
    in the metric's unit where the series is not `relative`. cause: what differs in the environment, a line each. gated:
    whether the metric has a tolerance. back: the run at which the level was back, within half of the step; None: it is
    not.
    """

    series: Series
    direction: Direction
    run: int
    first: int
    last: int
    since: int
    seen: int
    before: float
    after: float
    cause: tuple[str, ...]
    gated: bool
    exact: bool
    back: int | None = None
    back_cause: tuple[str, ...] = ()

    @property
    def change(self) -> float:
        """The size of the step, in the terms of the series."""
        step = self.after - self.before
        return step / abs(self.before) if self.series.relative and self.before else step


def moves(history: History) -> list[Move]:
    """Return all moves, by the run that showed them."""
    classes = _classes(history)
    # The loss since the anchor moves with the value, whose move is enough.
    valued = [one for one in history.series if not one.metric.endswith(ANCHOR)]
    exact = [m for series in valued if series.kind in EXACT for m in _exact(history, series, classes)]
    order = {id(series): number for number, series in enumerate(history.series)}
    every = exact + _noisy(history, classes)
    return sorted(every, key=lambda move: (move.seen, not move.exact, order[id(move.series)]))


def _classes(history: History) -> list[NDArray[np.intp]]:
    """Return the runs of each class of machine."""
    names = [run.machine_class for run in history.runs]
    return [np.flatnonzero([name == one for name in names]) for one in dict.fromkeys(names)]


def _exact(history: History, series: Series, classes: Sequence[NDArray[np.intp]]) -> Iterator[Move]:
    for runs in classes:
        kept = runs[~np.isnan(series.value[runs])]
        values, conditions = series.value[kept], series.conditions[kept]
        if len(kept) < 2 or (values == values[0]).all():
            continue
        cuts = [0, *(np.flatnonzero(conditions[1:] != conditions[:-1]) + 1).tolist(), len(kept)]
        for begin, end in pairwise(cuts):
            yield from _steps(history, series, kept[begin:end])


def _steps(history: History, series: Series, runs: NDArray[np.intp]) -> Iterator[Move]:
    """Yield the exact steps of one series on one class of machine. `level` is the value that the next one is held
    against: it changes with each move, so that small steps add up."""
    away: list[Move] = []  # the level of each is not back
    unequal = False
    level_run = runs[0]
    for before, now in pairwise(runs.tolist()):
        value, level = float(series.value[now]), float(series.value[level_run])
        if value == series.value[before]:
            continue
        back = next((number for number, move in enumerate(away) if _is_back(move, now, value)), None)
        if back is not None:
            for move in away[back:]:  # the later ones, too, were on the way
                move.back, move.back_cause = int(now), _cause(history, series, before, now)
                yield move
            away, level_run = away[:back], now
            continue
        visible = _visible(series, now, level)
        alone = abs(value - float(series.value[before])) > visible
        since = int(before if alone else level_run)
        if abs(value - level) > visible:
            worse = (value > level) == (series.better == "lower")
            direction: Direction = "worse" if worse else "better"
            away.append(_move(history, series, direction, (since, before, now), level, value))
            level_run = now
        elif not unequal and _repeats(series.metric) and not _cause(history, series, before, now):
            unequal = True  # reported once: it does not repeat itself, and will not tomorrow
            yield _move(history, series, "unequal", (before, before, now), float(series.value[before]), value)
    yield from away


def _repeats(metric: str) -> bool:
    """Return whether a metric of this name should be equal when the same machine measures twice: not where its group
    declares otherwise."""
    group = metric_groups().get(group_name(metric))
    return group is None or metric not in group.metrics or group.metrics[metric].repeats


def _is_back(move: Move, run: int, value: float) -> bool:
    """Return whether the level before a move is back: within half of the step and, where the metric has a tolerance,
    within that, since of a step of many tolerances half is still a loss."""
    rest = abs(value - move.before)
    within = not np.isfinite(move.series.tolerance[run]) or rest <= _limit(move.series, run, move.before)
    return within and rest <= abs(move.after - move.before) / 2


def _visible(series: Series, run: int, level: float) -> float:
    """Return the least step that is a move, in the metric's unit."""
    share = 1.0 if series.metric.endswith(REPRODUCTION) else VISIBLE
    return share * _limit(series, run, level)


def _limit(series: Series, run: int, level: float) -> float:
    """Return the tolerance of a run around a level, in the metric's unit; 0 where there is none."""
    return float(np.nan_to_num(series.tolerance[run])) * (abs(level) if series.relative else 1.0)


def _move(
    history: History,
    series: Series,
    direction: Direction,
    runs: tuple[int, int, int],
    level: float,
    value: float,
) -> Move:
    since, before, now = map(int, runs)
    cause = _cause(history, series, since, now)
    gated = bool(np.isfinite(series.tolerance[now]))
    return Move(series, direction, now, before + 1, now, since, now, level, value, cause, gated, exact=True)


def _cause(history: History, series: Series, before: int, now: int) -> tuple[str, ...]:
    """Return what differs between the environments and the weights of two points."""
    lines = []
    if series.environment[before] != series.environment[now]:
        old, new = (history.environment_of(series, int(run)) for run in (before, now))
        lines = changed_environment(dict(old), dict(new))
    pair = series.weights[before], series.weights[now]
    if pair[0] != pair[1] and ABSENT not in pair:
        lines.append("weights {} -> {}".format(*(history.hashes[code] for code in pair)))
    return tuple(lines)


def _noisy(history: History, classes: Sequence[NDArray[np.intp]]) -> list[Move]:
    """Return the shifts of noisy series that have a tolerance, by class of machine and conditions."""
    rows: list[tuple[Series, NDArray[np.intp], NDArray[np.float64]]] = []
    for series in history.series:
        if series.kind in EXACT or not np.isfinite(series.tolerance).any():
            continue
        for runs in classes:
            kept = runs[series.value[runs] > 0]  # in logarithms, where a step is relative
            for one in dict.fromkeys(series.conditions[kept].tolist()):
                chosen = kept[series.conditions[kept] == one]
                rows.append((series, chosen, np.log(series.value[chosen])))
    judged = sum(len(values) > WARM for *_, values in rows)
    steps = shifts(packed([values for *_, values in rows]), Levels.of(_rounded(judged)), MINIMUM)
    return [_shifted(history, *rows[shift.series][:2], shift) for shift in steps]


def _rounded(count: int) -> int:
    """Return the next of 10, 30, 100, 300 ...: a further cell changes no level, and so nothing that was seen before."""
    power, factor = 1, 1
    while factor * 10**power < count:
        power, factor = (power, 3) if factor == 1 else (power + 1, 1)
    return int(factor * 10**power)


def _shifted(history: History, series: Series, runs: NDArray[np.intp], shift: Shift) -> Move:
    worse = (shift.after > shift.before) == (series.better == "lower")
    onset = int(runs[shift.onset])
    before = int(runs[max(shift.first - 1, 0)])
    after = int(runs[min(shift.last, len(runs) - 1)])
    return Move(
        series,
        "worse" if worse else "better",
        onset,
        before + 1,
        after,
        before,
        int(runs[shift.seen]),
        float(np.exp(shift.before)),
        float(np.exp(shift.after)),
        _cause(history, series, before, after),
        gated=True,
        exact=False,
        back=None if shift.back is None else int(runs[shift.back]),
    )
