"""Derive which gates there can be from what the metric groups declare: refuse tolerances that match none, count those
of an A/B run, say before anything is measured what a tier's samples will be too small to show."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from quantgate.config.matrix import MATRIX, Cell, Matrix, Tier
from quantgate.config.sentences import nearest
from quantgate.config.tolerances import REPRODUCTION, TOLERANCES, Tolerance, Tolerances, load_tolerances
from quantgate.errors import InputError
from quantgate.judge.sensitivity import NOISY, with_sensitivity
from quantgate.measure.groups import group_of
from quantgate.records import AGREEMENT, IN_PROCESS, Declared, Metric
from quantgate.run.inputs import lacking_capabilities, load_matrix
from quantgate.run.plan import GroupOptions, Need, partners_of
from quantgate.run.relative import declared_relatives
from quantgate.words import shortened

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
    mine = {name: metric for name, metric in metrics.items() if need.covers(name)}
    return _noisy(mine, need.cell, tolerances, against=True)


def _noisy(metrics: Mapping[str, Declared], cell: Cell, tolerances: Tolerances, *, against: bool) -> int:
    """Return how many of the metrics are gates that noise can trip."""
    noisy = (name for name, metric in metrics.items() if metric.kind in NOISY)
    return sum(tolerances.of(name, cell.id, against=against) is not None for name in noisy)


def foreseen(
    needs: Iterable[Need], cells: Iterable[Cell], tier: Tier, tolerances: Tolerances
) -> tuple[list[str], list[str]]:
    """Return the gates of these cases that can never turn red, and those whose tolerances are below what the sample
    shows (`quantgate.judge.sensitivity`), each in words with its cells: a user can raise `windows` or `items` before
    anything is measured. The level of a gate is that of a run of all `cells`."""
    count = 0
    for cell in cells:
        measured = {g: one for g, one in tier.group_options.items() if not tier.leaves_out(cell.id, g)}
        count += _noisy(possible(measured), cell, tolerances, against=False)
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
    return [f"{shortened(cells, 1)}: {text}" for text, cells in texts.items()]


def check_tolerances(path: Path, tolerances: Tolerances, matrix: Matrix) -> None:
    """Raise InputError, naming all of them, for entries that decide nothing: they match no gate of any cell, or later
    entries take their place in all of them.

    Entries of a user's own file have to decide something in the matrix in use, but for those copied from the shipped
    file, which are for all matrices. Those of the shipped file have to in the matrix in use or in the shipped one.
    """
    shipped = path.resolve() == TOLERANCES.resolve()
    copied = [] if shipped else load_tolerances().tolerance
    entries = {n: entry for n, entry in enumerate(tolerances.tolerance, start=1) if entry not in copied}
    if not entries:
        return
    gates = _Gates(matrix, tolerances)
    idle = [n for n, entry in entries.items() if not gates.go_by(entry)]
    if shipped and matrix.path.resolve() != MATRIX.resolve():
        why = {n: text for n, text in idle_as_shipped().items() if n in idle}
    else:
        why = {n: gates.why_idle(entries[n]) for n in idle}
    if why:
        entry = "{}: entry {} (metric = {!r}) gates nothing: {}"
        raise InputError("\n".join(entry.format(path, n, entries[n].metric, text) for n, text in why.items()))


@functools.cache
def idle_as_shipped() -> dict[int, str]:
    """Return, by number, why entries of the shipped tolerances decide nothing in the shipped matrix."""
    tolerances = load_tolerances()
    gates, entries = _Gates(load_matrix(), tolerances), enumerate(tolerances.tolerance, start=1)
    return {number: gates.why_idle(entry) for number, entry in entries if not gates.go_by(entry)}


class _Gates:
    """All gates that a matrix can have, and the entries in force in each of its tiers."""

    def __init__(self, matrix: Matrix, tolerances: Tolerances) -> None:
        self._path = matrix.path
        self._roundings = matrix.roundings()
        self._tiers = {tier: gates_of(matrix, tier) for tier in matrix.tiers}
        self._rules = {tier: tolerances.for_tier(tier, self._roundings) for tier in matrix.tiers}
        self._metrics = _names(self._tiers.values())

    def go_by(self, entry: Tolerance) -> bool:
        """Return whether an entry decides something: whether any gate goes by it."""
        return any(
            entry is _in_force(entry, rules, cell, name) or entry is rules.of(name, cell, against=True)
            for rules, cell, name in self._matching(entry)
        )

    def _matching(self, entry: Tolerance) -> Iterator[tuple[Tolerances, str, str]]:
        """Yield the gates that an entry matches: what is in force in the tier, the cell, the metric's name."""
        names = self._names_of(entry)
        for tier, gates in self._in(entry.tier).items():
            for cell in self._cells_of(entry, gates):
                for name in gates[cell]:
                    if name in names:
                        yield self._rules[tier], cell, name

    def _in(self, tier: str | None) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return the gates of a tier; None: of all."""
        return {name: gates for name, gates in self._tiers.items() if tier in (None, name)}

    def _names_of(self, entry: Tolerance) -> set[str]:
        return {name for name in fnmatch.filter(self._metrics, entry.metric) if entry.meets(name)}

    def _cells_of(self, entry: Tolerance, cells: Iterable[str]) -> list[str]:
        matching = fnmatch.filter(cells, entry.cell)
        return [cell for cell in matching if entry.rounding in (None, self._roundings[cell])]

    def why_idle(self, entry: Tolerance) -> str:
        """Return why an entry decides nothing."""
        if not (hits := self._names_of(entry)):
            measured = _nearest(entry.metric, self._metrics, "metrics")
            return f"no tier of {self._path} measures a metric of this name{measured}"
        if not (here := self._in(entry.tier)):
            tiers = _nearest(str(entry.tier), self._tiers, "tiers")
            return f"tier = {entry.tier!r} is not a tier of {self._path}{tiers}"
        where = f"{'any tier' if entry.tier is None else f'tier {entry.tier!r}'} of {self._path}"
        ids = list(dict.fromkeys(cell for gates in here.values() for cell in gates))
        if not fnmatch.filter(ids, entry.cell):
            return f"cell = {entry.cell!r} matches no cell of {where}{_nearest(entry.cell, ids, 'cells')}"
        if not (matching := self._cells_of(entry, ids)):
            return f"rounding = {entry.rounding!r}: no scheme of these cells has it, in {where}"
        if (first := next(self._matching(entry), None)) is None:
            if hits.isdisjoint(names := _names(here.values())):
                return f"{where} measures no such metric{_nearest(entry.metric, names, 'metrics')}"
            return f"the cells that it is for ({shortened(matching, 1)}) have no such metric in {where}"
        (_, cell, name), other = first, _in_force(entry, *first)
        return (
            "of the entries that match a gate the last one counts, and this one is never the last "
            f"(for {name} of {cell}, metric = {other.metric!r} is): move it to the end"
        )


def gates_of(matrix: Matrix, tier: str) -> dict[str, tuple[str, ...]]:
    """Return, by cell of a tier, the names of the metrics that it can have, reproductions included."""
    chosen, cells = matrix.tier(tier), {cell.id: cell for cell in matrix.cells(tier)}
    options = chosen.group_options
    partners = partners_of(cells.values())
    names: dict[tuple[frozenset[str], bool, bool, bool], tuple[str, ...]] = {}
    gates = {}
    for cell in cells.values():
        is_held = cell.reference != cell.id and cell.reference in cells
        agrees = bool(partners.get(cell.id))
        served = cell.in_process in cells
        groups = frozenset(
            group
            for group in options
            if not chosen.leaves_out(cell.id, group) and not lacking_capabilities(cell, group)
        )
        if (key := (groups, is_held, agrees, served)) not in names:
            mine = {group: one for group, one in options.items() if group in groups}
            metrics = possible(mine, relatives=is_held)
            metrics = {name: metric for name, metric in metrics.items() if is_held or not metric.held}
            whole = possible(mine)
            for name, has in ((AGREEMENT, agrees), (IN_PROCESS, served)):
                metrics.pop(name, None)
                if has and name in whole:
                    metrics[name] = whole[name]
            paired = [f"{name}{REPRODUCTION}" for name, metric in metrics.items() if metric.kind == "paired"]
            names[key] = (*metrics, *paired)
        gates[cell.id] = names[key]
    return gates


def _names(tiers: Iterable[Mapping[str, tuple[str, ...]]]) -> list[str]:
    """Return the names of all metrics, each once, in their order."""
    of_cells = dict.fromkeys(names for cells in tiers for names in cells.values())
    return list(dict.fromkeys(name for names in of_cells for name in names))


def _in_force(entry: Tolerance, tolerances: Tolerances, cell: str, name: str) -> Tolerance:
    """Return the entry of the same kind that a gate goes by."""
    if entry.expected is not None:
        return tolerances.of_expected(name, cell) or entry
    return tolerances.of(name, cell, against=entry.against) or entry


def _nearest(name: str, names: Iterable[str], kind: str) -> str:
    """Suggest the nearest name; where none is near, list the names, a dozen at most."""
    there = list(dict.fromkeys(names))
    if close := nearest(name, there):
        return f" (did you mean {close!r}?)"
    return f" (its {kind}: {shortened(there, DOZEN)})"
