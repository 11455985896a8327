"""Collect all faults, by name."""

from __future__ import annotations

from quantgate.config.sentences import allowed
from quantgate.errors import InputError
from quantgate.proofs.faults import computation, data, generation, memory, precision, scoring, speed, weights
from quantgate.proofs.faults.registry import FAULTS, Fault

KINDS = [
    module.__name__.rpartition(".")[2]
    for module in (weights, computation, precision, generation, scoring, data, speed, memory)
]
"""The files of the catalogue, in the order of the table."""

CATALOGUE: dict[str, Fault] = dict(sorted(FAULTS.items(), key=lambda entry: KINDS.index(entry[1].kind)))


def named(name: str) -> Fault:
    """Return the fault of that name. Raises InputError with the nearest names."""
    if name not in CATALOGUE:
        raise InputError(f"no fault {name!r}. {allowed(name, CATALOGUE)}")
    return CATALOGUE[name]
