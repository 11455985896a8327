"""A run on a Ray cluster of two nodes on this machine: the same records and verdicts as a run without one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from quantgate.records import Status

from selftest.plugin.runs import CASES, F16, Q4, exact
from selftest.project import Project
from selftest.run.cluster.conftest import LocalCluster, measuring

pytestmark = pytest.mark.slow


def test_the_same_records_and_verdicts_as_on_this_machine(
    baselined: Project, two_nodes: LocalCluster
) -> None:
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
    baselined: Project, new_cluster: Callable[[], LocalCluster]
) -> None:
    cluster = new_cluster()
    nodes = [cluster.add(), cluster.add()]
    before = {cell: baselined.measurement(cell) for cell in (F16, Q4)}
    baselined.write()
    run = baselined.start("--executor", f"ray={cluster.address}")
    above = {process.pid for process in measuring(baselined).parents()}
    (lost,) = (node for node in nodes if above & cluster.processes(node))
    cluster.kill(lost)
    result = baselined.finish(run)
    assert result.status == 0, result.output
    assert {v.status for v in result.verdicts} == {Status.PASS}
    for cell, record in before.items():
        assert exact(baselined.measurement(cell)) == exact(record)


def test_ctrl_c_leaves_nothing_running(baselined: Project, two_nodes: LocalCluster) -> None:
    baselined.write()
    run = baselined.start("--executor", f"ray={two_nodes.address}")
    process = measuring(baselined)
    run.send_signal(signal.SIGINT)
    result = baselined.finish(run)
    assert result.status == 2, result.output
    psutil.wait_procs([process], timeout=60)
    assert not process.is_running()


def test_the_driver_killed_leaves_nothing_running(baselined: Project, two_nodes: LocalCluster) -> None:
    baselined.write()
    run = baselined.start("--executor", f"ray={two_nodes.address}")
    process = measuring(baselined)
    os.kill(run.pid, signal.SIGKILL)
    baselined.finish(run)
    deadline = time.monotonic() + 60
    while process.is_running() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not process.is_running()
