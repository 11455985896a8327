"""Timings end to end: as pytest-benchmark's rounds, as ratios, on a named machine."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from quantgate.baselines import store as baselines
from quantgate.baselines.file import write_file
from quantgate.records import Status

from selftest.once import Once
from selftest.plugin.runs import F16, Q4
from selftest.project import Project, tiny_matrix
from selftest.tiny import TinyModel

AGAIN = [f"{cell}.again{number}" for cell in (F16, Q4) for number in ("", ".2", ".3")]
"""Three processes of each: two do not show how far processes differ."""


@pytest.fixture
def in_two(project: Project) -> Project:
    """Times each cell in two processes."""
    project.matrix["tiers"]["timed"]["throughput"]["processes"] = 2
    return project


def test_recorded_rounds_are_pytest_benchmarks(in_two: Project) -> None:
    file = in_two.folder / "benchmark.json"
    result = in_two.run("--tier", "timed", "-m", "throughput", f"--benchmark-json={file}")
    assert result.status == 0
    written = {
        entry["name"].removeprefix("test_"): entry for entry in json.loads(file.read_bytes())["benchmarks"]
    }
    for cell in (F16, Q4):
        metrics = in_two.measurement(cell, "timed").metrics
        for kind in ("prefill", "decode", "time_to_first_token", "load"):
            metric, entry = metrics[f"throughput/{kind}"], written[f"{kind}[{cell}]"]
            assert entry["stats"]["data"] == metric.samples
            assert entry["stats"]["rounds"] == len(metric.samples or ())
            assert entry["extra_info"][metric.unit] == metric.value
            assert entry["extra_info"]["cell"] == cell
        assert metrics["throughput/decode"].unit == "tokens/s"
        decode = metrics["throughput/decode"]
        assert decode.processes == [4, 4] == written[f"decode[{cell}]"]["extra_info"]["rounds per process"]
        assert decode.value == pytest.approx(8 / statistics.median(decode.medians))
    assert "benchmark 'decode': 2 tests" in result.output
    # An absolute timing is shown and never fails.
    assert result.verdict(Q4, "throughput/decode").status == Status.PASS


@pytest.fixture
def on_bench(once: Once, tiny: TinyModel, environment: dict[str, str]) -> Project:
    """With baselines of decoding on the machine `bench`; tests change copies of it."""

    def at(folder: Path) -> Project:
        return Project(folder / "p", tiny_matrix(tiny), environment)

    def make(folder: Path) -> None:
        result = at(folder).update("--tier", "timed", "--machine", "bench", "-k", f"decode and {Q4}")
        assert result.status == 0, result.output
        assert (at(folder).baselines / "machines/bench.toml").is_file()

    return at(once("on-bench", make))


@pytest.fixture
def timed(on_bench: Project, tmp_path: Path) -> Project:
    """A copy of it."""
    return on_bench.copy(tmp_path / "project")


def test_timings_are_gated_as_ratio_everywhere(on_bench: Project) -> None:
    result = on_bench.left(0, "")
    processes = [f"{cell}{number}" for cell in (F16, Q4) for number in ("", ".2", ".3")]
    assert sorted(result.processes) == processes  # the reference too, which no case asked for
    fast, slow = (on_bench.measurement(c, "timed").metrics["throughput/decode"] for c in (Q4, F16))
    assert result.verdict(Q4, "throughput/decode_ratio").measured == pytest.approx(fast.value / slow.value)
    assert "throughput/decode_ratio" not in on_bench.measurement(Q4, "timed").metrics, "made of two records"


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
    result = timed.run("--tier", "timed", "--reuse", "-k", f"decode and {Q4}", "--machine", "bench")
    assert result.status == 1
    verdict = result.verdict(Q4, "throughput/decode")
    assert verdict.status == Status.REGRESSION
    # A slow moment is not a regression: measured again, with its reference, before it is called one.
    assert result.processes == AGAIN
    assert "measured again in fresh processes: confirmed" in verdict.confirmed
    assert verdict.confirmed in result.output


def test_a_lost_kernel_fails_on_any_machine(timed: Project) -> None:
    faster(timed, "throughput/decode_ratio", None)
    result = timed.run("--tier", "timed", "--reuse", "-k", f"decode and {Q4}")
    assert result.status == 1
    assert result.verdict(Q4, "throughput/decode_ratio").status == Status.REGRESSION
    assert result.processes == AGAIN


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
