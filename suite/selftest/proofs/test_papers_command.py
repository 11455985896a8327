"""Findings from records to cases of pytest, tables, baselines and the page."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from quantgate.config.matrix import MATRIX
from quantgate.proofs.papers.__main__ import main, update
from quantgate.proofs.papers.expected import (
    Entry,
    Expected,
    Outcome,
    load_entries,
    path_of,
)
from quantgate.proofs.papers.kbit_findings import (
    TYPES,
)
from quantgate.run.inputs import load_matrix

from selftest.proofs.papers_points import cost, finding, point, record


def test_a_section_that_was_accepted_passes_in_the_next_run(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of pytest, accepted by the command, judged by pytest: alone, and beside other cases."""
    from selftest import section

    options = ["--tier", "smoke", "-p", "selftest.section"]
    monkeypatch.setattr("quantgate.proofs.papers.__main__.load_entries", section.entries)
    first = project.run(*options, "-m", "papers")
    case = "finding[small/cost]"
    assert first.cases == {case: "failed"}
    assert "has no baseline" in first.output
    command = ["--results", str(project.results), "--baselines", str(project.baselines)]
    command += ["--matrix", str(project.matrix_file)]
    assert main([*command, "--update-baselines", "--reason", "first"]) == 0
    assert main(command) == 0
    again = project.run(*options, "-m", "papers", "--reuse")
    assert (again.cases, again.status) == ({case: "passed"}, 0), again.output
    lines = " ".join(again.output.split())
    assert f"{project.folder / 'report'}: no report was written, since no gate was judged" in lines
    assert "a page of the findings: python -m quantgate.proofs.papers --results=" in lines
    beside = project.run(*options, "-m", "papers or perplexity or tokenizer")
    assert beside.cases[case] == "passed", beside.output


def test_findings_need_all_cells_and_come_after_them(project: Any) -> None:
    """Collected by pytest, selected by mark, measured once."""
    result = project.run("--tier", "papers", "--matrix", str(MATRIX), "--collect-only", "-q", "-m", "papers")
    names = [line for line in result.output.splitlines() if "test_finding[" in line]
    assert len(names) == len(load_entries()["kbit"].findings)
    assert "test_perplexity" not in result.output


def test_a_folder_without_records_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(tmp_path)]) == 4
    text = "".join(capsys.readouterr().out.split("\n"))
    assert f"pytest --tier papers -m papers --results={tmp_path}" in text
    assert f"{tmp_path}: nothing was measured there" in text


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a record of every cell of the k-bit section."""
    folder = tmp_path_factory.mktemp("results")
    cells = load_entries()["kbit"].chosen(load_matrix().cells("papers"))
    sizes = dict(zip(dict.fromkeys(cell.model for cell in cells), [9e4, 2.3e5, 6.6e5, 2.9e6], strict=True))
    for cell in cells:
        kind, block = cell.scheme_options.get("data_type"), cell.scheme_options.get("block", 64)
        worse = cost(int(cell.bits), block, kind) if kind in TYPES else 0.0
        result = point("a", cell.bits, 8 - math.log2(sizes[cell.model]) / 5 + worse)
        file = folder / "papers" / f"{cell.id}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        result = replace(result, total_bits=sizes[cell.model] * cell.bits)
        file.write_text(record(cell, result).model_dump_json())
    return folder


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that cuts no line; of each interval that is drawn, fewer draws."""
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr("quantgate.proofs.papers.kbit_findings.DRAWS", 40)


@pytest.mark.usefixtures("wide")
def test_records_become_a_table(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(results), "--baselines", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("has no baseline") == len(load_entries()["kbit"].findings)
    for text in (
        "int: divergence falls with each bit",
        "4 bits: blocks of 64 against 1024",
        ": 3, 4, 5, 6, 7, 8, 16 bits",
    ):
        assert text in " ".join(shown.split())


@pytest.mark.usefixtures("wide")
def test_records_become_the_baseline_that_they_then_fit(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--results", str(results), "--baselines", str(tmp_path)]
    findings = load_entries()["kbit"].findings
    assert main([*options, "--update-baselines"]) == 4
    assert not path_of("kbit", tmp_path).exists()
    assert main([*options, "--update-baselines", "--reason", "first"]) == 0
    text = capsys.readouterr().out
    assert f"kbit.toml: {len(findings)} findings" in text
    assert "calibration: left as it is: 32 of 32 cells were not measured" in text
    assert "baseline (" not in text.partition("wrote")[2]
    assert [f.name for f in path_of("kbit", tmp_path).parent.iterdir()] == ["kbit.toml"]
    assert main([*options, "--update-baselines", "--reason", "again"]) == 0
    assert f"{len(findings)} findings, 0 of them new or beyond" in capsys.readouterr().out
    path = path_of("kbit", tmp_path)
    path.write_text(re.sub(r"(?<=correlation = \{value = )[-.0-9]+", "0.5", path.read_text()))
    assert main(options) == 0
    assert capsys.readouterr().out.count("has left its baseline 0.5 ") == 1
    assert main([*options, "--update-baselines", "--reason", "again"]) == 0
    assert "1 of them new or beyond what was accepted before: correlation" in capsys.readouterr().out
    path.write_text("format = [")
    assert main(options) == 4
    assert "git checkout" in capsys.readouterr().out
    assert main(["-k", "nothing"]) == 4
    assert "there are kbit, dimensions" in capsys.readouterr().out


def test_an_update_names_a_state_that_the_next_run_would_fail_by(tmp_path: Path) -> None:
    findings = {"one": "holds", "two": "open"}
    entry = Entry.model_validate({"tier": "t", "requests": ["perplexity"], "findings": findings})
    measured = [replace(finding(key=key), state="holds") for key in findings]
    first, *others = update("kbit", entry, measured, "w", "first", tmp_path).splitlines()
    assert first.endswith("kbit.toml: 2 findings")
    (other,) = others
    assert other.strip().startswith("two: holds, expected: open: change ")
    assert "papers.toml" in other


@pytest.mark.usefixtures("wide")
def test_records_become_a_page_that_loads_nothing(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    assert main(["--results", str(results), "--output", str(tmp_path)]) == 0
    html = (tmp_path / "papers.html").read_text()
    page = html.partition("<script>")[0]
    assert "The case for 4-bit precision" in page
    assert page.count('<span class="state') > len(load_entries()["kbit"].findings)
    assert not re.findall(
        r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", page + html.rpartition("<script>")[2]
    )
    for name in re.findall(r'<div id="([^"]+)">', page):
        assert f'vegaEmbed("#{name}", {{' in html
        picture = (tmp_path / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000, "something is drawn"


def test_what_has_changed_is_marked_on_the_page() -> None:
    from quantgate.proofs.papers import page
    from quantgate.proofs.papers.kbit import PAPER

    pytest.importorskip("vl_convert")
    small = Expected(state="holds", why="<Small>")
    result = [Outcome(finding("open"), small), Outcome(finding(), small)]
    html = page.render(
        [page.Shown("kbit", PAPER, outcomes=result), page.Shown("x", PAPER, missing="run <it>")]
    )
    assert html.count('<tr class="changed">') == 1
    assert "1 hold, 0 do not hold, 1 open" in html
    assert html.count("&lt;Small&gt;") == 1
    assert "Not measured: run &lt;it&gt;" in html
