"""Judges that are tables: which changes make an environment bad, and which cannot be built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from quantgate.bisect.search import Answer, Change, Pins

Rule = Callable[[frozenset[str]], bool]


def pins(*names: str, version: int) -> dict[str, str]:
    return {name: f"{name}=={version}" for name in names}


def steps(change: Change) -> list[str]:
    """All whole versions."""
    assert change.bad is not None
    if change.good is None:
        return [change.bad]
    name, last = change.bad.split("==")
    first = int(change.good.split("==")[1])
    return [f"{name}=={version}" for version in range(first + 1, int(last) + 1)]


@dataclass
class Table:
    """Judges by rules over what is new; `environments` has every environment in order.

    bad, broken, unclear: take the changes of an environment as `name==version`, from version 1 on, all those that it
    has: `b==3` comes with `b==2`.
    """

    bad: Rule
    broken: Rule = lambda new: False
    unclear: Rule = lambda new: False
    environments: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, environment: Pins) -> Answer:
        assert environment not in self.environments, "asked twice"
        self.environments.append(dict(environment))
        return self.answer(environment)

    def answer(self, environment: Pins) -> Answer:
        new = reached(environment.values())
        if self.broken(new):
            return Answer.BROKEN
        if self.unclear(new):
            return Answer.INCONCLUSIVE
        return Answer.BAD if self.bad(new) else Answer.GOOD


def reached(requirements: Iterable[str]) -> frozenset[str]:
    """The versions from 1 up to each pin."""
    names = [requirement.split("==") for requirement in requirements]
    return frozenset(f"{name}=={v}" for name, last in names for v in range(1, int(last) + 1))


def every(*needed: str) -> Rule:
    return lambda new: set(needed) <= new


def some(*rules: Rule) -> Rule:
    return lambda new: any(rule(new) for rule in rules)


def names_of(packages: Sequence[Change]) -> list[str]:
    return [change.package for change in packages]
