"""Runs that are made once: one in which nothing has changed, one in which something got worse; a repository of somebody
else's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest

from selftest.once import Once
from selftest.plugin.foreign import CONFTEST, FOREIGN, INI, write
from selftest.plugin.runs import break_quantizer
from selftest.project import Accepted, Project, Result
from selftest.tiny import TEXT


def run_once(
    once: Once, accepted: Accepted, name: str, run: Callable[[Project], Result]
) -> tuple[Project, Result]:
    """A run on a copy of the accepted project, for all processes of pytest-xdist. Tests run nothing in its folder."""

    def make(folder: Path) -> None:
        result = run(accepted.project.copy(folder / "p"))
        (folder / "left.json").write_text(json.dumps([result.status, result.output]))

    folder = once(name, make)
    project = Project(folder / "p", deepcopy(accepted.project.matrix), dict(accepted.project.environment))
    return project, project.left(*json.loads((folder / "left.json").read_bytes()))


@pytest.fixture(scope="session")
def unchanged(once: Once, accepted: Accepted) -> tuple[Project, Result]:
    """A run in which everything is measured again as it was, with a history."""

    def run(project: Project) -> Result:
        return project.run("--require-baselines", f"--history={project.folder / 'history'}")

    return run_once(once, accepted, "unchanged", run)


@pytest.fixture(scope="session")
def broken(once: Once, accepted: Accepted) -> tuple[Project, Result]:
    """A run in which Q4_K_M is not what its name says."""

    def run(project: Project) -> Result:
        break_quantizer(project)
        summary = project.folder / "summary.md"
        summary.write_text("before\n")
        return project.run(GITHUB_STEP_SUMMARY=str(summary))

    project, result = run_once(once, accepted, "broken", run)
    break_quantizer(project)
    return project, result


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
