"""Histories of made nights, for tests: `write(folder, plan)`. Quick enough for a thousand cells over a year.

Quality metrics repeat to the last digit in one environment; ratios and peaks vary by 1 % from night to night. Of one
plan the same files are made each time.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydantic_core
from quantgate.files import hash_of
from quantgate.history.record import Header, Point
from quantgate.records import Scalar

BEGIN = datetime(2026, 1, 1, 2, 30, tzinfo=UTC)
MACHINE: dict[str, Scalar] = {
    "cpu": "AMD EPYC 7763",
    "isa": "avx2",
    "cores": 4,
    "os": "Linux x86_64",
    "threads": 4,
}
ENVIRONMENT: dict[str, Scalar] = MACHINE | {
    "python": "3.11.7",
    "torch": "2.13.0+cpu",
    "transformers": "5.23.0",
    "llama-cpp-python": "0.3.36",
    "build of torch": "a433144a2eac",
    "kernels": "AVX2",
    "quantgate code": "6fa2be8512f5",
}


class Kind(NamedTuple):
    """What a metric is made like: its level, its standard deviation from night to night (a share of the level)."""

    metric: str
    kind: str
    unit: str
    better: str
    level: float
    tolerance: float
    spread: float = 0.0


KINDS = (
    Kind("perplexity", "paired", "", "lower", 21.6, 0.025),
    Kind("divergence/kl_mean", "paired", "nats", "lower", 0.0615, 0.02),
    Kind("accuracy/mean/acc", "paired", "fraction", "higher", 0.45, 0.1),
    Kind("memory/weight_bytes", "exact", "bytes", "lower", 103_668_480, 0.0),
    Kind("memory/peak_resident", "level", "bytes", "lower", 196_112_384, 0.15, 0.01),
    Kind("throughput/decode_ratio", "ratio", "x", "higher", 1.08, 0.6, 0.01),
)


def kinds(count: int) -> list[Kind]:
    """`count` metrics: those of `KINDS`, then further ones of the same kinds."""
    return [
        kind if n < len(KINDS) else kind._replace(metric=f"{kind.metric}/{n}")
        for n, kind in ((n, KINDS[n % len(KINDS)]) for n in range(count))
    ]


Change = Callable[[str, str, int], float]
"""(cell, metric, night) -> factor of the value: 1.0 changes nothing. The factor may be NaN: not measured."""


@dataclass
class Plan:
    """A history to make. missing: nights without a run. machines, environments: what differs from `MACHINE` and
    `ENVIRONMENT` from a night on, by night. change: see `Change`. accepted: from a night on, by night, the factor of
    all baselines, whose anchors stay the first ones."""

    nights: int = 30
    cells: Sequence[str] = ("m/transformers/fp32", "m/llamacpp/Q4_K_M", "m/llamacpp/Q4_0")
    metrics: Sequence[Kind] = KINDS
    tier: str = "nightly"
    seed: int = 0
    missing: frozenset[int] = frozenset()
    machines: Mapping[int, Mapping[str, Scalar]] = field(default_factory=dict)
    environments: Mapping[int, Mapping[str, Scalar]] = field(default_factory=dict)
    change: Change | None = None
    accepted: Mapping[int, float] = field(default_factory=dict)


def cells(count: int) -> list[str]:
    """`count` cells of several models and backends."""
    backends = ("llamacpp/Q4_K_M", "llamacpp/Q4_0", "bitsandbytes/nf4", "transformers/fp32")
    return [f"model-{n // 4}/{backends[n % 4]}" for n in range(count)]


def run_id(plan: Plan, night: int) -> str:
    """The id of a night's run."""
    return f"{zlib.crc32(f'{plan.seed} {night}'.encode()):08x}{night:04x}"


def write(folder: Path, plan: Plan) -> list[Path]:
    """Write a file for each night, as a run with --history would, and return them."""
    machine, environment = dict(MACHINE), dict(ENVIRONMENT)
    series = [(cell, kind) for cell in plan.cells for kind in plan.metrics]
    levels = np.array([kind.level * (1 + 0.1 * (zlib.crc32(cell.encode()) % 10)) for cell, kind in series])
    spreads = np.array([kind.spread for _, kind in series])
    random = np.random.default_rng(plan.seed)
    baselines, paths = levels, []
    for night in range(plan.nights):
        baselines = baselines * plan.accepted.get(night, 1.0)
        machine |= plan.machines.get(night, {})
        environment |= {**machine, **plan.environments.get(night, {})}
        values = levels * (1 + spreads * random.standard_normal(len(series)))
        if plan.change is not None:
            values *= [plan.change(cell, kind.metric, night) for cell, kind in series]
        if night in plan.missing:
            continue
        name = hash_of(environment)[:12]
        judged = list(zip(series, values, baselines, strict=True))
        if any(first <= night for first in plan.accepted):
            judged += [
                ((cell, kind._replace(metric=f"{kind.metric}/anchor")), value, level)
                for (cell, kind), value, level in zip(series, values, levels, strict=True)
                if kind.kind == "paired"
            ]
        lines = [_line(c, k, v, b, name) for (c, k), v, b in judged]
        header = Header(
            run=run_id(plan, night),
            time=BEGIN + timedelta(days=night),
            commit=f"{night:07x}",
            tier=plan.tier,
            version="0.1.0",
            exit_status="0",
            machine=machine,
            points=len(lines),
            environment=environment,
            environments={name: {}},
        )
        path = folder / header.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pydantic_core.to_json(header, by_alias=True).decode() + "\n" + "".join(lines))
        paths.append(path)
    return paths


def _line(cell: str, kind: Kind, value: float, baseline: float, environment: str) -> str:
    """A line of a file; `test_record` holds it against `Point`. Written out, as a year has millions."""
    failed = math.isnan(value)
    change = value / baseline - 1
    end = (
        f',"verdict":"error","conditions":"{zlib.crc32(kind.metric.encode()):012x}"}}\n'
        if failed
        else f',"value":{float(value)!r},"stderr":{0.1 * kind.level:.6g},"n":64,"verdict":"pass","baseline":'
        f'{float(baseline)!r},"change":{change:.6g},"low":{change - 0.01:.6g},"high":{change + 0.01:.6g},"tolerance":'
        f'{kind.tolerance},"conditions":"{zlib.crc32(kind.metric.encode()):012x}","environment":"{environment}",'
        '"weights":"cd2aff47c95c"}\n'
    )
    return (
        f'{{"cell":"{cell}","metric":"{kind.metric}","kind":"{kind.kind}","unit":"{kind.unit}",'
        f'"better":"{kind.better}"{end}'
    )


def points(path: Path) -> list[Point]:
    """The points of a file, validated."""
    return [Point.model_validate_json(line) for line in path.read_bytes().splitlines()[1:]]
