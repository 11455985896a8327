"""Turn the verdicts of one run into its file of the history, and read such a file. Pure.

A file is JSON lines: a header with what the run's points have in common, then one point for each cell and metric. A key
whose value is None is left out. No file is ever written twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC
from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import AwareDatetime, Field, ValidationError

from quantgate.errors import InputError
from quantgate.files import hash_of
from quantgate.records import Record, Scalar, Scalars, Status, Verdict
from quantgate.report import RunInfo

SCHEMA = 1
"""Version of the layout of a file; raised when a reader of the old one would misread the new one."""

VARYING = ("commit", "memory_gb")
"""Keys of an environment that change no number and vary from run to run: no part of its hash."""
PLACE = ("cpu", "isa", "cores", "cpu_quota", "os", "threads", "image", "name")
"""Keys that make the class of a machine."""
TEXTS = ("cell", "metric", "verdict", "kind", "unit", "better", "terms",
         "conditions", "environment", "weights")  # fmt: skip
"""Keys of a point that are texts."""
_VERDICTS = frozenset(map(str, Status))
DIGITS = 12
"""Hexadecimal digits of a hash in a file."""


class Header(Record):
    """The first line of a file.

    run: its id, of hexadecimal digits. time: when it ended, UTC. points: number of the lines that follow, by which a
    file that was cut is seen. machine: what makes the machine's class, see `PLACE`. environment: what the environments
    of all cells have in common. environments: the rest of each environment, by the hash that points name.
    """

    schema_: Annotated[int, Field(ge=1, le=SCHEMA, alias="schema")] = SCHEMA
    run: Annotated[str, Field(pattern="^[0-9a-f]{4,64}$")]
    time: AwareDatetime
    commit: Annotated[str, Field(pattern="^[0-9a-f]{0,64}$")] = ""
    tier: str
    version: str = ""
    exit_status: str = ""
    machine: Scalars = Field(default_factory=dict)
    points: int
    environment: dict[str, Scalar] = Field(default_factory=dict)
    environments: dict[str, dict[str, Scalar]] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """Path of the run's file below the folder: `2026/11/20261128T023011Z-1a2b3c4d5e6f-0123456789ab.jsonl`."""
        time = self.time.astimezone(UTC)
        return f"{time:%Y/%m/%Y%m%dT%H%M%SZ}-{self.commit[:DIGITS] or 'none'}-{self.run[:DIGITS]}.jsonl"

    @property
    def machine_class(self) -> str:
        """Hash of what makes the machine's class: only within one are noisy values compared."""
        return hash_of(self.machine)[:DIGITS]


class Point(Record):
    """One metric of one cell in one run: the other lines of a file.

    value: None where it could not be measured. n: number of samples. change, low, high: against the baseline, as the
    judge said it, in `terms`. conditions, environment, weights: hashes; points with another one may differ for that
    reason. The conditions are what has to be equal before two values may be compared.
    """

    cell: str
    metric: str
    kind: str | None = None
    unit: str | None = None
    better: Literal["lower", "higher"] | None = None
    value: float | None = None
    stderr: float | None = None
    n: int | None = None
    verdict: str
    baseline: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    terms: Literal["absolute"] | None = None
    """None: relative."""
    tolerance: float | None = None
    conditions: str | None = None
    environment: str | None = None
    weights: str | None = None


def to_lines(verdicts: Sequence[Verdict], info: RunInfo) -> tuple[Header, bytes]:
    """Return the header of a run's file, and the whole file. Raises InputError for a run with what is no header, such
    as no time."""
    hashes = {cell: _environment(info, cell) for cell in dict.fromkeys(v.cell for v in verdicts)}
    rests = {name: info.environments.get(cell, {}) for cell, name in hashes.items() if name}
    points = {(v.cell, v.metric): _point(v, hashes[v.cell]) for v in verdicts}
    body = b"".join(_line(point) for point in points.values())
    header = _header(
        {
            "run": info.run or hashlib.sha256(body).hexdigest()[:32],
            "time": info.created,
            "commit": info.commit,
            "tier": info.tier,
            "version": info.version,
            "exit_status": info.exit_status,
            "machine": info.place or {key: info.environment[key] for key in PLACE if key in info.environment},
            "points": len(points),
            "environment": info.environment,
            "environments": rests,
        },
        "the run's",
    )
    return header, _line(header) + body


