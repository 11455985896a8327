"""Grids of schemes: `[[backends.NAME.grid]]` of matrix.toml stands for every combination of its lists."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantgate.config.toml_input import allowed
from quantgate.errors import InputError


def expand_grids(path: Path, backends: Mapping[str, Any]) -> None:
    """Put the schemes of each grid after those that are written out. Raises InputError; path: for its text."""
    for backend, entry in backends.items():
        grids = entry.pop("grid", None) if isinstance(entry, dict) else None
        if grids is None:
            continue
        where = f"{path}: backends.{backend}.grid"
        if not isinstance(grids, list):
            raise InputError(f"{where}: must be tables: [[backends.{backend}.grid]]")
        made, written = schemes_of(where, grids), entry.get("schemes", {})
        if both := [name for name in made if name in written]:
            raise InputError(
                f"{where}: makes {both[0]!r}, which is among backends.{backend}.schemes: remove one"
            )
        entry["schemes"] = {**written, **made}


def schemes_of(where: str, grids: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Schemes by name, in the order of the file; the last list of a grid varies fastest.

    `name` of a grid is a pattern with its other keys in braces: `{data_type}{bits}-b{block}` makes `int4-b64`. A key
    whose value is no list is the same for all.
    """
    schemes: dict[str, dict[str, Any]] = {}
    for number, grid in enumerate(grids):
        here = f"{where}[{number}].name"
        if not isinstance(grid, Mapping) or not isinstance(grid.get("name"), str):
            raise InputError(f'{here}: is missing; give a pattern such as "int{{bits}}-b{{block}}"')
        axes = {k: v if isinstance(v, list) else [v] for k, v in grid.items() if k != "name"}
        for values in itertools.product(*axes.values()):
            scheme = dict(zip(axes, values, strict=True))
            name = _named(here, grid["name"], scheme)
            if name in schemes:
                raise InputError(f"{here}: makes {name!r} twice: put every key that varies into the pattern")
            schemes[name] = scheme
    return schemes


def _named(where: str, pattern: str, scheme: Mapping[str, Any]) -> str:
    try:
        return pattern.format_map(scheme)
    except KeyError as error:
        unknown = str(error.args[0])
        raise InputError(
            f"{where}: {pattern!r} names {unknown!r}, which the grid has not. {allowed(unknown, scheme)}"
        ) from None
    except (ValueError, AttributeError, IndexError, TypeError) as error:
        raise InputError(f"{where}: {pattern!r} is no pattern with keys in braces: {error}") from None
