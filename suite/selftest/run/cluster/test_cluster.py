"""A run on a Ray cluster of two nodes on this machine: the same records and verdicts as a run without one."""

from __future__ import annotations

import pytest
from quantgate.records import Status

from selftest.plugin.runs import CASES, F16, Q4, exact
from selftest.project import Project
from selftest.run.cluster.conftest import LocalCluster

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
