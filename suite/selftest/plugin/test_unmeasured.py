"""Cells that cannot be measured, runs side by side, and runs that are interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from quantgate.baselines import store as baselines
from quantgate.plugin.case import describe
from quantgate.records import Status, Verdict

from selftest.plugin.runs import (
    CASES,
    F16,
    Q4,
    change_weights,
    check_environment,
    exact,
    statuses,
    worker,
    worker_left,
)
from selftest.project import Project
from selftest.tiny import TinyModel

PERPLEXITY = [case for case in CASES if "perplexity" in case]


@pytest.mark.parametrize(("name", "cases"), [("SIGKILL", CASES), ("SIGSEGV", PERPLEXITY)])
def test_a_killed_cell_is_an_error_and_the_others_are_judged(
    baselined: Project, name: str, cases: list[str]
) -> None:
    baselined.write()
    process = baselined.start("-k", "perplexity" if cases is PERPLEXITY else "perplexity or F16")
    measuring = worker(process, F16)
    measuring.send_signal(signal.Signals[name])
    with suppress(psutil.NoSuchProcess):
        measuring.resume()
    result = baselined.finish(process)
    assert result.status == 10
    assert result.failed() == [case for case in cases if F16 in case]
    assert statuses(result, F16) == {Status.ERROR}
    assert f"was killed by {name}" in result.verdict(F16, "perplexity").text
    # What needs the reference says so, and is no error of its own.
    loss = result.verdict(Q4, "perplexity/loss")
    assert loss.status == Status.INCONCLUSIVE
    assert loss.text.startswith("cannot be judged without the reference: ")
    assert f"was killed by {name}" in loss.text
    assert {v.status for v in result.verdicts if v.cell == Q4 and v is not loss} == {Status.PASS}
    assert f"full log: {baselined.results / 'smoke' / F16}.log" in result.output
    info = json.loads((baselined.folder / "report" / "report.json").read_bytes())["info"]
    assert info["exit_status"] == "10"
    assert "exit status 10" in result.output


def test_a_cell_that_takes_more_than_this_machine_has_is_skipped_at_once(baselined: Project) -> None:
    baselined.matrix["models"]["tiny"]["resources"] = {"llamacpp/Q4_K_M": {"memory": 1e9}}
    result = baselined.run("--reuse", "--min-judged=0.5")
    assert result.status == 0, result.output
    assert {outcome for case, outcome in result.cases.items() if Q4 in case} == {"skipped"}
    assert re.search(r"gates judged; not judged: (\d inconclusive .*, )?3 skipped \(", result.output)
    assert {v.status for v in result.verdicts} == {Status.PASS}
    assert "needs 1e+09 GB of memory; this machine has" in result.output


def test_a_time_limit_ends_a_cell(baselined: Project) -> None:
    baselined.matrix["tiers"]["smoke"]["time_limit"] = 0.05
    result = baselined.run("-k", Q4)
    assert result.status == 10
    assert "took longer than its time limit of 0.05 s" in result.verdict(Q4, "perplexity").text
    assert not worker_left(baselined)


def test_processes_of_a_cell_come_from_different_servers_which_serve_all_cells(
    baselined: Project, tmp_path: Path
) -> None:
    """The processes of one cell stand for the spread between processes: what a server gives to all that it forks must
    not be common to them. What the servers import, they import before anything is measured."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if '--serve' in sys.orig_argv:\n"
        "    with open(os.environ['SERVERS'], 'a') as file: file.write(f'{os.getpid()} {time.time()}\\n')\n"
    )
    baselined.environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"  # which the servers read
    result = baselined.run("-k", "memory", SERVERS=str(tmp_path / "servers"))
    assert result.processes == [F16, f"{F16}.2", Q4, f"{Q4}.2"]
    servers = dict(line.split() for line in (tmp_path / "servers").read_text().splitlines())
    assert len(servers) == 2
    first = baselined.results / "smoke" / f"{F16}~job.json"
    assert max(map(float, servers.values())) < first.stat().st_mtime
    assert not worker_left(baselined)


