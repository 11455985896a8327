"""What the metric groups of a tier need of its workload, together."""

from __future__ import annotations

from quantgate.measure.groups import group_of
from quantgate.records import Needs
from quantgate.run.plan import GroupOptions
from quantgate.supply.fitness import Length


def needs_of(group_options: GroupOptions) -> Needs:
    """Return the most that any group takes of each text and task."""
    needs = [group_of(group).needs(options) for group, options in group_options.items()]

    def most(kind: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for one in needs:
            for name, count in getattr(one, kind).items():
                counts[name] = max(count, counts.get(name, 0))
        return counts

    return Needs(
        texts=most("texts"),
        tasks=most("tasks"),
        fewshot=max((one.fewshot for one in needs), default=0),
        lines=most("lines"),
        programs=most("programs"),
    )


def lengths_of(group_options: GroupOptions) -> list[Length]:
    """Return how long the longest text of each group is, where its options say so."""
    return [
        Length(group, keys, sum(getattr(options, key) for key in keys))
        for group, options in group_options.items()
        if (keys := group_of(group).length)
    ]
