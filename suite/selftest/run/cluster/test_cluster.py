"""Runs on Ray clusters on this machine: the same records and verdicts as a run without one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from quantgate.records import Status

from selftest.plugin.runs import CASES, F16, Q4, exact
from selftest.project import Accepted, Project, Result
from selftest.run.cluster.conftest import LocalCluster, ends

pytestmark = pytest.mark.slow
QUICK = ("-k", "not memory")
"""Memory takes another process of each cell."""
LARGE = "tiny/llamacpp/Q8_0"


@pytest.fixture(scope="module")
def spread(
    accepted: Accepted, two_nodes: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, Result]:
    """A project with baselines, and what its run on two nodes left, with a further cell that neither has room for."""
    project = accepted.project.copy(tmp_path_factory.mktemp("spread") / "project")
    assert "ray" not in project.parent()["modules"], "of the run on this machine that made the baselines"
    project.matrix["models"]["tiny"]["resources"] = {"llamacpp/Q8_0": {"memory": 99_999}}
    project.matrix["tiers"]["smoke"]["cells"].append(LARGE)
    return project, project.run("--executor", f"ray={two_nodes.address}")


def test_the_same_records_and_verdicts_as_on_this_machine(
    accepted: Accepted, spread: tuple[Project, Result]
) -> None:
    project, result = spread
    assert result.status == 0, result.output
    assert {name: result.cases[name] for name in CASES} == dict.fromkeys(CASES, "passed")
    assert {v.status for v in result.verdicts} == {Status.PASS}
    for cell in (F16, Q4):
        record, now = accepted.project.measurement(cell), project.measurement(cell)
        assert exact(now) == exact(record)
        assert now.environment == record.environment
        assert now.fingerprint == record.fingerprint
        assert now.run != record.run
        assert (project.results / "smoke" / f"{cell}.log").exists()
    assert "ray" in project.parent()["modules"]
    assert "torch" not in project.parent()["modules"]


def test_a_cell_that_no_node_has_enough_for_is_skipped_and_others_are_measured(
    spread: tuple[Project, Result],
) -> None:
    _, result = spread
    cases = {name: outcome for name, outcome in result.cases.items() if LARGE in name}
    assert cases == {f"{case}[{LARGE}]": "skipped" for case in ("memory", "perplexity", "tokenizer")}
    assert "needs 1 CPU and 99999 GB of memory; node " in result.output


def test_after_ctrl_c_nothing_runs_and_reuse_goes_on_though_a_node_dies(
    baselined: Project, two_nodes: LocalCluster
) -> None:
    """Q4_K_M is held against what F16 leaves, so that it comes after F16. The node that measures it in the second run
    dies in the middle, which costs a second try."""
    divergence = {"text": "boolq", "n_ctx": 32, "windows": 2, "block": 16}
    baselined.matrix["tiers"]["smoke"]["divergence"] = divergence
    baselined.write()
    options = ("--executor", f"ray={two_nodes.address}", *QUICK)
    before = {cell: baselined.measurement(cell) for cell in (F16, Q4)}
    run = baselined.start(*options)
    process, _ = two_nodes.measuring(Q4)
    deadline = time.monotonic() + 600
    while baselined.measurement(F16).run == before[F16].run and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    interrupted = baselined.finish(run)
    assert interrupted.status == 2, interrupted.output
    assert ends(process)
    left = baselined.measurement(F16).run
    assert left != before[F16].run
    assert baselined.measurement(Q4).run == before[Q4].run

    run = baselined.start(*options, "--reuse")
    process, node = two_nodes.measuring(Q4)
    two_nodes.kill(node)
    try:
        assert ends(process)
        result = baselined.finish(run)
    finally:
        two_nodes.add()
    assert result.status == 0, result.output
    assert {v.status for v in result.verdicts} == {Status.PASS, Status.NO_BASELINE}
    assert {v.status for v in result.verdicts if "divergence" not in v.metric} == {Status.PASS}
    assert baselined.measurement(F16).run == left
    now = baselined.measurement(Q4)
    assert now.run not in (before[Q4].run, left)
    assert exact(now)["perplexity"] == exact(before[Q4])["perplexity"]
    assert now.metrics["divergence/kl_mean"].value > 0


@pytest.fixture(scope="module")
def one_node(
    new_cluster: Callable[..., LocalCluster],
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> LocalCluster:
    """A cluster of one node that has another llama-cpp-python, as far as its metadata say."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "llama_cpp_python-99.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 99.0\n"
    (folder / "llama_cpp_python-99.0.dist-info/METADATA").write_text(metadata)
    return new_cluster(cpus=1, PYTHONPATH=os.pathsep.join([str(folder), environment["PYTHONPATH"]]))


def test_the_driver_killed_leaves_nothing_running(baselined: Project, one_node: LocalCluster) -> None:
    baselined.write()
    run = baselined.start("--executor", f"ray={one_node.address}", *QUICK)
    process, _ = one_node.measuring(F16)
    os.kill(run.pid, signal.SIGKILL)
    baselined.finish(run)
    assert ends(process)


def test_a_node_with_other_versions_is_named_and_its_values_are_not_comparable(
    baselined: Project, one_node: LocalCluster
) -> None:
    command = ("--executor", f"ray={one_node.address}", "-k", "Q4_K_M and perplexity")
    result = baselined.run(*command)
    assert result.status == 11, result.output
    assert {v.status for v in result.verdicts} == {Status.NOT_COMPARABLE}
    assert "llama-cpp-python 99.0, " in result.output
    result = baselined.run(*command, "--mixed-nodes")
    assert result.status == 0, result.output
    assert "llama-cpp-python 99.0, " in result.output
