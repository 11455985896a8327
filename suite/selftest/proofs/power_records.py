"""Metrics, records and scenarios with known effects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from quantgate.config.tolerances import Tolerance, Tolerances
from quantgate.judge.compare import Rules
from quantgate.proofs.power import paired
from quantgate.proofs.power.study import Replay, Scenario
from quantgate.records import Measurement, Metric

CELL = "m/llamacpp/Q4_K_M"


def random(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def perplexity(values: Any, windows: int) -> Metric:
    samples = np.asarray(values, dtype=float).ravel()
    return Metric(
        kind="paired",
        value=math.exp(samples.mean()),
        unit="",
        better="lower",
        link="exp",
        samples=samples.tolist(),
        weights=[128.0] * len(samples),
        conditions={"windows": windows},
    )


def item_metric(values: list[float], unit: str = "fraction") -> Metric:
    value = float(np.mean(values))
    return Metric(kind="paired", value=value, unit=unit, better="higher", samples=values)


def answers(margins: list[float], right: list[float] | None = None) -> paired.Answers:
    acc = [float(m > 0) for m in margins] if right is None else right
    return paired.Answers("t", item_metric(acc), item_metric(margins, "nats"), np.zeros(3))


def exact(value: float) -> Metric:
    return Metric(kind="exact", value=value, unit="bytes", better="lower")


def timings(seconds: list[list[float]], name: str = "decode", tokens: int = 16) -> Measurement:
    """A cell's record of one kind of rounds, by process."""
    middle = float(np.median([np.median(process) for process in seconds]))
    metric = Metric(
        kind="rounds",
        value=tokens / middle,
        unit="tokens/s",
        better="higher",
        samples=[s for process in seconds for s in process],
        processes=[len(process) for process in seconds],
        raw={
            "tokens": tokens,
            "disturbances": [{"others": 0.0, "steal": 0.0, "load": i} for i in range(len(seconds))],
        },
    )
    return record({f"throughput/{name}": metric})


def record(metrics: Mapping[str, Metric], cell: str = CELL) -> Measurement:
    return Measurement(
        cell=cell, tier="smoke", fingerprint="f", created="now", metrics=dict(metrics), complete=True
    )


def rules(*tolerances: Tolerance, alpha: float = 0.05) -> Rules:
    return Rules(Tolerances(run_alpha=0.01, tolerance=list(tolerances)), alpha)


BLOCKS = np.arange(24.0).reshape(6, 4) / 10
"""Six windows of four blocks, each block another value."""


def normal_noise(effect: float, sd: float) -> Scenario:
    """Windows of one block whose differences are as good as normal."""
    metric = perplexity(np.full((8, 1), 3.0), 8)
    harmless = random(11).normal(0, sd, (20_000, 1))

    def run(count: int, random: np.random.Generator) -> Iterator[Replay]:
        parts = {"perplexity": paired.Part(metric, harmless, paired.uniform(metric, effect))}
        for pairs in paired.replays(parts, count, random):
            yield Replay(CELL, pairs)

    return Scenario("perplexity", effect, "uniform", "made", 1, run)


SECONDS = [[0.10, 0.12, 0.11], [0.20, 0.21, 0.22], [0.15, 0.14, 0.16], [0.12, 0.11, 0.13]]
