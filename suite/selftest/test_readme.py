"""The documentation: commands and options exist, links lead somewhere, the README stays short."""

from __future__ import annotations

import json
import re
import shlex
from configparser import ConfigParser
from pathlib import Path

import pytest
from quantgate.measure.groups import metric_groups
from quantgate.run.inputs import load_matrix

from selftest.forked import start

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    *sorted(p for room in ("suite", "fixtures", "baselines") for p in (ROOT / room).rglob("README.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LINES = 150
"""Of the README; the rest belongs in the rooms."""


def commands(page: Path) -> list[str]:
    """Lines of shell blocks that begin with a program of this project, continued lines joined, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"pytest |tox |python -m quantgate", line)]


PYTEST = [c for page in PAGES for c in commands(page) if c.startswith("pytest ")]
MODULES = [c for page in PAGES for c in commands(page) if c.startswith("python -m quantgate")]
TOX = sorted({name for page in PAGES for name in re.findall(r"\btox -e ([a-z-]+)", page.read_text())})


def options(command: str) -> set[str]:
    """The options that a command uses, without values."""
    return {
        word.partition("=")[0] for word in shlex.split(command, comments=True) if re.match(r"--?[a-z]", word)
    }


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= LINES


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            text = (file / "README.md" if file.is_dir() else file).read_text()
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings
            }, target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_paths_in_the_text_exist(page: Path) -> None:
    """Paths from the root, or from the page's folder, between backticks."""
    for path in re.findall(r"`((?:suite|fixtures|baselines|\.github|\.ci)/[\w./-]*)`", page.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", PYTEST)
def test_pytest_knows_the_options(request: pytest.FixtureRequest, command: str) -> None:
    groups = request.config._parser._groups
    assert options(command) <= {n for group in groups for option in group.options for n in option.names()}


@pytest.mark.parametrize("module", sorted({shlex.split(command)[2] for command in MODULES}))
def test_commands_know_their_options(module: str, tmp_path: Path, environment: dict[str, str]) -> None:
    status, output = start(module, ["--help"], tmp_path, environment).finish(600)
    assert status == 0, output
    declared = set(re.findall(r"--?[a-z][a-z-]*", output))
    for command in MODULES:
        _, name, rest = command.partition(module)
        if name and not rest.startswith("."):
            assert options(rest) <= declared, command


@pytest.mark.parametrize("name", TOX)
def test_tox_has_the_environment(name: str) -> None:
    tox = ConfigParser()
    tox.read(ROOT / "tox.ini")
    assert f"testenv:{name}" in tox.sections()


@pytest.mark.parametrize("page", [README, ROOT / "fixtures" / "README.md"], ids=lambda page: page.parent.name)
def test_matrix_of_the_example_loads(page: Path, tmp_path: Path) -> None:
    example = next(
        b for b in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL) if "[models." in b
    )
    path = tmp_path / "mine.toml"
    path.write_text(example)
    assert load_matrix(path).cells("smoke")


@pytest.mark.parametrize("name", metric_groups())
def test_options_of_a_metric_group_are_listed_with_their_defaults(name: str) -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (.*)$", (ROOT / "fixtures" / "README.md").read_text(), re.MULTILINE)
    )
    listed = rows[name] + (rows["perplexity"] if name == "divergence" else "")  # "the same"
    for option, field in metric_groups()[name].options.model_fields.items():
        plain = isinstance(field.default, bool | int | float | list)
        assert f"`{option} = {json.dumps(field.default)}`" in listed if plain else f"`{option}" in listed, (
            option
        )
