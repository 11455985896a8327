"""Outliers and calibration sets, on SmolLM2-135M."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantgate.proofs.papers import calibration_findings
from quantgate.proofs.papers.calibration_findings import METHODS, SETS, Grid
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

PAPER = Paper(
    authors="Davide Paglieri, Saurabh Dash, Tim Rocktäschel and Jack Parker-Holder",
    title="Outliers and Calibration Sets have Diminishing Effect on Quantization of Modern LLMs",
    year=2024,
    arxiv="2405.20835",
    question=(
        "Good quantizers look at a little text before they round: its activations tell them which weights "
        "matter. Does it matter which text? An older model, OPT, is hurt by a bad choice, since a few of "
        "its activations are far larger than the rest, and which ones depends on the text. The paper "
        "calibrates on text of different quality, content and language, down to random characters, and asks "
        "whether newer models still care."
    ),
    setup=(
        "SmolLM2-135M, quantized by GPTQ and AWQ (weights of 4 bits in groups of 64) and SmoothQuant "
        "(weights and activations of 8 bits), all by llmcompressor, and by llama.cpp (Q4_0) with an "
        "importance matrix. Each is calibrated on 4,096 tokens of Wikipedia passages, novels, Python code, "
        "questions of one benchmark, German, or random printable characters (AWQ, whose search takes minutes, on "
        "the first, the third and the last of these). Loss is taken on other "
        "Wikipedia passages, accuracy on ARC-Easy, PIQA and LAMBADA. The same quantizers without "
        "calibration (rounding to nearest) stand beside them. The model's weights come from a Q4_1 file, so "
        "that all of it is measured from there."
    ),
)


def findings(measured: Measured) -> list[Finding]:
    return calibration_findings.findings(Grid(measured))


def figures(measured: Measured) -> list[Figure]:
    """Return perplexity by set and method."""
    return [
        Figure(
            "calibration-sets",
            "Perplexity by calibration set and method",
            "Dashed: the same quantizer without calibration; dotted: full precision. The scales differ between "
            "methods.",
            _sets(Grid(measured)),
        )
    ]


def tables(measured: Measured) -> list[Table]:
    grid = Grid(measured)
    return [_by_set(grid), _by_scheme(grid)]


def _by_set(grid: Grid) -> Table:
    """Perplexity of each method by what it was calibrated on."""
    rows = [
        (
            m.label,
            *(f"{grid.calibrated(m, s).perplexity:.3f}" if s in grid.sets(m) else "" for s in SETS),
            f"{grid.at(m.plain).perplexity:.3f}",
            f"{grid.at(m.reference).perplexity:.3f}",
        )
        for m in METHODS
    ]
    return Table("Perplexity by calibration set", ("method", *SETS, "no calibration", "full precision"), rows)


def _by_scheme(grid: Grid) -> Table:
    """Size and loss of what is rounded to nearest: by group, and with some layers at more bits."""
    rows: list[Sequence[str]] = [
        (p.scheme, f"{p.bits_per_weight:.2f}", f"{p.perplexity:.3f}", f"{p.loss - grid.full.loss:.4f}")
        for p in grid.rounded
    ]
    return Table(
        "Rounding to nearest at 4 bits: groups of weights, and a share of the layers (high) at 8 bits",
        (
            "scheme",
            "bits per weight, embeddings in 32",
            "perplexity",
            "loss above full precision, nats/token",
        ),
        rows,
    )


def _sets(grid: Grid) -> Any:
    alt = load_altair()
    parts = []
    for method in METHODS:
        rows = [{"set": s, "y": grid.calibrated(method, s).perplexity} for s in grid.sets(method)]
        y = alt.Y("y:Q", title="perplexity", scale=alt.Scale(zero=False))
        points = (
            alt.Chart(chart_data(rows))
            .mark_point(filled=True, size=70)
            .encode(
                alt.X("set:N", title=None, sort=list(SETS)),
                y,
                alt.Color("set:N", sort=list(SETS), legend=None),
                tooltip=["set:N", alt.Tooltip("y:Q", title="perplexity", format=".3f")],
            )
        )
        lines = [
            alt.Chart(chart_data([{"y": grid.at(scheme).perplexity, "what": scheme}]))
            .mark_rule(strokeDash=dash)
            .encode(y, tooltip=["what:N", alt.Tooltip("y:Q", title="perplexity", format=".3f")])
            for scheme, dash in ((method.plain, [6, 3]), (method.reference, [1, 3]))
        ]
        parts.append(alt.layer(points, *lines).properties(width=WIDTH / 2, height=HEIGHT, title=method.label))
    return alt.hconcat(*parts)
