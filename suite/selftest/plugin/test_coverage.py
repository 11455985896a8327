"""How many gates were judged, and `--min-judged`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.judge.coverage import Coverage, coverage
from quantgate.plugin.info import in_common, machine_in_words
from quantgate.records import Status, Verdict

if TYPE_CHECKING:
    from selftest.project import Project


def verdict(metric: str, status: Status, tolerance: float | None = 0.1, text: str = "") -> Verdict:
    return Verdict(cell="m/b/s", metric=metric, status=status, tolerance=tolerance, text=text)


def test_what_says_nothing_of_the_model_is_not_judged() -> None:
    seen = coverage(
        [
            verdict("perplexity", Status.PASS),
            verdict("perplexity/loss", Status.REGRESSION),
            verdict("perplexity/reproduction", Status.CHANGED),
            verdict("memory/weight_bytes", Status.IMPROVEMENT),
            verdict("throughput/decode_ratio", Status.INCONCLUSIVE),
            verdict("throughput/prefill_ratio", Status.INCONCLUSIVE),
            verdict("memory/peak_resident", Status.INCONCLUSIVE),
            verdict("memory/peak_load", Status.NOT_COMPARABLE, None, "kernels differs: a, b"),
            verdict("tokenizer/mismatches", Status.NO_BASELINE, None),
            verdict("decoding", Status.ERROR, None, "killed"),
            verdict("accuracy/arc_easy/acc", Status.PASS, None, "recorded, not gated"),
        ]
    )
    assert (seen.gates, seen.judged, seen.share) == (10, 4, 0.4)
    assert seen.others == {
        "error": {"decoding": 1},
        "not comparable, kernels differs": {"memory": 1},
        "no baseline": {"tokenizer": 1},
        "inconclusive": {"throughput": 2, "memory": 1},
    }
    assert seen.text == (
        "4 of 10 gates judged; not judged: 1 error (decoding 1), 1 not comparable, kernels differs (memory 1), "
        "1 no baseline (tokenizer 1), 3 inconclusive (throughput 2, memory 1)"
    )


def test_all_judged() -> None:
    assert coverage([verdict("perplexity", Status.PASS)]).text == "1 of 1 gates judged"
    assert coverage([]) == Coverage(0, 0)
    assert coverage([]).share == 1.0
    recorded = verdict("code/mbpp/solved", Status.PASS, None, "recorded, not gated")
    assert coverage([recorded]).share == 0.0, "with --min-judged, a run without any gate is not green"


def test_a_case_of_a_cell_that_was_left_out_is_not_judged() -> None:
    seen = coverage([verdict("perplexity", Status.PASS)], {"perplexity": 2, "memory": 1})
    assert (seen.gates, seen.judged) == (4, 1)
    assert seen.text == "1 of 4 gates judged; not judged: 3 skipped (perplexity 2, memory 1)"
    assert coverage([], {"memory": 1}).share == 0.0


# --- whole runs ---------------------------------------------------------------------------------------


def gates(project: Project) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((project.folder / "report/report.json").read_text())["gates"]
    return written


def test_a_green_run_in_which_nothing_was_judged_is_told_and_may_be_made_to_fail(unjudged: Project) -> None:
    result = unjudged.run("--reuse", "--min-judged=0")
    assert result.status == 0
    text = re.search(r"0 of (\d+) gates judged; not judged: (\d+) no baseline \(.*memory \d+", result.output)
    assert text is not None
    assert text[1] == text[2]
    assert text[0] in (unjudged.folder / "report/report.md").read_text()
    assert (gates(unjudged)["gates"], gates(unjudged)["judged"]) == (int(text[1]), 0)
    result = unjudged.run("--reuse", "--min-judged=0.01")
    assert result.status == 14
    assert "fewer than --min-judged 0.01" in result.output


def test_what_failed_comes_before_what_was_not_judged(unjudged: Project) -> None:
    assert unjudged.run("--reuse", "--require-baselines", "--min-judged=1", "-m", "tokenizer").status == 12


def test_a_run_in_which_all_is_judged_is_enough(baselined: Project) -> None:
    result = baselined.run("--reuse", "--min-judged=1", "-m", "perplexity or tokenizer")
    assert result.status == 0, result.output
    assert re.search(r"(\d+) of \1 gates judged\n", result.output)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--min-judged=90"], "--min-judged 90: must be between 0 and 1 (0.9 is nine gates of ten)"),
        (["--min-judged=nan"], "must be between 0 and 1"),
        (["--min-judged=-0.1"], "must be between 0 and 1"),
        (["--min-judged=most"], "invalid float value: 'most'"),
        (
            ["--min-judged=1", "--update-baselines", "--reason=x"],
            "cannot be combined with --update-baselines",
        ),
    ],
)
def test_a_share_that_is_none_is_a_usage_error(project: Project, arguments: list[str], words: str) -> None:
    result = project.run(*arguments)
    assert result.status == 4
    assert words in result.output


def test_machines_of_a_cluster_that_differ_are_named_with_both() -> None:
    one = {"cpu": "EPYC", "cores": 1, "memory_gb": 4.0, "threads": 1}
    assert machine_in_words(one) == "EPYC, 1 core, 4.0 GB, 1 thread"
    two = {"cpu": "EPYC", "cores": "2 or 16", "memory_gb": "4.0 or 64.0", "threads": 2}
    assert machine_in_words(two) == "EPYC, 2 or 16 cores, 4.0 or 64.0 GB, 2 threads"


def test_what_cells_have_in_common_stands_once() -> None:
    common, rest = in_common(
        {"a": {"torch": "2", "kernels": "x"}, "b": {"torch": "2", "kernels": "y", "mkl": True}}
    )
    assert common == {"torch": "2"}
    assert rest == {"a": {"kernels": "x"}, "b": {"kernels": "y", "mkl": True}}
    assert in_common({}) == ({}, {})
