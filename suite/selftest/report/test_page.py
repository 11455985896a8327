"""The page of a run as text: what is on it, in which order, and that nothing in it is markup from elsewhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
from quantgate.records import Status
from quantgate.report.findings import findings
from quantgate.report.page import template
from quantgate.report.page.figures import Bar, bar, card, gate, gates_by_cell, to_html
from quantgate.report.summary import outcome

from selftest.report.examples import INFO, example, slowed, verdict
from selftest.report.pages import HOSTILE, Page, charted, hostile


def test_what_failed_comes_first_with_the_sentence_of_its_verdict() -> None:
    text = Page(to_html(example(), INFO)).text
    places = [
        text.index(word)
        for word in ("What failed", "Improvements", "Not comparable", "Not judged", "All gates")
    ]
    assert places == sorted(places)
    failed = text[places[0] : places[1]]
    for word in (
        "all 16 windows",
        "slower",
        "measured again: 0.32",
        "ended with signal 11",
        "last [bold]x[/bold]",
    ):
        assert word in failed, word
    assert (
        "pytest --tier smoke 'suite/test_perplexity.py::test_perplexity[smollm2-135m/llamacpp/Q4_K_M]'"
        in failed
    )
    assert text.index(outcome(example())) < places[0]
    assert "needs CUDA" in text
    assert "pytest --update-baselines" in text


def test_a_run_in_which_nothing_failed_says_so() -> None:
    text = Page(to_html([verdict("m/b/s", "perplexity", measured=20.0)], INFO)).text
    assert "Nothing failed." in text
    assert "Improvements" not in text
    assert "Nothing was judged." in Page(to_html([], INFO)).text


def test_every_gate_is_on_the_page() -> None:
    page = Page(to_html(example(), INFO))
    rows = page.all("tbody")
    assert len([row for row in rows if row.get("class")]) >= len(example())
    assert {cell["data-cell"] for cell in page.all("details") if "data-cell" in cell} == {
        v.cell for v in example()
    }
    assert sum(len(cell.gates) for cell in gates_by_cell(example())) == len(example())


def test_the_page_loads_nothing() -> None:
    text = to_html(charted(), INFO)
    page = Page(text)
    addresses = [
        value for _, a in page.elements for name, value in a.items() if name in ("src", "href", "action")
    ]
    assert addresses
    assert all(re.match(r"#[a-z]|data:,$", address) for address in addresses), addresses
    assert "default-src 'none'" in page.all("meta")[1]["content"]
    assert not re.search(r"url\(|@import|https?://", text)


@pytest.mark.parametrize("name", ["style.css", "page.js", "report.js"])
def test_styles_and_scripts_cannot_end_early(name: str) -> None:
    assert "</" not in (template.FOLDER / name).read_text()


def test_texts_from_elsewhere_are_no_markup() -> None:
    page = Page(
        to_html(hostile(), INFO.model_copy(update={"machine": HOSTILE, "notes": [(HOSTILE, HOSTILE)]}))
    )
    assert page.all("img") == []
    assert page.all("script") == [{}]
    assert " ".join(HOSTILE.split()) in page.text
    assert "49" not in page.text.replace("349", "")


def test_one_cause_is_one_card_with_its_cells() -> None:
    (cause, *_) = findings(slowed(), {})
    shown = card(cause)
    assert shown.title.startswith("one cause in all 30 cells: throughput/decode -12")
    assert len(shown.members) == 30
    assert shown.gates == []
    text = Page(to_html(slowed(), INFO)).text
    assert "since the baseline, in all of them: governor performance -> powersave" in text
    assert "The 30 cells" in text


def test_a_change_is_drawn_to_the_scale_of_its_tolerance() -> None:
    values: dict[str, Any] = {"measured": 1.0, "baseline": 1.0, "tolerance": 0.01}
    inside = verdict("m/b/s", "x", change=0.01, change_low=-0.01, change_high=0.03, **values)
    assert bar(inside) == Bar(33.3, 100.0, 66.7, 0)
    assert bar(verdict("m/b/s", "x", change=0.5, **values)) == Bar(100.0, 100.0, 100.0, 1)
    assert bar(verdict("m/b/s", "x", change=-0.5, change_low=-0.6, change_high=-0.02, **values)) == Bar(
        0.0, 16.7, 0.0, -1
    )
    assert bar(verdict("m/b/s", "x", change=0.5, **(values | {"tolerance": 0.0}))) is None
    assert bar(verdict("m/b/s", "x", Status.ERROR)) is None


def test_a_metric_without_a_gate_is_recorded() -> None:
    free = gate(verdict("m/b/s", "x", measured=1.0, change=None, tolerance=None, text="recorded, not gated"))
    assert (free.state, free.slug, free.why) == ("recorded", "recorded", [])
    assert gate(verdict("m/b/s", "x", measured=1.0)).state == "pass"
    assert gate(verdict("m/b/s", "x", Status.NOT_COMPARABLE)).slug == "not-comparable"
