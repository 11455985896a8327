"""Read a history: every metric of every cell as a series over the runs.

Time and memory are linear in the number of points: about 50 bytes each. A file that is damaged is left out and named in
`History.problems`; the others are read.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantgate.errors import InputError
from quantgate.history.record import Header, parse_points, read_header, split_points
from quantgate.records import Scalar, Status

STATUSES = tuple(Status)
"""What the codes of `Series.status` stand for."""
FILES = "[0-9][0-9][0-9][0-9]/[0-9][0-9]/*.jsonl"
"""Where the files of runs lie below the folder of a history."""
ABSENT = -1
"""Code of a point that a run has not."""

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Codes = NDArray[np.int32]

_SINGLES = ("baseline", "change", "low", "high", "tolerance")
_NUMBERS = ("value", *_SINGLES)
_CODES = ("conditions", "environment", "weights")


@dataclass(frozen=True)
class Run:
    """One run. `machine_class`: hash of what makes the class of its machine, `machine`."""

    id: str
    time: datetime
    commit: str
    tier: str
    machine_class: str
    machine: Mapping[str, Scalar]
    path: Path


@dataclass(frozen=True, eq=False)
class Series:
    """One metric of one cell over all runs of the history, one element per run; NaN, or `ABSENT`, where there is none.

    value: what was measured. baseline, change, low, high, tolerance: as the judge said it in that run; change, low,
    high and tolerance are relative (0.01 = 1 %) where `relative`, else in `unit`. status: index in `STATUSES`.
    conditions, environment, weights: index in `History.hashes`.
    """

    tier: str
    cell: str
    metric: str
    kind: str
    better: str
    unit: str
    relative: bool
    value: Floats
    baseline: Singles
    change: Singles
    low: Singles
    high: Singles
    tolerance: Singles
    status: NDArray[np.int8]
    conditions: Codes
    environment: Codes
    weights: Codes


@dataclass(frozen=True, eq=False)
class History:
    """All that a folder holds. runs: by time. series: by tier, cell and metric, in the order in which they first come.
    hashes: what codes of series stand for. environments: in full, by hash. problems: a sentence for each file that
    could not be read."""

    runs: Sequence[Run]
    series: Sequence[Series]
    hashes: Sequence[str]
    environments: Mapping[str, Mapping[str, Scalar]]
    problems: Sequence[str]

    @cached_property
    def tiers(self) -> Mapping[str, NDArray[np.intp]]:
        """By tier, the indices of its runs."""
        names = [run.tier for run in self.runs]
        return {tier: np.flatnonzero([name == tier for name in names]) for tier in dict.fromkeys(names)}

    def environment_of(self, series: Series, run: int) -> Mapping[str, Scalar]:
        """Return the environment of a point in full; empty where it was not measured."""
        code = int(series.environment[run])
        return {} if code == ABSENT else self.environments.get(self.hashes[code], {})


def read(folder: Path, *, tier: str | None = None, newest: int | None = None) -> History:
    """Read a history. tier: the runs of that tier alone. newest: so many runs alone, the last ones.

    Raises InputError where nothing can be read though something is there: files that are all damaged, runs of other
    tiers, histories in folders below.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a run with --history {folder} makes it")
    table = _Table()
    heads: list[tuple[Header, Path]] = []
    tiers: set[str] = set()
    for path in sorted(folder.glob(FILES), key=lambda path: path.name):
        with table.leaving_out(path):
            with path.open("rb") as file:
                header = read_header(file.readline())
            tiers.add(header.tier)
            if tier in (None, header.tier):
                heads.append((header, path))
    if tiers and not heads:
        raise InputError(f"{folder}: has no run of tier {tier!r}; its runs are of {', '.join(sorted(tiers))}")
    heads.sort(key=lambda head: (head[0].time, head[1].name))
    table.heads = heads[-newest:] if newest else heads
    table.fill()
    history = table.history()
    if not history.runs:
        if history.problems:
            raise InputError("\n".join([*history.problems, f"{folder}: none of its files can be read"]))
        if below := sorted({path.parents[2].name for path in folder.glob(f"*/{FILES}")}):
            raise InputError(
                f"{folder}: has no runs, but {', '.join(below)} in it has: name one of these folders"
            )
    return history


