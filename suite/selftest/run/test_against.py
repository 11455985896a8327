"""A/B runs: the order of the processes, and real runs of the tiny model against another interpreter."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from quantgate.records import Measurement, Metric, Status
from quantgate.run.against import alternation, beside

from selftest.project import Project, Result

F16, Q4 = "tiny/llamacpp/F16", "tiny/llamacpp/Q4_K_M"

FAULT = '''\
"""Makes decoding slow, and in measuring processes that have the variable slower, which hold memory, too."""
import os, sys, time

if "quantgate.measure.worker" in sys.orig_argv:
    from quantgate.backends.runtime.llamacpp import LlamaCpp
    decode, load = LlamaCpp.decode, LlamaCpp.__init__
    fault = os.environ.get("FAULT")

    def slow(self, ids):
        time.sleep((0.04 if fault else 0.005) * len(ids))
        return decode(self, ids)

    def hold(self, *arguments):
        load(self, *arguments)
        self.held = bytearray(b"x") * (64 * 2**20) if fault else b""

    LlamaCpp.decode, LlamaCpp.__init__ = slow, hold
'''


# --- the order --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [2, 3, 6, 7])
def test_sides_take_turns_and_each_is_first_equally_often(pairs: int) -> None:
    order = alternation(pairs, "a run")
    assert order == alternation(pairs, "a run")
    assert len(order) == pairs
    assert all(set(pair) == {"old", "new"} for pair in order)
    first = Counter(pair[0] for pair in order)
    assert abs(first["old"] - first["new"]) == pairs % 2
    flat = [side for pair in order for side in pair]
    # Old and new ran equally early in the mean: a drift that is linear in time cancels.
    places = {side: [n for n, s in enumerate(flat) if s == side] for side in ("old", "new")}
    assert abs(sum(places["old"]) - sum(places["new"])) == pairs % 2


def test_no_rhythm_of_the_machine_falls_on_one_side_in_every_run() -> None:
    orders = [alternation(6, f"run {number}") for number in range(200)]
    for place in range(6):
        first = Counter(order[place][0] for order in orders)
        assert 70 < first["old"] < 130


def test_only_what_varies_is_marked_as_paired() -> None:
    peak = Metric(kind="level", value=1.0, unit="bytes", better="lower", samples=[1.0])
    size = Metric(kind="exact", value=1.0, unit="bytes", better="lower")
    record = Measurement(
        cell=F16, tier="smoke", fingerprint="f", created="now", metrics={"peak": peak, "size": size}
    )
    marked = beside(record, "a run").metrics
    assert (marked["peak"].beside, marked["size"].beside) == ("a run", None)


# --- real runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def same(make_project: Callable[[], Project]) -> tuple[Project, Result]:
    """A project, and what a run against the same interpreter left."""
    project = make_project()
    project.matrix["tiers"]["smoke"]["divergence"] = {"text": "boolq", "n_ctx": 32, "windows": 4}
    select = f"{Q4} and (divergence or memory or perplexity)"
    return project, project.run("--against", sys.executable, "--pairs", "2", "-k", select)


def test_against_the_same_interpreter_nothing_is_red(same: tuple[Project, Result]) -> None:
    project, result = same
    assert result.status == 0, result.output
    assert result.failed() == []
    assert result.verdict(Q4, "perplexity").status == Status.PASS
    assert result.verdict(Q4, "perplexity").text == "equal to the last digit"
    assert result.verdict(Q4, "memory/weight_bytes").status == Status.PASS
    assert not any(v.status in (Status.NO_BASELINE, Status.REGRESSION) for v in result.verdicts)
    assert (
        f"compared with {sys.executable}, measured alternately on this machine: same versions"
        in result.output
    )
    assert not project.baselines.exists()
    record = project.measurement(Q4).metrics["memory/peak_resident"]
    assert record.samples is not None
    assert len(record.samples) == 2
    assert record.beside
    old = Measurement.model_validate_json((project.results / "smoke" / f"{Q4}~old.json").read_bytes())
    assert old.metrics["memory/peak_resident"].beside == record.beside


def test_divergence_is_taken_from_each_sides_own_reference(same: tuple[Project, Result]) -> None:
    _, result = same
    # The same interpreter: what one side's reference left serves the other. On a busy machine a peak may look worse.
    processes = [name for name in result.processes if not name.startswith(f"{Q4}.again.")]
    assert processes[:3] == [f"{F16}.old.logprobs", f"{Q4}.old", f"{Q4}.new"]
    assert sorted(processes[3:]) == [f"{Q4}.{side}.{number}" for side in ("new", "old") for number in (1, 2)]
    verdict = result.verdict(Q4, "divergence/kl_mean")
    assert (verdict.status, verdict.text) == (Status.PASS, "equal to the last digit")


@pytest.mark.slow
def test_a_slower_and_larger_environment_is_found(project: Project, tmp_path: Path) -> None:
    """This side decodes with a longer sleep and holds 64 MB; the other interpreter is the same without the fault."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch/sitecustomize.py").write_text(FAULT)
    old = tmp_path / "python"
    old.write_text(f'#!/bin/sh\nunset FAULT\nexec {sys.executable} "$@"\n')
    old.chmod(0o755)
    path = f"{project.environment['PYTHONPATH']}:{tmp_path / 'patch'}"
    select = ("--tier", "timed", "-k", f"{Q4} and (decode or prefill or memory)")
    result = project.run("--against", str(old), "--pairs", "2", *select, FAULT="1", PYTHONPATH=path)
    assert result.status == 1, result.output
    assert sorted(result.failed()) == [f"decode[{Q4}]", f"memory[{Q4}]"]
    # What does not vary; then peaks, one process after the other, and timings, in turns.
    sides = ["old", "new"]
    sides += ["old.1", "new.1", "old.2", "new.2", "new.3", "old.3", "new.4", "old.4"]
    processes = [name.removeprefix(f"{Q4}.") for name in result.processes]
    again = [name for name in processes if name.startswith("again.")]
    processes = [name for name in processes if name not in again]
    assert processes[:2] == sides[:2]
    assert sorted(processes) == sorted(sides), "and no reference"
    # Both sides anew, for the timing and for the peaks; on a busy machine what is not slower may look so, too.
    assert len(again) in (2 * (2 + 4), 3 * (2 + 4))
    # Absolute timings are judged, without a machine's name.
    decode = result.verdict(Q4, "throughput/decode")
    assert decode.tolerance == 0.025
    assert decode.status == Status.REGRESSION
    assert decode.change is not None
    assert decode.change < -0.5
    assert "measured again in fresh processes: confirmed" in decode.confirmed
    timed, other = (
        Measurement.model_validate_json((project.results / "timed" / f"{Q4}{side}.json").read_bytes())
        for side in ("", "~old")
    )
    timing = timed.metrics["throughput/decode"]
    assert timing.processes is not None
    assert len(timing.processes) == 2
    assert timing.beside
    assert other.metrics["throughput/decode"].beside == timing.beside
    assert result.verdict(Q4, "memory/peak_resident").status == Status.REGRESSION
    assert "measured again" in result.verdict(Q4, "memory/peak_resident").confirmed
    assert result.verdict(Q4, "memory/weight_bytes").status == Status.PASS
    assert f"--against={old}" in decode.reproduce


