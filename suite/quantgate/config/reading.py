"""Read the file of models, backends and tiers: grids expanded, tiers merged into those that they extend."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantgate.config.between import check_checkpoints, check_references, check_resources
from quantgate.config.matrix import MATRIX, Matrix
from quantgate.config.sentences import allowed, shown
from quantgate.config.toml_input import read_toml, validate
from quantgate.errors import InputError
from quantgate.records import Record

_TABLES = ("models", "backends", "tiers", "texts", "tasks")
_TIER_KEYS = ("extends", "time_limit", "cells")


def read_matrix(path: Path | None, backends: Collection[str], groups: Mapping[str, type[Record]]) -> Matrix:
    """Read `path`: a matrix file, a pyproject.toml with `[tool.quantgate]`, or None for fixtures/matrix.toml.

    Backends that it lacks come from fixtures/matrix.toml. backends: the names that it may use. groups: by metric group,
    the model of its options. Raises InputError naming file, key and allowed values.
    """
    is_default = path is None or path.resolve() == MATRIX.resolve()
    path = path or MATRIX
    raw = read_toml(path)
    if path.name == "pyproject.toml":
        raw = _table(path, "tool.quantgate", _table(path, "tool", raw.get("tool", {})).get("quantgate", {}))
    for key, value in raw.items():
        if key not in _TABLES:
            raise InputError(f"{path}: {key}: unknown key. {allowed(key, _TABLES)}")
        for name, entry in _table(path, key, value).items():
            _table(path, f"{key}.{name}", entry)
    raw.setdefault("backends", {})
    expand_grids(path, raw["backends"])
    if not is_default:
        defaults = read_toml(MATRIX)["backends"]
        expand_grids(MATRIX, defaults)
        raw["backends"] = _merge(defaults, raw["backends"])
    for backend in raw["backends"]:
        if backend not in backends:
            raise InputError(f"{path}: backends.{backend}: no such backend. {allowed(backend, backends)}")
    tiers = raw.get("tiers", {})
    raw["tiers"] = {name: _tier(path, tiers, name, groups) for name in tiers}
    for name, tier in raw["tiers"].items():
        for group in [group for group, cells in tier["group_cells"].items() if not cells]:
            del tier["group_options"][group], tier["group_cells"][group]
        for group, options in tier["group_options"].items():
            where = f"tiers.{name}.{group}"
            if group not in groups:
                raise InputError(f"{path}: {where}: unknown key. {allowed(group, [*groups, *_TIER_KEYS])}")
            chosen = validate(groups[group], options, path, where, strict=True)
            for table, names in getattr(groups[group], "ENTRIES", {}).items():
                # Those of a tier that this one extends may be left over.
                for entry in tiers[name].get(group, {}).get(table, ()):
                    if entry not in (possible := getattr(chosen, names)):
                        raise InputError(
                            f"{path}: {where}.{table}: {entry!r} is none of its {names}. {allowed(entry, possible)}"
                        )
            tier["group_options"][group] = chosen
    matrix = validate(Matrix, {"path": path, **raw}, path, strict=True)
    matrix.check_names()
    check_checkpoints(matrix)
    check_references(matrix)
    check_resources(matrix)
    matrix.check_patterns()
    return matrix


def _table(path: Path, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {key}: must be a table, [{key}], not {shown(value)}")
    return value


def _tier(
    path: Path, tiers: Mapping[str, Any], name: str, groups: Collection[str], seen: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a tier merged into the one that it extends: cells are added, options overridden key by key."""
    if name in seen:
        raise InputError(f"{path}: tiers.{name}.extends: is circular: {' -> '.join((*seen, name))}")
    if name not in tiers:
        raise InputError(f"{path}: tiers.{seen[-1]}.extends: no tier {name!r}. {allowed(name, tiers)}")
    table = tiers[name]
    options = {k: v for k, v in table.items() if k not in _TIER_KEYS}
    for key, value in options.items():
        if not isinstance(value, dict):
            if key in groups:
                _table(path, f"tiers.{name}.{key}", value)
            raise InputError(f"{path}: tiers.{name}.{key}: unknown key. {allowed(key, _TIER_KEYS)}")
    cells = {g: one["cells"] for g, one in options.items() if g in groups and "cells" in one}
    tier = {
        **{k: table[k] for k in table if k in ("time_limit", "cells")},
        "group_options": {g: {k: v for k, v in o.items() if k != "cells"} for g, o in options.items()},
        "group_cells": cells,
    }
    for where, value in [("", tier.get("cells", [])), *((f"{g}.", one) for g, one in cells.items())]:
        if not isinstance(value, list):
            raise InputError(
                f'{path}: tiers.{name}.{where}cells: must be a list of ids or patterns, ["*/llamacpp/*"], not '
                f"{shown(value)}"
            )
    if "extends" not in table:
        return tier
    if not isinstance(table["extends"], str):
        raise InputError(
            f"{path}: tiers.{name}.extends: must be the name of one tier, not {shown(table['extends'])}. "
            f"{allowed('', tiers)}"
        )
    base = _tier(path, tiers, table["extends"], groups, (*seen, name))
    return {**_merge(base, tier), "cells": [*base.get("cells", []), *tier.get("cells", [])]}


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the keys of `over`, table by table."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def expand_grids(path: Path, backends: Mapping[str, Any]) -> None:
    """Put the schemes of each grid after those that are written out. path: for messages. Raises InputError."""
    for backend, entry in backends.items():
        grids = entry.pop("grid", None)
        if grids is None:
            continue
        where = f"{path}: backends.{backend}.grid"
        if not isinstance(grids, list):
            raise InputError(f"{where}: must be tables, [[backends.{backend}.grid]], not {shown(grids)}")
        made = schemes_of(where, grids)
        written = _table(path, f"backends.{backend}.schemes", entry.get("schemes", {}))
        for name in made:
            if name in written:
                raise InputError(
                    f"{where}: makes {name!r}, which backends.{backend}.schemes already has: remove one"
                )
        entry["schemes"] = {**written, **made}


def schemes_of(where: str, grids: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Return schemes by name, in the order of the file; the last list of a grid varies fastest.

    `name` of a grid is a pattern with its other keys in braces: `{data_type}{bits}-b{block}` makes `int4-b64`. A key
    whose value is no list is the same for all.
    """
    schemes: dict[str, dict[str, Any]] = {}
    for number, grid in enumerate(grids, start=1):
        entry = f"{where} (entry {number})"
        here = f"{entry}.name"
        if not isinstance(grid, Mapping):
            raise InputError(f"{entry}: must be a table, not {shown(grid)}")
        pattern = grid.get("name")
        if not isinstance(pattern, str):
            wrong = "is missing" if pattern is None else f"must be text in quotes, not {shown(pattern)}"
            raise InputError(f'{here}: {wrong}; give a pattern such as "int{{bits}}-b{{block}}"')
        axes = {k: v if isinstance(v, list) else [v] for k, v in grid.items() if k != "name"}
        for key, values in axes.items():
            if not values:
                raise InputError(f"{entry}.{key}: must not be empty, as the grid would make no scheme")
        for combination in itertools.product(*axes.values()):
            scheme = dict(zip(axes, combination, strict=True))
            name = _named(here, pattern, scheme)
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
            f"{where}: {pattern!r} has {{{unknown}}}, and the grid has no key {unknown!r}. {allowed(unknown, scheme)}"
        ) from None
    except (ValueError, AttributeError, IndexError, TypeError) as error:
        raise InputError(f"{where}: {pattern!r} is not a pattern with keys in braces: {error}") from None
