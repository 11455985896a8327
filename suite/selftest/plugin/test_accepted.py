"""Baselines end to end: none, first, again; what is selected is what is measured; --reuse."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest
from quantgate.baselines import store as baselines
from quantgate.baselines.file import write_file
from quantgate.records import Status

from selftest.forked import start
from selftest.plugin.runs import (
    CASES,
    F16,
    Q4,
    break_quantizer,
    check_environment,
    exact,
    statuses,
    worker,
)
from selftest.project import REPO, Accepted, Project, Result, tree


@pytest.mark.slow
def test_without_baselines_cases_are_skipped_and_counted(unjudged: Project) -> None:
    result = unjudged.run("--reuse")
    assert result.status == 0
    assert result.cases == dict.fromkeys(CASES, "skipped")
    assert result.verdict(Q4, "perplexity").status == Status.NO_BASELINE
    assert f"{len(CASES)} no baseline" in result.output
    assert not unjudged.baselines.exists()
    # What it says to do, does it.
    report = (unjudged.folder / "report/report.md").read_text()
    (command,) = re.findall(r"^pytest --update-baselines.*", report, re.MULTILINE)
    program, *words = shlex.split(command)
    assert start(program, [*words, "--reuse"], REPO, unjudged.environment).finish(600)[0] == 0
    assert unjudged.run("--reuse").cases == dict.fromkeys(CASES, "passed")


def test_pytest_xdist_may_be_missing(project: Project) -> None:
    result = project.run("--collect-only", "-pno:xdist")
    assert result.status == 0, result.output
    assert f"perplexity[{Q4}]" in result.output


def test_required_baselines_fail_where_they_are_missing(unjudged: Project) -> None:
    result = unjudged.run("--require-baselines", "--reuse", "-k", F16)
    assert result.status == 12
    assert result.failed() == [case for case in CASES if F16 in case]
    assert "no baseline is stored" in result.output


def test_update_without_a_reason_is_a_usage_error(project: Project) -> None:
    result = project.run("--update-baselines")
    assert result.status == 4
    assert "--update-baselines needs --reason" in result.output
    assert result.measured == []


def test_an_update_writes_and_prints_old_and_new(accepted: Accepted, baselined: Project) -> None:
    for cell in (F16, Q4):
        assert (baselined.baselines / cell / "smoke.toml").is_file()
    value = exact(baselined.measurement(Q4))["perplexity"].value
    stored = baselines.read(baselined.baselines, Q4, "smoke")
    assert stored is not None
    assert 0 < (stored.metrics["perplexity"].detectable or 0) < 0.02, (
        "what it detects elsewhere stands with it"
    )
    assert re.search(rf"perplexity +│ +- +│ +{value:.6g} +│ +first", accepted.result.output)

    again = baselined.update("--reuse", "-k", Q4)
    assert again.status == 0
    assert re.search(rf"perplexity +│ +{value:.6g} +│ +{value:.6g} +│ +none", again.output)
    assert f"wrote 1 baseline in {baselined.baselines}: read the differences" in again.output


def test_two_runs_agree_to_the_last_digit(accepted: Accepted, unchanged: tuple[Project, Result]) -> None:
    project, result = unchanged
    assert result.status == 0, result.output
    assert result.measured == [F16, Q4]
    assert result.cases == dict.fromkeys(CASES, "passed")
    assert statuses(result, F16, Q4) == {Status.PASS}
    for cell in (F16, Q4):
        before, after = accepted.project.measurement(cell), project.measurement(cell)
        assert after.run != before.run
        assert exact(after) == exact(before)
        assert {"perplexity", "perplexity/bits_per_byte", "memory/bits_per_weight"} <= set(exact(after))
        assert result.verdict(cell, "perplexity").text == "equal to the last digit"
    check_environment(project)


def test_an_update_takes_what_this_run_judged_and_nothing_else(baselined: Project) -> None:
    """A reused record has more; what of it was never held against the baseline stays out."""
    before = baselines.read(baselined.baselines, Q4, "smoke")
    assert before is not None
    other = before.metrics["memory/weight_bytes"].model_copy(update={"value": 1.0})
    write_file(before.model_copy(update={"metrics": {**before.metrics, "memory/weight_bytes": other}}), "")
    result = baselined.update("--reuse", "-k", f"perplexity and {Q4}")
    assert (result.status, result.measured) == (0, [])
    after = baselines.read(baselined.baselines, Q4, "smoke")
    assert after is not None
    assert after.metrics["memory/weight_bytes"].value == 1.0
    assert (after.reason, before.reason) == ("selftest", "selftest")
    assert after.metrics["perplexity"] == before.metrics["perplexity"]


def test_a_baseline_that_changes_while_a_run_measures_is_not_overwritten(baselined: Project) -> None:
    baselined.write()
    process = baselined.start("--update-baselines", "--reason", "late", "-k", "perplexity and F16")
    measuring = worker(process, F16)
    before = baselines.read(baselined.baselines, F16, "smoke")
    assert before is not None
    write_file(before.model_copy(update={"reason": "another run's"}), "")
    measuring.resume()
    result = baselined.finish(process)
    assert result.status == 10
    assert "the baseline was changed by another run; run again" in result.output
    kept = baselines.read(baselined.baselines, F16, "smoke")
    assert kept is not None
    assert kept.reason == "another run's"


def test_k_perplexity_measures_it_alone_and_reuse_what_was_not_asked_for_before(baselined: Project) -> None:
    result = baselined.run("-k", "perplexity and F16")
    assert result.status == 0
    assert result.measured == [F16]
    record = baselined.measurement(F16)
    assert set(record.metrics) == {"perplexity", "perplexity/bits_per_byte"}
    assert record.requests == ["perplexity"]
    more = ("--reuse", "-k", "(perplexity or tokenizer) and F16")
    assert baselined.run(*more).measured == [F16]
    assert baselined.run(*more).measured == []


def test_m_selects_by_scheme_backend_bits_and_metric(project: Project) -> None:
    collect = ("--collect-only", "-q", "--matrix", str(REPO / "fixtures/matrix.toml"))

    def cases(*arguments: str) -> list[str]:
        return [line for line in project.run(*collect, *arguments).output.splitlines() if "::" in line]

    everything = cases()
    for expression, kept in {
        "bits8 and not (throughput or memory)": (
            r"(accuracy|decoding|divergence|generation|perplexity|tokenizer)\[.*/(int8|Q8_0)[]/]"
        ),
        "bitsandbytes and hellaswag or Q4_K_M and decode": r"/bitsandbytes/.*/hellaswag]|decode\[.*/Q4_K_M]",
    }.items():
        selected = cases("-m", expression)
        assert selected == [case for case in everything if re.search(kept, case)]
        assert 0 < len(selected) < len(everything)


def test_reuse_takes_earlier_measurements(baselined: Project) -> None:
    before = tree(baselined.results)
    result = baselined.run("--reuse")
    assert result.status == 0
    assert result.cases == dict.fromkeys(CASES, "passed")
    assert result.measured == []
    records = {name: data for name, data in before.items() if name.endswith("/F16.json")}
    assert records
    assert records.items() <= tree(baselined.results).items()


def test_a_baseline_whose_cell_is_gone_is_told(baselined: Project) -> None:
    """A cell that was renamed, or left out by mistake, is gated no longer, and nothing is red."""
    shutil.copytree(baselined.baselines / Q4, (baselined.baselines / Q4).with_name("Q4_renamed"))
    result = baselined.run("--reuse")
    assert result.status == 0
    note = f"{Q4.rpartition('/')[0]}/Q4_renamed: has a baseline, but is no cell of tier smoke"
    assert note in " ".join(result.output.split())


def test_reuse_measures_what_changed(baselined: Project) -> None:
    select = ("--reuse", "-k", "tokenizer")
    break_quantizer(baselined)
    assert baselined.run(*select).measured == [Q4]
    alone = ("--reuse", "-k", "tokenizer and F16")
    assert baselined.run(*alone, "--threads", "2").measured == [F16]
    baselined.matrix["tiers"]["smoke"]["perplexity"]["protocol"] = "half"
    assert baselined.run(*alone, "--threads", "2").measured == [F16]
