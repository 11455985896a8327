"""A run in which something got worse, made once."""

from __future__ import annotations

import pytest

from selftest.plugin.runs import break_quantizer
from selftest.project import Accepted, Project, Result


@pytest.fixture(scope="session")
def broken(accepted: Accepted, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Result]:
    """A run in which Q4_K_M is not what its name says."""
    project = accepted.project.copy(tmp_path_factory.mktemp("broken") / "project")
    break_quantizer(project)
    summary = project.folder / "summary.md"
    summary.write_text("before\n")
    return project, project.run(GITHUB_STEP_SUMMARY=str(summary))
