"""One cause, one alarm: verdicts of many cells that are one thing to find out.

The rule. Verdicts are of one kind (worse, better, inconclusive, failed with the same words) on one subject (quality,
memory, throughput ...). Cells that have something in common (model, backend, bits, family of schemes ...; or all of
the run) form one cause when at least `CELLS` of them have such a verdict, and at least `SHARE` of those judged either
have it or moved along: in the same direction, by at least half as much as the mean of the others. The group with the
most such verdicts wins; of equal ones the one with the fewest exceptions, then the widest. What is left may form the
next. Causes of one kind in the same group are one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from quantgate.judge.drift import MOVED, size
from quantgate.records import Status, Verdict

CELLS = 3
"""Fewer cells than this are told one by one."""
SHARE = 0.8
ALONG = 0.5
SAME = 0.25
"""Changes are the same where their standard deviation is at most this share of their mean."""

QUALITY = ("perplexity", "accuracy", "divergence")
"""Groups of metrics that one change of the computation moves together."""

Group = tuple[str, ...]
"""What cells have in common: ("backend", "llamacpp"); of all cells ("all",)."""


@dataclass(frozen=True)
class Cause:
    """`verdicts` of the cells that moved; `along`: cells that moved with them within their tolerance; `judged`: how
    many cells of the group there were to move."""

    group: Group
    verdicts: tuple[Verdict, ...]
    along: tuple[str, ...]
    judged: int

    @property
    def cells(self) -> list[str]:
        """Those that moved, in first-seen order."""
        return list(dict.fromkeys(v.cell for v in self.verdicts))

    @property
    def environment(self) -> list[str]:
        """What changed since the baseline in every one of the cells."""
        lines: dict[str, set[str]] = defaultdict(set)
        for verdict in self.verdicts:
            for line in verdict.environment:
                lines[line].add(verdict.cell)
        return [line for line, cells in lines.items() if len(cells) == len(self.cells)]

    def by_metric(self) -> dict[str, list[Verdict]]:
        """The metric that moved in most cells first."""
        found: dict[str, list[Verdict]] = defaultdict(list)
        for verdict in self.verdicts:
            found[verdict.metric].append(verdict)
        return dict(sorted(found.items(), key=lambda entry: -len(entry[1])))


def causes(verdicts: Iterable[Verdict], bits: Mapping[str, float] | None = None) -> list[Cause]:
    """The common causes among `verdicts`, the largest first; `bits`: nominal bits by cell, where they are known."""
    table = _Table(verdicts, bits or {})
    found: dict[tuple[str, Group], list[Cause]] = defaultdict(list)
    for (kind, subject), moved in table.moved.items():
        for cause in table.causes_of(kind, subject, moved):
            found[kind, cause.group].append(cause)
    merged = [_merged(same) for same in found.values()]
    return sorted(merged, key=lambda cause: -len(cause.cells))


def same_factor(verdicts: Sequence[Verdict]) -> bool:
    """Whether one metric changed by about the same in all cells."""
    sizes = [size(v) for v in verdicts if v.change is not None]
    return len(sizes) >= CELLS and pstdev(sizes) <= SAME * abs(fmean(sizes))


def attributes(cell: str, bits: float | None = None) -> Iterator[Group]:
    """What a cell may have in common with others, the widest first."""
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
    """`Q*_K*` of Q2_K and Q4_K_M, `nf*` of nf4: the scheme without its bits and its size."""
    return re.sub(r"_[SML]$", "", re.sub(r"\d+", "*", scheme, count=1)) + ("*" if "_K" in scheme else "")


def _kind(verdict: Verdict) -> str:
    """What may be one thing; empty for what passes or is gathered by its words already."""
    if verdict.status in MOVED:
        return "worse"
    told = (Status.IMPROVEMENT, Status.INCONCLUSIVE, Status.ERROR)
    return str(verdict.status) if verdict.status in told else ""


def _subject(verdict: Verdict) -> str:
    if verdict.status == Status.ERROR:
        return verdict.text.partition("\n")[0]
    group = verdict.metric.partition("/")[0]
    return "quality" if group in QUALITY else group


class _Table:
    """Verdicts by what they may have in common."""

    def __init__(self, verdicts: Iterable[Verdict], bits: Mapping[str, float]) -> None:
        self.moved: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
        self._judged: dict[str, dict[str, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
        self._bits = bits
        self._cells: dict[str, None] = {}
        for verdict in verdicts:
            self._cells[verdict.cell] = None
            if verdict.change is not None:
                self._judged[_subject(verdict)][verdict.cell].append(verdict)
            if kind := _kind(verdict):
                self.moved[kind, _subject(verdict)].append(verdict)

    def causes_of(self, kind: str, subject: str, moved: list[Verdict]) -> Iterator[Cause]:
        """Group after group, until no group is left that follows the rule."""
        left: dict[str, list[Verdict]] = defaultdict(list)
        for verdict in moved:
            left[verdict.cell].append(verdict)
        judged = dict.fromkeys([*self._judged[subject], *left]) if kind != Status.ERROR else self._cells
        along = self._along(subject, moved, judged.keys() - left.keys()) if kind == "worse" else set()
        while best := self._largest(left, judged, along):
            group, members, struck = best
            with_it = tuple(cell for cell in members if cell in along)
            yield Cause(group, tuple(v for c in struck for v in left.pop(c)), with_it, len(members))

    def _largest(
        self, left: Mapping[str, list[Verdict]], judged: Iterable[str], along: set[str]
    ) -> tuple[Group, list[str], list[str]] | None:
        groups: dict[Group, list[str]] = defaultdict(list)
        for cell in judged:
            for group in attributes(cell, self._bits.get(cell)):
                groups[group].append(cell)
        best, best_rank = None, (0, 0.0)
        for group, members in groups.items():
            struck = [cell for cell in members if cell in left]
            share = sum(1 for cell in members if cell in left or cell in along) / len(members)
            if len(struck) >= CELLS and share >= SHARE and (len(struck), share) > best_rank:
                best, best_rank = (group, members, struck), (len(struck), share)
        return best

    def _along(self, subject: str, moved: list[Verdict], others: Iterable[str]) -> set[str]:
        sizes: dict[str, list[float]] = defaultdict(list)
        for verdict in moved:
            sizes[verdict.metric].append(size(verdict))
        means = {metric: fmean(found) for metric, found in sizes.items()}

        def with_them(verdict: Verdict) -> bool:
            mean = means.get(verdict.metric, 0.0)
            return mean != 0 and size(verdict) / mean >= ALONG

        return {c for c in others if any(map(with_them, self._judged[subject].get(c, ())))}


def _merged(same: list[Cause]) -> Cause:
    """Several subjects of one group."""
    verdicts = tuple(v for cause in same for v in cause.verdicts)
    cells = {v.cell for v in verdicts}
    along = dict.fromkeys(c for cause in same for c in cause.along if c not in cells)
    return Cause(same[0].group, verdicts, tuple(along), max(cause.judged for cause in same))
