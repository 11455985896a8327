"""What a cell takes of the machine that measures it: processors, GPUs, memory; and whether a machine has that. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import attrgetter
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from quantgate.config.sentences import allowed
from quantgate.errors import InputError
from quantgate.records import Record


class Resources(Record):
    """What the matrix states: `resources` of a scheme, or of a model for some schemes. None: nothing is stated.

    cpus: processors; a cell takes as many as its process has threads, or these, if they are more. gpus: CUDA devices.
    memory: gigabytes (10^9 bytes) of the machine's memory.
    """

    cpus: int | None = Field(default=None, ge=1)
    gpus: int | None = Field(default=None, ge=1)
    memory: float | None = Field(default=None, gt=0)

    def under(self, other: Resources) -> Resources:
        """Return these with what `other` states in their place."""
        return self.model_copy(update=other.model_dump(exclude_none=True))


@dataclass(frozen=True)
class Offer:
    """What a machine has in all. name: as sentences call it ("this machine")."""

    name: str
    cpus: float
    gpus: float
    memory: float


class _Scheme(Protocol):
    @property
    def device(self) -> Literal["cpu", "cuda"]: ...

    @property
    def resources(self) -> Resources: ...


class _Model(Protocol):
    @property
    def resources(self) -> Mapping[str, Resources]: ...


def resources_of(model: _Model, scheme: _Scheme, name: str) -> Resources:
    """Return what a cell takes: as its scheme states, and in its place as the entries of its model do that match
    `backend/scheme` (`name`), in their order. A scheme of the CPU takes no GPU, and one of CUDA takes one at least."""
    resources = scheme.resources
    for pattern, stated in model.resources.items():
        if fnmatchcase(name, pattern):
            resources = resources.under(stated)
    gpus = (resources.gpus or 1) if scheme.device == "cuda" else None
    return resources.model_copy(update={"gpus": gpus})


def check_resources(
    path: Path, models: Mapping[str, _Model], schemes: Mapping[str, Mapping[str, _Scheme]]
) -> None:
    """Raise InputError for GPUs that no scheme of a CUDA device can take, and for an entry of a model that matches no
    scheme. schemes: by backend and name."""
    named = {f"{backend}/{name}": one for backend, entry in schemes.items() for name, one in entry.items()}
    remedy = 'give it device = "cuda", or remove gpus'
    for name, scheme in named.items():
        if scheme.resources.gpus and scheme.device == "cpu":
            backend, _, key = name.partition("/")
            raise InputError(
                f"{path}: backends.{backend}.schemes.{key}.resources.gpus: the scheme computes on the CPU: {remedy}"
            )
    for model, entry in models.items():
        for pattern, resources in entry.resources.items():
            where = f'{path}: models.{model}.resources."{pattern}"'
            matching = [one for name, one in named.items() if fnmatchcase(name, pattern)]
            if not matching:
                raise InputError(f"{where}: matches no backend/scheme. {allowed(pattern, named)}")
            if resources.gpus and all(one.device == "cpu" for one in matching):
                raise InputError(f"{where}.gpus: all schemes that it matches compute on the CPU: {remedy}")


def lacking(asked: Resources, offers: Sequence[Offer]) -> str:
    """Return why no machine has all that is asked for; empty: one has.

    "needs 8 GPUs and 900 GB of memory; this machine has 2 GPUs and 24 GB of memory". Of several machines those are
    named that have the most of something.
    """
    needs = {key: value for key, value in asked.model_dump().items() if value}
    if not needs or any(all(getattr(one, key) >= value for key, value in needs.items()) for one in offers):
        return ""
    named = dict.fromkeys(max(offers, key=attrgetter(key)) for key in needs) if offers else {}
    there = [f"{one.name} has {_in_words({key: getattr(one, key) for key in needs})}" for one in named]
    return f"needs {_in_words(needs)}; {', '.join(there) or 'there is no machine'}"


def _in_words(amounts: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {_unit(key, amount)}" for key, amount in amounts.items())


def _unit(key: str, amount: float) -> str:
    one, several = {"cpus": ("CPU", "CPUs"), "gpus": ("GPU", "GPUs"), "memory": ("GB of memory",) * 2}[key]
    return one if amount == 1 else several
