"""Something got worse: real runs in which a quantizer or a whole model is broken, and what their reports say."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from quantgate.baselines import store as baselines
from quantgate.records import Status, Verdict

from selftest.plugin.runs import F16, Q4, break_quantizer, change_weights, exact, shell, statuses
from selftest.project import REPO, Accepted, Project, Result, tree


def test_a_broken_quantizer_fails_its_case_with_the_figures(
    broken: tuple[Project, Result], baselined: Project
) -> None:
    good = exact(baselined.measurement(Q4))["perplexity"].value
    project, result = broken
    assert result.status == 1
    assert result.failed() == [f"perplexity[{Q4}]"]
    assert statuses(result, F16) == {Status.PASS}
    # Fewer bits: better by more than the tolerance, which fails nothing.
    assert result.verdict(Q4, "memory/bits_per_weight").status == Status.IMPROVEMENT

    verdict = result.verdict(Q4, "perplexity")
    bad = exact(project.measurement(Q4))["perplexity"].value
    assert verdict.status == Status.REGRESSION
    assert (verdict.baseline, verdict.measured) == (good, bad)
    assert verdict.change == pytest.approx(bad / good - 1)
    assert verdict.change is not None
    assert verdict.change_low is not None
    assert verdict.change_high is not None
    assert verdict.tolerance == 0.0025
    assert verdict.detectable is None, "nothing in the environment has changed: it repeats to the last digit"
    assert result.verdict(Q4, "perplexity/reproduction").status == Status.CHANGED
    assert verdict.change_low < verdict.change < verdict.change_high
    text = result.output.partition("FAILURES")[2]
    for words in (
        f"regression: perplexity of {Q4}",
        f"baseline {good:.4f}",
        f"measured {bad:.4f}",
        f"+{100 * verdict.change:.1f} % (+{100 * verdict.change_low:.1f} % to +{100 * verdict.change_high:.1f} %)",
        "tolerance 0.25 %",
        verdict.reproduce,
    ):
        assert words in text


def test_another_computation_is_told_from_a_worse_one(baselined: Project) -> None:
    """More bits than the name says: nothing gets worse, and it is still not what the baseline measured."""
    break_quantizer(baselined, "Q8_0")
    result = baselined.run("--reuse", "-k", Q4, "-m", "perplexity")
    assert result.verdict(Q4, "perplexity").status != Status.REGRESSION
    verdict = result.verdict(Q4, "perplexity/reproduction")
    assert verdict.status == Status.CHANGED
    assert verdict.change is not None
    assert verdict.change > (verdict.tolerance or 1)
    assert (result.status, result.failed()) == (13, [f"perplexity[{Q4}]"])
    assert "the computation or the weights differ from the baseline's" in result.output


def test_samples_that_are_too_small_are_named_before_anything_is_measured(unjudged: Project) -> None:
    """A tolerance below what the sample shows is taken with a word; a gate that would never turn red is not."""
    file = unjudged.folder / "tolerances.toml"
    file.write_text(
        "run_alpha = 0.01\n"
        '[[tolerance]]\nmetric = "perplexity"\nrelative = 0.0005\n'
        '[[tolerance]]\nmetric = "perplexity/reproduction"\nabsolute = 0.002\nhere = 0.002\n'
    )
    arguments = ("--reuse", "-k", Q4, "-m", "perplexity", "--tolerances", str(file))
    narrow = unjudged.update(*arguments)
    assert narrow.status == 0, narrow.output
    detects = "the smallest loss that 496 scored tokens detect 95 % of the time"
    before, _, after = narrow.output.partition("test_perplexity.py")
    assert f"note: {Q4}: perplexity: the tolerance of 0.05 % is below" in before
    assert detects in before
    assert re.search(
        r"tokens would do \(windows = \d+ instead of 16, if the data suffices\): measure more", before
    )
    assert detects in " ".join(after.split()), "beside the values that become the baseline"
    unjudged.matrix["tiers"]["smoke"]["perplexity"].update(windows=2, block=32)
    file.write_text(file.read_text().replace("absolute = 0.002", "absolute = 0.2"))
    void = unjudged.update(*arguments)
    assert (void.status, void.measured) == (4, []), void.output
    assert "tier smoke: samples are too small" in void.output
    assert "windows = " in void.output
    assert "as it is, this gate can never fail" in void.output


def test_the_reproducing_command_shows_it_again(broken: tuple[Project, Result], tmp_path: Path) -> None:
    project, first = broken
    elsewhere = shlex.quote(str(tmp_path))  # other tests read the records
    again = shell(project, f"{first.verdict(Q4, 'perplexity').reproduce} --results {elsewhere}")
    assert again.returncode == 1, again.stdout
    assert f"regression: perplexity of {Q4}" in again.stdout
    assert f"measured {first.verdict(Q4, 'perplexity').measured:.4f}" in again.stdout
    assert "1 failed" in again.stdout


def test_an_update_takes_a_regression_only_when_told_to(
    broken: tuple[Project, Result], tmp_path: Path
) -> None:
    project = broken[0].copy(tmp_path / "project")
    before = tree(project.baselines)
    select = ("--reuse", "-k", f"perplexity and {Q4}")
    refused = project.update(*select)
    assert refused.status == 1
    assert f"{Q4} (smoke): the baseline is not updated" in refused.output
    assert "--accept-regressions and --re-anchor accept it" in " ".join(refused.output.split())
    assert tree(project.baselines) == before

    accepted = project.update(*select, "--accept-regressions", "--re-anchor")
    assert accepted.status == 0
    changed = {name for name, data in tree(project.baselines).items() if before.get(name) != data}
    assert {Path(name).parent.as_posix() for name in changed} == {Q4}
    assert project.run(*select).status == 0


def test_a_quantized_cell_is_measured_against_its_reference(accepted: Accepted) -> None:
    project = accepted.project
    cell, reference = (
        exact(project.measurement(Q4))["perplexity"],
        exact(project.measurement(F16))["perplexity"],
    )
    stored = baselines.read(project.baselines, Q4, "smoke")
    assert stored is not None
    loss = stored.metrics["perplexity/loss"]
    assert loss.value == pytest.approx(cell.value / reference.value)
    assert loss.conditions["relative to"] == F16
    other = baselines.read(project.baselines, F16, "smoke")
    assert other is not None
    assert "perplexity/loss" not in other.metrics


def test_one_scheme_broken_is_told_from_all_that_moved(broken: tuple[Project, Result]) -> None:
    _, result = broken
    worse = result.verdict(Q4, "perplexity")
    assert worse.reference == f"the reference did not move: this scheme alone ({F16} 0 %)"
    assert worse.reference in result.output
    assert result.verdict(Q4, "perplexity/loss").change == pytest.approx(worse.change)
    assert "one cause" not in result.output


def test_everything_broken_is_one_finding(baselined: Project) -> None:
    def triple(weights: Any) -> None:
        weights[:] *= 3

    cells = [F16, "tiny/llamacpp/Q8_0", Q4]
    baselined.matrix["tiers"]["smoke"]["cells"] = cells
    cache = baselined.take_cache(baselined.folder / "cache")
    assert baselined.update("-k", "perplexity and Q8_0").status == 0
    for cell in cells:
        change_weights(cache, cell.rpartition("/")[2], "blk.1.ffn_norm.weight", triple)
    result = baselined.run("-k", "perplexity")
    assert result.status == 1
    assert result.failed() == [f"perplexity[{cell}]" for cell in cells]
    findings = json.loads((baselined.folder / "report/report.json").read_bytes())["findings"]
    assert [(f["status"], f["one_cause"], f["cells"]) for f in findings] == [("regression", True, cells)]
    assert result.output.count("one cause in all 3 cells: perplexity +") == 1
    for cell in cells[1:]:
        verdict = result.verdict(cell, "perplexity")
        assert verdict.reference.startswith("the reference moved as well, by as much: everything moved")
        assert result.verdict(cell, "perplexity/loss").status != Status.REGRESSION
    # Of each case, pytest's own list has two lines: value and cause.
    assert result.output.count("one cause in all 3 cells: see the summary") == 3
    assert "worse by more than the tolerance" not in result.output
    assert "worse by more than the tolerance" in (baselined.folder / "junit.xml").read_text()


def test_reports_and_properties_carry_the_verdicts(broken: tuple[Project, Result]) -> None:
    project, result = broken
    report = project.folder / "report"

    junit = ElementTree.parse(project.folder / "junit.xml")
    case = next(c for c in junit.iter("testcase") if c.attrib["name"] == f"test_perplexity[{Q4}]")
    properties = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
    assert properties["verdict perplexity"] == "regression"
    assert properties["verdict perplexity/bits_per_byte"] == "pass"

    written: dict[str, Any] = json.loads((report / "report.json").read_bytes())
    verdicts = [Verdict.model_validate(v) for v in written["verdicts"]]
    assert [(v.cell, v.metric) for v in verdicts if v.status == Status.REGRESSION] == [
        (Q4, "perplexity"),
        (Q4, "perplexity/loss"),
    ]
    assert written["info"]["exit_status"].startswith("1")
    markdown = (report / "report.md").read_text()
    assert "1 regression" in markdown
    assert Q4 in markdown
    summary = (project.folder / "summary.md").read_text()
    assert summary.startswith("before\n## quantgate smoke: 1 regression")
    assert f"wrote {report}/report.md" in result.output


HEAVY = {"torch", "transformers", "llama_cpp", "bitsandbytes", "lm_eval", "datasets"}


def test_the_parent_stays_light(project: Project, broken: tuple[Project, Result]) -> None:
    """Measured on the main job's own matrix: 200 MB are what the project promises."""
    nightly = ("--collect-only", "-q", "--tier", "nightly", "--matrix", str(REPO / "fixtures/matrix.toml"))
    result = project.run(*nightly)
    assert result.status == 0
    assert result.output.count("::test_perplexity[smollm2-135m/") > 20
    parent = project.parent()
    assert not HEAVY & set(parent["modules"])
    assert parent["peak_mb"] < 200

    parent = broken[0].parent()  # it started processes, judged, and wrote reports
    assert not HEAVY & set(parent["modules"])
    assert parent["peak_mb"] < 200
