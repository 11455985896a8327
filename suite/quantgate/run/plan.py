"""Plan what is measured: the requests that the collected cases need of each cell, and what those need in turn."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantgate.config.matrix import Cell
from quantgate.errors import InputError
from quantgate.items import CHATS, opening_name, part
from quantgate.jobs import Needs
from quantgate.measure.groups import case_of, group_name, group_of
from quantgate.records import AGREEMENT, IN_PROCESS, Record
from quantgate.supply.fitness import Length

GroupOptions = Mapping[str, Record]
"""A tier's options by metric group."""


@dataclass(frozen=True)
class Need:
    """What one collected case needs: a request to a cell, `perplexity` or `accuracy/arc_easy`."""

    cell: Cell
    request: str

    def covers(self, metric: str) -> bool:
        """Return whether the case judges this metric."""
        name = case_of(metric) if metric in (AGREEMENT, IN_PROCESS) else metric
        return name in (self.request, f"{self.request}_ratio") or name.startswith(f"{self.request}/")


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


def make_plan(
    needs: Iterable[Need],
    cell_of: Mapping[str, Cell],
    *,
    references: bool = True,
    groups: Container[str] = frozenset(),
) -> Plan:
    """Collect the requests.

    references: add those that relative metrics need: to the cell's reference, where references must agree, to those of
    the model's other backends, and to the cell that runs a served one's weights in process. groups: names of the tier's
    metric groups: no other is asked of that cell.
    """
    plan, partners = Plan(), partners_of(cell_of.values())
    for need in needs:
        cell, request, group = need.cell, need.request, group_of(need.request)
        plan.add(cell, request)
        if not references:
            continue
        if group.relative and cell.reference in cell_of:
            plan.add(cell_of[cell.reference], request)
        for partner in partners.get(cell.id, ()) if group.agreement else ():
            plan.add(partner, request)
        if cell.in_process in cell_of and group_name(group.in_process) in groups:
            plan.add(cell_of[cell.in_process], group.in_process)
    return plan


def partners_of(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Return, by the id of each reference, those of its model in other backends, on the same kind of device: with the
    same weights and tokens they have to agree."""
    related: dict[tuple[str, object], list[Cell]] = {}
    for cell in cells:
        if cell.id == cell.reference:
            related.setdefault((cell.model, cell.scheme_options.get("device")), []).append(cell)
    return {
        cell.id: [other for other in references if other.backend != cell.backend]
        for references in related.values()
        for cell in references
    }


def needs_of(group_options: GroupOptions) -> Needs:
    """Return the most that any metric group takes of each text and task of the workload. Raises InputError where two
    pose one task in different ways."""
    needs = [group_of(group).needs(options) for group, options in group_options.items()]

    def most(kind: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for one in needs:
            for name, count in getattr(one, kind).items():
                counts[name] = max(count, counts.get(name, 0))
        return counts

    def alike(kind: str) -> dict[str, Any]:
        """The workload has each of them once: two groups may take the same, in the same way alone."""
        chosen: dict[str, Any] = {}
        for group, one in zip(group_options, needs, strict=True):
            for name, way in getattr(one, kind).items():
                if chosen.setdefault(name, way) != way:
                    raise InputError(
                        f"{group} asks {kind} {name!r} in another way than a metric group before it: give both the "
                        "same options (items, fewshot, chat, system)"
                    )
        return chosen

    return Needs(
        chats=any(one.chats for one in needs),
        openings=list(dict.fromkeys(system for one in needs for system in one.openings)),
        **{kind: most(kind) for kind in ("texts", "lines", "programs")},
        **{kind: alike(kind) for kind in ("tasks", "prompts", "questions")},
    )


def lengths_of(group_options: GroupOptions) -> list[Length]:
    """Return how long the longest text of each group is, where its options say so."""
    return [
        Length(group, keys, sum(getattr(options, key) for key in keys))
        for group, options in group_options.items()
        if (keys := group_of(group).length)
    ]


def lacking(request: str, options: GroupOptions, missing: Mapping[str, str]) -> str:
    """Return why a request cannot be measured: the reason of the first of its texts and tasks that is `missing`; empty
    where it can. A part of a group that is named after a text or task takes that alone."""
    if not missing:
        return ""
    group, _, rest = request.partition("/")
    needs = group_of(group).needs(options[group])
    kinds: dict[str, Iterable[str]] = {
        "text": needs.texts,
        "lines": needs.lines,
        "task": needs.tasks,
        "programs": needs.programs,
        "prompts": needs.prompts,
        "questions": needs.questions,
    }
    parts = {part(kind, name): name for kind, names in kinds.items() for name in names}
    chosen = [one for one, name in parts.items() if name == rest] or [
        *parts,
        *map(opening_name, needs.openings),
        *([CHATS] if needs.chats else []),
    ]
    return next((missing[one] for one in chosen if one in missing), "")


def groups_of(requests: Iterable[str]) -> list[str]:
    """Return the names of the metric groups of requests, each once."""
    return list(dict.fromkeys(map(group_name, requests)))


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
