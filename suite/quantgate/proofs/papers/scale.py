"""Size against precision: five models, from 16 to 2 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quantgate.proofs.papers import scale_findings
from quantgate.proofs.papers.scale_findings import (
    BITS,
    FULL,
    Family,
    condition,
    error_draws,
    group_scores,
    kept,
    rows_by_bits,
)
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
from quantgate.proofs.papers.statistics import around, mean_interval

PAPER = Paper(
    authors="Sher Badshah and Hassan Sajjad",
    title="Quantifying the Capabilities of LLMs across Scale and Precision",
    year=2024,
    arxiv="2405.03146",
    question=(
        "Who lacks memory for a large model can take a smaller one, or quantize the large one. Which is "
        "better, and on what? The paper asks chat models of 7 to 70 billion parameters at 4 to 32 bits to "
        "understand language, to reason, and to tell misinformation and hallucination from fact."
    ),
    setup=(
        "Four models of 90 thousand to 3 million parameters, trained on the same text, and one of 135 "
        "million, all with the same simulated integers of 8, 4, 3 and 2 bits in blocks of 64. The small "
        "ones compare by their loss on held-out text: on benchmarks they are at chance. Those stand for the "
        "paper's groups of tasks: language understanding (RTE, SST-2, MRPC), reasoning (COPA, Social IQa, "
        "PIQA, WinoGrande, ARC), misinformation and hallucination (the consistent of two summaries; BBQ). "
        "In the same memory the models at 16 bits are interpolated between two sizes. Two questions of "
        "later work are asked beside: does confidence still fit accuracy, and where does a loss become a "
        "collapse?"
    ),
)


def findings(measured: Measured) -> list[Finding]:
    return scale_findings.findings(measured)


def figures(measured: Measured) -> list[Figure]:
    """Return loss over memory, scores by bits, and calibration error by bits."""
    family = Family(measured)
    return [
        Figure(
            "scale-memory",
            "Loss in the same memory",
            "Each line is a precision, each point on it a model that was trained here. Where a line of few "
            "bits runs below that of 16 bits, the larger model at few bits is the better use of the memory.",
            _memory(family),
        ),
        Figure(
            "scale-groups",
            "Score by bits and size",
            "Mean score of each group of tasks, with its 95 % interval over items.",
            _bits_chart(_group_rows(family), "group:N", "score, 0 to 1"),
        ),
        Figure(
            "scale-calibration",
            "Calibration error by bits",
            "How far confidence and accuracy are apart, on the choices of all tasks, with its 95 % interval "
            "over items.",
            _bits_chart(_error_rows(family), None, "expected calibration error"),
        ),
    ]


def tables(measured: Measured) -> list[Table]:
    """Return every model at every precision, and the pairs of models in the same memory."""
    return [_by_bits(measured), _equal_memory(Family(measured))]


def _by_bits(measured: Measured) -> Table:
    family, groups = Family(measured), group_scores(measured)
    header = (
        "model", "bits", "loss, nats/token", *(f"{name} (95 %)" for name in groups),
        "calibration error (95 %)", "kept of the lead over chance (95 %)", "condition",
    )  # fmt: skip
    rows = []
    for model, bits in rows_by_bits(family):
        number = family.number[model, bits]
        error, draws = error_draws(family.answers(model, bits))
        share, low, high = kept(family.answers(model, bits), family.answers(model, FULL))
        rows.append(
            (
                model,
                f"{bits:g}",
                f"{family.points[model, bits].loss:.3f}",
                *(_spread(scores[number], *bounds[number]) for scores, bounds in groups.values()),
                _spread(error, *around(error, draws)),
                _spread(share, low, high) if np.isfinite(low) else "the reference is at chance",
                "reference" if bits == FULL else condition(low, high),
            )
        )
    return Table("Each model at each precision", header, rows)


def _equal_memory(family: Family) -> Table:
    header = (
        "large model at few bits", "memory, kB", "its loss, nats/token",
        "small models at 16 bits in that memory", "difference (95 %)",
    )  # fmt: skip
    rows = []
    for bits in BITS:
        for point, other in family.at_equal_memory(bits):
            difference, low, high = mean_interval(other - point.losses)
            rows.append(
                (
                    f"{point.model} at {bits:g} bits",
                    f"{point.total_bits / 8e3:.0f}",
                    f"{point.losses.mean():.3f}",
                    f"{other.mean():.3f}",
                    _spread(difference, low, high),
                )
            )
    return Table("In the same memory: large at few bits against small at many", header, rows)


def _spread(value: float, low: float, high: float) -> str:
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _memory(family: Family) -> Any:
    alt = load_altair()
    rows = [
        {"kB": p.total_bits / 8e3, "loss": p.loss, "bits": f"{bits:g}", "model": model}
        for (model, bits), p in family.points.items()
        if model in family.small
    ]
    return (
        alt.Chart(chart_data(rows))
        .mark_line(point=True)
        .encode(
            alt.X("kB:Q", title="memory of the weights, kB", scale=alt.Scale(type="log", nice=False)),
            alt.Y("loss:Q", title="loss, nats per token", scale=alt.Scale(zero=False)),
            alt.Color("bits:O", title="bits", scale=alt.Scale(scheme="viridis"), sort=["2", "3", "4", "8", "16"]),
            tooltip=["model:N", "bits:N", alt.Tooltip("kB:Q", format=".0f"), alt.Tooltip("loss:Q", format=".3f")],
        )
        .properties(width=2 * WIDTH, height=HEIGHT)
    )  # fmt: skip


def _group_rows(family: Family) -> list[dict[str, Any]]:
    groups = group_scores(family.measured)
    return [
        {"model": model, "bits": f"{bits:g}", "group": name, "y": float(scores[number])}
        | dict(zip(("low", "high"), bounds[number], strict=True))
        for model, bits in rows_by_bits(family)
        for number in [family.number[model, bits]]
        for name, (scores, bounds) in groups.items()
    ]


def _error_rows(family: Family) -> list[dict[str, Any]]:
    rows = []
    for model, bits in rows_by_bits(family):
        error, draws = error_draws(family.answers(model, bits))
        low, high = around(error, draws)
        rows.append({"model": model, "bits": f"{bits:g}", "y": error, "low": low, "high": high})
    return rows


def _bits_chart(rows: Sequence[Mapping[str, Any]], column: str | None, title: str) -> Any:
    alt = load_altair()
    order = ["2", "3", "4", "8", "16"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    base = alt.Chart(chart_data(rows)).encode(
        alt.X("bits:O", title="bits", sort=order, axis=alt.Axis(labelAngle=0)),
        alt.Color("model:N", sort=models, title="model"),
        tooltip=["model:N", "bits:N", alt.Tooltip("y:Q", title=title, format=".3f")],
    )
    bars = base.mark_rule(opacity=0.3).encode(
        alt.Y("low:Q", title=title, scale=alt.Scale(zero=False)), alt.Y2("high:Q")
    )
    lines = base.mark_line(point=True).encode(alt.Y("y:Q", scale=alt.Scale(zero=False)))
    width = WIDTH / 2 if column else 2 * WIDTH
    chart = (bars + lines).properties(width=width, height=HEIGHT)
    return chart.facet(column=alt.Column(column, title=None)) if column else chart
