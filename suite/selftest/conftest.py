"""What the end-to-end tests share: the tiny model, the cache, a project with baselines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from quantgate.errors import AssetError
from quantgate.paths import FIXTURES, IMPORT_ROOT
from quantgate.supply.assets import fetch, load_assets

from selftest.browser import browser
from selftest.once import Once
from selftest.project import Accepted, Project, tiny_matrix
from selftest.tiny import TinyModel, tiny_model

__all__ = ["browser"]  # a fixture, defined once: two drivers in one process disturb each other


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes what the whole test session shares, its processes side by side too."""
    folder = tmp_path_factory.getbasetemp()
    return Once((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "once")


@pytest.fixture(scope="session")
def tiny(once: Once) -> TinyModel:
    """The tiny model."""
    folder = once("tiny", tiny_model)
    return TinyModel(folder / "safetensors", folder / "tiny.gguf")


@pytest.fixture(scope="session")
def converter() -> str:
    """The folder of llama.cpp's converter in the cache of whoever runs the tests; where it is neither there nor to be
    had, its tests are skipped."""
    try:
        return str(fetch("llama.cpp", load_assets(FIXTURES / "assets.toml"), on_progress=lambda *_: None))
    except AssetError as error:
        pytest.skip(f"llama.cpp's converter is not in the cache and cannot be fetched: {error}")


@pytest.fixture(scope="session")
def environment(once: Once, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of each run: the test session's cache and locks, no setting of whoever runs the tests."""
    foreign = ("PYTEST_", "QUANTGATE_", "GITHUB_", "COV_", "PYTHONDONTWRITEBYTECODE")
    # By these pytest knows a CI machine, and prints its summary in full instead of to the width of the screen.
    ci = ("CI", "BUILD_NUMBER")
    kept = {n: value for n, value in os.environ.items() if not n.startswith(foreign) and n not in ci}
    return kept | {
        "QUANTGATE_CACHE": str(once("cache", lambda folder: None)),
        "TMPDIR": str(tmp_path_factory.mktemp("tmp")),
        "PYTHONPATH": str(IMPORT_ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }


@pytest.fixture(scope="session")
def make_project(
    tiny: TinyModel, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Project]:
    """Makes new projects of the tiny model; checkpoints and tokenized texts are made once for all."""
    return lambda: Project(tmp_path_factory.mktemp("project") / "p", tiny_matrix(tiny), dict(environment))


@pytest.fixture
def project(make_project: Callable[[], Project]) -> Project:
    """A new project without baselines."""
    return make_project()


@pytest.fixture(scope="session")
def accepted(once: Once, tiny: TinyModel, environment: dict[str, str]) -> Accepted:
    """Measured and accepted once; tests work on copies (`baselined`)."""

    def make(folder: Path) -> None:
        result = Project(folder / "p", tiny_matrix(tiny), environment).update()
        assert result.status == 0, result.output
        (folder / "output").write_text(result.output)

    folder = once("accepted", make)
    project = Project(folder / "p", tiny_matrix(tiny), environment)
    return Accepted(project, project.left(0, (folder / "output").read_text()))


@pytest.fixture
def baselined(accepted: Accepted, tmp_path: Path) -> Project:
    """A project with baselines and the measurements they were made from."""
    return accepted.project.copy(tmp_path / "project")
