"""Collect all faults, by name."""

from __future__ import annotations

from quantgate.config.sentences import allowed
from quantgate.errors import InputError
from quantgate.proofs.faults import (
    computation,
    data,
    generation,
    memory,
    precision,
    scoring,
    speed,
    weights,
    writing,
)
from quantgate.proofs.faults.registry import FAULTS, Fault

KINDS = [
    module.__name__.rpartition(".")[2]
    for module in (weights, computation, precision, generation, writing, scoring, data, speed, memory)
]
"""The files of the catalogue, in the order of the table."""

CATALOGUE: dict[str, Fault] = dict(sorted(FAULTS.items(), key=lambda entry: KINDS.index(entry[1].kind)))


def of_tier(tier: str) -> list[Fault]:
    """Return the faults that are tried on a tier: its own, or where it has none, those of no tier."""
    return [fault for fault in CATALOGUE.values() if fault.tier == tier] or [
        fault for fault in CATALOGUE.values() if not fault.tier
    ]


def named(name: str) -> Fault:
    """Return the fault of that name. Raises InputError with the nearest names."""
    if name not in CATALOGUE:
        raise InputError(f"no fault {name!r}. {allowed(name, CATALOGUE)}")
    return CATALOGUE[name]
