"""The case for 4-bit precision: k-bit inference scaling laws, on the pocket models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from quantgate.proofs.papers import kbit_findings
from quantgate.proofs.papers.kbit_findings import FEW, MANY, TYPES, Grid, best_of_each, pareto
from quantgate.proofs.papers.section import (
    HEIGHT,
    WIDTH,
    Figure,
    Finding,
    Measured,
    Paper,
    Table,
    chart_data,
    load_altair,
)
from quantgate.proofs.papers.statistics import Point, points_of

PAPER = Paper(
    authors="Tim Dettmers and Luke Zettlemoyer",
    title="The case for 4-bit precision: k-bit Inference Scaling Laws",
    year=2023,
    arxiv="2212.09720",
    question=(
        "A model's weights may take a fixed number of bits of memory. Is it better spent on many weights of few "
        "bits each, or on fewer weights of more bits? And which ways to make few bits go further are worth it: "
        "other data types, smaller blocks of weights that share a scaling constant? The paper quantizes five "
        "families of models of 19 million to 176 billion parameters to 3 to 8 bits, without retraining."
    ),
    setup=(
        "Four models of 90 thousand to 3 million parameters, trained for this suite on the same text. The weights "
        "of their linear layers are quantized to 3 to 8 bits in four data types and four block sizes, and what "
        "they compute is simulated in floating point. Total bits count everything: quantized weights, constants "
        "of blocks, and the embeddings, which stay at 16 bits and are 71 % of the weights of the smallest model, 18 % "
        "of those of the largest. Loss and divergence are taken on Wikipedia passages that were held out of training; "
        "accuracy is the choice of the true next sentence among four."
    ),
)


def findings(measured: Measured) -> list[Finding]:
    return kbit_findings.findings(points_of(measured))


def figures(measured: Measured) -> list[Figure]:
    """Return loss and accuracy over total bits; divergence by bits, data type and block size; loss against accuracy."""
    points = points_of(measured)
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


def tables(measured: Measured) -> list[Table]:
    """Return the best scheme of each model and precision."""
    return [
        Table(
            "The best scheme of each model by precision",
            (
                "model",
                "bits",
                "scheme",
                "total bits",
                "loss, nats/token",
                "divergence, nats/token",
                "accuracy",
            ),
            [_row(p) for p in sorted(best_of_each(points_of(measured)), key=lambda p: (p.model, p.bits))],
        )
    ]


def _row(p: Point) -> Sequence[str]:
    return (
        p.model,
        f"{p.bits:g}",
        p.scheme,
        f"{p.total_bits:,.0f}",
        f"{p.loss:.4f}",
        f"{p.divergence:.4f}",
        f"{p.accuracy:.3f}",
    )


BITS = "total bits of the weights"


def _scaling(points: Sequence[Point], title: str, value: Callable[[Point], float], better: int = 1) -> Any:
    """better: 1 where less is, -1 where more is."""
    alt = load_altair()

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
        return chart_data(
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
    return (every + best + front).properties(width=2 * WIDTH, height=HEIGHT)


def _divergence(points: Sequence[Point]) -> Any:
    alt, grid = load_altair(), Grid(points)
    values = chart_data(
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
        .properties(width=WIDTH / 2, height=HEIGHT)
    )  # fmt: skip


def _correlation(points: Sequence[Point], loss: str, accuracy: str) -> Any:
    alt = load_altair()
    values = chart_data(
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
        .properties(width=2 * WIDTH, height=HEIGHT)
    )  # fmt: skip
