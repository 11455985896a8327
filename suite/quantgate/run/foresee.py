"""Say before anything is measured what a tier's samples will be too small to show: a user can raise `windows` or
`items` at once."""

from __future__ import annotations

from collections.abc import Iterable

from quantgate.config.matrix import Cell, Tier
from quantgate.config.tolerances import Tolerances
from quantgate.judge.sensitivity import NOISY, with_sensitivity
from quantgate.measure.groups import group_of
from quantgate.records import Metric
from quantgate.run.gates import possible
from quantgate.run.plan import Need

Texts = tuple[list[str], list[str]]


def foreseen(needs: Iterable[Need], cells: Iterable[Cell], tier: Tier, tolerances: Tolerances) -> Texts:
    """Return the gates of these cases that can never turn red, and those whose tolerances are below what the sample
    shows (`quantgate.judge.sensitivity`), each in words with its cells. The level of a gate is that of a run of all
    `cells`."""
    names = possible(tier.group_options)
    count = sum(
        metric.kind in NOISY and tolerances.of(name, cell.id) is not None
        for cell in cells
        for name, metric in names.items()
    )
    shapes = _shapes(tier)
    void: dict[str, list[str]] = {}
    narrow: dict[str, list[str]] = {}
    for need in needs:
        mine = {name: shape for name, shape in shapes.items() if need.covers(name)}
        sensitivity = with_sensitivity(need.cell.id, mine, tolerances, tolerances.run_alpha / max(1, count))
        for texts, into in ((sensitivity.void, void), (sensitivity.narrow, narrow)):
            for text in texts:
                into.setdefault(text, []).append(need.cell.id)
    return _with_cells(void), _with_cells(narrow)


def _shapes(tier: Tier) -> dict[str, Metric]:
    """Return the metrics that the tier's groups will give, but for their values, of groups that declare them."""
    metrics: dict[str, Metric] = {}
    for group, options in tier.group_options.items():
        metrics.update(group_of(group).expected(options))
    return metrics


def _with_cells(texts: dict[str, list[str]]) -> list[str]:
    """Return each text once, after its cells."""
    return [
        f"{cells[0]}{f' and {len(cells) - 1} more' if len(cells) > 1 else ''}: {text}"
        for text, cells in texts.items()
    ]
