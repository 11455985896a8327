"""Somebody else's repository, whose tests know nothing of quantgate, and runs of pytest in it."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

from quantgate.paths import IMPORT_ROOT

from selftest.forked import start

REPO = IMPORT_ROOT.parent
MATRIX = """
[models.mine]
license = "Apache-2.0"
weights = { path = "models/pocket-90k" }

[backends.kbit.schemes]
ours = { bits = 4, dtype = "float32", data_type = "int", block = 64 }

[tiers.smoke]
time_limit = 120
cells = ["mine/transformers/fp32", "mine/kbit/ours"]
perplexity = { text = "boolq", n_ctx = 32, windows = 16 }
"""
FOREIGN = """
    import pytest

    @pytest.fixture
    def gate():
        return "theirs"

    @pytest.fixture
    def finding():
        return "theirs"

    @pytest.fixture
    def benchmark():
        return "theirs"

    def test_fixtures(gate, finding, benchmark):
        assert gate == finding == benchmark == "theirs"

    @pytest.mark.gate
    @pytest.mark.perplexity
    @pytest.mark.parametrize("value", [object()], ids=["one"])
    def test_marks(value):
        pass

    def test_option(request):
        assert request.config.getoption("--report") is None
"""
CONFTEST = """
    def pytest_addoption(parser):
        for name in ("--report", "--profile", "--text", "--tier"):
            parser.addoption(name)
"""
INI = """
    [pytest]
    # pytest-benchmark refuses to run beside another fixture named `benchmark`.
    addopts = --strict-markers --strict-config -p no:benchmark
    testpaths = tests
    markers =
        gate: theirs
        perplexity: theirs
"""
THEIRS = {
    "tests/test_theirs.py::test_fixtures": "PASSED",
    "tests/test_theirs.py::test_marks[one]": "PASSED",
    "tests/test_theirs.py::test_option": "PASSED",
}
PERPLEXITY = "quantgate.toml::test_perplexity[{}]"
PLAIN = [w for plugin in ("cacheprovider", "hypothesispytest", "anyio") for w in ("-p", f"no:{plugin}")]
"""Without plugins that take a quarter of a second to import."""
CELLS = ("mine/transformers/fp32", "mine/kbit/ours")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))


def variables(folder: Path) -> dict[str, str]:
    """Of a run in `folder`: nothing that the test session set."""
    foreign = ("PYTEST_", "QUANTGATE_", "GITHUB_", "PYTHONDONTWRITEBYTECODE")
    settings = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    settings |= {"PYTHONPATH": str(IMPORT_ROOT), "COLUMNS": "200"}
    return settings | {"QUANTGATE_CACHE": str(folder.parent / "cache")}


def run(
    folder: Path, *arguments: str, python: Path | None = None, fresh: bool = False
) -> tuple[int, dict[str, str], str]:
    """Exit status, outcome by case, and everything that pytest printed. python: of an environment that has the wheel.
    fresh: by a new interpreter."""
    words = ["-v", *PLAIN, *arguments]
    if python is None:
        status, output = start("pytest", words, folder, variables(folder), fresh=fresh).finish(600)
    else:
        settings = {name: value for name, value in variables(folder).items() if name != "PYTHONPATH"}
        command = [str(python), "-m", "pytest", *words]
        done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)
        status, output = done.returncode, done.stdout + done.stderr
    lines = (line.split() for line in output.splitlines() if "::" in line)
    kinds = ("PASSED", "FAILED", "SKIPPED", "ERROR")
    return status, {line[0]: line[1] for line in lines if len(line) > 1 and line[1] in kinds}, output


def collected(folder: Path, *arguments: str) -> list[str]:
    """The node ids that pytest collects where the plugin's entry point is installed."""
    words = [*PLAIN, "-p", "quantgate.plugin.entry", "--collect-only", "-q", *arguments]
    words.append("-Wdefault::ResourceWarning")
    _, output = start("pytest", words, folder, variables(folder)).finish(600)
    assert "rror" not in output, output
    assert "ResourceWarning" not in output, output
    return [line for line in output.splitlines() if "::" in line]