@dataclass(eq=False)
class _Table:
    """Arrays of series by runs that grow as files are read: one row for each series. Full arrays grow by a quarter.

    Most lines of a file are those of the night before, since quality repeats to the last digit: such a line is not
    parsed again, its numbers are copied from the run that `seen` names.
    """

    heads: list[tuple[Header, Path]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rows: dict[tuple[str, str, str], int] = field(default_factory=dict)
    facts: list[_Facts] = field(default_factory=list)
    seen: dict[tuple[str, bytes], tuple[int, int]] = field(default_factory=dict)
    """By tier and line: row and column."""
    codes: dict[str, int] = field(default_factory=dict)
    environments: dict[str, Mapping[str, Scalar]] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def fill(self) -> None:
        """Read the files, one column each. One that is damaged, or has a run once more, leaves none."""
        read: list[tuple[Header, Path]] = []
        files: dict[str, Path] = {}
        for header, path in self.heads:
            with self.leaving_out(path):
                if first := files.get(header.run):
                    raise InputError(f"repeats the run of {first.name}")
                self._add(len(read), header, split_points(path.read_bytes(), header.points))
                read.append((header, path))
                files[header.run] = path
        self.heads = read

    @contextmanager
    def leaving_out(self, path: Path) -> Iterator[None]:
        """Name a file that cannot be read; the others are."""
        try:
            yield
        except (OSError, InputError) as error:
            self.problems.append(f"{path}: {getattr(error, 'strerror', None) or error}; it was left out")

    def _add(self, column: int, header: Header, lines: list[bytes]) -> None:
        seen, tier = self.seen, header.tier
        places = [seen.get((tier, line)) for line in lines]
        fresh = [line for line, place in zip(lines, places, strict=True) if place is None]
        points = parse_points(fresh, lines)
        try:
            numbers = [[point.get(key) for key in _NUMBERS] for point in points]
            values = np.array(numbers, dtype=np.float64).reshape(-1, len(_NUMBERS))
            if np.isinf(values).any():
                raise ValueError("a number that is not finite")
            status = [_STATUS[point["verdict"]] for point in points]
            codes = {key: [self._code(point.get(key)) for point in points] for key in _CODES}
            rows = self.rows
            index = [rows.setdefault((tier, point["cell"], point["metric"]), len(rows)) for point in points]
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"has a damaged point: {error}") from None
        self._describe(index, points)
        for name, rest in header.environments.items():
            self.environments.setdefault(name, ChainMap(rest, header.environment))
        self._grow(len(rows))
        self._copy(column, [place for place in places if place is not None])
        where = np.array(index, dtype=np.intp)
        for number, key in enumerate(_NUMBERS):
            self.arrays[key][where, column] = values[:, number]
        for key, column_codes in {"status": status, **codes}.items():
            self.arrays[key][where, column] = column_codes
        if len(seen) > REMEMBERED:
            seen.clear()
        seen.update(((tier, line), (row, column)) for line, row in zip(fresh, index, strict=True))

    def _copy(self, column: int, places: list[tuple[int, int]]) -> None:
        """Copy the points at `places` (row, column) into `column`."""
        if places:
            rows, columns = np.array(places, dtype=np.intp).T
            for array in self.arrays.values():
                array[rows, column] = array[rows, columns]

    def _describe(self, index: list[int], points: list[dict[str, Any]]) -> None:
        """Keep kind, better, unit and terms of each series, of the first points that have them."""
        self.facts += [_Facts() for _ in range(len(self.rows) - len(self.facts))]
        for row, point in zip(index, points, strict=True):
            if not (facts := self.facts[row]).complete:
                facts.take(point)

    def _code(self, text: str | None) -> int:
        return ABSENT if text is None else self.codes.setdefault(text, len(self.codes))

    def _grow(self, count: int) -> None:
        """Make room for `count` series."""
        have = self.arrays["value"].shape[0] if self.arrays else 0
        if count <= have:
            return
        shape = (max(count, have + have // 4), len(self.heads))
        for key, (kind, empty) in _LAYOUT.items():
            grown = np.full(shape, empty, dtype=kind)
            if have:
                grown[:have] = self.arrays[key]
            self.arrays[key] = grown

    def history(self) -> History:
        """Return what was read."""
        runs = [
            Run(h.run, h.time, h.commit, h.tier, h.machine_class, h.machine, path) for h, path in self.heads
        ]
        return History(
            runs, list(self._series(len(runs))), list(self.codes), self.environments, self.problems
        )

    def _series(self, count: int) -> Iterator[Series]:
        for (tier, cell, metric), row in self.rows.items():
            facts = self.facts[row]
            columns = {key: array[row, :count] for key, array in self.arrays.items()}
            yield Series(tier, cell, metric, facts.kind, facts.better, facts.unit, facts.relative, **columns)


@dataclass
class _Facts:
    """What the points of a series have in common. compared: whether one of them was held against a baseline; until
    then a tolerance alone, that of a gate without a baseline, says what the terms are."""

    kind: str = ""
    better: str = "lower"
    unit: str = ""
    relative: bool = True
    compared: bool = False

    @property
    def complete(self) -> bool:
        return bool(self.kind) and self.compared

    def take(self, point: Mapping[str, Any]) -> None:
        """Take what a point says."""
        self.kind, self.unit = point.get("kind", self.kind), point.get("unit", self.unit)
        self.better = point.get("better", self.better)
        compared = "change" in point
        if compared or ("tolerance" in point and not self.compared):
            self.relative, self.compared = point.get("terms") != "absolute", compared


REMEMBERED = 100_000
"""So many lines are remembered at most."""
_STATUS = {str(status): code for code, status in enumerate(STATUSES)}
_LAYOUT: dict[str, tuple[Any, float]] = {
    "value": (np.float64, np.nan),
    **dict.fromkeys(_SINGLES, (np.float32, np.nan)),
    "status": (np.int8, ABSENT),
    **dict.fromkeys(_CODES, (np.int32, ABSENT)),
}