def test_an_error_of_the_other_side_says_so(project: Project, tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text(f'#!/bin/sh\n[ "$2" = quantgate.measure.worker ] && exit 7\nexec {sys.executable} "$@"\n')
    old.chmod(0o755)
    result = project.run("--against", str(old), "-k", f"{Q4} and perplexity")
    assert result.status == 10
    text = result.verdict(Q4, "perplexity").text
    assert text.startswith("in the environment that is compared against: ended with exit status 7")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--update-baselines", "--reason", "x"], "--update-baselines cannot be combined with --against"),
        (["--machine", "bench"], "--machine cannot be combined with --against"),
        (["--require-baselines"], "--require-baselines cannot be combined with --against"),
        (["--reuse"], "--reuse cannot be combined with --against"),
        (["-n", "2"], "--against cannot be combined with -n"),
        (["--pairs", "1"], "--pairs 1: must be 2 or more"),
    ],
)
def test_options_that_do_not_go_with_it(project: Project, arguments: list[str], words: str) -> None:
    result = project.run("--against", sys.executable, *arguments)
    assert result.status == 4
    assert words in result.output
    assert result.processes == []


def test_a_python_that_cannot_measure_is_a_usage_error(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 'no such module' >&2\nexit 1\n")
    other.chmod(0o755)
    result = project.run("--against", str(other))
    assert result.status == 4
    assert re.search(
        rf"--against {other}: quantgate cannot measure there: no such module; .*pyproject", result.output
    )
    assert result.processes == []
