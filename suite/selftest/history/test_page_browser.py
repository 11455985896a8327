"""The page of a history in a real browser."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from quantgate.history.events import events
from quantgate.history.page.write import write_page
from quantgate.history.series import read

from selftest.browser import PHONE, SCREENS, Browser, overflow, show_as, visible
from selftest.history.nights import Kind, Plan
from selftest.history.nights import write as write_nights
from selftest.history.year import CELLS, STEP, make

DRAWN = ".row:nth-child(2) a.slot svg .trace"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    history = read(make(folder))
    write_page(folder / "page.html", history, events(history))
    return folder / "page.html"


def test_it_opens_without_errors_and_fits(browser: Browser, page: Path) -> None:
    with browser.visit(page) as tab:
        for width, dark in SCREENS:
            show_as(tab, width=width, dark=dark)
            tab.reload()
            assert tab.inner_text("h1") == "Worse: perplexity +3.00 % in 2 cells since 2026-04-11."
            tab.wait_for_selector(".event svg .trace", state="attached")
            assert overflow(tab) <= 0, (width, dark)


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


def test_the_anchor_is_a_line_of_its_own_once_accepted_values_move_away(
    browser: Browser, tmp_path: Path
) -> None:
    accepted = {10: 1.004, 20: 1.004}

    def change(cell: str, metric: str, night: int) -> float:
        return math.prod(factor for first, factor in accepted.items() if night >= first)

    write_nights(tmp_path / "nights", Plan(30, CELLS[:2], accepted=accepted, change=change))
    history = read(tmp_path / "nights")
    write_page(tmp_path / "page.html", history, events(history))
    with browser.visit(tmp_path / "page.html", "#c0/perplexity") as tab:
        tab.wait_for_selector("dialog .point p:nth-child(4)")
        [base] = ys(tab, "dialog svg .base")
        [anchor] = ys(tab, "dialog svg .anchor")
        assert len(set(anchor)) == 1  # level over all nights
        assert [base[n] == anchor[n] for n in (9, 10, 20)] == [True, False, False]
        assert anchor[0] > base[10] > base[20]  # downwards on the screen is less
        assert tab.text_content("dialog svg .anchor-word") == "anchor"
        level = float(history.series[0].baseline[0])
        assert f"anchor {level:.6g}" in tab.inner_text("dialog .point")
        tab.select_option("dialog .choose select", "throughput/decode_ratio")
        tab.wait_for_selector("dialog svg[aria-label^='throughput/decode_ratio']")
        assert tab.query_selector_all("dialog svg .anchor") == []
        tab.keyboard.press("Escape")
        tab.wait_for_selector(".row svg .trace", state="attached")
        assert len(tab.query_selector_all(".row a[data-m=perplexity] svg .anchor")) == 2


def test_a_change_of_what_is_below_zero_has_the_sign_of_the_change(browser: Browser, tmp_path: Path) -> None:
    kind = Kind("accuracy/margin", "paired", "nats", "higher", -2.0, 0.01)
    plan = Plan(3, CELLS[:1], [kind], change=lambda cell, metric, night: 0.5 if night == 2 else 1.0)
    write_nights(tmp_path / "nights", plan)
    history = read(tmp_path / "nights")
    write_page(tmp_path / "page.html", history, events(history))
    with browser.visit(tmp_path / "page.html", "#c0/accuracy%2Fmargin") as tab:
        tab.wait_for_selector("dialog .point p:nth-child(2)")
        assert " +50.00 % " in tab.inner_text("dialog .point")


def ys(tab: Any, selector: str) -> list[list[float]]:
    """The heights of the points of each path."""
    paths = [path.get_attribute("d") for path in tab.query_selector_all(selector)]
    return [[float(point.split()[1]) for point in re.split("[ML]", path)[1:]] for path in paths]


def test_a_run_without_a_value_says_so(browser: Browser, page: Path) -> None:
    cell = CELLS.index("m/bitsandbytes/nf4")
    with browser.visit(page, f"#c{cell}/perplexity", width=PHONE) as tab:
        tab.wait_for_selector("dialog svg .trace", state="attached")
        assert overflow(tab) <= 0
        box: Any = tab.query_selector("dialog svg").bounding_box()
        # From left to right, until the night without a value; of 118 nights, each has 2.6 pixels.
        for place in range(int(box["width"]) // 5, int(box["width"]), 2):
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
