"""Cells of a family of models as points: how many bits in all, and how good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantgate.config.matrix import Cell
from quantgate.records import Measurement

TASK = "accuracy/continuation/acc"


@dataclass(frozen=True)
class Point:
    """One cell.

    options: of its scheme (`data_type`, `block` ...). bits: nominal bits of a weight. total_bits: of all weights.
    loss: mean negative log-likelihood, nats per token; losses: of each block of the text, sizes: their tokens.
    divergences: mean KL from the reference of each block, nats; None: the cell is the reference. hits: of each item of
    the task, 1 or 0.
    """

    model: str
    scheme: str
    options: dict[str, Any]
    bits: float
    total_bits: float
    losses: NDArray[np.float64]
    sizes: NDArray[np.float64]
    divergences: NDArray[np.float64] | None
    hits: NDArray[np.float64]

    @property
    def loss(self) -> float:
        return float(np.average(self.losses, weights=self.sizes))

    @property
    def accuracy(self) -> float:
        """0 to 1."""
        return float(self.hits.mean())

    @property
    def divergence(self) -> float:
        """Mean KL from the reference, nats."""
        return 0.0 if self.divergences is None else float(np.average(self.divergences, weights=self.sizes))


def points_of(measured: Iterable[tuple[Cell, Measurement]]) -> list[Point]:
    """A point for each cell that has perplexity, accuracy and the size of its weights."""
    found = []
    for cell, record in measured:
        metrics = record.metrics
        if not {"perplexity", TASK, "memory/weight_bytes"} <= metrics.keys():
            continue
        divergence = metrics.get("divergence/kl_mean")
        found.append(
            Point(
                model=cell.model,
                scheme=cell.scheme,
                options=cell.scheme_options,
                bits=cell.bits,
                total_bits=8 * metrics["memory/weight_bytes"].value,
                losses=np.array(metrics["perplexity"].samples),
                sizes=np.array(metrics["perplexity"].weights),
                divergences=None if divergence is None else np.array(divergence.samples),
                hits=np.array(metrics[TASK].samples),
            )
        )
    return found
