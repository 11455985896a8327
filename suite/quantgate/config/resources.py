"""What a cell takes of the machine that measures it: processors, GPUs, memory; and whether a machine has that. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from pydantic import Field

from quantgate.records import Record


class Resources(Record):
    """What the matrix states: `resources` of a scheme, or of a model for some schemes. None: nothing is stated.

    cpus: processors; a cell takes as many as its process has threads, or these, if they are more. gpus: CUDA devices.
    memory: gigabytes (10^9 bytes) of the machine's memory.
    """

    cpus: int | None = Field(default=None, ge=1)
    gpus: int | None = Field(default=None, ge=1)
    memory: float | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class Offer:
    """What a machine has in all. name: as sentences call it ("this machine")."""

    name: str
    cpus: float
    gpus: float
    memory: float


def lacking(resources: Resources, offers: Sequence[Offer]) -> str:
    """Return why no machine has all that is asked for; empty: one has.

    "needs 8 GPUs and 900 GB of memory; this machine has 2 GPUs and 24 GB of memory". Of several machines those are
    named that have the most of something.
    """
    needs = {key: value for key, value in resources.model_dump().items() if value}
    if not needs or any(all(getattr(one, key) >= value for key, value in needs.items()) for one in offers):
        return ""
    named = dict.fromkeys(max(offers, key=attrgetter(key)) for key in needs) if offers else {}
    there = [f"{one.name} has {_in_words({key: getattr(one, key) for key in needs})}" for one in named]
    return f"needs {_in_words(needs)}; {', '.join(there) or 'there is no machine'}"


def _in_words(amounts: Mapping[str, float]) -> str:
    units = {"cpus": ("CPU", "CPUs"), "gpus": ("GPU", "GPUs"), "memory": ("GB of memory", "GB of memory")}
    return " and ".join(f"{amount:g} {units[key][amount != 1]}" for key, amount in amounts.items())
