"""The record of noise; tables, Markdown, figure and command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from quantgate.errors import InputError
from quantgate.proofs.power import figure, noise, paired, report, study
from quantgate.proofs.power.__main__ import load_cells, main
from quantgate.proofs.power.study import Rate, Row, Scenario
from quantgate.records import Metric
from quantgate.run.against import alternation

from selftest.project import REPO
from selftest.proofs.power_records import BLOCKS, CELL, SECONDS, perplexity, record, timings


def results(folder: Path, cell: str, *metrics: tuple[str, Metric]) -> Path:
    file = folder / f"{cell}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(record(dict(metrics), cell).model_dump_json())
    file.with_name(f"{file.stem}~job.json").write_text("{}")
    return folder


def test_noise_is_recorded_and_read_back(tmp_path: Path) -> None:
    old, new = perplexity(BLOCKS, 6), perplexity(BLOCKS + 0.5, 6)
    decode = timings(SECONDS).metrics["throughput/decode"]
    first = results(tmp_path / "first", CELL, ("perplexity", old), ("throughput/decode", decode))
    other = results(tmp_path / "other", CELL, ("perplexity", new), ("gone", new))
    written = noise.record(
        [first, first], [other, other], {CELL: {"perplexity": old}}, tmp_path / "noise.json"
    )
    read = noise.load_noise({CELL: {"perplexity": old}}, tmp_path / "noise.json")
    assert read == written
    assert read.differences(CELL, "perplexity") == pytest.approx([0.5] * 48)
    assert paired.by_cluster(old, read.differences(CELL, "perplexity")).shape == (12, 4)
    assert [list(sitting.cells[CELL].metrics) for sitting in read.sittings] == [["throughput/decode"]] * 2


def test_without_recorded_noise_a_cell_gets_the_difference_of_the_references(tmp_path: Path) -> None:
    (tmp_path / "noise.json").write_text("{}")
    metrics = {"transformers/fp32": 0.0, "llamacpp/F16": 0.25, "llamacpp/Q4_0": 1.0}
    cells = {f"m/{name}": {"perplexity": perplexity(BLOCKS + by, 6)} for name, by in metrics.items()}
    result = noise.load_noise(cells, tmp_path / "noise.json")
    assert result.differences("m/llamacpp/Q4_0", "perplexity") == pytest.approx([0.25] * 24)
    with pytest.raises(
        InputError, match="no harmless differences of accuracy of m/llamacpp/Q4_0; --record them"
    ):
        result.differences("m/llamacpp/Q4_0", "accuracy")


@pytest.mark.parametrize("run", ["1", "2", "3", "4"])  # both orders are among them
def test_both_sides_of_an_ab_are_one_run_in_the_order_they_ran(tmp_path: Path, run: str) -> None:
    file = tmp_path / f"{CELL}.json"
    for name, seconds in (("Q4_K_M~old.json", SECONDS[2:]), ("Q4_K_M.json", SECONDS[:2])):
        metric = timings(seconds).metrics["throughput/decode"].model_copy(update={"beside": run})
        results(tmp_path, CELL, ("throughput/decode", metric))
        file.rename(file.with_name(name))
    metric = noise.read_results(tmp_path)[CELL].metrics["throughput/decode"]
    sides = {"old": SECONDS[2:], "new": SECONDS[:2]}
    order = [sides[s][number] for number, pair in enumerate(alternation(2, f"{run} {CELL}")) for s in pair]
    assert metric.samples == [s for process in order for s in process]
    assert metric.beside is None


def test_the_other_side_of_an_earlier_ab_is_not_that_of_a_plain_run(tmp_path: Path) -> None:
    file = tmp_path / f"{CELL}.json"
    file.parent.mkdir(parents=True)
    for name, seconds in (("Q4_K_M~old.json", SECONDS[2:]), ("Q4_K_M.json", SECONDS[:2])):
        result = timings(seconds).model_copy(update={"run": name})
        file.with_name(name).write_text(result.model_dump_json())
    assert noise.read_results(tmp_path)[CELL] == result


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), ('{"x": 1}', "not what --record writes")]
)
def test_a_missing_or_foreign_record_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "noise.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        noise.load_noise({}, path)
    with pytest.raises(InputError, match="no measurements"):
        noise.read_results(tmp_path)


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0"), (1.0, "100"), (0.9999, "99.99"), (0.0004, "0.04"), (0.5, "50.0")]
)
def test_nought_and_hundred_are_shown_only_where_they_are_exact(share: float, text: str) -> None:
    assert report.percent(share) == text


def rows() -> list[Row]:
    def row(effect: float, spread: str, hits: int, gate: str = "perplexity") -> Row:
        scenario = Scenario("perplexity", effect, spread, "baselines", 1, lambda count, random: iter(()))
        return Row(scenario, gate, Rate(hits, 50), Rate(5, 50), Rate(1, 50), Rate(50, 50))

    return [row(0, "none", 0), row(0.005, "uniform", 50), row(0.02, "uniform", 25)]


def test_a_line_begins_with_the_replays_without_effect() -> None:
    (section,) = report.sections(rows())
    assert section.columns == ["judged by", "effect", "none", "+0.5 %", "+2 %", "replays"]
    gate, share, limit = section.rows
    assert gate[:2] == ["perplexity", "uniform"]
    assert gate[2] == "0 (0 to 7.1), 10.0 inconclusive"
    assert gate[3].startswith("100 (92.9 to 100)")
    assert gate[4].startswith("50.0 (")
    assert (share[0], limit[0]) == ("rule: 8 % of the mean", "rule: perplexity above 20")
    assert limit[4] == "100 (92.9 to 100)"
    assert section.notes == ["none: baselines", "uniform: baselines"]


def test_markdown_has_a_whole_table_for_each_section() -> None:
    result = rows()
    result[0].gate = result[1].gate = result[2].gate = "accuracy/*/acc"
    text = report.to_markdown(report.sections(result), ["judged well"])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("- judged well\n")
    assert len({line.count("|") for line in lines}) == 1
    assert "accuracy/\\*/acc" in lines[2]


def test_the_figure_is_drawn_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        figure.draw(rows(), tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert text.count("rule: perplexity above 20") == 1


def test_the_command_prints_and_writes_the_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the committed baselines, with a replay of each cell."""
    monkeypatch.delenv("COLUMNS", raising=False)
    file = tmp_path / "power.md"
    assert main(["--replays", "3", "--years", "0", "--markdown", str(file)]) == 0
    printed, written = capsys.readouterr().out, file.read_text()
    for text in (printed, written):
        assert "perplexity" in text
        for place in (study.HERE, study.ELSEWHERE):
            assert f"whole runs without any change {place} that had a red case" in text
    for heading in (f"perplexity, {study.HERE}", f"perplexity, {study.ELSEWHERE}", "memory"):
        assert f"### {heading}: red" in written
    assert main(["--baselines", str(tmp_path), "--record", str(tmp_path)]) == 4
    assert "no measurements" in capsys.readouterr().out


def test_the_committed_record_is_small_and_of_the_committed_cells() -> None:
    result = json.loads(noise.NOISE.read_bytes())
    assert noise.NOISE.stat().st_size < 400_000
    assert {cell for sitting in result.get("sittings", []) for cell in sitting["cells"]} <= set(
        load_cells(REPO / "baselines", "smoke")
    )
