"""A run on a Ray cluster of two nodes on this machine: the same records and verdicts as a run without one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from quantgate.records import Status

from selftest.plugin.runs import CASES, F16, Q4, exact
from selftest.project import Project
from selftest.run.cluster.conftest import LocalCluster, ends

pytestmark = pytest.mark.slow
QUICK = ("-k", "not memory")
"""Memory takes another process of each cell."""


def test_the_same_records_and_verdicts_as_on_this_machine(
    baselined: Project, two_nodes: LocalCluster
) -> None:
    assert "ray" not in baselined.parent()["modules"], "of the run on this machine that made the baselines"
    before = {cell: baselined.measurement(cell) for cell in (F16, Q4)}
    result = baselined.run("--executor", f"ray={two_nodes.address}")
    assert result.status == 0, result.output
    assert result.cases == dict.fromkeys(CASES, "passed")
    assert {v.status for v in result.verdicts} == {Status.PASS}
    for cell, record in before.items():
        now = baselined.measurement(cell)
        assert exact(now) == exact(record)
        assert now.environment == record.environment
        assert now.fingerprint == record.fingerprint
        assert now.run != record.run
        assert (baselined.results / "smoke" / f"{cell}.log").exists()
    assert "ray" in baselined.parent()["modules"]
    assert "torch" not in baselined.parent()["modules"]


def test_a_node_that_dies_in_the_middle_costs_a_second_try(
    baselined: Project, two_nodes: LocalCluster
) -> None:
    before = {cell: baselined.measurement(cell) for cell in (F16, Q4)}
    baselined.write()
    run = baselined.start("--executor", f"ray={two_nodes.address}", *QUICK)
    process, node = two_nodes.measuring(F16)
    two_nodes.kill(node)
    try:
        assert ends(process)
        result = baselined.finish(run)
    finally:
        two_nodes.add()
    assert result.status == 0, result.output
    assert {v.status for v in result.verdicts} == {Status.PASS}
    for cell, record in before.items():
        now = baselined.measurement(cell)
        assert now.run != record.run
        assert exact(now)["perplexity"] == exact(record)["perplexity"]


def test_the_driver_killed_leaves_nothing_running(baselined: Project, two_nodes: LocalCluster) -> None:
    baselined.write()
    run = baselined.start("--executor", f"ray={two_nodes.address}", *QUICK)
    process, _ = two_nodes.measuring(F16)
    os.kill(run.pid, signal.SIGKILL)
    baselined.finish(run)
    assert ends(process)


def test_ctrl_c_leaves_nothing_running_and_reuse_goes_on(baselined: Project, two_nodes: LocalCluster) -> None:
    """Q4_K_M is held against what F16 leaves, so that it comes after F16."""
    divergence = {"text": "boolq", "n_ctx": 32, "windows": 2, "block": 16}
    baselined.matrix["tiers"]["smoke"]["divergence"] = divergence
    baselined.write()
    options = ("--executor", f"ray={two_nodes.address}", *QUICK)
    before = {cell: baselined.measurement(cell).run for cell in (F16, Q4)}
    run = baselined.start(*options)
    process, _ = two_nodes.measuring(Q4)
    deadline = time.monotonic() + 600
    while baselined.measurement(F16).run == before[F16] and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    interrupted = baselined.finish(run)
    assert interrupted.status == 2, interrupted.output
    assert ends(process)
    left = baselined.measurement(F16).run
    assert left != before[F16]
    assert baselined.measurement(Q4).run == before[Q4]

    result = baselined.run(*options, "--reuse")
    assert result.status == 0, result.output
    assert baselined.measurement(F16).run == left
    assert baselined.measurement(Q4).run not in (before[Q4], left)
    assert baselined.measurement(Q4).metrics["divergence/kl_mean"].value > 0


def test_a_cell_that_no_node_has_enough_for_is_skipped_at_once(
    baselined: Project, two_nodes: LocalCluster
) -> None:
    baselined.matrix["models"]["tiny"]["resources"] = {"llamacpp/Q4_K_M": {"memory": 99_999}}
    result = baselined.run("--executor", f"ray={two_nodes.address}", *QUICK)
    assert result.status == 0, result.output
    cases = [f"{case}[{cell}]" for cell in (F16, Q4) for case in ("perplexity", "tokenizer")]
    assert result.cases == {name: "passed" if F16 in name else "skipped" for name in cases}
    assert "needs 1 CPU and 99999 GB of memory; node " in result.output


def test_a_node_with_other_versions_is_named_and_its_values_are_not_comparable(
    baselined: Project, new_cluster: Callable[..., LocalCluster], tmp_path: Path
) -> None:
    other = tmp_path / "other" / "llama_cpp_python-99.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 99.0\n")
    path = os.pathsep.join([str(other.parent), baselined.environment["PYTHONPATH"]])
    cluster = new_cluster(cpus=1, PYTHONPATH=path)
    command = ("--executor", f"ray={cluster.address}", "-k", "Q4_K_M and perplexity")
    result = baselined.run(*command)
    assert result.status == 11, result.output
    assert {v.status for v in result.verdicts} == {Status.NOT_COMPARABLE}
    assert "llama-cpp-python 99.0, " in result.output
    result = baselined.run(*command, "--mixed-nodes")
    assert result.status == 0, result.output
    assert "llama-cpp-python 99.0, " in result.output
