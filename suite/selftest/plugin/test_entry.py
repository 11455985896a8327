"""Which file or table is the matrix of a repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.plugin.entry import matrix_file, unread_table


@pytest.mark.parametrize(
    ("pyproject", "is_one"),
    [
        ("[tool.quantgate]", True),
        ("[ tool . quantgate.models.m ]", True),
        ("[tool.'quantgate'.tiers.smoke]", True),
        ("[tool]\nquantgate = {}", True),
        ("[project]\ndependencies = ['quantgate']\n# [tool.quantgate]", False),
        ("[tool.quantgate", False),
    ],
)
def test_tables_of_a_pyproject_are_a_matrix(tmp_path: Path, pyproject: str, is_one: bool) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(pyproject)
    assert matrix_file(tmp_path, tmp_path) == (file if is_one else None)


def test_the_nearest_matrix_up_to_the_root_counts(tmp_path: Path) -> None:
    inner = tmp_path / "root" / "inner"
    inner.mkdir(parents=True)
    root = inner.parent
    (tmp_path / "quantgate.toml").write_text("")
    assert matrix_file(inner, root) is None, "beyond the root is not looked for"
    (root / "pyproject.toml").write_text("[tool.quantgates]\n# [tool.quantgate]\n")
    assert matrix_file(inner, root) is None
    (root / "pyproject.toml").write_text("[tool.quantgate.models]\n")
    assert matrix_file(inner, root) == root / "pyproject.toml"
    (inner / "quantgate.toml").write_text("")
    assert matrix_file(inner, root) == inner / "quantgate.toml"
    assert matrix_file(root, root) == matrix_file(Path("/elsewhere"), root) == root / "pyproject.toml"
    assert matrix_file(inner, root / "ci") is None
    assert matrix_file(inner, root / "ci", elsewhere=True) == inner / "quantgate.toml", (
        "pytest -c ci/pytest.ini"
    )
    assert unread_table(root / "quantgate.toml")
    assert not unread_table(root / "pyproject.toml")
    assert not unread_table(inner / "quantgate.toml")
