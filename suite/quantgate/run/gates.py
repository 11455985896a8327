"""Derive which gates there can be from what the metric groups declare: refuse tolerances that match none, count those
of an A/B run, say before anything is measured what a tier's samples will be too small to show."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from quantgate.config.matrix import MATRIX, Cell, Matrix, Tier
from quantgate.config.tolerances import REPRODUCTION, TOLERANCES, Tolerance, Tolerances, load_tolerances
from quantgate.errors import InputError
from quantgate.judge.sensitivity import NOISY, with_sensitivity
from quantgate.measure.groups import group_of
from quantgate.records import Declared, Metric
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import GroupOptions, Need
from quantgate.run.relative import declared_relatives

DOZEN = 12


def possible(group_options: GroupOptions, *, relatives: bool = True) -> dict[str, Declared]:
    """Return the metrics that a tier with these options can have; `relatives`: also those relative to the reference."""
    metrics: dict[str, Declared] = {}
    for group, options in group_options.items():
        for template, metric in group_of(group).metrics.items():
            for name in _expanded(template, options):
                metrics[name] = metric
                metrics.update(declared_relatives(name, metric) if relatives else {})
    return metrics


def _expanded(template: str, options: Any) -> list[str]:
    """Expand `accuracy/{tasks}/acc` for each of `options.tasks`."""
    begin, brace, rest = template.partition("{")
    key, _, end = rest.partition("}")
    return [f"{begin}{part}{end}" for part in getattr(options, key)] if brace else [template]


def most_gates(need: Need, metrics: Mapping[str, Declared], tolerances: Tolerances) -> int:
    """Return how many gates that noise can trip a case of an A/B run has at most. metrics: what the groups of the tier
    declare (`possible`, without relatives)."""
    return sum(
        metric.kind in NOISY and tolerances.of(name, need.cell.id, against=True) is not None
        for name, metric in metrics.items()
        if need.covers(name)
    )


def foreseen(
    needs: Iterable[Need], cells: Iterable[Cell], tier: Tier, tolerances: Tolerances
) -> tuple[list[str], list[str]]:
    """Return the gates of these cases that can never turn red, and those whose tolerances are below what the sample
    shows (`quantgate.judge.sensitivity`), each in words with its cells: a user can raise `windows` or `items` before
    anything is measured. The level of a gate is that of a run of all `cells`."""
    names = possible(tier.group_options)
    count = sum(
        metric.kind in NOISY and tolerances.of(name, cell.id) is not None
        for cell in cells
        for name, metric in names.items()
    )
    level = tolerances.run_alpha / max(1, count)
    shapes: dict[str, Metric] = {}
    for group, options in tier.group_options.items():
        shapes.update(group_of(group).expected(options))
    void: dict[str, list[str]] = {}
    narrow: dict[str, list[str]] = {}
    for need in needs:
        mine = {name: shape for name, shape in shapes.items() if need.covers(name)}
        sensitivity = with_sensitivity(need.cell.id, mine, tolerances, level)
        for texts, into in ((sensitivity.void, void), (sensitivity.narrow, narrow)):
            for text in texts:
                into.setdefault(text, []).append(need.cell.id)
    return _with_cells(void), _with_cells(narrow)


def _with_cells(texts: Mapping[str, list[str]]) -> list[str]:
    """Return each text once, after its cells."""
    return [
        f"{cells[0]}{f' and {len(cells) - 1} more' if len(cells) > 1 else ''}: {text}"
        for text, cells in texts.items()
    ]


def check_tolerances(path: Path, tolerances: Tolerances, matrix: Matrix) -> None:
    """Raise InputError, naming all of them, for entries that can match no metric, cell or tier: they gate nothing.

    Entries of a user's own file have to match in the matrix in use, but for those copied from the shipped file, which
    are for all matrices. Those of the shipped file have to match in the matrix in use or in the shipped one.
    """
    shipped = path.resolve() == TOLERANCES.resolve()
    copied = [] if shipped else load_tolerances().tolerance
    entries = dict(enumerate(tolerances.tolerance, start=1))
    wrong = _mismatches({n: entry for n, entry in entries.items() if entry not in copied}, matrix)
    if wrong and shipped and matrix.path.resolve() != MATRIX.resolve():
        wrong = _mismatches({n: entries[n] for n in wrong}, load_matrix())
    if wrong:
        entry = "{}: entry {} (metric = {!r}) gates nothing: {}"
        raise InputError("\n".join(entry.format(path, n, entries[n].metric, why) for n, why in wrong.items()))


def _mismatches(entries: Mapping[int, Tolerance], matrix: Matrix) -> dict[int, str]:
    """Return, by number, why entries match nothing in the matrix; without those that match."""
    if not entries:
        return {}
    roundings, cells, names = matrix.roundings(), {}, {}
    for tier, settings in matrix.tiers.items():
        cells[tier] = [cell.id for cell in matrix.cells(tier)]
        metrics = possible(settings.group_options)
        paired = [f"{name}{REPRODUCTION}" for name, metric in metrics.items() if metric.kind == "paired"]
        names[tier] = [*metrics, *paired]
    everywhere = [name for of_tier in names.values() for name in of_tier]

    def why(entry: Tolerance) -> str:
        if not any(map(entry.meets, everywhere)):
            measured = _nearest(entry.metric, everywhere, "metrics")
            return f"no tier of {matrix.path} measures a metric of this name{measured}"
        if entry.tier is not None and entry.tier not in matrix.tiers:
            tiers = _nearest(entry.tier, matrix.tiers, "tiers")
            return f"tier = {entry.tier!r} is no tier of {matrix.path}{tiers}"
        where = f"{'any tier' if entry.tier is None else f'tier {entry.tier!r}'} of {matrix.path}"
        ids = [cell for tier in cells for cell in cells[tier] if entry.tier in (None, tier)]
        matching = [cell for cell in ids if fnmatchcase(cell, entry.cell)]
        if not matching:
            return f"cell = {entry.cell!r} matches no cell of {where}{_nearest(entry.cell, ids, 'cells')}"
        if entry.rounding and not any(roundings[cell] == entry.rounding for cell in matching):
            return f"rounding = {entry.rounding!r}: no scheme of these cells has it, in {where}"
        here = everywhere if entry.tier is None else names[entry.tier]
        if not any(map(entry.meets, here)):
            return f"{where} measures no such metric{_nearest(entry.metric, here, 'metrics')}"
        return ""

    return {number: text for number, entry in entries.items() if (text := why(entry))}


def _nearest(name: str, names: Iterable[str], kind: str) -> str:
    """Suggest the nearest name; where none is near, list the names, a dozen at most."""
    there = list(dict.fromkeys(names))
    if close := difflib.get_close_matches(name, there, n=1):
        return f" (did you mean {close[0]!r}?)"
    more = f" and {len(there) - DOZEN} more" if len(there) > DOZEN else ""
    return f" (its {kind}: {', '.join(there[:DOZEN])}{more})"
