"""The three dimensions as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quantgate.proofs.papers import charts
from quantgate.proofs.papers.dimensions_scores import losses, score_draws
from quantgate.proofs.papers.section import Figure, Measured


def figures(measured: Measured, dimensions: Mapping[str, Sequence[str]]) -> list[Figure]:
    """Score of each dimension over measured bits per weight, and over the loss that quantization adds."""
    alt, rows = charts.altair(), _rows(measured, dimensions)
    return [
        Figure(
            "dimensions-profile",
            "Knowledge and alignment over bits per weight",
            "A point for each cell, with the 95 % interval over its items. Bits are measured: embeddings "
            "and layers that a scheme leaves alone count.",
            _chart(rows, _bits(alt)),
        ),
        Figure(
            "dimensions-proxy",
            "Perplexity as a proxy",
            "The same scores over the logarithm of perplexity, less that of the best cell; the axis is stretched "
            "where most cells are. If perplexity is a proxy, points fall from the upper left to the lower right.",
            _chart(rows, _added(alt)),
        ),
    ]


def _rows(measured: Measured, dimensions: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    rows = []
    best = losses(measured).min()
    for name, tasks in dimensions.items():
        draws = score_draws(measured, tasks)
        for number, (cell, record) in enumerate(measured):
            low, high = draws.interval(number)
            rows.append(
                {
                    "dimension": name,
                    "cell": f"{cell.backend}/{cell.scheme}",
                    "backend": cell.backend,
                    "bits": record.metrics["memory/bits_per_weight"].value,
                    "added": float(np.log(record.metrics["perplexity"].value) - best),
                    "perplexity": record.metrics["perplexity"].value,
                    "score": float(draws.all_items[number]),
                    "low": low,
                    "high": high,
                }
            )
    return rows


def _bits(alt: Any) -> Any:
    return alt.X(
        "bits:Q",
        title="measured bits per weight",
        scale=alt.Scale(type="log", nice=False, padding=12),
        axis=alt.Axis(format="~g"),
    )


def _added(alt: Any) -> Any:
    """Nats from a hundredth to those of a collapse on one axis."""
    return alt.X(
        "added:Q",
        title="loss that quantization adds, nats per token",
        scale=alt.Scale(type="symlog", constant=0.05, nice=False, padding=12),
        axis=alt.Axis(values=[0, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10], format="~g"),
    )


def _chart(rows: Sequence[Mapping[str, Any]], x: Any) -> Any:
    alt = charts.altair()
    base = alt.Chart(charts.data(rows)).encode(
        x,
        alt.Color("backend:N", title="library"),
        tooltip=["cell:N", alt.Tooltip("score:Q", format=".3f"), alt.Tooltip("bits:Q", format=".2f"),
                 alt.Tooltip("perplexity:Q", format=".2f")],
    )  # fmt: skip
    bars = base.mark_rule(opacity=0.4).encode(
        alt.Y("low:Q", title="score, 0 to 1", scale=alt.Scale(zero=False)), alt.Y2("high:Q")
    )
    points = base.mark_circle(size=50).encode(alt.Y("score:Q", scale=alt.Scale(zero=False)))
    return (
        (bars + points)
        .properties(width=charts.WIDTH, height=charts.HEIGHT)
        .facet(column=alt.Column("dimension:N", title=None, sort=["knowledge", "alignment"]))
    )
