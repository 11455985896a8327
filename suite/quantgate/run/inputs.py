"""Read the matrix and check it against the backends and metric groups that there are."""

from __future__ import annotations

from pathlib import Path

from quantgate.backends.registry import backend_names
from quantgate.config.matrix import Matrix, read_matrix
from quantgate.errors import InputError
from quantgate.measure.groups import metric_groups, with_logprobs


def load_matrix(path: Path | None = None) -> Matrix:
    """Read `path` (default: fixtures/matrix.toml) with the options of its metric groups validated.

    Raises InputError naming file, key and allowed values.
    """
    groups = {name: group.options for name, group in metric_groups().items()}
    matrix = read_matrix(path, backend_names(), groups)
    _check_logprobs(matrix)
    return matrix


def _check_logprobs(matrix: Matrix) -> None:
    """Raise InputError where a tier needs log-probabilities of a reference that is not among its cells."""
    for name, tier in matrix.tiers.items():
        for group in with_logprobs(tier.group_options):
            cells = matrix.cells(name)
            ids = {cell.id for cell in cells}
            for cell in cells:
                if cell.reference not in ids:
                    raise InputError(
                        f"{matrix.path}: tiers.{name}.cells: {cell.id} is held against {cell.reference}, which is not "
                        f"among them: add it, or leave out tiers.{name}.{group}"
                    )
