"""Calibration sets as pictures."""

from __future__ import annotations

from typing import Any

from quantgate.proofs.papers import charts
from quantgate.proofs.papers.calibration_points import METHODS, SETS, Grid
from quantgate.proofs.papers.section import Figure


def figures(grid: Grid) -> list[Figure]:
    """Perplexity by set and method."""
    return [
        Figure(
            "calibration-sets",
            "Perplexity by calibration set and method",
            "Dashed: the same quantizer without calibration; dotted: full precision. The scales differ between "
            "methods.",
            _sets(grid),
        ),
    ]


def _sets(grid: Grid) -> Any:
    alt = charts.altair()
    parts = []
    for method in METHODS:
        rows = [{"set": s, "y": grid.calibrated(method, s).perplexity} for s in grid.sets(method)]
        y = alt.Y("y:Q", title="perplexity", scale=alt.Scale(zero=False))
        points = (
            alt.Chart(charts.data(rows))
            .mark_point(filled=True, size=70)
            .encode(
                alt.X("set:N", title=None, sort=list(SETS)),
                y,
                alt.Color("set:N", sort=list(SETS), legend=None),
                tooltip=["set:N", alt.Tooltip("y:Q", title="perplexity", format=".3f")],
            )
        )
        lines = [
            alt.Chart(charts.data([{"y": grid.at(scheme).perplexity, "what": scheme}]))
            .mark_rule(strokeDash=dash)
            .encode(y, tooltip=["what:N", alt.Tooltip("y:Q", title="perplexity", format=".3f")])
            for scheme, dash in ((method.plain, [6, 3]), (method.reference, [1, 3]))
        ]
        parts.append(
            alt.layer(points, *lines).properties(
                width=charts.WIDTH / 2, height=charts.HEIGHT, title=method.label
            )
        )
    return alt.hconcat(*parts)
