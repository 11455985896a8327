"""Plan what is measured: the requests that the collected cases need of each cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from quantgate.config.matrix import Cell
from quantgate.judge.compare import covers
from quantgate.measure.groups import group_name, group_of
from quantgate.records import Record

GroupOptions = Mapping[str, Record]
"""A tier's options by metric group."""


@dataclass(frozen=True)
class Need:
    """What one collected case needs: a request to a cell, `perplexity` or `accuracy/arc_easy`."""

    cell: Cell
    request: str

    def covers(self, metric: str) -> bool:
        """Return whether the case judges this metric."""
        return covers(self.request, metric)


@dataclass
class Plan:
    """Requests by cell id, in the order of collection. `cells` has references that no case names, too."""

    cells: dict[str, Cell] = field(default_factory=dict)
    requests: dict[str, list[str]] = field(default_factory=dict)

    def add(self, cell: Cell, request: str) -> None:
        self.cells.setdefault(cell.id, cell)
        requests = self.requests.setdefault(cell.id, [])
        if request not in requests:
            requests.append(request)


class Partners:
    """The references of each model in its several backends: with the same weights and tokens they have to agree."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._references: dict[str, list[Cell]] = {}
        for cell in cells:
            if cell.id == cell.reference:
                self._references.setdefault(cell.model, []).append(cell)

    def of(self, cell: Cell) -> list[Cell]:
        """Return those in other backends, on the same kind of device; none for a cell that is no reference."""
        if cell.id != cell.reference:
            return []
        return [
            other
            for other in self._references.get(cell.model, ())
            if other.backend != cell.backend
            and other.scheme_options.get("device") == cell.scheme_options.get("device")
        ]


def make_plan(needs: Iterable[Need], cell_of: Mapping[str, Cell], *, references: bool = True) -> Plan:
    """Collect the requests.

    references: add those that relative metrics need: to the cell's reference, and where references must agree, to
    those of the model's other backends.
    """
    plan, partners = Plan(), Partners(cell_of.values())
    for need in needs:
        plan.add(need.cell, need.request)
        reference = cell_of.get(need.cell.reference) if references else None
        if group_of(need.request).relative and reference is not None and reference.id != need.cell.id:
            plan.add(reference, need.request)
        if references and group_of(need.request).agreement:
            for partner in partners.of(need.cell):
                plan.add(partner, need.request)
    return plan


def lacking(request: str, options: GroupOptions, missing: Mapping[str, str]) -> str:
    """Return why a request cannot be measured: the reason of the first of its texts and tasks that is `missing`; empty
    where it can. A part of a group that is named after a text or task takes that alone."""
    group, _, part = request.partition("/")
    if not missing:
        return ""
    needs = group_of(group).needs(options[group])
    names = dict.fromkeys([*needs.texts, *needs.lines, *needs.tasks, *needs.programs])
    taken = [part] if part in names else names
    return next((missing[name] for name in taken if name in missing), "")


def groups_of(requests: Iterable[str]) -> list[str]:
    """Return the names of the metric groups of requests, each once."""
    return list(dict.fromkeys(group_name(request) for request in requests))


def repeated(requests: Iterable[str], options: GroupOptions) -> list[str]:
    """Return the requests of groups that are measured in several processes."""
    return [r for r in requests if _processes(r, options) is not None]


def in_turns(requests: Iterable[str], options: GroupOptions) -> list[str]:
    """Return the requests of groups whose rounds can alternate with those of another process."""
    return [r for r in requests if getattr(options[group_name(r)], "in_turns", False)]


def per_process(requests: Sequence[str], options: GroupOptions) -> list[list[str]]:
    """Return the requests of each process of a cell: all of the first, and of the next ones those that are measured in
    several (`processes` of a group's options)."""
    counts = {request: _processes(request, options) or 1 for request in requests}
    return [[r for r in requests if counts[r] > number] for number in range(max(counts.values(), default=1))]


def _processes(request: str, options: GroupOptions) -> int | None:
    """Return in how many processes a request is measured; None where its metrics do not vary between them."""
    return getattr(options[group_name(request)], "processes", None)
