"""The marks of cases: a metric that no case asks for, and a case for a metric that there is not, are said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from quantgate.measure.metrics.accuracy import Options
from quantgate.plugin.marks import parts_of, without_cases, wrong_request

from selftest.forked import start
from selftest.plugin.foreign import MATRIX, PLAIN, variables, write

CASE = """
    import pytest

    @pytest.mark.quantgate("{request}"{more})
    def test_mine(quantgate_case):
        quantgate_case.check()
"""


def test_a_request_names_a_metric_group() -> None:
    assert not wrong_request("perplexity")
    assert not wrong_request("throughput/decode")
    assert "no metric group 'perplexty'. Did you mean 'perplexity'? Allowed: accuracy, " in wrong_request(
        "perplexty"
    )
    assert "@pytest.mark.quantgate(''): no metric group ''. Allowed: " in wrong_request("")


def test_cases_of_parts_are_those_of_an_option_that_is_a_list() -> None:
    options = Options(tasks=["a", "b"])
    assert parts_of(pytest.mark.quantgate("accuracy", each="tasks").mark, options) == ["a", "b"]
    assert parts_of(pytest.mark.quantgate("accuracy").mark, options) == [""]
    for name in ("task", "items"):
        with pytest.raises(pytest.fail.Exception, match=f"each='{name}'.*Allowed: tasks$"):
            parts_of(pytest.mark.quantgate("accuracy", each=name).mark, options)


def test_a_group_of_the_tier_without_a_case_is_named() -> None:
    def wiring(*with_cases: str) -> Any:
        tier, options = (
            SimpleNamespace(group_options={"perplexity": 1, "mine": 1}),
            SimpleNamespace(tier="smoke"),
        )
        matrix = SimpleNamespace(path="q.toml")
        return SimpleNamespace(matrix=matrix, tier=tier, options=options, with_cases={*with_cases})

    def notes(source: pytest.Config.ArgsSource, *with_cases: str) -> list[str]:
        config: Any = SimpleNamespace(args_source=source)
        return list(without_cases(config, wiring(*with_cases)))

    source = pytest.Config.ArgsSource
    (note,) = notes(source.TESTPATHS, "perplexity")
    assert note.startswith(
        "q.toml: tiers.smoke.mine: is not measured, since no test asks for it: add a function with "
    )
    assert not notes(source.TESTPATHS, "perplexity", "mine")
    assert not notes(source.ARGS, "perplexity"), "a person named the tests"
    assert not notes(source.INVOCATION_DIR), "another process collects"


@pytest.mark.slow
def test_timings_of_a_function_of_ones_own_are_not_taken_side_by_side(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    write(folder / "quantgate.toml", f"{MATRIX}throughput = {{ processes = 2 }}\n")
    write(folder / "test_mine.py", CASE.format(request="throughput/decode", more=""))
    words = [*PLAIN, "-p", "quantgate.plugin.entry", "-n", "1", "test_mine.py"]
    status, output = start("pytest", words, folder, variables(folder)).finish(600)
    assert status == 10, output
    assert "-n measures cells side by side, and throughput cases are selected: their timings would" in output
    assert not list((folder / ".quantgate").glob("smoke/**/*.log")), "nothing was measured"


def test_a_case_without_a_mark_is_an_error_of_collection(tmp_path: Path) -> None:
    """It would vanish from the run without a word."""
    folder = tmp_path / "repository"
    write(folder / "quantgate.toml", MATRIX)
    write(folder / "test_mine.py", "def test_mine(quantgate_case):\n    quantgate_case.check()\n")
    words = [*PLAIN, "-p", "quantgate.plugin.entry", "--collect-only", "-q", "test_mine.py"]
    status, output = start("pytest", words, folder, variables(folder)).finish(600)
    assert status == 2, output
    assert "test_mine: takes quantgate_case, but has no @pytest.mark.quantgate(REQUEST)" in output


def test_a_mark_of_a_module_for_what_the_tier_lacks_is_an_error_of_collection(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    write(folder / "quantgate.toml", MATRIX)
    text = 'import pytest\n\npytestmark = pytest.mark.quantgate("generation")\n\n\ndef test_mine(quantgate_case):\n'
    write(folder / "test_mine.py", f"{text}    quantgate_case.check()\n")
    words = [*PLAIN, "-p", "quantgate.plugin.entry", "--collect-only", "-q", "test_mine.py"]
    status, output = start("pytest", words, folder, variables(folder)).finish(600)
    assert status == 2, output
    assert "test_mine: the tier smoke does not measure generation: mark the function itself" in output


@pytest.mark.parametrize(
    ("request_", "more", "message"),
    [
        (
            "perplexty",
            "",
            "test_mine: @pytest.mark.quantgate('perplexty'): no metric group 'perplexty'. Did you mean",
        ),
        ("perplexity", ", each='texts'", "each='texts'): texts is no option of the group that is a list."),
    ],
)
def test_a_misspelt_mark_is_an_error_of_collection(
    tmp_path: Path, request_: str, more: str, message: str
) -> None:
    folder = tmp_path / "repository"
    write(folder / "quantgate.toml", MATRIX)
    write(folder / "test_mine.py", CASE.format(request=request_, more=more))
    words = [*PLAIN, "-p", "quantgate.plugin.entry", "--collect-only", "-q", "test_mine.py"]
    status, output = start("pytest", words, folder, variables(folder)).finish(600)
    assert status == 2, output
    assert message in output
    assert "Traceback" not in output
