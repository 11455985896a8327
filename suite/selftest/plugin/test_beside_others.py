"""The gate beside other people's fixtures, plugins and settings."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from quantgate.plugin.cases import case_module
from quantgate.plugin.finish import Outcome
from quantgate.plugin.start import Start
from quantgate.records import Status

from selftest.plugin.runs import F16, Q4, statuses
from selftest.project import Project, Result

EVERYWHERE = """
import os, pytest

def pytest_sessionstart():
    os.environ["GGML_SELFTEST"] = "1"  # for the session, unlike what a fixture sets

@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        monkeypatch.delenv(name)

def pytest_terminal_summary():
    os.chdir("/")  # as a test that forgets to go back

@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session):
    yield
    session.testsfailed += 1  # as pytest-cov, where too few lines were run
    return True
"""
LATE = """
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items):
    yield
    items[:] = [item for item in items if item.nodeid.endswith("test_tokenizer[tiny/llamacpp/F16]")]  # as --lf
"""


TIMEOUT = """
def pytest_configure(config):
    config.addinivalue_line("markers", "timeout: as pytest-timeout")

def pytest_runtest_setup(item):
    assert item.get_closest_marker("timeout").args == (0,)
"""

FORKED = """
def pytest_addoption(parser):
    parser.addoption("--forked", action="store_true")  # as pytest-forked
"""


def beside(project: Project, plugin: str, *arguments: str) -> Result:
    """A run with a plugin of somebody else."""
    (project.folder / "theirs.py").write_text(plugin)
    return project.run("-p", "theirs", *arguments)


def test_fixtures_that_change_folder_and_variables_of_all_tests(baselined: Project) -> None:
    """Cases are measured where pytest was started, and judged by the baselines there. A failure that is no case's has
    pytest's own exit status."""
    named = ("--matrix", "matrix.toml", "--baselines", "baselines", "--report", "report")
    result = beside(baselined, EVERYWHERE, "-m", "tokenizer", *named)
    assert statuses(result, F16, Q4) == {Status.PASS}, result.output
    assert baselined.measurement(F16).environment["GGML_SELFTEST"] == "1"
    assert result.status == 1


def test_where_tests_have_gone_is_where_they_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = Start()
    (tmp_path / "gone").mkdir()
    os.chdir("gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("HOME", "elsewhere")
    with start.restored():
        assert Path.cwd() == tmp_path
        assert os.environ["HOME"] != "elsewhere"
    assert os.environ["HOME"] == "elsewhere"
    with pytest.raises(FileNotFoundError):
        Path.cwd()


def test_without_a_terminal_the_reports_are_written_all_the_same(baselined: Project) -> None:
    result = baselined.run("--reuse", "-m", "tokenizer", "-p", "no:terminal")
    assert result.status == 0
    assert statuses(result, F16, Q4) == {Status.PASS}
    assert "wrote" not in result.output


def test_what_another_plugin_deselects_last_is_not_measured(project: Project) -> None:
    """Nor do limits of pytest-timeout, which are made for unit tests, end a case: a tier has its own."""
    project.write()
    (project.folder / "timeout.py").write_text(TIMEOUT)
    result = beside(project, LATE, "-p", "timeout")
    assert result.status == 0, result.output
    assert result.processes == [F16]
    assert project.measurement(F16).requests == ["tokenizer"]
    assert result.verdict(F16, "tokenizer/mismatches").status == Status.NO_BASELINE


def test_a_run_whose_cells_are_all_left_out_says_why_and_has_judged_nothing(project: Project) -> None:
    """In processes of pytest-xdist, too: the one that ends the run has collected nothing."""
    project.matrix["models"]["tiny"]["resources"] = {"llamacpp/*": {"memory": 1e9}}
    for processes in ("0", "1"):
        result = project.run("-n", processes, "--min-judged=0.1")
        assert result.status == 14, result.output
        assert f"skipped: {F16}, {Q4}: needs 1e+09 GB of memory; this machine has" in result.output
        assert "no gate was judged: fewer than --min-judged 0.1" in result.output


def test_what_others_skip_is_not_judged(baselined: Project) -> None:
    skip = "import pytest\n\ndef pytest_runtest_setup(item):\n    pytest.skip('not today')\n"
    result = beside(baselined, skip, "--reuse", "--min-judged=0.1")
    assert result.status == 14, result.output
    assert "no gate was judged: fewer than --min-judged 0.1" in result.output


def test_what_fails_before_its_verdict_is_named_beside_those_that_passed(baselined: Project) -> None:
    fails = (
        "def pytest_runtest_setup(item):\n    assert not ('tokenizer' in item.name and 'F16' in item.name)\n"
    )
    result = beside(baselined, fails, "--reuse")
    assert result.status == 10, result.output
    assert {verdict.status for verdict in result.verdicts} == {Status.PASS}
    text = " ".join(result.output.split())
    assert re.search(r"test_tokenizer\[\S*/F16\]: failed before it came to a verdict", text), result.output


@pytest.mark.parametrize(
    ("nodeid", "failed", "foreign"),
    [
        ("suite/test_perplexity.py::test_perplexity[m/b/s]", 1, 0),
        ("quantgate.toml::test_decode[m/b/s]", 1, 0),
        ("tests/test_mine.py::test_speed[m/b/s/arc_easy]", 1, 0),
        ("suite/test_perplexity.py::test_perplexity[m/b/another]", 0, 1),
        ("tests/test_theirs.py::test_perplexity", 0, 1),
    ],
)
def test_a_crash_of_a_process_of_xdist_is_a_failure_of_its_test(
    nodeid: str, failed: int, foreign: int
) -> None:
    outcome = Outcome(cells=["m/b/s"])
    file = nodeid.partition("::")[0]
    crash = pytest.TestReport(nodeid, (file, None, file), {}, "failed", "worker 'gw0' crashed", "???")  # type: ignore[arg-type]
    outcome.pytest_runtest_logreport(crash)
    assert (len(outcome.failed), outcome.foreign_failures) == (failed, foreign)


def test_cases_have_a_file_which_fixtures_ask_for() -> None:
    """`Path(request.module.__file__).parent`."""
    assert Path(str(case_module().__file__)).is_file()


def test_an_update_whose_cases_run_in_processes_of_their_own_is_refused(project: Project) -> None:
    """Each would keep to itself what it measured, and nothing be updated."""
    project.write()
    result = beside(project, FORKED, "--forked", "--update-baselines", "--reason", "first values")
    assert result.status == 4
    assert (
        "--update-baselines cannot be combined with --forked: one process writes baselines" in result.output
    )
