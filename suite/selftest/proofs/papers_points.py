"""Points of an invented k-bit grid with known findings, and records that hold them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from quantgate.config.matrix import Cell
from quantgate.proofs.papers.expected import (
    load_entries,
)
from quantgate.proofs.papers.kbit_findings import (
    FEW,
    MANY,
    TYPES,
)
from quantgate.proofs.papers.section import Finding
from quantgate.proofs.papers.statistics import (
    TASK,
    Point,
)
from quantgate.records import Measurement, Metric

MODELS = {"a": 1e6, "b": 4e6, "c": 16e6}
REQUESTS = load_entries()["kbit"].requests


SIZES = np.full(32, 128.0)


def point(model: str, bits: float, loss: float, **options: Any) -> Point:
    noise = np.random.default_rng(int(loss * 1e9) % 2**32).normal(0, 0.0005, 32)
    return Point(
        model=model,
        scheme="s",
        options={"device": "cpu", "dtype": "float32", "bits": bits, **options},
        bits=bits,
        total_bits=MODELS[model] * bits,
        losses=loss + noise - noise.mean(),
        sizes=SIZES,
        divergences=np.full(32, 0.5 * (loss - base(model))) + noise,
        hits=np.full(8, 0.9 - 0.1 * loss),
    )


def base(model: str) -> float:
    return 8 - math.log2(MODELS[model]) / 5


def cost(bits: int, block: int, data_type: str) -> float:
    """What a scheme loses: half with each bit; blocks matter below 6 bits; int is the worst."""
    worse = {"int": 1.4, "float": 1.2, "dynamic": 1.3, "quantile": 1.0}[data_type]
    blocks = np.log2(block / 64) * (0.04 if bits in FEW else 0.0)
    return float(worse * (2.0 ** (3 - bits)) * 0.2 * (1 + blocks))


def grid() -> list[Point]:
    return [
        point(m, b, base(m) + cost(b, block, t), data_type=t, block=block)
        for m in MODELS
        for t in TYPES
        for block in (64, 128, 256, 1024)
        for b in (*FEW, *MANY)
    ] + [point(m, 16, base(m)) for m in MODELS]


def finding(state: Any = "holds", key: str = "one") -> Finding:
    return Finding(key, "It falls", "it falls", 0.5, 0.25, 0.75, "nats", state, "of two")


def record(cell: Cell, result: Point) -> Measurement:
    def metric(value: float, **more: Any) -> Metric:
        return Metric(kind="paired", value=value, unit="", better="lower", **more)

    samples = {"weights": result.sizes.tolist()}
    metrics = {
        "perplexity": metric(math.exp(result.loss), samples=result.losses.tolist(), **samples),
        TASK: metric(result.accuracy, samples=result.hits.tolist()),
        "memory/weight_bytes": metric(result.total_bits / 8),
    }
    if result.divergences is not None:
        metrics["divergence/kl_mean"] = metric(0.0, samples=result.divergences.tolist(), **samples)
    return Measurement(
        cell=cell.id,
        tier="papers",
        fingerprint="x",
        created="now",
        requests=REQUESTS,
        metrics=metrics,
        complete=True,
    )
