"""Draw detection rates over effect sizes, one panel a metric group; the two other rules are dashed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from quantgate.errors import InputError
from quantgate.proofs.power.report import SIGNS
from quantgate.proofs.power.study import ANY, Rate, Row

NAMED = ("perplexity",)
"""Gates that get a line each, beside the line of any gate of the cell."""
WIDE = 30
"""Letters of a label: of longer ones, no two fit below a panel side by side."""


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the figure; its ending says the format (svg, png, pdf). Raises InputError without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("--figure needs matplotlib: pip install 'quantgate[power]'") from None
    sections = groupby(rows, key=lambda row: (row.scenario.group, row.scenario.place))
    groups = [(name, list(members)) for name, members in sections]
    groups = [(name, members) for name, members in groups if any(row.scenario.effect for row in members)]
    height = (len(groups) + 1) // 2
    with rc_context({"svg.hashsalt": "quantgate"}):  # the same file for the same rows
        figure = Figure(figsize=(11, 4.6 * height), layout="constrained")
        axes = list(figure.subplots(height, 2, squeeze=False).flat)
        for ((name, place), members), axis in zip(groups, axes, strict=False):
            _panel(axis, name, place, members)
        for axis in axes[len(groups) :]:
            axis.set_axis_off()
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(axis: Any, name: str, place: str, rows: Sequence[Row]) -> None:
    unit = "points" if name == "accuracy" else "%"
    axis.set_title(f"{name}{place and f', {place}'}", loc="left", fontweight="bold")
    axis.set_xlabel(f"loss added ({SIGNS[name]}), {unit}")
    axis.set_ylabel("red, % of replays")
    axis.set_ylim(-3, 103)
    for number, (label, line) in enumerate(_lines(rows).items()):
        _line(axis, label, line, color=f"C{number}", marker="o")
    if shares := _pooled((row.scenario.effect, row.share) for row in rows):
        _line(axis, "rule: 8 % of the mean", shares, linestyle="--", color="0.45", marker="s")
    if limits := _pooled((row.scenario.effect, row.limit) for row in rows):
        _line(axis, "rule: perplexity above 20", limits, linestyle=":", color="0.45", marker="^")
    _, labels = axis.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= WIDE else 1
    axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.14), ncols=columns, frameon=False)
    axis.grid(alpha=0.25)


def _lines(rows: Sequence[Row]) -> dict[str, dict[float, Rate]]:
    """By label: any gate of the cell (the one there is), and those in `NAMED`. The replays without effect begin each
    line."""
    several = {row.scenario.spread for row in rows if row.gate == ANY}
    chosen = [r for r in rows if r.gate in (ANY, *NAMED) or r.scenario.spread not in several]
    null = {row.gate: row.red for row in chosen if row.scenario.effect == 0}
    lines: dict[str, dict[float, Rate]] = {}
    for row in chosen:
        gate = "any gate" if row.gate == ANY else row.gate
        line = lines.setdefault(
            f"{gate}, {row.scenario.spread}", {0.0: null[row.gate]} if row.gate in null else {}
        )
        line[row.scenario.effect] = row.red
    return {label: line for label, line in lines.items() if len(line) > 1}


def _pooled(rates: Iterable[tuple[float, Rate | None]]) -> dict[float, Rate]:
    """Pool the rates of all spreads and gates."""
    pooled: dict[float, Rate] = {}
    for effect, one in rates:
        if one is not None:
            pooled[effect] = pooled.get(effect, Rate(0, 0)).plus(one)
    return pooled


def _line(axis: Any, label: str, line: dict[float, Rate], color: str, **style: Any) -> None:
    effects = sorted(line)
    x = [100 * effect for effect in effects]
    low, high = zip(*(line[effect].interval() for effect in effects), strict=True)
    axis.plot(
        x, [100 * line[effect].share for effect in effects], label=label, color=color, markersize=4, **style
    )
    axis.fill_between(x, [100 * v for v in low], [100 * v for v in high], color=color, alpha=0.15)
