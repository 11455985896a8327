"""The comment of a pull request."""

from __future__ import annotations

import pytest
from quantgate.records import Status
from quantgate.report.comment import ROWS, to_comment

from selftest.report.examples import INFO, cell, changed, example, verdict


def test_where_nothing_moved_it_is_one_line_below_its_mark() -> None:
    text = to_comment(cell("m/b/s", 20.0), INFO)
    mark, line = text.splitlines()
    assert mark == "<!-- quantgate smoke -->"
    assert line.startswith("**quantgate smoke: nothing moved.** ")
    assert "gates judged" in line


@pytest.mark.parametrize(
    ("status", "exit_status", "says", "ends"),
    [
        (Status.PASS, "0", "nothing moved.", "1 of 1 gates judged."),
        (Status.PASS, "14", "nothing moved.", "Exit status 14."),
        (Status.NO_BASELINE, "0", "nothing was judged.", "1 no baseline (perplexity 1)."),
        (
            Status.PASS,
            "2",
            "The run was interrupted. So far: No regression: 1 case within tolerance of the baseline.",
            "Exit status 2.",
        ),
    ],
)
def test_it_says_no_more_than_was_judged(status: Status, exit_status: str, says: str, ends: str) -> None:
    verdicts = [verdict("m/b/s", "perplexity", status, measured=2.0, baseline=2.0, tolerance=0.01)]
    _, line = to_comment(verdicts, INFO.model_copy(update={"exit_status": exit_status})).splitlines()
    assert line.startswith(f"**quantgate smoke: {says}** ")
    assert line.endswith(ends)


def test_what_moved_stands_in_a_table_the_worst_first() -> None:
    text = to_comment(example(), INFO)
    lines = text.splitlines()
    assert lines[1].startswith("**quantgate smoke: ")
    rows = [line for line in lines if line.startswith("| `")]
    assert (
        "| `perplexity` | 24.810 | 27.112 | +9.28 % (+8.91 % to +9.65 %) | 0.5 % | ✗ regression |" in rows[0]
    )
    words = [row.split("|")[-2].split()[1] for row in rows]
    assert words.index("error") > words.index("regression")
    assert "ended with signal 11" in rows[words.index("error")]
    assert not any("inconclusive" in row or " pass " in row for row in rows)


def test_a_long_table_is_cut_and_says_so() -> None:
    many = [
        verdict(f"m/b/{n}", "perplexity", Status.REGRESSION, measured=2.0, baseline=1.0) for n in range(40)
    ]
    text = to_comment(many, INFO)
    assert text.count("| ✗ regression |") == ROWS
    assert "and 10 further metrics: see the report." in text


def test_the_mark_is_that_of_tier_and_matrix_whatever_they_are_called() -> None:
    info = INFO.model_copy(update={"matrix": "a--> b/mine.toml"})
    one = to_comment(cell("m/b/s", 20.0), info)
    other = to_comment(changed(cell("m/b/s", 20.0), "perplexity", Status.REGRESSION, baseline=10.0), info)
    assert one.splitlines()[0] == other.splitlines()[0] == "<!-- quantgate smoke a b/mine.toml -->"
