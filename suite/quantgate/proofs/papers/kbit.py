"""The case for 4-bit precision: k-bit inference scaling laws, on the pocket models."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.proofs.papers import kbit_charts, kbit_findings
from quantgate.proofs.papers.kbit_findings import best_of_each
from quantgate.proofs.papers.points import Point, points_of
from quantgate.proofs.papers.section import Figure, Finding, Measured, Paper, Table

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
    return kbit_findings.findings(_points(measured))


def figures(measured: Measured) -> list[Figure]:
    return kbit_charts.figures(_points(measured))


def tables(measured: Measured) -> list[Table]:
    """The best scheme of each model and precision."""
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
            [_row(p) for p in sorted(best_of_each(_points(measured)), key=lambda p: (p.model, p.bits))],
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


def _points(measured: Measured) -> list[Point]:
    return points_of(measured)
