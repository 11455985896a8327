"""Losses that add up since the anchor, in every report."""

from __future__ import annotations

import pytest
from quantgate.records import Status, Verdict
from quantgate.report.comment import to_comment
from quantgate.report.markdown import to_markdown
from quantgate.report.page.figures import to_html
from quantgate.report.page.template import FOLDER, SLUGS
from quantgate.report.summary import COLUMNS, MARKS, counts, outcome, rows
from quantgate.report.terminal import STYLES

from selftest.report.examples import INFO, cell, rendered, verdict


def drifted() -> list[Verdict]:
    """A cell whose perplexity is within the tolerance of the baseline, and not of the anchor."""
    since = verdict(
        "m/b/s", "perplexity/anchor", Status.DRIFT, baseline=19.9, measured=20.02, change=0.005, tolerance=0.0025,
        text="since the anchor of 2026-07-01 (first values): worse by more than the tolerance (32 paired samples)",
    )  # fmt: skip
    return [*cell("m/b/s", 20.0), since]


def test_the_table_marks_the_column_of_the_metric() -> None:
    (row,) = rows(drifted())
    number = [column.title for column in COLUMNS].index("perplexity")
    assert (row.entries[number].value, row.entries[number].mark) == ("20.000", "↘")
    assert row.status == Status.DRIFT
    assert counts(drifted()) == {Status.DRIFT: 1, Status.PASS: 6}


def test_the_outcome_is_what_was_lost_since_the_anchor() -> None:
    sentence = "Worse than the anchor, within the tolerance of the baseline: perplexity of m/b/s by +0.50 %."
    assert outcome(drifted()) == sentence
    red = [*drifted(), verdict("m/b/t", "perplexity", Status.REGRESSION, change=0.1)]
    assert outcome(red) == "Worse than the baseline: perplexity of m/b/t by +10.0 %, and 1 further metric."
    changed = [*drifted(), verdict("m/b/r", "perplexity/reproduction", Status.CHANGED)]
    assert outcome(changed).startswith("Worse than the anchor")


def test_every_report_has_it_as_a_finding() -> None:
    text = rendered(drifted())
    assert "↘ drift  m/b/s" in text
    assert "since the anchor of 2026-07-01 (first values)" in text
    markdown = to_markdown(drifted(), INFO)
    assert "### ↘ drift: `m/b/s`" in markdown
    assert "| `perplexity/anchor` | 19.900 | 20.020 | +0.50 % | 0.25 % | drift |" in markdown
    assert '<tbody class="drift"><tr><td>perplexity/anchor</td>' in to_html(drifted(), INFO)
    assert "| `m/b/s` | `perplexity/anchor` | 19.900 | 20.020 | +0.50 % |" in to_comment(drifted(), INFO)


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_mark_a_style_and_a_colour(status: Status) -> None:
    assert status in MARKS
    assert status in STYLES
    css, slug = (FOLDER / "style.css").read_text(), SLUGS[status]
    assert f".{slug} {{ --s: var(--{slug}); }}" in css
    assert f"  --{slug}: light-dark(" in css
