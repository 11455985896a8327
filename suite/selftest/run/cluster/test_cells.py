"""What the driver makes of what nodes send, without Ray: a cluster that has measured each cell once it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from quantgate.baselines.store import StoredBaselines
from quantgate.config.resources import Offer
from quantgate.errors import MeasurementError
from quantgate.report.progress import Progress
from quantgate.run.cluster.cells import ClusterCells
from quantgate.run.cluster.nodes import Node
from quantgate.run.cluster.work import Outcome, Setup, Work
from quantgate.run.plan import Plan

from selftest.run.test_stored import QUANTIZED, REFERENCE, FakeBench, cell, timed

CELLS = (REFERENCE, QUANTIZED, cell("Q8_0"))
DECODE = "throughput/decode"


class ReadyCluster:
    """Its one node has measured a cell once it is submitted; those in `failing` crash."""

    nodes = (Node("n", "10.0.0.1", Offer("node a (10.0.0.1)", 4, 0, 8)),)

    def __init__(self, failing: Sequence[str] = ()) -> None:
        self.failing = failing
        self.tasks: list[str] = []

    def share(self, value: Any) -> Any:
        return value

    def task(self, function: Any, returns: int, *, name: str, **resources: Any) -> Any:
        def remote(setup: Setup, works: list[Work], awaited: Any, left: Any) -> tuple[Any, Any, Any]:
            self.tasks.append(name)
            return None, SimpleNamespace(value=[self._outcome(one.cell) for one in works]), None

        return SimpleNamespace(remote=remote)

    def _outcome(self, name: str) -> Outcome:
        if name in self.failing:
            return Outcome(name, "n", "/of/the/node", error="crashed: see /of/the/node/logs/x.log")
        [record] = (timed(one) for one in CELLS if one.id == name)
        return Outcome(name, "n", "/of/the/node", record, logs={"logs/x.log": b"text"})

    def first(self, pending: Sequence[Any], seconds: float) -> list[Any]:
        return list(pending[:1])

    def take(self, reference: Any) -> Any:
        return reference.value


class Shown(Progress):
    """Keeps how many cells were said to be measured."""

    def __init__(self) -> None:
        super().__init__(StringIO(), len(CELLS))
        self.counts: list[float] = []

    def waiting(self, cell: str, done: int, total: int) -> None:
        self.counts.append(done)


def cluster_cells(folder: Path, cluster: Any, *, reuse: bool = False) -> ClusterCells:
    plan, bench = Plan(), FakeBench(folder)
    for one in CELLS:
        plan.add(one, DECODE)
    more: Any = bench
    more.run_id, more.results, more.settled = "r", folder, {}
    setup: Any = SimpleNamespace(threads=1)
    baselines = StoredBaselines(folder, "smoke")
    return ClusterCells(
        plan, more, Shown(), baselines, cluster, setup, {"n": "node a"}, {"n": "apart"}, reuse
    )


def test_a_measured_cell_counts_once(tmp_path: Path) -> None:
    cells = cluster_cells(tmp_path, ReadyCluster())
    for one in CELLS:
        assert cells.measured(one).cell == one.id
    cells.again([REFERENCE, QUANTIZED], DECODE)
    assert isinstance(cells.progress, Shown)
    assert cells.progress.counts == [1, 2, 3, 3]


def test_a_second_look_is_one_task_and_is_measured_once(tmp_path: Path) -> None:
    cluster = ReadyCluster()
    cells = cluster_cells(tmp_path, cluster)
    cells.measured(QUANTIZED)
    looks = [cells.again([REFERENCE, QUANTIZED], DECODE) for _ in range(2)]
    assert list(looks[0]) == [REFERENCE.id, QUANTIZED.id]
    assert looks[0] is looks[1]
    assert cluster.tasks[3:] == [f"quantgate again {DECODE} {REFERENCE.id} {QUANTIZED.id}"]


def test_an_error_names_the_log_of_this_machine(tmp_path: Path) -> None:
    """It is the same one each time, and no record of an earlier run stays in its place."""
    cells = cluster_cells(tmp_path, ReadyCluster(failing=[QUANTIZED.id]))
    cells.bench.file(QUANTIZED).write_text(timed(QUANTIZED).model_dump_json())
    errors = []
    for _ in range(2):
        with pytest.raises(MeasurementError, match=f"crashed: see {tmp_path}/logs/x.log") as raised:
            cells.measured(QUANTIZED)
        errors.append(raised.value)
    assert errors[0] is errors[1]
    assert not cells.bench.file(QUANTIZED).exists()
    assert cells.apart(QUANTIZED) == "apart"


def test_a_reused_record_was_measured_on_no_node(tmp_path: Path) -> None:
    cells = cluster_cells(tmp_path, cluster := ReadyCluster(), reuse=True)
    cells.bench.file(QUANTIZED).write_text(timed(QUANTIZED).model_dump_json())
    assert cells.measured(QUANTIZED).cell == QUANTIZED.id
    assert cells.apart(QUANTIZED) == ""
    assert [name for name in cluster.tasks if QUANTIZED.id in name] == []
