"""A run in which something got worse, made once; a repository of somebody else's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selftest.plugin.foreign import CONFTEST, FOREIGN, INI, write
from selftest.plugin.runs import break_quantizer
from selftest.project import Accepted, Project, Result
from selftest.tiny import TEXT


@pytest.fixture(scope="session")
def broken(accepted: Accepted, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Result]:
    """A run in which Q4_K_M is not what its name says."""
    project = accepted.project.copy(tmp_path_factory.mktemp("broken") / "project")
    break_quantizer(project)
    summary = project.folder / "summary.md"
    summary.write_text("before\n")
    return project, project.run(GITHUB_STEP_SUMMARY=str(summary))


@pytest.fixture
def unjudged(baselined: Project) -> Project:
    """A project with measurements and without baselines."""
    shutil.rmtree(baselined.baselines)
    return baselined


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with tests and no matrix."""
    folder = tmp_path / "repository"
    write(folder / "tests" / "test_theirs.py", FOREIGN)
    write(folder / "conftest.py", CONFTEST)
    write(folder / "pytest.ini", INI)
    write(folder / "text.txt", TEXT)
    return folder
