"""Read the file of models, backends and tiers: grids expanded, tiers merged into those that they extend."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from quantgate.config.grid import expand_grids
from quantgate.config.matrix import MATRIX, Matrix
from quantgate.config.toml_input import allowed, read_toml, validate
from quantgate.errors import InputError
from quantgate.records import Record

_TABLES = ("models", "backends", "tiers")
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
        raw = raw.get("tool", {}).get("quantgate", {})
    for key, value in raw.items():
        if key not in _TABLES:
            raise InputError(f"{path}: {key}: unknown key. {allowed(key, _TABLES)}")
        if not isinstance(value, dict):
            raise InputError(f"{path}: {key}: must be tables: [{key}.NAME] ...")
    raw.setdefault("backends", {})
    if not is_default:
        defaults = read_toml(MATRIX)["backends"]
        expand_grids(MATRIX, defaults)
        expand_grids(path, raw["backends"])
        raw["backends"] = _merge(defaults, raw["backends"])
    for backend in raw["backends"]:
        if backend not in backends:
            raise InputError(f"{path}: backends.{backend}: no such backend. {allowed(backend, backends)}")
    tiers = raw.get("tiers", {})
    raw["tiers"] = {name: _tier(path, tiers, name) for name in tiers}
    for name, tier in raw["tiers"].items():
        given = tier["group_options"]
        tier["group_options"] = {
            group: _options(path, f"tiers.{name}.{group}", group, given[group], groups) for group in given
        }
    expand_grids(path, raw["backends"])
    matrix = validate(Matrix, {"path": path, **raw}, path)
    matrix.check_names()
    matrix.check_checkpoints()
    matrix.check_references()
    matrix.check_patterns()
    return matrix


def _options(
    path: Path, where: str, group: str, options: Mapping[str, Any], groups: Mapping[str, type[Record]]
) -> Record:
    """Validate a metric group's options."""
    if group not in groups:
        raise InputError(f"{path}: {where}: unknown key. {allowed(group, [*groups, *_TIER_KEYS])}")
    return validate(groups[group], options, path, where)


def _tier(path: Path, tiers: Mapping[str, Any], name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a tier merged into the one that it extends: cells are added, options overridden key by key."""
    if name in seen:
        raise InputError(
            f"{path}: tiers.{name}.extends: goes round in a circle: {' -> '.join((*seen, name))}"
        )
    if name not in tiers:
        raise InputError(f"{path}: tiers.{seen[-1]}.extends: no tier {name!r}. {allowed(name, tiers)}")
    table = tiers[name]
    if not isinstance(table, dict):
        raise InputError(f"{path}: tiers.{name}: must be a table")
    options = {k: v for k, v in table.items() if k not in _TIER_KEYS}
    for key, value in options.items():
        if not isinstance(value, dict):
            raise InputError(f"{path}: tiers.{name}.{key}: unknown key. {allowed(key, _TIER_KEYS)}")
    flat = {"group_options": options, **{k: table[k] for k in ("time_limit", "cells") if k in table}}
    if not isinstance(flat.get("cells", []), list):
        raise InputError(f'{path}: tiers.{name}.cells: must be a list of ids or patterns: ["*/llamacpp/*"]')
    if "extends" not in table:
        return flat
    if not isinstance(table["extends"], str):
        raise InputError(f"{path}: tiers.{name}.extends: must be the name of one tier. {allowed('', tiers)}")
    base = _tier(path, tiers, table["extends"], (*seen, name))
    return {
        **base,
        **flat,
        "cells": [*base.get("cells", []), *flat.get("cells", [])],
        "group_options": _merge(base["group_options"], options),
    }


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the keys of `over`, table by table."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
