"""Load the gate where a repository has a `quantgate.toml`, or `--matrix` names one; do nothing anywhere else.

This module is the package's pytest entry point, so every pytest run of an environment that has quantgate installed
imports it. Keep it light: nothing but the standard library and pytest.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

MATRIX_FILES = ("quantgate.toml", "pyproject.toml")
IS_NAMED = pytest.StashKey[bool]()
"""Whether the matrix is what `--matrix` names, since there is no other."""
MATRIX_FILE = pytest.StashKey[Path]()
"""The `quantgate.toml`, or the pyproject.toml with a `[tool.quantgate]` table, that pytest runs beside; without either,
what `--matrix` names."""


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None]:
    """Load the plugin after the repository's conftest.py files, whose options go first."""
    yield
    options = early_config.known_args_namespace
    elsewhere = bool(options.inifilename or options.rootdir)
    start, root = early_config.invocation_params.dir, early_config.rootpath
    file = matrix_file(start, root, elsewhere=elsewhere)
    early_config.stash[IS_NAMED] = file is None
    if file is None and (named := _named(args)):
        unknown = parser.parse_known_and_unknown_args(args)[1]
        if any(
            one.partition("=")[0] == "--matrix" for one in unknown
        ):  # else it is an option of the repository's
            file = Path(os.path.normpath(start / named))  # as pytest spells it: links stay
    if file is not None:
        early_config.stash[MATRIX_FILE] = file
        manager = early_config.pluginmanager
        if manager.has_plugin("quantgate.plugin.hooks"):
            return  # by the conftest.py of quantgate's checkout, whose cases are files
        for name in ("quantgate.plugin.cases", "quantgate.plugin.hooks"):
            try:
                manager.import_plugin(name)
            except Exception as error:  # a traceback would end with the exit status of a regression
                from quantgate.errors import InputError  # not needed in other runs

                cause = error.__cause__ or error  # pytest's own says no more than which module
                why = f"quantgate cannot be loaded: {type(cause).__name__}: {cause}"
                text = f"{why}; `pip check` names what its installation lacks"
                if isinstance(cause, InputError):  # of another distribution's backend or metric group
                    text = str(cause)
                raise pytest.UsageError(f"{file}: {text}") from error


def matrix_file(start: Path, root: Path, *, elsewhere: bool = False) -> Path | None:
    """Return the matrix of the nearest folder from `start` up to `root`; of `root` alone if `start` is not below it.
    elsewhere: whether `root` was named (`-c ci/pytest.ini`, `--rootdir`), so that the tests may lie in `start` all the
    same: then of `start`, too."""
    between = [folder for folder in (start, *start.parents) if folder.is_relative_to(root)]
    for folder in between or [root, *([start] if elsewhere else [])]:
        whole, table = (folder / name for name in MATRIX_FILES)
        if whole.is_file():
            return whole
        if _has_table(table):
            return table
    return None


def _named(arguments: list[str]) -> str:
    """Return the file that the last `--matrix=PATH` or `--matrix PATH` names; empty: neither is there."""
    file = ""
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--matrix":
            file = value if equals else next(iter(arguments[number + 1 :]), "")
    return file


def unread_table(file: Path) -> bool:
    """Return whether there is a `[tool.quantgate]` table beside the matrix `file`, which takes its place."""
    return file.name == MATRIX_FILES[0] and _has_table(file.with_name(MATRIX_FILES[1]))


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
