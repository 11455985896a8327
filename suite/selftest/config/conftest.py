"""Matrices that the tests of config read."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.config.matrix import Matrix
from quantgate.run.inputs import load_matrix


@pytest.fixture(scope="session")
def shipped() -> Matrix:
    """The matrix of fixtures/."""
    return load_matrix()


@pytest.fixture
def user_matrix(tmp_path: Path) -> Matrix:
    """The matrix of a user with one model and two tiers."""
    file = tmp_path / "matrix.toml"
    file.write_text(
        '[models.mine]\nlicense = "MIT"\ngguf = { path = "mine.gguf" }\n'
        '[tiers.quick]\ntime_limit = 60\ncells = ["mine/llamacpp/F16"]\n'
        '[tiers.quick.perplexity]\ntext = "boolq"\n'
        '[tiers.long]\nextends = "quick"\ncells = ["mine/llamacpp/Q4_0"]\n'
        '[tiers.long.accuracy]\ntasks = ["arc_easy"]\n'
    )
    return load_matrix(file)