def _environment(info: RunInfo, cell: str) -> str | None:
    """Return the hash of a cell's environment; None: it was not measured."""
    whole = {**info.environment, **info.environments.get(cell, {})}
    facts = {key: value for key, value in whole.items() if key not in VARYING and value is not None}
    return hash_of(facts)[:DIGITS] if facts else None


def _point(verdict: Verdict, environment: str | None) -> Point:
    return Point(
        cell=verdict.cell,
        metric=verdict.metric,
        kind=verdict.kind,
        unit=verdict.unit or None,
        better=verdict.better,
        value=verdict.measured,
        stderr=_short(verdict.stderr),
        n=verdict.samples,
        verdict=verdict.status,
        baseline=verdict.baseline,
        change=_short(verdict.change),
        low=_short(verdict.change_low),
        high=_short(verdict.change_high),
        terms="absolute" if verdict.change_unit == "absolute" else None,
        tolerance=_short(verdict.tolerance),
        conditions=verdict.conditions[:DIGITS] or None,
        environment=environment if verdict.measured is not None else None,
        weights=verdict.weights[:DIGITS] or None,
    )


def _short(number: float | None) -> float | None:
    """Round to six digits, more than an uncertainty or a change justifies. Values stay as they are."""
    return None if number is None else float(f"{number:.6g}")


def _line(record: Record) -> bytes:
    return pydantic_core.to_json(record, by_alias=True, exclude_none=True) + b"\n"


def read_header(line: bytes) -> Header:
    """Return the header of a file. Raises InputError saying what is wrong with it."""
    try:
        raw = pydantic_core.from_json(line)
    except ValueError:
        raise InputError("line 1 is not JSON") from None
    if isinstance(raw, dict) and isinstance(raw.get("schema"), int) and raw["schema"] > SCHEMA:
        raise InputError(f"has schema {raw['schema']}, this quantgate reads {SCHEMA}: use a newer one")
    return _header(raw, "line 1,")


def _header(raw: Any, place: str) -> Header:
    try:
        return Header.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "header"
        raise InputError(f"{place} {key}: {first['msg']}") from None


def split_points(content: bytes, count: int) -> list[bytes]:
    """Return the lines of a file that follow its header. Raises InputError where they are not `count`."""
    _, *lines = content.split(b"\n")
    if not lines or lines.pop() != b"" or len(lines) != count:
        raise InputError(f"has {len(lines):,} whole points, its header says {count:,}: it was cut")
    return lines


def parse_points(lines: Sequence[bytes], content: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return points as tables with the keys of `Point`. Of each only the texts are checked, since a year has millions;
    its numbers are, where they become arrays.

    content: all lines after the header. Raises InputError naming what is damaged.
    """
    points: list[dict[str, Any]] = []
    for line in lines:
        try:
            point = pydantic_core.from_json(line)
        except ValueError:
            raise InputError(f"line {_line_of(line, content)} is not JSON") from None
        if not isinstance(point, dict) or not {"cell", "metric", "verdict"} <= point.keys():
            raise InputError(
                f"line {_line_of(line, content)} is not a point: it needs cell, metric and verdict"
            )
        if wrong := next((key for key in TEXTS if not isinstance(point.get(key, ""), str)), None):
            raise InputError(f"line {_line_of(line, content)}, {wrong}: {point[wrong]!r} is not text")
        if point["verdict"] not in _VERDICTS:
            raise InputError(
                f"line {_line_of(line, content)}: has the verdict {point['verdict']!r}, "
                "which this quantgate does not have: use a newer one"
            )
        points.append(point)
    return points


def _line_of(line: bytes, content: Sequence[bytes]) -> int:
    return list(content).index(line) + 2
