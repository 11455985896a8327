"""The page of a history as text, and its packed series."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from quantgate.errors import InputError
from quantgate.history.__main__ import main
from quantgate.history.events import Event, State, events
from quantgate.history.page.data import STEPS, pack
from quantgate.history.page.view import View, family_of, newest_frontiers, rows, sentence, view
from quantgate.history.page.write import FOLDER, write_page
from quantgate.history.series import ABSENT, History, Series, read
from quantgate.records import Status

from selftest.history.nights import Kind, Plan, kinds, write
from selftest.history.year import CELLS, STEP, make
from selftest.report.pages import HOSTILE, Page


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return read(make(tmp_path_factory.mktemp("history")))


@pytest.fixture(scope="module")
def shown(history: History) -> View:
    return view(history, events(history))


def written(folder: Path, history: History, shown: list[Event] | None = None) -> str:
    path = folder / "page.html"
    write_page(path, history, events(history) if shown is None else shown)
    return path.read_text(encoding="utf-8")


def test_the_sentence_of_a_page_begins_with_what_is_worse(tmp_path: Path) -> None:
    """Though something has become better since."""

    def change(cell: str, metric: str, night: int) -> float:
        return (
            {"perplexity": 1.02, "divergence/kl_mean": 0.5}.get(metric, 1.0)
            if night >= since[metric]
            else 1.0
        )

    since = {kind.metric: 20 if kind.metric == "perplexity" else 30 for kind in Plan().metrics}
    write(tmp_path, Plan(nights=40, change=change))
    whole = read(tmp_path)
    shown = view(whole, events(whole))
    assert [event.direction for event in shown.open_events] == ["better", "worse"]
    assert re.match(r"Worse: perplexity .*; and 1 further event\.", shown.outcome)


def test_open_events_come_first_with_cause_size_and_date(
    shown: View, history: History, tmp_path: Path
) -> None:
    (event,) = shown.open_events
    text = "perplexity +3.00 % in 2 cells since 2026-04-11"
    assert sentence(event) == text
    assert shown.outcome == f"Worse: {text}."
    page = Page(written(tmp_path, history))
    words = ("Open events", "first run on the new level", "Cells 5", "not open 1", "gone: back since")
    places = [page.text.index(word) for word in words]
    assert places == sorted(places)
    assert "changed at the same run: llama-cpp-python 0.3.36 -> 0.3.37" in page.text
    assert event.id in page.text
    assert page.text.count(text) == 3  # title, heading, card
    assert f"commit {STEP:07x}" in page.text
    assert {f"#c{CELLS.index(cell)}" for cell in event.cells} <= {a.get("href") for a in page.all("a")}


def test_a_quiet_history_says_so(tmp_path: Path) -> None:
    write(tmp_path / "h", Plan(nights=4))
    assert "Nothing is open." in Page(written(tmp_path, read(tmp_path / "h"))).text
    (tmp_path / "empty").mkdir()
    assert "No run yet." in Page(written(tmp_path, read(tmp_path / "empty"))).text


def test_a_row_shows_of_each_family_what_is_worst(shown: View) -> None:
    table = {row.cell: row for row in rows(shown)}
    assert shown.families == ["quality", "throughput", "memory"]
    quality, _, memory = table["m/llamacpp/Q4_K_M"].slots
    assert quality is not None
    assert memory is not None
    assert (quality.shown, quality.event, quality.status) == ("perplexity", True, Status.PASS)
    assert quality.text.endswith(" +3.00 %")
    assert (memory.event, memory.text.endswith("bytes")) == (False, True)
    assert not any(slot and slot.event for slot in table["m/transformers/fp32"].slots)
    assert any(slot and slot.event for slot in table["m/llamacpp/Q4_0"].slots)


def test_what_failed_in_the_newest_run_is_the_state(tmp_path: Path) -> None:
    def fails(cell: str, metric: str, night: int) -> float:
        return float("nan") if (cell, metric, night) == ("m/llamacpp/Q4_0", "memory/weight_bytes", 5) else 1.0

    write(tmp_path, Plan(nights=6, change=fails))
    history = read(tmp_path)
    row = next(row for row in rows(view(history, [])) if row.cell == "m/llamacpp/Q4_0")
    assert row.status == Status.ERROR
    memory = row.slots[2]
    assert memory is not None
    assert (memory.shown, memory.text) == ("memory/weight_bytes", "not measured")


def test_families_that_no_group_has_are_kept() -> None:
    assert family_of("divergence/kl_mean") == "quality"
    assert family_of("toxicity/rate") == "toxicity"


def test_the_newest_run_has_a_chart_of_size_loss_and_speed(shown: View) -> None:
    (chart,) = newest_frontiers(shown)
    assert {point.cell for point in chart.points} == set(CELLS)
    assert chart.speed == "decoding, x of the reference"


def unpack(text: str, series: int, runs: int) -> dict[str, NDArray[Any]]:
    """What the page's script does."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    arrays, at, count = {}, 0, series * runs
    layout = [("value", "<f4"), ("baseline", "<f4"), ("tolerance", "<f4"), ("low", "<u2"), ("high", "<u2"),
              ("environment", "<u4"), ("status", "u1")]  # fmt: skip
    for name, kind in layout:
        width = np.dtype(kind).itemsize
        planes = raw[at : at + count * width].reshape(width, count)
        arrays[name] = np.ascontiguousarray(planes.T).view(kind).reshape(series, runs)
        at += count * width
    assert at == len(raw)
    return arrays


