"""Load the gate where a repository has a `quantgate.toml`; do nothing anywhere else.

This module is the package's pytest entry point, so every pytest run of an environment that has quantgate installed
imports it. Keep it light: nothing but the standard library and pytest.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

MATRIX_FILES = ("quantgate.toml", "pyproject.toml")
MATRIX_FILE = pytest.StashKey[Path]()
"""The `quantgate.toml`, or the pyproject.toml with a `[tool.quantgate]` table, that pytest runs beside."""


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Load the plugin after the repository's conftest.py files, whose options go first."""
    yield
    if file := matrix_file(early_config.invocation_params.dir, early_config.rootpath):
        early_config.stash[MATRIX_FILE] = file
        manager = early_config.pluginmanager
        if manager.has_plugin("quantgate.plugin.hooks"):
            return  # by the conftest.py of quantgate's checkout, whose cases are files
        for name in ("quantgate.plugin.cases", "quantgate.plugin.hooks"):
            manager.import_plugin(name)


def matrix_file(start: Path, root: Path) -> Path | None:
    """Return the matrix of the nearest folder from `start` up to `root`; of `root` alone if `start` is not below it."""
    for folder in (start, *start.parents) if start.is_relative_to(root) else (root,):
        whole, table = (folder / name for name in MATRIX_FILES)
        if whole.is_file():
            return whole
        if _has_table(table):
            return table
        if folder == root:
            break
    return None


def _has_table(pyproject: Path) -> bool:
    try:
        content = pyproject.read_bytes()
    except OSError:
        return False
    if b"quantgate" not in content:
        return False
    import tomllib  # most repositories get by without it

    try:
        return "quantgate" in tomllib.loads(content.decode()).get("tool", {})
    except ValueError:
        return False  # pytest says what is wrong with it
