"""Checks between the tables of a matrix: each raises InputError that names file, key and remedy."""

from __future__ import annotations

from fnmatch import fnmatchcase

from quantgate.config.matrix import Matrix
from quantgate.config.sentences import allowed
from quantgate.errors import InputError


def check_checkpoints(matrix: Matrix) -> None:
    """Raise InputError for a checkpoint that no tier measures, or under a name that is no backend/scheme."""
    patterns = [pattern for tier in matrix.tiers.values() for pattern in tier.cells]
    for name, model in matrix.models.items():
        for cell in model.checkpoints:
            where = f"{matrix.path}: models.{name}.checkpoints: {cell!r}"
            backend, _, scheme = cell.partition("/")
            if backend not in matrix.backends:
                raise InputError(
                    f"{where} is not a backend/scheme: there is no backend {backend!r}. "
                    f"{allowed(backend, matrix.backends)}"
                )
            if scheme not in (schemes := matrix.backends[backend].schemes):
                raise InputError(
                    f"{where}: {backend} has no scheme {scheme!r}. {allowed(scheme, schemes)}; or define it: "
                    f"{_key(cell)} = {{ as_is = true }}"
                )
            if _reference_of(matrix, cell)[0] == cell:
                key = "gguf" if matrix.backends[backend].checkpoint == "gguf" else "weights"
                raise InputError(
                    f"{where} is the reference that other cells are compared with, so it runs the model itself: "
                    f"name this checkpoint as models.{name}.{key}, or here under a scheme that is not a reference"
                )
            if patterns and not any(fnmatchcase(f"{name}/{cell}", pattern) for pattern in patterns):
                raise InputError(
                    f"{where}: no tier has this cell, so the checkpoint would never be measured: add "
                    f"{f'{name}/{cell}'!r} to the cells of a tier"
                )


def check_references(matrix: Matrix) -> None:
    """Raise InputError for a `reference` or an `in_process` that is no backend/scheme, and for a reference that is
    compared with another cell: a reference leaves its log-probabilities to the others, and has no divergence itself."""
    schemes = matrix.schemes
    for backend, entry in matrix.backends.items():
        keys = {"reference": entry.reference}
        for key in ("reference", "in_process"):
            keys |= {f"schemes.{name}.{key}": getattr(one, key) for name, one in entry.schemes.items()}
        for key, named in keys.items():
            if named is None:
                continue
            where = f"{matrix.path}: backends.{backend}.{key}"
            if named not in schemes:
                raise InputError(f"{where}: no backend/scheme {named!r}. {allowed(named, schemes)}")
            other, other_key = _reference_of(matrix, named)
            if other != named and key.endswith("reference"):
                raise InputError(
                    f"{where}: {named!r} is not a reference, since {other_key} compares it with {other!r}: "
                    f"name {other!r} here, or make it a reference of its own, with "
                    f"{_key(named)}.reference = {named!r}"
                )


def check_resources(matrix: Matrix) -> None:
    """Raise InputError for GPUs that no scheme of a CUDA device can take, and for an entry of a model that matches no
    scheme."""
    schemes = matrix.schemes
    remedy = 'give it device = "cuda", or remove gpus'
    for name, scheme in schemes.items():
        if scheme.resources.gpus and scheme.device == "cpu":
            raise InputError(
                f"{matrix.path}: {_key(name)}.resources.gpus: the scheme computes on the CPU: {remedy}"
            )
    for model, entry in matrix.models.items():
        for pattern, resources in entry.resources.items():
            where = f'{matrix.path}: models.{model}.resources."{pattern}"'
            matching = [one for name, one in schemes.items() if fnmatchcase(name, pattern)]
            if not matching:
                raise InputError(f"{where}: matches no backend/scheme. {allowed(pattern, schemes)}")
            if resources.gpus and all(one.device == "cpu" for one in matching):
                raise InputError(f"{where}.gpus: all schemes that it matches compute on the CPU: {remedy}")


def _key(name: str) -> str:
    """Return the key of a `backend/scheme`."""
    backend, _, scheme = name.partition("/")
    return f"backends.{backend}.schemes.{scheme}"


def _reference_of(matrix: Matrix, name: str) -> tuple[str, str]:
    """What `backend/scheme` is compared with, and the key that says so."""
    backend, _, scheme = name.partition("/")
    entry = matrix.backends[backend]
    if (reference := entry.schemes[scheme].reference) is not None:
        return reference, f"{_key(name)}.reference"
    return entry.reference, f"backends.{backend}.reference"