def test_packed_series_are_what_was_read(shown: View, history: History) -> None:
    entry = next(e for e in shown.entries if e.cell.endswith("nf4"))
    runs = shown.history.tiers["nightly"]
    piece = pack(entry.series, runs)
    arrays = unpack(piece.text, len(entry.series), len(runs))
    for n, one in enumerate(entry.series):
        for name in ("value", "baseline", "tolerance"):
            assert np.array_equal(arrays[name][n], getattr(one, name)[runs].astype("f4"), equal_nan=True), (
                name
            )
        assert np.array_equal(arrays["status"][n], one.status[runs] + 1)
        assert np.array_equal(arrays["environment"][n], one.environment[runs] + 1)
        least, most = piece.ranges[n]
        measured = np.isfinite(one.value)
        for name in ("low", "high"):
            ends = least + (arrays[name][n][measured] - 1.0) / (STEPS - 1) * (most - least)
            expected = one.baseline[measured] * (1 + getattr(one, name)[measured])
            assert ends == pytest.approx(expected, abs=2e-5 * (most - least) + 1e-6 * abs(most))
        assert (arrays["low"][n][~measured] == 0).all()


def test_what_was_not_measured_stays_empty(shown: View) -> None:
    series = shown.entries[0].series[0]
    empty = {
        name: np.full_like(getattr(series, name), ABSENT if name in ("status", "environment") else np.nan)
        for name in ("value", "baseline", "tolerance", "low", "high", "status", "environment")
    }
    nothing = Series(**{**series.__dict__, **empty})
    arrays = unpack(
        pack([nothing], shown.history.tiers["nightly"]).text, 1, len(shown.history.tiers["nightly"])
    )
    assert not any(arrays[name].any() for name in ("low", "high", "status", "environment"))
    assert np.isnan(arrays["value"]).all()


def test_environments_of_many_years_keep_their_numbers(shown: View) -> None:
    series, runs = shown.entries[0].series[0], shown.history.tiers["nightly"]
    late = Series(**{**series.__dict__, "environment": np.full_like(series.environment, 70_000)})
    assert (unpack(pack([late], runs).text, 1, len(runs))["environment"] == 70_001).all()


def test_the_page_grows_with_its_cells_alone(tmp_path: Path) -> None:
    sizes = []
    for count in (8, 16, 32):
        names = [f"m/llamacpp/Q{n}" for n in range(count)]
        write(tmp_path / str(count), Plan(nights=30, cells=names, metrics=kinds(12)))
        sizes.append(len(written(tmp_path, read(tmp_path / str(count)))))
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.1)


def test_the_page_loads_nothing_and_nothing_in_it_is_markup(tmp_path: Path) -> None:
    kind = Kind("perplexity", "paired", "", "lower", 20.0, 0.01)
    hostile = HOSTILE.replace('"', "").replace(
        "/", "-"
    )  # the made files are not escaped; <, > and & are the point
    plan = Plan(nights=3, cells=[f"m/b/{hostile}"], metrics=[kind], environments={2: {"torch": HOSTILE}})
    write(tmp_path, Plan(**{**plan.__dict__, "change": lambda c, m, night: 1.1 if night == 2 else 1.0}))
    history = read(tmp_path)
    assert len(history.runs) == 3
    text = written(tmp_path, history)
    page = Page(text)
    assert page.all("img") == []
    assert [s.get("type", "") for s in page.all("script")] == [
        "application/json",
        "text/plain",
        "text/plain",
        "",
    ]
    assert " ".join(HOSTILE.split()) in page.text
    assert not re.search(r"url\(|@import|https?://(?!www.w3.org/2000/svg)", text)
    meta = re.search(r'<script type="application/json" id="meta">(.*?)</script>', text, re.DOTALL)
    assert meta is not None
    assert json.loads(meta[1])["cells"][0][0] == f"m/b/{hostile}"


@pytest.mark.parametrize("name", ["history.css", "chart.js", "history.js"])
def test_styles_and_scripts_cannot_end_early(name: str) -> None:
    assert "</" not in (FOLDER / name).read_text()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, history: History) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=rf"cannot write the page {tmp_path}/file/page.html: .*--out FILE"):
        write_page(tmp_path / "file" / "page.html", history, [])


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = make(tmp_path / "h"), tmp_path / "out" / "page.html"
    assert main(["page", str(folder), "--out", str(out), "--newest=30", "--tier=nightly"]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert "30 runs from 2026-04-01 to 2026-04-30" in Page(out.read_text()).text
    assert main(["page", str(tmp_path / "none")]) == 4
    assert "no such folder" in capsys.readouterr().err


def test_states_of_events_are_told(shown: View) -> None:
    assert {event.state for event in shown.events} == {State.OPEN, State.GONE}
