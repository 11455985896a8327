"""The search for the guilty change. Pure: it asks a judge about environments, and knows neither pip nor a metric.

Packages first. They are put in a row; in environment k the first k of them are new, so number 0 is the good end and the
last one the bad end. Bisection leaves two neighbours, one judged good and one judged bad: the package between them is
guilty, whatever interacts with what. Then its releases, with every other package old. Where not even the newest of them
is bad by itself, the package needs a partner, which the same bisection finds among those before it in the row (as
QUICKXPLAIN does: Junker, AAAI 2004).

What is not judged is stepped over: the next environment is the one that lies farthest from all that were judged or
tried, so a stretch of releases that cannot be installed costs few attempts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Pins = Mapping[str, str]
"""An environment: by package, the requirement that pins it (`torch==2.13.0`). Without a pin it is as it is here."""


class Answer(StrEnum):
    """What the judge says of an environment. `inconclusive`: all samples that there are do not tell. `broken`: it
    cannot be built or measured. Neither counts as good or as bad."""

    GOOD = "good"
    BAD = "bad"
    INCONCLUSIVE = "inconclusive"
    BROKEN = "broken"


Judge = Callable[[Pins], Answer]


@dataclass(frozen=True)
class Change:
    """A package whose pin differs. None: that end does not pin it."""

    package: str
    good: str | None
    bad: str | None


Steps = Callable[[Change], Sequence[str]]
"""Gives the pins from the good one (excluded) to the bad one (included), in their order."""


@dataclass(frozen=True)
class Span:
    """Two places of a row: the last that is good and the first that is bad. What lies between could not be judged."""

    good: int
    bad: int

    @property
    def exact(self) -> bool:
        """Whether the two are neighbours."""
        return self.bad == self.good + 1


@dataclass(frozen=True)
class Culprit:
    """A package and the step of its version that is guilty.

    packages: one; several where no environment that tells them apart could be judged. good, bad: the pins that were
    judged so; None: not pinned. skipped: pins between the two that could not be judged.
    """

    packages: tuple[str, ...]
    good: str | None = None
    bad: str | None = None
    skipped: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether it is one package and one step."""
        return len(self.packages) == 1 and not self.skipped


