"""The gate end to end: real runs of pytest that measure a tiny model and judge it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import psutil
import pytest
from quantgate.baselines import store as baselines
from quantgate.baselines.file import write_file
from quantgate.cache.kept import keep
from quantgate.records import Measurement, Status, Verdict

from selftest.conftest import REPO, Accepted, Project, Result, tree

if TYPE_CHECKING:
    from quantgate.records import Metric

    from selftest.tiny import TinyModel

F16, Q4 = "tiny/llamacpp/F16", "tiny/llamacpp/Q4_K_M"
CASES = [f"{case}[{cell}]" for cell in (F16, Q4) for case in ("memory", "perplexity", "tokenizer")]
HEAVY = {"torch", "transformers", "llama_cpp", "bitsandbytes", "lm_eval", "datasets"}


AGAIN = [f"{cell}.again{number}" for cell in (F16, Q4) for number in ("", ".2", ".3")]


def break_quantizer(project: Project, ftype: str = "Q2_K") -> None:
    """Q4_K_M silently makes something else."""
    project.matrix["backends"] = {"llamacpp": {"schemes": {"Q4_K_M": {"bits": 4, "ftype": ftype}}}}


def exact(measurement: Measurement) -> dict[str, Metric]:
    """The metrics that two runs must agree on to the last digit."""
    return {n: m for n, m in measurement.metrics.items() if m.kind in ("paired", "exact")}


def statuses(result: Result, *cells: str) -> set[Status]:
    return {v.status for v in result.verdicts if v.cell in cells}


def shell(project: Project, command: str) -> subprocess.CompletedProcess[str]:
    """Run what a message told; the records of that run go elsewhere."""
    return subprocess.run(
        f"{command} --results {shlex.quote(str(project.folder / 'elsewhere'))} -p no:cacheprovider",
        shell=True,
        cwd=REPO,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- baselines: none, first, again -------------------------------------------------------------------


def test_without_baselines_cases_are_skipped_and_counted(project: Project) -> None:
    result = project.run()
    assert result.status == 0
    assert result.cases == dict.fromkeys(CASES, "skipped")
    assert result.measured == [F16, Q4]
    assert result.verdict(Q4, "perplexity").status == Status.NO_BASELINE
    assert f"{len(CASES)} no baseline" in result.output
    assert not project.baselines.exists()
    # What it says to do, does it.
    report = (project.folder / "report/report.md").read_text()
    (command,) = re.findall(r"^pytest --update-baselines.*", report, re.MULTILINE)
    assert shell(project, command).returncode == 0
    assert project.run("--reuse").cases == dict.fromkeys(CASES, "passed")


def test_pytest_xdist_may_be_missing(project: Project) -> None:
    result = project.run("--collect-only", "-pno:xdist")
    assert result.status == 0, result.output
    assert f"perplexity[{Q4}]" in result.output


def test_required_baselines_fail_where_they_are_missing(project: Project) -> None:
    result = project.run("--require-baselines", "-k", F16)
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
    assert re.search(rf"perplexity \(\) +│ +- +│ +{value:.6g} +│ +first", accepted.result.output)

    again = baselined.update("-k", Q4)
    assert again.status == 0
    assert re.search(rf"perplexity \(\) +│ +{value:.6g} +│ +{value:.6g} +│ +none", again.output)


def test_two_runs_agree_to_the_last_digit(baselined: Project) -> None:
    before = {cell: baselined.measurement(cell) for cell in (F16, Q4)}
    result = baselined.run("--require-baselines")
    assert result.status == 0, result.output
    assert result.measured == [F16, Q4]
    assert result.cases == dict.fromkeys(CASES, "passed")
    assert statuses(result, F16, Q4) == {Status.PASS}
    for cell in (F16, Q4):
        after = baselined.measurement(cell)
        assert after.run != before[cell].run
        assert exact(after) == exact(before[cell])
        assert {"perplexity", "perplexity/bits_per_byte", "memory/bits_per_weight"} <= set(exact(after))
        assert result.verdict(cell, "perplexity").text == "equal to the last digit"


# --- something got worse -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(accepted: Accepted, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Result]:
    """A run in which Q4_K_M is not what its name says."""
    project = accepted.project.copy(tmp_path_factory.mktemp("broken") / "project")
    break_quantizer(project)
    summary = project.folder / "summary.md"
    summary.write_text("before\n")
    return project, project.run(GITHUB_STEP_SUMMARY=str(summary))


def test_a_broken_quantizer_is_found_and_told(broken: tuple[Project, Result], baselined: Project) -> None:
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
    told = result.output.partition("FAILURES")[2]
    for words in (
        f"regression: perplexity of {Q4}",
        f"baseline {good:.4f}",
        f"measured {bad:.4f}",
        f"+{100 * verdict.change:.1f} % (+{100 * verdict.change_low:.1f} % to +{100 * verdict.change_high:.1f} %)",
        "tolerance 0.25 %",
        verdict.reproduce,
    ):
        assert words in told


def test_another_computation_is_told_from_a_worse_one(baselined: Project) -> None:
    """More bits than the name says: nothing gets worse, and it is still not what the baseline measured."""
    break_quantizer(baselined, "Q8_0")
    result = baselined.run("-k", Q4, "-m", "perplexity")
    assert result.verdict(Q4, "perplexity").status != Status.REGRESSION
    verdict = result.verdict(Q4, "perplexity/reproduction")
    assert verdict.status == Status.CHANGED
    assert verdict.change is not None
    assert verdict.change > (verdict.tolerance or 1)
    assert (result.status, result.failed()) == (13, [f"perplexity[{Q4}]"])
    assert "the computation or the weights differ from the baseline's" in result.output


def test_samples_that_are_too_small_are_told_before_anything_is_measured(project: Project) -> None:
    """A tolerance below what the sample shows is taken with a word; a gate that would never turn red is not."""
    file = project.folder / "tolerances.toml"
    project.write()
    file.write_text(
        "run_alpha = 0.01\n"
        '[[tolerance]]\nmetric = "perplexity"\nrelative = 0.0005\n'
        '[[tolerance]]\nmetric = "perplexity/reproduction"\nabsolute = 0.002\nhere = 0.002\n'
    )
    arguments = ("-k", Q4, "-m", "perplexity", "--tolerances", str(file))
    narrow = project.update(*arguments)
    assert narrow.status == 0, narrow.output
    said = "the smallest loss that 496 scored tokens detect 95 % of the time"
    before, _, after = narrow.output.partition("test_perplexity.py")
    assert f"note: {Q4}: perplexity: the tolerance of 0.05 % is below" in before
    assert said in before
    assert re.search(r"tokens would do \(windows = \d+ instead of 16\): measure more", before)
    assert said in " ".join(after.split()), "beside the values that become the baseline"
    project.matrix["tiers"]["smoke"]["perplexity"].update(windows=2, block=32)
    file.write_text(file.read_text().replace("absolute = 0.002", "absolute = 0.2"))
    void = project.update(*arguments)
    assert (void.status, void.measured) == (4, []), void.output
    assert "tier smoke: samples are too small" in void.output
    assert "windows = " in void.output
    assert "as it is, this gate never turns red" in void.output


def test_the_reproducing_command_shows_it_again(broken: tuple[Project, Result]) -> None:
    project, first = broken
    again = shell(project, first.verdict(Q4, "perplexity").reproduce)
    assert again.returncode == 1, again.stdout
    assert f"regression: perplexity of {Q4}" in again.stdout
    assert f"measured {first.verdict(Q4, 'perplexity').measured:.4f}" in again.stdout
    assert "1 failed" in again.stdout


def test_an_update_takes_a_regression_only_when_told_to(baselined: Project) -> None:
    before = tree(baselined.baselines)
    break_quantizer(baselined)
    refused = baselined.update("-k", Q4)
    assert refused.status == 1
    assert f"{Q4} (smoke): the baseline is not updated" in refused.output
    assert "--accept-regressions" in refused.output
    assert tree(baselined.baselines) == before

    accepted = baselined.update("-k", Q4, "--accept-regressions")
    assert accepted.status == 0
    changed = {name for name, data in tree(baselined.baselines).items() if before.get(name) != data}
    assert {Path(name).parent.as_posix() for name in changed} == {Q4}
    assert baselined.run("-k", Q4).status == 0


# --- what is selected is what is measured ------------------------------------------------------------


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
    process = baselined.start("--update-baselines", "--reason", "late", "-k", F16)
    worker(process, F16)
    before = baselines.read(baselined.baselines, F16, "smoke")
    assert before is not None
    write_file(before.model_copy(update={"reason": "another run's"}), "")
    result = baselined.finish(process)
    assert result.status == 10
    assert "the baseline was changed by another run; run again" in result.output
    kept = baselines.read(baselined.baselines, F16, "smoke")
    assert kept is not None
    assert kept.reason == "another run's"


def test_k_perplexity_measures_perplexity_alone(baselined: Project) -> None:
    result = baselined.run("-k", "perplexity")
    assert result.status == 0
    assert result.measured == [F16, Q4]
    for cell in (F16, Q4):
        assert set(baselined.measurement(cell).metrics) == {"perplexity", "perplexity/bits_per_byte"}
        assert baselined.measurement(cell).requests == ["perplexity"]


def test_m_selects_by_scheme_backend_bits_and_metric(project: Project) -> None:
    collect = ("--collect-only", "-q", "--matrix", str(REPO / "fixtures/matrix.toml"))

    def cases(*arguments: str) -> list[str]:
        return [line for line in project.run(*collect, *arguments).output.splitlines() if "::" in line]

    everything = cases()
    for expression, kept in {
        "bits8 and not throughput": r"(accuracy|decoding|divergence|memory|perplexity|tokenizer)\[.*/(int8|Q8_0)[]/]",
        "bitsandbytes and hellaswag or Q4_K_M and decode": r"/bitsandbytes/.*/hellaswag]|decode\[.*/Q4_K_M]",
    }.items():
        selected = cases("-m", expression)
        assert selected == [case for case in everything if re.search(kept, case)]
        assert 0 < len(selected) < len(everything)


# --- --reuse -----------------------------------------------------------------------------------------


def test_reuse_takes_earlier_measurements(baselined: Project) -> None:
    before = tree(baselined.results)
    result = baselined.run("--reuse")
    assert result.status == 0
    assert result.cases == dict.fromkeys(CASES, "passed")
    assert result.measured == []
    records = {name: data for name, data in before.items() if name.endswith("/F16.json")}
    assert records
    assert records.items() <= tree(baselined.results).items()


def test_reuse_measures_what_changed(baselined: Project) -> None:
    select = ("--reuse", "-k", "memory")
    break_quantizer(baselined)
    assert baselined.run(*select).measured == [Q4]
    assert baselined.run(*select, "--threads", "2").measured == [F16, Q4]
    baselined.matrix["tiers"]["smoke"]["perplexity"]["protocol"] = "half"
    assert baselined.run(*select, "--threads", "2").measured == [F16, Q4]


def test_reuse_measures_what_was_not_asked_for_before(baselined: Project) -> None:
    baselined.run("-k", "perplexity and F16")
    assert baselined.run("--reuse", "-k", "F16").measured == [F16]
    assert baselined.run("--reuse", "-k", "perplexity and F16").measured == []


# --- a cell that cannot be measured ------------------------------------------------------------------


def worker(pytest_process: subprocess.Popen[str], cell: str) -> psutil.Process:
    """The process that measures `cell`, as soon as there is one: forked by a server, under a warden of pytest's."""
    parent, deadline = psutil.Process(pytest_process.pid), time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(psutil.Error, OSError):  # they come and go
            for server in (server for warden in parent.children() for server in warden.children()):
                for child in server.children():
                    if str(Path(f"/proc/{child.pid}/fd/1").readlink()).endswith(f"/{cell}.log"):
                        return child
        time.sleep(0.005)
    raise AssertionError(f"no process for {cell}")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_killed_cell_is_an_error_and_the_others_are_judged(baselined: Project, name: str) -> None:
    baselined.write()
    process = baselined.start()
    worker(process, F16).send_signal(signal.Signals[name])
    result = baselined.finish(process)
    assert result.status == 10
    assert result.failed() == [case for case in CASES if F16 in case]
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


