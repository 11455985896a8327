"""A user's matrix file: complete, and as the tests change it."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.config.matrix import Matrix
from quantgate.errors import InputError
from quantgate.run.inputs import load_matrix

USER_FILE = """
[models.mine]
license = "MIT"
gguf = { path = "mine.gguf" }

[tiers.smoke]
time_limit = 60
cells = ["mine/llamacpp/F16", "mine/llamacpp/Q4_K_M"]
[tiers.smoke.perplexity]
text = "boolq"
n_ctx = 256
"""
"""A complete file of a user: models and tiers."""


def load_text(folder: Path, text: str = USER_FILE) -> Matrix:
    """Load a matrix file with this text."""
    file = folder / "matrix.toml"
    file.write_text(text)
    return load_matrix(file)


def refusal(folder: Path, text: str) -> str:
    """Return the message that refuses a matrix file, without the file's name, with which each of its lines begins."""
    with pytest.raises(InputError) as caught:
        load_text(folder, text)
    prefix = f"{folder / 'matrix.toml'}: "
    lines = str(caught.value).splitlines()
    assert all(line.startswith(prefix) for line in lines)
    return "\n".join(line.removeprefix(prefix) for line in lines)
