"""Read the matrix and check it against the backends and metric groups that there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantgate.backends.spec import backends
from quantgate.config.matrix import Cell, Matrix, Scheme
from quantgate.config.reading import read_matrix
from quantgate.config.sentences import allowed
from quantgate.config.toml_input import validate
from quantgate.errors import InputError
from quantgate.measure.groups import agreement_group, group_of, metric_groups, reading_reference

SINGLY = "token by token"
MADE_BY = {"gguf": "ftype", "compressed": "method"}
"""By form of a checkpoint, the option of a scheme that says how it is made."""


def load_matrix(path: Path | None = None) -> Matrix:
    """Read `path` (default: fixtures/matrix.toml) with the options of its metric groups and schemes validated.

    Raises InputError naming file, key and allowed values.
    """
    groups = {name: group.options for name, group in metric_groups().items()}
    matrix = read_matrix(path, backends(), groups)
    _check_schemes(matrix)
    _check_references(matrix)
    _check_in_process(matrix)
    return matrix


def _check_references(matrix: Matrix) -> None:
    """Raise InputError where a group of a tier reads what a reference leaves that is not among its cells."""
    for name, tier in matrix.tiers.items():
        if not (groups := reading_reference(tier.group_options)):
            continue
        cells = {cell.id: cell.reference for cell in matrix.cells(name)}
        for cell, reference in cells.items():
            if reference not in cells and not all(tier.leaves_out(cell, group) for group in groups):
                raise InputError(
                    f"{matrix.path}: tiers.{name}.cells: {cell} is compared with {reference}, which is not among them: "
                    f"add it, or remove tiers.{name}.{groups[0]}"
                )


def _check_in_process(matrix: Matrix) -> None:
    """Raise InputError where a tier would compare a served cell with one that is not among its cells, or that computes
    in another way: with int8 activations that moves perplexity by more than a server does."""
    for name, tier in matrix.tiers.items():
        if agreement_group() not in tier.group_options:
            continue
        cells = {cell.id: cell for cell in matrix.cells(name)}
        for cell in cells.values():
            if not cell.in_process:
                continue
            if cell.in_process not in cells:
                raise InputError(
                    f"{matrix.path}: tiers.{name}.cells: {cell.id} is compared with {cell.in_process}, which runs the "
                    f"same weights in process and is not among them: add it, or remove in_process from its scheme"
                )
            way, other = map(_way, (cell, cells[cell.in_process]))
            if way != other:
                remedy = ": name a scheme with n_ubatch = 1" if way == SINGLY else ""
                raise InputError(
                    f"{matrix.path}: backends.{cell.backend}.schemes.{cell.scheme}.in_process: the server computes "
                    f"{way}, and {cell.in_process} {other}{remedy}"
                )


def _way(cell: Cell) -> str:
    by_token = backends()[cell.backend].parsed(cell.scheme_options).by_token()
    return SINGLY if by_token else "many tokens at once"


def _check_schemes(matrix: Matrix) -> None:
    """Raise InputError, naming all of them, for options that a scheme's backend does not take."""
    problems = []
    for name, one in matrix.models.items():
        for key in one.checkpoints:
            backend, scheme = key.partition("/")[0], matrix.schemes[key]
            options = {**scheme.scheme_options, "bits": scheme.bits, "as_is": True}
            if not scheme.as_is:  # of a scheme that says so itself, below
                problems += _problems(matrix, backend, options, f"models.{name}.checkpoints.{key}")
    for backend, entry in matrix.backends.items():
        model = backends()[backend].options
        for name, scheme in entry.schemes.items():
            where = f"backends.{backend}.schemes.{name}"
            unknown = [key for key in scheme.scheme_options if key not in model.model_fields]
            keys = {*Scheme.model_fields, *model.model_fields}
            problems += [
                f"{matrix.path}: {where}.{key}: unknown key. {allowed(key, keys)}" for key in unknown
            ]
            problems += [] if unknown else _problems(matrix, backend, scheme.scheme_options, where)
            form = scheme.checkpoint or entry.checkpoint
            made_by = MADE_BY.get(form)
            if made_by is not None and not scheme.as_is and made_by not in model.model_fields:
                problems.append(
                    f"{matrix.path}: {where}: loads what is made by `{made_by}` of its scheme (checkpoint = "
                    f'"{form}"), and the backend {backend} has no such option: name another form, or as_is = true'
                )
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))


def _problems(matrix: Matrix, backend: str, options: Mapping[str, Any], where: str) -> list[str]:
    try:
        validate(backends()[backend].options, options, matrix.path, where)
    except InputError as error:
        return [str(error)]
    return []


def lacking_capabilities(cell: Cell, group: str) -> list[str]:
    """Return what a metric group needs and the cell's backend cannot do, sorted."""
    return sorted(group_of(group).capabilities - backends()[cell.backend].can(cell.scheme_options))