@dataclass(frozen=True)
class Finding:
    """What the search comes to.

    culprits: one; several that are bad only together. good, bad: two judged environments whose only difference is the
    last step of the search. beside: packages that had to be new as well for the culprits to be judged.
    """

    culprits: tuple[Culprit, ...]
    good: Pins
    bad: Pins
    beside: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether nothing that could not be judged lies between good and bad."""
        return all(culprit.exact for culprit in self.culprits) and not self.beside


def changes_between(good: Pins, bad: Pins) -> list[Change]:
    """Return the packages whose pins differ, sorted."""
    names = sorted({*good, *bad})
    return [Change(n, good.get(n), bad.get(n)) for n in names if good.get(n) != bad.get(n)]


def narrow(good: int, bad: int, ask: Callable[[int], Answer]) -> Span:
    """Narrow a row whose place `good` is good and whose place `bad` is bad, by asking about places between them."""
    tried: set[int] = set()
    while places := [place for place in range(good + 1, bad) if place not in tried]:
        marks = (good, bad, *tried)
        middle = good + bad
        # The farthest from all marks; of several the one next to the middle.
        place = max(places, key=lambda p: (min(abs(p - mark) for mark in marks), -abs(2 * p - middle)))
        answer = ask(place)
        if answer == Answer.GOOD:
            good = place
        elif answer == Answer.BAD:
            bad = place
        else:
            tried.add(place)
        tried = {place for place in tried if good < place < bad}
    return Span(good, bad)


def most(packages: int) -> int:
    """Return how many environments are judged at most beside the two ends to tell which package is guilty by itself,
    where all can be judged."""
    return (packages - 1).bit_length()


def search(good: Pins, bad: Pins, judge: Judge, steps: Steps, order: Sequence[str] = ()) -> Finding:
    """Return which change of the pins turns `good`, which is good, into `bad`, which is bad.

    judge: is asked about no environment twice, and about neither end. order: how the packages stand in the row
    (default: sorted). Raises ValueError where the two have the same pins.
    """
    changes = changes_between(good, bad)
    if not changes:
        raise ValueError("the two environments have the same pins")
    place = {name: number for number, name in enumerate(order)}
    changes.sort(key=lambda change: place.get(change.package, len(place)))
    return _Search(good, bad, judge, steps).run(changes)


Unit = tuple[Change, ...]
"""One package, or several that cannot be told apart."""


@dataclass
class _Search:
    good: Pins
    bad: Pins
    judge: Judge
    steps: Steps
    _answers: dict[frozenset[tuple[str, str]], Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pins, answer in ((self.good, Answer.GOOD), (self.bad, Answer.BAD)):
            self._answers[frozenset(pins.items())] = answer

    def run(self, changes: Sequence[Change]) -> Finding:
        unit, before = self._next(changes, [])
        if len(unit) == 1 and before and (finding := self._alone(unit[0], before)) is not None:
            return finding
        kept = [unit]
        while before and self._ask(_flat(kept)) == Answer.GOOD:
            unit, before = self._next(before, kept)
            kept.insert(0, unit)
        if before and self._ask(_flat(kept)) != Answer.BAD:
            return self._together(kept, before)  # it cannot be judged without the others
        return self._together(self._needed(kept), ())

    def _next(self, row: Sequence[Change], kept: Sequence[Unit]) -> tuple[Unit, Sequence[Change]]:
        """Return the package of the row that makes `kept` bad, and those before it, with which it does."""
        base = _flat(kept)
        span = narrow(0, len(row), lambda k: self._ask([*base, *row[:k]]))
        if not span.exact:  # what cannot be installed in this order may be in the other one
            row = [*row[: span.good], *reversed(row[span.good : span.bad]), *row[span.bad :]]
            span = narrow(span.good, span.bad, lambda k: self._ask([*base, *row[:k]]))
        return tuple(row[span.good : span.bad]), row[: span.good]

    def _alone(self, change: Change, before: Sequence[Change]) -> Finding | None:
        """Return the step of a package that is bad with every other package old; None: its newest is good there, so it
        needs a partner. Where that cannot be judged, the packages before it, with which it is bad, are new as well."""
        pins = self._path(change)
        last = len(pins) - 1
        # Past the last place lies what is bad for certain: the package with those before it.
        span = narrow(0, last + 1, lambda k: self._ask([_to(change, pins[k])]))
        if span.good == last:
            return None
        beside = before if span.bad > last else ()
        if beside:
            span = narrow(0, last, lambda k: self._ask([*beside, _to(change, pins[k])]))
        return Finding(
            culprits=(_culprit(change, pins, span),),
            good=self._with([*beside, _to(change, pins[span.good])]),
            bad=self._with([*beside, _to(change, pins[span.bad])]),
            beside=tuple(c.package for c in beside),
        )

    def _together(self, units: Sequence[Unit], beside: Sequence[Change]) -> Finding:
        """Return packages that are bad together, each with the step of its version, the others being new."""
        culprits: list[Culprit] = []
        present = list(units)
        good: list[Change] = []
        for number, unit in enumerate(units):
            others = [*_flat([*present[:number], *present[number + 1 :]]), *beside]
            if len(unit) > 1 or self._ask(others) != Answer.GOOD:
                culprits.append(_as_culprit(unit))
                continue
            [change] = unit
            pins = self._path(change)
            span = narrow(0, len(pins) - 1, lambda k: self._ask([*others, _to(change, pins[k])]))  # noqa: B023
            culprits.append(_culprit(change, pins, span))
            present[number] = (_to(change, pins[span.bad]),)
            good = [*others, _to(change, pins[span.good])]
        return Finding(
            culprits=tuple(culprits),
            good=self._with(good),
            bad=self._with([*_flat(present), *beside]),
            beside=tuple(change.package for change in beside),
        )

    def _needed(self, units: list[Unit]) -> list[Unit]:
        """Return the units without which the others are not bad."""
        for unit in list(units):
            others = [other for other in units if other is not unit]
            if others and self._ask(_flat(others)) == Answer.BAD:
                units = others
        return units

    def _path(self, change: Change) -> list[str | None]:
        return [change.good, *(self.steps(change) if change.bad is not None else [None])]

    def _ask(self, new: Iterable[Change]) -> Answer:
        pins = self._with(new)
        key = frozenset(pins.items())
        if key not in self._answers:
            self._answers[key] = self.judge(pins)
        return self._answers[key]

    def _with(self, new: Iterable[Change]) -> dict[str, str]:
        """Return the good end with these packages as in the bad one."""
        pins = {**self.good, **{change.package: change.bad for change in new}}
        return {package: pin for package, pin in pins.items() if pin is not None}


def _flat(units: Sequence[Unit]) -> list[Change]:
    return [change for unit in units for change in unit]


def _to(change: Change, pin: str | None) -> Change:
    return Change(change.package, change.good, pin)


def _culprit(change: Change, pins: Sequence[str | None], span: Span) -> Culprit:
    skipped = [pin for pin in pins[span.good + 1 : span.bad] if pin is not None]
    return Culprit((change.package,), pins[span.good], pins[span.bad], tuple(skipped))


def _as_culprit(unit: Unit) -> Culprit:
    if len(unit) == 1:
        return Culprit((unit[0].package,), unit[0].good, unit[0].bad)
    return Culprit(tuple(change.package for change in unit))
