"""The page of a history in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from quantgate.history.events import events
from quantgate.history.page.write import write_page
from quantgate.history.series import read

from selftest.browser import PHONE, Browser, overflow, visible
from selftest.history.year import CELLS, STEP, make

DRAWN = ".row:nth-child(2) a.slot svg .trace"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    history = read(make(folder))
    write_page(folder / "page.html", history, events(history))
    return folder / "page.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, PHONE])
def test_it_opens_without_errors_and_fits(browser: Browser, page: Path, *, width: int, dark: bool) -> None:
    with browser.visit(page, width=width, dark=dark) as tab:
        assert tab.inner_text("h1") == "Worse: perplexity +3.00 % in 2 cells since 2026-04-11."
        tab.wait_for_selector(".event svg .trace", state="attached")
        assert overflow(tab) <= 0


def test_lines_are_drawn_as_their_rows_come_into_view(browser: Browser, page: Path) -> None:
    with browser.visit(page) as tab:
        tab.evaluate("document.querySelector('#grid').scrollIntoView()")
        tab.wait_for_selector(DRAWN, state="attached")
        assert len(tab.query_selector_all(DRAWN)) == 3
        row = f".row[data-n='{CELLS.index('m/llamacpp/Q4_K_M')}']"
        tab.wait_for_selector(f"{row} svg .step", state="attached")
        assert len(tab.query_selector_all(f"{row} svg .step")) == 1
        assert tab.get_attribute(f"{row} svg .env", "d").count("M") == 2  # of the last 90 nights
        assert tab.query_selector(row).bounding_box()["height"] < 90


def test_the_filter_leaves_what_matches(browser: Browser, page: Path) -> None:
    with browser.visit(page) as tab:
        tab.fill(".filter input", "llamacpp perplexity")
        tab.wait_for_selector(".filter output:not(:empty)")
        assert tab.inner_text(".filter output") == "3 of 5 cells"
        assert len(visible(tab, ".row[data-n]")) == 3
        assert len(tab.query_selector_all(".row:not([hidden]) .slot.dim")) == 6
        tab.click("[data-state=event]")
        assert tab.inner_text(".filter output") == "2 of 5 cells"
        address = tab.evaluate("location.hash")
        tab.select_option(".filter select", "memory")
        assert tab.is_visible(".nothing")
    with browser.visit(page, address) as tab:
        assert tab.inner_text(".filter output") == "2 of 5 cells"


def test_a_click_shows_the_large_chart(browser: Browser, page: Path) -> None:
    with browser.visit(page) as tab:
        tab.click(".event .preview")
        tab.wait_for_selector("dialog .point p:nth-child(5)")
        assert tab.inner_text("dialog h3") in ("m/llamacpp/Q4_K_M", "m/llamacpp/Q4_0")
        assert tab.query_selector("dialog svg").bounding_box()["height"] > 200
        assert len(tab.query_selector_all("dialog svg .level.worse")) == 1
        text = tab.inner_text("dialog .point")
        for words in (
            "2026-04-11",
            f"commit {STEP:07x}",
            "interval",
            "tolerance 2.5 %",
            "event worse-20260411",
        ):
            assert words in text, words
        assert "changed since the run before: llama-cpp-python 0.3.36 → 0.3.37" in text
        tab.keyboard.press("ArrowLeft")
        tab.wait_for_selector("dialog .point:has-text('2026-04-10')")
        tab.select_option("dialog .choose select", "throughput/decode_ratio")
        tab.wait_for_selector("dialog svg[aria-label^='throughput/decode_ratio']")
        tab.click("[data-runs='90']")
        assert len(tab.query_selector_all("dialog svg .dotted")) == 90
        tab.keyboard.press("Escape")
        assert tab.evaluate("location.hash") == ""


def test_a_run_without_a_value_says_so(browser: Browser, page: Path) -> None:
    cell = CELLS.index("m/bitsandbytes/nf4")
    with browser.visit(page, f"#c{cell}/perplexity", width=PHONE) as tab:
        tab.wait_for_selector("dialog svg .trace", state="attached")
        assert overflow(tab) <= 0
        box: Any = tab.query_selector("dialog svg").bounding_box()
        for place in range(int(box["width"])):  # from left to right, until the night without a value
            tab.mouse.move(box["x"] + place, box["y"] + 40)
            if "not measured" in tab.inner_text("dialog .point"):
                break
        assert "not measured" in tab.inner_text("dialog .point")
        assert "error" in tab.inner_text("dialog .point")


def test_events_and_states_are_read_without_javascript(browser: Browser, page: Path) -> None:
    with browser.visit(page, javascript=False) as tab:
        assert tab.inner_text("h1").startswith("Worse: perplexity")
        assert "llama-cpp-python 0.3.36 -> 0.3.37" in tab.inner_text("#events")
        assert len(visible(tab, ".row[data-n]")) == 5
        assert "+3.00 %" in tab.inner_text(f".row[data-n='{CELLS.index('m/llamacpp/Q4_0')}']")
        assert visible(tab, ".filter, dialog, .preview, button") == []
        assert len(visible(tab, ".panels svg .label text")) >= 5
