"""The page of a run in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.report.page.figures import to_html
from quantgate.report.summary import outcome

from selftest.browser import PHONE, SCREENS, Browser, overflow, show_as, visible
from selftest.report.examples import INFO, example, slowed
from selftest.report.pages import charted, hostile

GATES = "details.gates tbody"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(to_html(charted(), INFO), encoding="utf-8")
    return path


def test_it_opens_without_errors_and_fits(browser: Browser, page: Path) -> None:
    with browser.visit(page) as tab:
        for width, dark in SCREENS:
            show_as(tab, width=width, dark=dark)
            tab.reload()
            assert tab.inner_text("h1") == outcome(charted())
            assert overflow(tab) <= 0, (width, dark)
            red, green, blue = tab.evaluate(
                "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
            )[:3]
            assert (max(red, green, blue) < 40) if dark else (min(red, green, blue) > 240)


def test_the_filter_leaves_what_matches(browser: Browser, page: Path) -> None:
    with browser.visit(page) as tab:
        total = len(tab.query_selector_all(GATES))
        tab.fill(".filter input", "Q4_K_M perplexity")
        tab.wait_for_selector(".filter output:not(:empty)")
        assert tab.inner_text(".filter output") == f"2 of {total} gates"
        assert visible(tab, "details.gates .cell") == ["smollm2-135m/llamacpp/Q4_K_M"]
        assert visible(tab, f"{GATES} tr:first-child td:first-child") == [
            "perplexity",
            "perplexity/bits_per_byte",
        ]
        assert [t.partition(" ")[0] for t in visible(tab, ".card h3 .title")] == [
            "smollm2-135m/llamacpp/Q4_K_M"
        ]
        assert visible(tab, ".overview tbody .cell") == ["smollm2-135m/llamacpp/Q4_K_M"]
        tab.click("button[data-state=regression]")
        assert tab.inner_text(".filter output") == f"1 of {total} gates"
        address = tab.evaluate("location.hash")
        tab.fill(".filter input", "no such cell")
        tab.wait_for_selector(".nothing", state="visible")
        tab.click("button[data-state=regression]")
        tab.fill(".filter input", "")
        tab.wait_for_selector(".nothing", state="hidden")
        assert tab.inner_text(".filter output") == ""
        assert len(visible(tab, "#cells tbody tr")) == len({v.cell for v in charted()})
    with browser.visit(page, address) as tab:  # sent to somebody else
        assert tab.inner_text(".filter output") == f"1 of {total} gates"
        tab.select_option(".filter select", "memory")
        assert tab.inner_text(".filter output") == f"0 of {total} gates"


def test_the_charts_appear_and_answer(browser: Browser, page: Path) -> None:
    with browser.visit(page) as tab:
        drawings = tab.query_selector_all("figure:has([data-cell^='m/']) .panels svg")
        assert len(drawings) == 2
        assert all(d.bounding_box()["height"] > 200 for d in drawings)
        point = tab.query_selector(".pt[data-cell='m/b/Q8_0']")
        assert 8 < point.bounding_box()["width"] < 20
        point.hover()
        assert tab.inner_text("figure:has(.on) .picked").startswith(
            "m/b/Q8_0: 140.0 MB, KL divergence 0.004 nats, decoding 108 tokens/s; pass"
        )
        assert len(tab.query_selector_all(".pt.on")) == 2
        tab.fill(".filter input", "nf4")
        tab.wait_for_selector(".pt.dim")
        assert {p.get_attribute("data-cell") for p in tab.query_selector_all(".pt:not(.dim)")} == {"m/c/nf4"}


def test_a_cell_opens_from_its_link(browser: Browser, page: Path) -> None:
    with browser.visit(page) as tab:
        tab.click(".overview a.cell >> nth=1")
        assert len(visible(tab, GATES)) == 13
        tab.click("button.theme")
        assert tab.evaluate("document.documentElement.style.colorScheme") == "dark"


def test_verdicts_are_read_without_javascript(browser: Browser, page: Path) -> None:
    with browser.visit(page, javascript=False) as tab:
        assert tab.inner_text("h1") == outcome(charted())
        failed = tab.inner_text("#failed")
        for word in (
            "perplexity",
            "+9.28 %",
            "(+8.91 % to +9.65 %)",
            "all 16 windows",
            "ended with signal 11",
        ):
            assert word in failed, word
        assert visible(tab, ".filter, button") == []
        assert len(visible(tab, ".panels svg .label text")) >= 5
        tab.click("details.gates summary >> nth=1")
        assert len(visible(tab, GATES)) == 13


def test_odd_runs_open_too(browser: Browser, tmp_path: Path) -> None:
    runs = {"hostile": hostile(), "slowed": slowed(), "one": example()[:1], "none": []}
    path = tmp_path / "report.html"
    path.touch()
    with browser.visit(path, width=PHONE) as tab:
        for name, verdicts in runs.items():
            path.write_text(to_html(verdicts, INFO), encoding="utf-8")
            tab.reload()
            assert tab.inner_text("h1") == outcome(verdicts)
            assert tab.evaluate("typeof hacked") == "undefined", name
            assert tab.query_selector("img") is None, name
            assert overflow(tab) <= 0, name