def test_a_failed_cell_never_becomes_a_baseline(unjudged: Project, tiny: TinyModel) -> None:
    half = unjudged.folder / "half.gguf"
    half.write_bytes(tiny.gguf.read_bytes()[: tiny.gguf.stat().st_size // 2])
    unjudged.matrix["models"]["half"] = {**unjudged.matrix["models"]["tiny"], "gguf": {"path": "half.gguf"}}
    unjudged.matrix["tiers"]["smoke"]["cells"] = [F16, "half/llamacpp/F16"]
    result = unjudged.update("--reuse", "-m", "perplexity")
    assert result.status == 10
    assert not (unjudged.baselines / "half").exists()
    assert (unjudged.baselines / F16 / "smoke.toml").exists()


def test_another_text_is_not_comparable(baselined: Project) -> None:
    text = baselined.text.read_text()
    baselined.text.write_text(text[100:] + text[:100])
    result = baselined.run("-k", "perplexity and F16")
    assert result.status == 11
    verdict = result.verdict(F16, "perplexity")
    assert verdict.status == Status.NOT_COMPARABLE
    old = baselines.read(baselined.baselines, F16, "smoke")
    assert old is not None
    was = old.metrics["perplexity"].conditions["tokens"]
    now = exact(baselined.measurement(F16))["perplexity"].conditions["tokens"]
    assert was != now
    assert verdict.text == f"tokens differs: baseline {was}, measured {now}"
    assert verdict.text in result.output


def test_xdist_measures_each_cell_once(baselined: Project) -> None:
    """The process that has the cases of Q4_K_M needs the reference, which the other one has."""
    result = baselined.run("-n", "2", "-m", "perplexity or tokenizer")
    assert result.status == 0
    assert result.cases == {case: "passed" for case in CASES if "memory" not in case}
    assert sorted(result.measured) == [F16, Q4]
    assert statuses(result, F16, Q4) == {Status.PASS}
    check_environment(baselined)  # the process that writes the report has measured nothing


def test_logits_that_overflow_are_an_error_that_xdist_passes_on_without_trying_twice(
    baselined: Project,
) -> None:
    def overflow(weights: Any) -> None:
        weights[3] = 3e38  # more than the F16 that it is multiplied in can hold

    cache = baselined.take_cache(baselined.folder / "cache")
    change_weights(cache, "F16", "blk.1.ffn_norm.weight", overflow)
    result = baselined.run("-n", "2", "-m", "perplexity or tokenizer")
    assert result.status == 10
    assert sorted(result.measured) == [F16, Q4]
    assert result.failed() == [case for case in CASES if F16 in case and "memory" not in case]
    verdict = result.verdict(F16, "perplexity")
    assert verdict.status == Status.ERROR
    assert "the model's logits are not finite" in verdict.text
    assert "the model's logits are not finite" in " ".join(result.output.split())
    assert "the model's logits are not finite" in result.verdict(Q4, "perplexity/loss").text


def test_xdist_with_throughput_is_a_usage_error(project: Project) -> None:
    result = project.run("--tier", "timed", "-n", "1")
    assert result.status == 4
    assert "-m 'not throughput'" in result.output
    assert "Traceback" not in result.output
    assert result.measured == []


def test_an_interrupted_run_goes_on_with_reuse(baselined: Project) -> None:
    baselined.write()
    before = baselined.measurement(F16).run
    select = ("-m", "perplexity")
    process = baselined.start(*select)
    child = worker(process, Q4)  # stopped: it ends only if it is ended
    process.send_signal(signal.SIGINT)
    result = baselined.finish(process)
    assert result.status == 2
    assert f"{Q4}: interrupted" in result.output
    assert "the same command with --reuse goes on from here" in result.output
    # Its parent is gone as well: until the system has collected it, its number is taken.
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not worker_left(baselined)
    assert baselined.measurement(F16).run != before

    rest = baselined.run("--reuse", *select)
    assert rest.status == 0
    assert rest.measured == [Q4]


@pytest.mark.slow
def test_three_backends_agree(project: Project) -> None:
    full, nf4 = "tiny/transformers/fp32", "tiny/bitsandbytes/nf4"
    # References are measured one after the other, since they must agree; nf4 goes on with what the second has imported.
    project.matrix["tiers"]["smoke"]["cells"] = [F16, full, nf4]
    project.matrix["tiers"]["smoke"]["memory"]["processes"] = 1
    assert project.run().status == 0
    records = {cell: project.measurement(cell) for cell in (full, nf4, F16)}
    samples = {cell: m.metrics["perplexity"].samples or [] for cell, m in records.items()}
    assert samples[F16] == pytest.approx(samples[full], abs=1e-2)
    assert samples[F16] != samples[full]
    bpw = {cell: m.metrics["memory/bits_per_weight"].value for cell, m in records.items()}
    assert 4 < bpw[nf4] < bpw[F16] < bpw[full] == 32
    assert {m.metrics["tokenizer/mismatches"].value for m in records.values()} == {0}


def test_what_was_not_measured_shows_no_figures() -> None:
    error = Verdict(cell="m/b/s", metric="perplexity", status=Status.ERROR, text="x.gguf: no such file")
    assert describe(error) == "error: perplexity of m/b/s\n  x.gguf: no such file"
    beside = error.model_copy(update={"baseline": 20.0})
    assert "  baseline 20\n  measured -\n" in describe(beside)
