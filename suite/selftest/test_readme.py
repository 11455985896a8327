"""What README says is so: its matrix loads, its table of options is complete, its commands exist."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser
from itertools import pairwise
from pathlib import Path

import pytest
from quantgate.config.matrix import load_matrix, metric_groups
from quantgate.plugin.finish import EXIT
from quantgate.proofs.faults.catalogue import CATALOGUE
from quantgate.proofs.faults.table import HEADINGS
from quantgate.records import Status

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
COMMANDS = re.findall(
    r"^pytest .*|(?<=`)[^`\n]*\bpytest -[^`\n]*(?=`)|^    pytest -.*", README + CONTRIBUTING, re.MULTILINE
)
"""Of pytest, on lines of their own and in running text."""


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


def words(command: str) -> list[str]:
    """The arguments of pytest, without a comment; an option and its value apart."""
    arguments = shlex.split(command.partition("pytest ")[2].removesuffix("\\"), comments=True)
    return [part for a in arguments for part in (a.split("=", 1) if a.startswith("--") else [a])]


def test_faults_of_the_table_are_those_of_the_catalogue() -> None:
    table = README.partition("| " + " | ".join(HEADINGS) + " |\n")[2].partition("\n\n")[0]
    rows = [[c.strip() for c in line.split("|")[1:4]] for line in table.splitlines()[1:]]
    listed = [
        (text, cell, *gates.split("<br>")) for text, cell, gates in rows if not text.startswith("no fault")
    ]
    assert sorted(listed) == sorted((f.text, f.cell, *f.gates) for f in CATALOGUE.values())
    (count,) = re.findall(r"<summary>(\d+) faults, all caught; ", README)
    assert int(count) == len(CATALOGUE)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_pytests_commands_exist(request: pytest.FixtureRequest, command: str) -> None:
    groups = request.config._parser._groups
    known = {name for group in groups for option in group.options for name in option.names()}
    used = {word for word in words(command) if word.startswith("-")}
    assert used <= known


@pytest.mark.parametrize("command", [c for c in COMMANDS if re.search(r" -[km] ", c)])
def test_names_in_pytests_commands_exist(command: str) -> None:
    """-k: a part of a cell's or a metric's name; -m: a whole one, or nominal bits."""
    given = dict(pairwise(words(command)))
    matrix, tier = load_matrix(), given.get("--tier", "smoke")
    marks = {"papers", *metric_groups(), *matrix.tier(tier).workload.get("accuracy", {}).get("tasks", [])}
    marks |= {mark for cell in matrix.cells(tier) for mark in cell.marks}
    ids = {cell.id for cell in matrix.cells(tier)}
    operators = {"and", "or", "not"}
    for word in set(given.get("-k", "").split()) - operators:
        assert any(word.lower() in name.lower() for name in marks | ids), word
    assert set(given.get("-m", "").split()) - operators <= marks


def test_commands_are_environments_of_tox() -> None:
    tox = ConfigParser()
    tox.read(ROOT / "tox.ini")
    named = set(re.findall(r"tox -e ([a-z-]+)", README))
    assert named
    assert {f"testenv:{name}" for name in named} <= set(tox.sections())
