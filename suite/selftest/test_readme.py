"""What README says is so: its matrix loads, its table of options is complete, its commands exist."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from suite.finish import EXIT
from suite.matrix import load_matrix
from suite.records import Status

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_matrix_of_a_hub_model_loads(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "my-matrix.toml"
    path.write_text(block)
    matrix = load_matrix(path)
    cells = matrix.cells("smoke")
    assert len(cells) == 5
    assert all(c.options["device"] == "cuda" for c in cells)
    assert {c.reference for c in cells} == {
        "mistral-7b/transformers/cuda-bf16",
        "mistral-7b/llamacpp/cuda-F16",
    }


def test_table_of_options_is_complete(request: pytest.FixtureRequest) -> None:
    group = next(g for g in request.config._parser._groups if g.name == "quantgate")
    options = {name for option in group.options for name in option.names()}
    listed = set(re.findall(r"^\| `(--[a-z-]+)", README, re.MULTILINE))
    assert listed == options


def test_exit_statuses_are_those_of_the_code() -> None:
    for status in Status:
        (row,) = re.findall(rf"^\| `{status}` \|.*$", README, re.MULTILINE)
        code = EXIT.get(status, 0)
        assert re.search(rf"\b{code}\b", row.rsplit("|", 2)[1])


def test_commands_are_environments_of_tox() -> None:
    tox = ConfigParser()
    tox.read(ROOT / "tox.ini")
    named = set(re.findall(r"tox -e ([a-z-]+)", README))
    assert named
    assert {f"testenv:{name}" for name in named} <= set(tox.sections())
