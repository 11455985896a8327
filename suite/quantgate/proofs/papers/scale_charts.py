"""Size against precision as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantgate.proofs.papers import charts
from quantgate.proofs.papers.scale_confidence import error_draws
from quantgate.proofs.papers.scale_findings import Family, group_scores, rows_by_bits
from quantgate.proofs.papers.section import Figure
from quantgate.proofs.papers.statistics import around


def figures(family: Family) -> list[Figure]:
    """Loss over memory, scores by bits, calibration by bits."""
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
            _by_bits(_group_rows(family), "group:N", "score, 0 to 1"),
        ),
        Figure(
            "scale-calibration",
            "Calibration error by bits",
            "How far confidence and accuracy are apart, on the choices of all tasks, with its 95 % interval "
            "over items.",
            _by_bits(_error_rows(family), None, "expected calibration error"),
        ),
    ]


def _memory(family: Family) -> Any:
    alt = charts.altair()
    rows = [
        {"kB": p.total_bits / 8e3, "loss": p.loss, "bits": f"{bits:g}", "model": model}
        for (model, bits), p in family.points.items()
        if model in family.small
    ]
    return (
        alt.Chart(charts.data(rows))
        .mark_line(point=True)
        .encode(
            alt.X("kB:Q", title="memory of the weights, kB", scale=alt.Scale(type="log", nice=False)),
            alt.Y("loss:Q", title="loss, nats per token", scale=alt.Scale(zero=False)),
            alt.Color("bits:O", title="bits", scale=alt.Scale(scheme="viridis"), sort=["2", "3", "4", "8", "16"]),
            tooltip=["model:N", "bits:N", alt.Tooltip("kB:Q", format=".0f"), alt.Tooltip("loss:Q", format=".3f")],
        )
        .properties(width=2 * charts.WIDTH, height=charts.HEIGHT)
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


def _by_bits(rows: Sequence[Mapping[str, Any]], column: str | None, title: str) -> Any:
    alt = charts.altair()
    order = ["2", "3", "4", "8", "16"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    base = alt.Chart(charts.data(rows)).encode(
        alt.X("bits:O", title="bits", sort=order, axis=alt.Axis(labelAngle=0)),
        alt.Color("model:N", sort=models, title="model"),
        tooltip=["model:N", "bits:N", alt.Tooltip("y:Q", title=title, format=".3f")],
    )
    bars = base.mark_rule(opacity=0.3).encode(
        alt.Y("low:Q", title=title, scale=alt.Scale(zero=False)), alt.Y2("high:Q")
    )
    lines = base.mark_line(point=True).encode(alt.Y("y:Q", scale=alt.Scale(zero=False)))
    width = charts.WIDTH / 2 if column else 2 * charts.WIDTH
    chart = (bars + lines).properties(width=width, height=charts.HEIGHT)
    return chart.facet(column=alt.Column(column, title=None)) if column else chart
