"""Collect the cases of an installed quantgate below the repository's own `quantgate.toml`.

Their node ids are `quantgate.toml::test_perplexity[model/backend/scheme]`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Container
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from quantgate.paths import CASES
from quantgate.plugin.entry import IS_NAMED, MATRIX_FILE
from quantgate.plugin.marks import request_of


def pytest_configure(config: pytest.Config) -> None:
    """Collect the matrix file too where the repository's `testpaths` name other folders, or `--matrix` one outside."""
    source, sources, here = config.args_source, pytest.Config.ArgsSource, config.invocation_params.dir
    file = config.stash[MATRIX_FILE]
    outside = config.stash[IS_NAMED] and not file.is_relative_to(here)
    if source == sources.TESTPATHS or (source == sources.INVOCATION_DIR and outside):
        config.args.append(str(file))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a run without any case of the matrix that `--matrix` names: it would be green and have judged nothing."""
    file = config.stash[MATRIX_FILE]
    chosen = config.args_source == pytest.Config.ArgsSource.ARGS
    if config.stash[IS_NAMED] and not chosen and not any(item.path == file for item in items):
        raise pytest.UsageError(
            f"{file}: pytest has collected none of its cases: it leaves out such folders (norecursedirs, --ignore); "
            f"move the file, or name it once more, as what is to be collected: pytest --matrix={file} {file}"
        )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Make the matrix file a module of all cases."""
    if file_path != parent.config.stash[MATRIX_FILE]:
        return None
    return CaseFile.from_parent(parent, path=file_path)


class CaseFile(pytest.Module):
    """All cases as one module, whatever names the repository's own tests have (`python_functions`)."""

    def _getobj(self) -> ModuleType:
        return case_module()

    def funcnamefilter(self, name: str) -> bool:
        """Whether `name` is a case."""
        return name.startswith("test_")


@cache
def case_module() -> ModuleType:
    """Return a module that has the test functions of every case file."""
    whole = ModuleType("quantgate_cases", __doc__)
    whole.__file__ = __file__  # fixtures of the repository may ask for it (`request.module.__file__`)
    for file in sorted(CASES.glob("test_*.py")):
        if "pytest.mark.quantgate" not in file.read_text():
            continue  # test_papers.py of this checkout
        for name, value in vars(_load(file)).items():
            if request_of(value) is not None:
                setattr(whole, name, value)
    return whole


def group_of_case(nodeid: str, cells: Container[str]) -> str | None:
    """Return the metric group (`throughput`) that a case measures, by its node id; empty: that of a function which is
    not quantgate's own; None: it is no case of these cells."""
    function, _, parameter = nodeid.rpartition("::")[2].partition("[")
    if "/".join(parameter.rstrip("]").split("/")[:3]) not in cells:
        return None
    return (request_of(vars(case_module()).get(function)) or "").partition("/")[0]


def _load(file: Path) -> ModuleType:
    name = f"quantgate_cases.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
