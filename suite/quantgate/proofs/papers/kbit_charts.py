"""Bit-level scaling as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from quantgate.proofs.papers import charts
from quantgate.proofs.papers.curves import pareto
from quantgate.proofs.papers.kbit_findings import FEW, MANY, TYPES, Grid, best_of_each
from quantgate.proofs.papers.points import Point
from quantgate.proofs.papers.section import Figure

BITS = "total bits of the weights"


def figures(points: Sequence[Point]) -> list[Figure]:
    """Loss and accuracy over total bits; divergence by bits, data type and block size; loss against accuracy."""
    loss, accuracy = "loss, nats per token", "accuracy"
    return [
        Figure(
            "kbit-loss",
            "Loss over total bits",
            "Each line joins the best schemes of one precision, a point for each model; faint: all schemes; dotted: "
            "the Pareto front. Left and low is better.",
            _scaling(points, loss, lambda p: p.loss),
        ),
        Figure(
            "kbit-accuracy",
            "Accuracy over total bits",
            "The same for the share of passages whose true next sentence the model prefers among four; chance is "
            "0.25. Left and high is better.",
            _scaling(points, accuracy, lambda p: p.accuracy, better=-1),
        ),
        Figure(
            "kbit-divergence",
            "Divergence by bits, data type and block size",
            "Mean Kullback-Leibler divergence from full precision, mean of all models. Each bit more makes it several "
            "times smaller.",
            _divergence(points),
        ),
        Figure(
            "kbit-correlation",
            "Loss against accuracy",
            "Each point is a model in one scheme.",
            _correlation(points, loss, accuracy),
        ),
    ]


def _scaling(points: Sequence[Point], title: str, value: Callable[[Point], float], better: int = 1) -> Any:
    """better: 1 where less is, -1 where more is."""
    alt = charts.altair()

    def cost(p: Point) -> float:
        return better * value(p)

    x = alt.X(
        "bits:Q",
        title=BITS,
        scale=alt.Scale(type="log", nice=False, padding=8),
        axis=alt.Axis(format="~s", tickCount=8),
    )
    y = alt.Y("y:Q", title=title, scale=alt.Scale(zero=False))
    color = alt.Color(
        "precision:O",
        title="bits",
        scale=alt.Scale(scheme="viridis", reverse=True),
        legend=alt.Legend(symbolOpacity=1),
    )
    picked = alt.selection_point(fields=["precision"], bind="legend")
    tip = [
        "model:N",
        "scheme:N",
        alt.Tooltip("y:Q", title=title, format=".4f"),
        alt.Tooltip("bits:Q", format=".3s"),
    ]
    shown = alt.condition(picked, alt.value(1.0), alt.value(0.08))

    def rows(chosen: Sequence[Point]) -> Any:
        return charts.data(
            {"bits": p.total_bits, "y": value(p), "precision": p.bits, "model": p.model, "scheme": p.scheme}
            for p in chosen
        )

    every = alt.Chart(rows(points)).mark_circle(size=14, opacity=0.25).encode(x, y, color, tooltip=tip)
    best = (
        alt.Chart(rows(best_of_each(points, cost)))
        .mark_line(point=True)
        .encode(x, y, color, opacity=shown, tooltip=tip)
        .add_params(picked)
    )
    front = (
        alt.Chart(rows(pareto(points, cost)))
        .mark_line(strokeDash=[2, 3], color="black", interpolate="step-after")
        .encode(x, y)
    )
    return (every + best + front).properties(width=2 * charts.WIDTH, height=charts.HEIGHT)


def _divergence(points: Sequence[Point]) -> Any:
    alt, grid = charts.altair(), Grid(points)
    values = charts.data(
        {
            "type": t,
            "block": str(block),
            "bits": bits,
            "y": float(grid.mean(t, [block], bits, "divergences").mean()),
        }
        for t in TYPES
        for block in grid.blocks
        for bits in (*FEW, *MANY)
    )
    title = "divergence, nats per token"
    return (
        alt.Chart(values)
        .mark_line(point=True)
        .encode(
            alt.X("bits:O", title="bits", axis=alt.Axis(labelAngle=0)),
            alt.Y("y:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=8)),
            alt.Color("type:N", title="data type", sort=list(TYPES)),
            alt.Column("block:N", title="weights of a block", sort=[str(b) for b in grid.blocks]),
            tooltip=["type:N", "block:N", "bits:O", alt.Tooltip("y:Q", title=title, format=".3g")],
        )
        .properties(width=charts.WIDTH / 2, height=charts.HEIGHT)
    )  # fmt: skip


def _correlation(points: Sequence[Point], loss: str, accuracy: str) -> Any:
    alt = charts.altair()
    values = charts.data(
        {"x": p.loss, "y": p.accuracy, "model": p.model, "precision": p.bits, "scheme": p.scheme}
        for p in points
    )
    return (
        alt.Chart(values)
        .mark_circle(size=30, opacity=0.6)
        .encode(
            alt.X("x:Q", title=loss, scale=alt.Scale(zero=False)),
            alt.Y("y:Q", title=accuracy, scale=alt.Scale(zero=False)),
            alt.Color("model:N", sort=list(dict.fromkeys(p.model for p in points))),
            tooltip=["model:N", "scheme:N", alt.Tooltip("x:Q", title=loss), alt.Tooltip("y:Q", title=accuracy)],
        )
        .properties(width=2 * charts.WIDTH, height=charts.HEIGHT)
    )  # fmt: skip