def test_a_time_limit_ends_a_cell(baselined: Project) -> None:
    baselined.matrix["tiers"]["smoke"]["time_limit"] = 0.05
    result = baselined.run("-k", Q4)
    assert result.status == 10
    assert "took longer than its time limit of 0.05 s" in result.verdict(Q4, "perplexity").text
    assert not worker_left(baselined)


def worker_left(project: Project) -> list[psutil.Process]:
    """Measuring processes of this project that are still there."""
    spy = str(project.folder / "spy")
    found = psutil.process_iter(["environ"])
    return [p for p in found if (p.info["environ"] or {}).get("QUANTGATE_SPY") == spy]


def test_processes_of_a_cell_come_from_different_servers_which_serve_all_cells(
    project: Project, tmp_path: Path
) -> None:
    """The processes of one cell stand for the spread between processes: what a server gives to all that it forks must
    not be common to them. What the servers import, they import before anything is measured."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if '--serve' in sys.orig_argv:\n"
        "    with open(os.environ['SERVERS'], 'a') as file: file.write(f'{os.getpid()} {time.time()}\\n')\n"
    )
    path = os.pathsep.join([str(REPO), str(tmp_path)])
    project.run("-k", "tokenizer")  # what has to be made once is made by other processes
    result = project.run("-k", "memory", PYTHONPATH=path, SERVERS=str(tmp_path / "servers"))
    assert result.processes == [F16, f"{F16}.2", Q4, f"{Q4}.2"]
    servers = dict(line.split() for line in (tmp_path / "servers").read_text().splitlines())
    assert len(servers) == 2
    first = project.results / "smoke" / f"{F16}~job.json"
    assert max(map(float, servers.values())) < first.stat().st_mtime
    assert not worker_left(project)


def test_logits_that_overflow_are_an_error_with_the_log(baselined: Project) -> None:
    import gguf

    cache = baselined.folder / "cache"
    shutil.copytree(baselined.environment["QUANTGATE_CACHE"], cache)
    (checkpoint,) = (cache / "checkpoints").glob("tiny-F16-*.gguf")
    weights = {tensor.name: tensor.data for tensor in gguf.GGUFReader(checkpoint, "r+").tensors}
    weights["blk.1.ffn_norm.weight"][3] = 3e38  # more than the F16 that it is multiplied in can hold
    del weights  # writes the mapped file
    keep(checkpoint)
    result = baselined.run(QUANTGATE_CACHE=str(cache))
    assert result.status == 10
    assert result.failed() == [case for case in CASES if F16 in case]
    verdict = result.verdict(F16, "perplexity")
    assert verdict.status == Status.ERROR
    assert "(the process ended with exit status 1)" in verdict.text
    assert "the model's logits are not finite" in verdict.text
    assert "the model's logits are not finite" in " ".join(result.output.split())


def test_a_failed_cell_never_becomes_a_baseline(project: Project, tiny: TinyModel) -> None:
    project.write()
    (project.folder / "half.gguf").write_bytes(tiny.gguf.read_bytes()[: tiny.gguf.stat().st_size // 2])
    project.matrix["models"]["half"] = {**project.matrix["models"]["tiny"], "gguf": {"path": "half.gguf"}}
    project.matrix["tiers"]["smoke"]["cells"].append("half/llamacpp/F16")
    result = project.update()
    assert result.status == 10
    assert not (project.baselines / "half").exists()
    assert (project.baselines / F16 / "smoke.toml").exists()


def test_another_text_is_not_comparable(baselined: Project) -> None:
    text = baselined.text.read_text()
    baselined.text.write_text(text[100:] + text[:100])
    result = baselined.run("-k", "perplexity")
    assert result.status == 11
    verdict = result.verdict(Q4, "perplexity")
    assert verdict.status == Status.NOT_COMPARABLE
    old = baselines.read(baselined.baselines, Q4, "smoke")
    assert old is not None
    was = old.metrics["perplexity"].conditions["tokens"]
    now = exact(baselined.measurement(Q4))["perplexity"].conditions["tokens"]
    assert was != now
    assert verdict.text == f"tokens differs: baseline {was}, measured {now}"
    assert verdict.text in result.output


# --- throughput --------------------------------------------------------------------------------------


def test_recorded_rounds_are_pytest_benchmarks(project: Project) -> None:
    file = project.folder / "benchmark.json"
    result = project.run("--tier", "timed", "-m", "throughput", f"--benchmark-json={file}")
    assert result.status == 0
    found = {
        entry["name"].removeprefix("test_"): entry for entry in json.loads(file.read_bytes())["benchmarks"]
    }
    for cell in (F16, Q4):
        metrics = project.measurement(cell, "timed").metrics
        for kind in ("prefill", "decode", "time_to_first_token", "load"):
            metric, entry = metrics[f"throughput/{kind}"], found[f"{kind}[{cell}]"]
            assert entry["stats"]["data"] == metric.samples
            assert entry["stats"]["rounds"] == len(metric.samples or ())
            assert entry["extra_info"][metric.unit] == metric.value
            assert entry["extra_info"]["cell"] == cell
        assert metrics["throughput/decode"].unit == "tokens/s"
        decode = metrics["throughput/decode"]
        assert decode.processes == [4, 4, 4] == found[f"decode[{cell}]"]["extra_info"]["rounds per process"]
        assert decode.value == pytest.approx(8 / statistics.median(decode.medians))
    assert "benchmark 'decode': 2 tests" in result.output


def test_timings_are_gated_as_ratio_everywhere(project: Project) -> None:
    result = project.run("--tier", "timed", "-k", f"decode and {Q4}")
    processes = [f"{cell}{number}" for cell in (F16, Q4) for number in ("", ".2", ".3")]
    assert sorted(result.processes) == processes  # the reference too, which no case asked for
    fast, slow = (project.measurement(c, "timed").metrics["throughput/decode"] for c in (Q4, F16))
    assert result.verdict(Q4, "throughput/decode_ratio").measured == pytest.approx(fast.value / slow.value)
    assert "throughput/decode_ratio" not in project.measurement(Q4, "timed").metrics, "made of two records"
    # An absolute timing is shown and never fails.
    assert result.verdict(Q4, "throughput/decode").status == Status.PASS


@pytest.fixture(scope="module")
def on_bench(make_project: Callable[[], Project]) -> Project:
    """With baselines of decoding on the machine `bench`."""
    project = make_project()
    result = project.update("--tier", "timed", "--machine", "bench", "-k", "decode")
    assert result.status == 0, result.output
    assert (project.baselines / "machines/bench.toml").is_file()
    return project


@pytest.fixture
def timed(on_bench: Project, tmp_path: Path) -> Project:
    return on_bench.copy(tmp_path / "project")


def faster(project: Project, metric: str, machine: str | None) -> None:
    """Make believe that the baseline of Q4_K_M was a hundred times as fast."""
    old = baselines.read(project.baselines, Q4, "timed", machine)
    assert old is not None
    was = old.metrics[metric]
    factor = 0.01 if was.kind == "rounds" else 100  # rounds are in seconds
    changed = was.model_copy(
        update={"value": 100 * was.value, "samples": [factor * s for s in was.samples or ()]}
    )
    path = baselines.baseline_path(project.baselines, Q4, "timed", machine)
    names = [n for n, m in old.metrics.items() if (m.kind == "rounds") == (machine is not None)]
    metrics = {n: old.metrics[n] for n in names} | {metric: changed}
    write_file(old.model_copy(update={"metrics": metrics, "path": path, "kept": {}}), "test")


def test_a_named_machine_gates_absolute_timings(timed: Project) -> None:
    faster(timed, "throughput/decode", "bench")
    result = timed.run("--tier", "timed", "-k", f"decode and {Q4}", "--machine", "bench")
    assert result.status == 1
    verdict = result.verdict(Q4, "throughput/decode")
    assert verdict.status == Status.REGRESSION
    # A slow moment is not a regression: measured again, with its reference, before it is called one.
    assert result.processes[6:] == AGAIN
    assert "measured again in fresh processes: confirmed" in verdict.confirmed
    assert verdict.confirmed in result.output


def test_a_lost_kernel_fails_on_any_machine(timed: Project) -> None:
    faster(timed, "throughput/decode_ratio", None)
    result = timed.run("--tier", "timed", "-k", f"decode and {Q4}")
    assert result.status == 1
    assert result.verdict(Q4, "throughput/decode_ratio").status == Status.REGRESSION
    assert result.processes[6:] == AGAIN


def test_another_machine_under_the_same_name_is_refused(timed: Project) -> None:
    result = timed.run("--tier", "timed", "--machine", "bench", "--threads", "2")
    assert result.status == 4
    assert "machines/bench.toml: this is not the machine recorded as 'bench': threads 1 -> 2" in result.output
    assert "give it another name" in result.output
    assert result.measured == []


def test_an_unknown_machine_is_refused(project: Project) -> None:
    result = project.run("--tier", "timed", "--machine", "nowhere")
    assert result.status == 4
    assert "no machine 'nowhere' is recorded; --update-baselines --machine nowhere" in result.output
    assert not (project.baselines / "machines").exists()


# --- the reference too, one cause ---------------------------------------------------------------------


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


def test_one_scheme_broken_is_told_from_a_drift(broken: tuple[Project, Result]) -> None:
    _, result = broken
    worse = result.verdict(Q4, "perplexity")
    assert worse.reference == f"the reference did not move: this scheme alone ({F16} 0 %)"
    assert worse.reference in result.output
    assert result.verdict(Q4, "perplexity/loss").change == pytest.approx(worse.change)
    assert "one cause" not in result.output


def test_everything_broken_is_one_finding(project: Project) -> None:
    import gguf

    cells = [F16, "tiny/llamacpp/Q8_0", "tiny/llamacpp/Q6_K", Q4]
    project.matrix["tiers"]["smoke"]["cells"] = cells
    assert project.update("-k", "perplexity").status == 0
    cache = project.folder / "cache"
    shutil.copytree(project.environment["QUANTGATE_CACHE"], cache)
    for cell in cells:
        (checkpoint,) = (cache / "checkpoints").glob(f"tiny-{cell.rpartition('/')[2]}-*.gguf")
        weights = {tensor.name: tensor.data for tensor in gguf.GGUFReader(checkpoint, "r+").tensors}
        weights["blk.1.ffn_norm.weight"][:] *= 3
        del weights  # writes the mapped file
        keep(checkpoint)
    result = project.run("-k", "perplexity", QUANTGATE_CACHE=str(cache))
    assert result.status == 1
    assert result.failed() == [f"perplexity[{cell}]" for cell in cells]
    found = json.loads((project.folder / "report/report.json").read_bytes())["findings"]
    assert [(f["status"], f["one_cause"], f["cells"]) for f in found] == [("regression", True, cells)]
    assert result.output.count("one cause in all 4 cells: perplexity +") == 1
    for cell in cells[1:]:
        verdict = result.verdict(cell, "perplexity")
        assert verdict.reference.startswith("the reference moved as well, by as much: everything drifted")
        assert result.verdict(cell, "perplexity/loss").status != Status.REGRESSION
    # Of each case, pytest's own list has two lines: value and cause.
    assert result.output.count("one cause in all 4 cells: see the summary") == 4
    assert "worse by more than the tolerance" not in result.output
    assert "worse by more than the tolerance" in (project.folder / "junit.xml").read_text()


# --- reports -----------------------------------------------------------------------------------------


def test_reports_and_properties_carry_the_verdicts(broken: tuple[Project, Result]) -> None:
    project, result = broken
    report = project.folder / "report"

    junit = ElementTree.parse(project.folder / "junit.xml")
    case = next(c for c in junit.iter("testcase") if c.attrib["name"] == f"test_perplexity[{Q4}]")
    properties = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
    assert properties["verdict perplexity"] == "regression"
    assert properties["verdict perplexity/bits_per_byte"] == "pass"

    found: dict[str, Any] = json.loads((report / "report.json").read_bytes())
    verdicts = [Verdict.model_validate(v) for v in found["verdicts"]]
    assert [(v.cell, v.metric) for v in verdicts if v.status == Status.REGRESSION] == [
        (Q4, "perplexity"),
        (Q4, "perplexity/loss"),
    ]
    assert found["info"]["exit_status"].startswith("1")
    markdown = (report / "report.md").read_text()
    assert "1 regression" in markdown
    assert Q4 in markdown
    summary = (project.folder / "summary.md").read_text()
    assert summary.startswith("before\n## quantgate smoke: 1 regression")
    assert f"wrote {report}/report.md" in result.output


# --- side by side, interrupted, light ----------------------------------------------------------------


def test_xdist_measures_each_cell_once(baselined: Project) -> None:
    result = baselined.run("-n", "2", "-m", "not throughput")
    assert result.status == 0
    assert result.cases == dict.fromkeys(CASES, "passed")
    assert sorted(result.measured) == [F16, Q4]
    assert statuses(result, F16, Q4) == {Status.PASS}


def test_xdist_passes_a_failure_on_without_trying_twice(baselined: Project) -> None:
    baselined.matrix["tiers"]["smoke"]["time_limit"] = 0.05
    result = baselined.run("-n", "2", "-m", "not throughput")
    assert result.status == 10
    assert sorted(result.measured) == [F16, Q4]
    assert set(result.failed()) == set(CASES)


def test_xdist_with_throughput_is_a_usage_error(project: Project) -> None:
    result = project.run("--tier", "timed", "-n", "2")
    assert result.status == 4
    assert "-m 'not throughput'" in result.output
    assert "Traceback" not in result.output
    assert result.measured == []


def test_an_interrupted_run_goes_on_with_reuse(baselined: Project) -> None:
    baselined.write()
    before = baselined.measurement(F16).run
    process = baselined.start()
    child = worker(process, Q4)
    child.suspend()  # it ends only if it is ended
    process.send_signal(signal.SIGINT)
    result = baselined.finish(process)
    assert result.status == 2
    # Its parent is gone as well: until the system has collected it, its number is taken.
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not worker_left(baselined)
    assert baselined.measurement(F16).run != before

    rest = baselined.run("--reuse")
    assert rest.status == 0
    assert rest.measured == [Q4]


def test_the_parent_stays_light(project: Project, broken: tuple[Project, Result]) -> None:
    """Measured on the main job's own matrix: 2 s and 200 MB are what the project promises."""
    nightly = ("--collect-only", "-q", "--tier", "nightly", "--matrix", str(REPO / "fixtures/matrix.toml"))
    result = project.run(*nightly)
    assert result.status == 0
    assert result.output.count("::test_perplexity[smollm2-135m/") > 20
    parent = project.parent()
    assert not HEAVY & set(parent["modules"])
    assert parent["peak_mb"] < 200
    assert parent["cpu_seconds"] < 2

    parent = broken[0].parent()  # it started processes, judged, and wrote reports
    assert not HEAVY & set(parent["modules"])
    assert parent["peak_mb"] < 200


# --- transformers and bitsandbytes -------------------------------------------------------------------


@pytest.mark.slow
def test_three_backends_agree(project: Project) -> None:
    full, nf4 = "tiny/transformers/fp32", "tiny/bitsandbytes/nf4"
    project.matrix["tiers"]["smoke"]["cells"] = [full, nf4, F16]
    assert project.update().status == 0
    found = {cell: project.measurement(cell) for cell in (full, nf4, F16)}
    samples = {cell: m.metrics["perplexity"].samples or [] for cell, m in found.items()}
    assert samples[F16] == pytest.approx(samples[full], abs=1e-2)
    assert samples[F16] != samples[full]
    bpw = {cell: m.metrics["memory/bits_per_weight"].value for cell, m in found.items()}
    assert 4 < bpw[nf4] < bpw[F16] < bpw[full] == 32
    assert {m.metrics["tokenizer/mismatches"].value for m in found.values()} == {0}
