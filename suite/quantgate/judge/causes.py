"""One cause, one alarm: group the verdicts of many cells that probably have one cause.

The rule. Verdicts are of one kind (worse, better, inconclusive, failed with the same message) on one subject (quality,
memory, throughput ...). Cells that have something in common (model, backend, bits, family of schemes ...; or all cells
of the run) form one cause when at least `CELLS` of them have such a verdict, and at least `SHARE` of those judged
either have it or moved along: in the same direction, by at least half as much as the mean of the others. The group with
the most such verdicts wins; among equals the one with the fewest exceptions, then the widest. The rest may form the
next cause. Causes of one kind in the same group are merged, but for failures, each of which has its own message.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from quantgate.records import MOVED, Status, Verdict

CELLS = 3
"""Fewer cells than this are reported one by one."""
SHARE = 0.8
ALONG = 0.5
SAME = 0.25
"""Changes are the same where their standard deviation is at most this share of their mean."""

Group = tuple[str, ...]
"""What cells have in common: ("backend", "llamacpp"); for all cells ("all",)."""


@dataclass(frozen=True)
class Cause:
    """A group of cells and the `verdicts` on those that moved. along: cells that moved with them within their
    tolerance; judged: how many cells of the group could have moved."""

    group: Group
    verdicts: tuple[Verdict, ...]
    along: tuple[str, ...]
    judged: int

    @property
    def cells(self) -> list[str]:
        """The cells that moved, in the order of their verdicts."""
        return list(dict.fromkeys(v.cell for v in self.verdicts))

    @property
    def environment(self) -> list[str]:
        """What changed since the baseline in every one of the cells."""
        cells = len(self.cells)
        lines: dict[str, set[str]] = defaultdict(set)
        for verdict in self.verdicts:
            for line in verdict.environment:
                lines[line].add(verdict.cell)
        return [line for line, having in lines.items() if len(having) == cells]

    def by_metric(self) -> dict[str, list[Verdict]]:
        """The verdicts by metric; the metric that moved in most cells comes first."""
        groups: dict[str, list[Verdict]] = defaultdict(list)
        for verdict in self.verdicts:
            groups[verdict.metric].append(verdict)
        return dict(sorted(groups.items(), key=lambda entry: -len(entry[1])))


def causes(
    verdicts: Iterable[Verdict], families: Mapping[str, str], bits: Mapping[str, float]
) -> list[Cause]:
    """Return the common causes among `verdicts`, the largest first. families: by metric group, what one change of the
    computation moves together. bits: nominal bits by cell, as far as they are known."""
    moved: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    judged: dict[str, dict[str, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    cells: dict[str, None] = {}
    for verdict in verdicts:
        cells[verdict.cell] = None
        subject = _subject(verdict, families)
        if verdict.change is not None:
            judged[subject][verdict.cell].append(verdict)
        if kind := _kind(verdict):
            moved[kind, subject].append(verdict)
    by_group: dict[tuple[str, Group, str], list[Cause]] = defaultdict(list)
    for (kind, subject), same_kind in moved.items():
        of_subject = judged[subject]
        comparable = cells if kind == Status.ERROR else of_subject
        for cause in _causes_of(kind, same_kind, of_subject, comparable, bits):
            by_group[kind, cause.group, subject if kind == Status.ERROR else ""].append(cause)
    merged = [_merged(same) for same in by_group.values()]
    return sorted(merged, key=lambda cause: -len(cause.cells))


def same_factor(verdicts: Sequence[Verdict]) -> bool:
    """Whether one metric changed by about the same in all cells."""
    sizes = [v.size for v in verdicts if v.change is not None]
    return len(sizes) >= CELLS and pstdev(sizes) <= SAME * abs(fmean(sizes))


def attributes(cell: str, bits: float | None = None) -> Iterator[Group]:
    """Yield what a cell may have in common with others, the widest first."""
    model, _, rest = cell.partition("/")
    backend, _, scheme = rest.partition("/")
    yield ("all",)
    yield ("backend", backend)
    yield ("model", model)
    yield ("model", model, "backend", backend)
    if bits is not None:
        yield ("bits", f"{bits:g}")
    yield ("schemes", _family(scheme))
    yield ("scheme", scheme)


def _family(scheme: str) -> str:
    """Return the scheme without its bits and its size: `Q*_K*` for Q2_K and Q4_K_M, `nf*` for nf4."""
    return re.sub(r"_[SML]$", "", re.sub(r"\d+", "*", scheme, count=1)) + ("*" if "_K" in scheme else "")


def _kind(verdict: Verdict) -> str:
    """Return the kind of cause that a verdict may belong to; empty: none, or its message gathers it already."""
    if verdict.status in MOVED:
        return "worse"
    kinds = (Status.IMPROVEMENT, Status.INCONCLUSIVE, Status.ERROR)
    return str(verdict.status) if verdict.status in kinds else ""


def _subject(verdict: Verdict, families: Mapping[str, str]) -> str:
    if verdict.status == Status.ERROR:
        return verdict.text.partition("\n")[0]
    group = verdict.metric.partition("/")[0]
    return families.get(group, group)


def _causes_of(
    kind: str,
    moved: Sequence[Verdict],
    judged: Mapping[str, Sequence[Verdict]],
    cells: Iterable[str],
    bits: Mapping[str, float],
) -> Iterator[Cause]:
    """Yield cause after cause among verdicts of one kind and subject, until no group is left that follows the rule.
    judged: verdicts on the subject by cell; cells: those that can form groups."""
    left: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in moved:
        left[verdict.cell].append(verdict)
    if len(left) < CELLS:
        return
    groups: dict[Group, list[str]] = defaultdict(list)
    for cell in dict.fromkeys([*cells, *left]):
        for group in attributes(cell, bits.get(cell)):
            groups[group].append(cell)
    sizes: dict[str, list[float]] = defaultdict(list)
    for verdict in moved:
        sizes[verdict.metric].append(verdict.size)
    means = {metric: fmean(changes) for metric, changes in sizes.items()}

    def with_them(verdict: Verdict) -> bool:
        """Whether it moved in the same direction, by at least half as much."""
        mean = means.get(verdict.metric, 0.0)
        return mean != 0 and verdict.size / mean >= ALONG

    others = judged.keys() - left.keys() if kind == "worse" else ()
    along = {cell for cell in others if any(map(with_them, judged[cell]))}
    for group, struck in _largest_first(groups, left, along):
        with_it = tuple(cell for cell in groups[group] if cell in along)
        yield Cause(group, tuple(v for c in struck for v in left.pop(c)), with_it, len(groups[group]))


def _largest_first(
    groups: Mapping[Group, list[str]], left: Mapping[str, object], along: set[str]
) -> Iterator[tuple[Group, list[str]]]:
    """Yield the groups that follow the rule with their cells in `left`, the largest first, while the caller removes
    from `left` the cells of each. A group can only shrink, so its old rank is an upper bound: a heap keeps this linear
    (times a logarithm) in the cells."""

    def rank(group: Group) -> tuple[int, float]:
        struck = sum(cell in left for cell in groups[group])
        moved = struck + sum(cell in along for cell in groups[group])
        return -struck, -moved / len(groups[group])

    heap = [(*rank(group), number, group) for number, group in enumerate(groups)]
    heapq.heapify(heap)
    while heap:
        *before, number, group = heapq.heappop(heap)
        struck, share = rank(group)
        if -struck < CELLS or -share < SHARE:
            continue
        if [struck, share] != before:
            heapq.heappush(heap, (struck, share, number, group))
            continue
        yield group, [cell for cell in groups[group] if cell in left]


def _merged(same: list[Cause]) -> Cause:
    """Merge the causes of several subjects in one group."""
    verdicts = tuple(v for cause in same for v in cause.verdicts)
    cells = {v.cell for v in verdicts}
    along = dict.fromkeys(c for cause in same for c in cause.along if c not in cells)
    return Cause(same[0].group, verdicts, tuple(along), max(cause.judged for cause in same))
