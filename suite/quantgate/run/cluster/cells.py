"""Measure a run's cells as tasks of a Ray cluster: the `Cells` of a run on many machines. Ray places the tasks, brings
to one what another has left, and tries again where a worker or a node dies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from quantgate.baselines.store import StoredBaselines
from quantgate.config.matrix import Cell
from quantgate.config.resources import Resources, lacking
from quantgate.errors import MeasurementError, QuantgateError, in_one_line, unexpected
from quantgate.files import write_atomic
from quantgate.measure.groups import group_of, reading_reference
from quantgate.records import Measurement
from quantgate.report.progress import Progress
from quantgate.run.bench import Bench
from quantgate.run.cluster.connection import Cluster
from quantgate.run.cluster.node import measure_cells
from quantgate.run.cluster.nodes import taken, whole_node
from quantgate.run.cluster.order import submission
from quantgate.run.cluster.work import Outcome, Setup, Work
from quantgate.run.local import reusable
from quantgate.run.plan import Plan, groups_of
from quantgate.run.process import file_error, read_measurement

TICK = 1.0
"""Seconds between two looks at the nodes while nothing arrives."""
GRACE = 30.0
"""Seconds for which a task may wait after the last node that could take it is gone: another may come."""

Key = tuple[str, ...]


@dataclass
class _Task:
    """A submitted task. after: the token of the reference that it waits for; None: of none. token, left: what tasks get
    that wait for it. since: when no node could take it any more."""

    works: list[Work]
    resources: Resources
    after: Any = None
    token: Any = None
    outcomes: Any = None
    left: Any = None
    since: float | None = None


@dataclass(eq=False)
class ClusterCells:
    """Submits the whole plan when the first cell is asked for; then waits for what is asked for.

    bench: of the driver, which names files and fingerprints and measures nothing. names: of nodes, by Ray's id;
    apart_by_node: by it, why what a node measures is not comparable.
    """

    plan: Plan
    bench: Bench
    progress: Progress
    baselines: StoredBaselines
    cluster: Cluster
    setup: Setup
    names: Mapping[str, str]
    apart_by_node: Mapping[str, str]
    reuse: bool = False
    _tasks: dict[Key, _Task] = field(default_factory=dict)
    """What is not back yet."""
    _submitted: dict[str, _Task] = field(default_factory=dict)
    """By cell, the latest task that measures it."""
    _done: dict[Key, dict[str, Measurement] | QuantgateError] = field(default_factory=dict)
    """By task, the records of its cells."""
    _nodes: dict[str, str] = field(default_factory=dict)
    """By cell, the node that measured it in this run."""
    _shared: Any = None
    """The setup in the object store; None until the plan is submitted."""

    def measured(self, cell: Cell) -> Measurement:
        """Return the cell's record as its processes left it on some node."""
        self._begin()
        return self._wait_for((cell.id,))[cell.id]

    def again(self, cells: Sequence[Cell], request: str) -> Mapping[str, Measurement]:
        """Measure one request of each cell in fresh processes of one node."""
        key = ("again", request, *(cell.id for cell in cells))
        if key not in self._done:
            self._submit(
                key, [Work(one.id, [request], self.bench.settled.get(one.id), "again") for one in cells]
            )
        return self._wait_for(key)

    def apart(self, cell: Cell) -> str:
        """Return why the cell's record cannot be compared; empty where it can."""
        return self.apart_by_node.get(self._nodes.get(cell.id, ""), "")

    def close(self) -> None:
        """End all tasks."""
        self.cluster.cancel([task.outcomes for task in self._tasks.values()])
        self._tasks.clear()

    def _begin(self) -> None:
        """Submit the plan, but for cells with a record that may stand for a measurement."""
        if self._shared is not None:
            return
        self._shared = self.cluster.share(self.setup)
        waiting: dict[str, str] = {}
        seconds: dict[str, float] = {}
        for cell in self.plan.cells.values():
            requests = self.plan.requests[cell.id]
            for metrics in self.baselines.metrics([cell.id]).values():
                self.bench.settle(cell.id, metrics)
            if self.reuse and (record := reusable(self.bench, cell, requests, reuse=True)):
                self._done[cell.id,] = {cell.id: record}
                self.progress.finish(cell.id, 0.0, "reused")
                continue
            with suppress(MeasurementError):
                seconds[cell.id] = read_measurement(self.bench.file(cell)).seconds
            waiting[cell.id] = cell.reference if reading_reference(requests) else cell.id
        for name in submission(waiting, seconds):
            self._submit((name,), [Work(name, self.plan.requests[name], self.bench.settled.get(name))])

    def _submit(self, key: Key, works: list[Work]) -> None:
        """Give Ray a task that measures some cells on one node."""
        offers = [node.offer for node in self.cluster.nodes]
        resources = self._resources(works)
        if any(group_of(group).alone for work in works for group in groups_of(work.requests)):
            resources = resources.model_copy(update={"cpus": whole_node(resources, offers)})
        task = _Task(works, resources)
        error, left = "", []
        cell = self.plan.cells[works[0].cell]
        if cell.reference != cell.id and any(reading_reference(work.requests) for work in works):
            error = self._failure(cell.reference)
            if not error and (reference := self._submitted.get(cell.reference)) is not None:
                task.after, left = reference.token, [reference.left]
        remote = self.cluster.task(
            measure_cells, 3, name=f"quantgate {' '.join(key)}", **_ray_resources(resources)
        )
        awaited = error if task.after is None else task.after
        task.token, task.outcomes, task.left = remote.remote(self._shared, works, awaited, left)
        self._tasks[key] = task
        if len(key) == 1:
            self._submitted[key[0]] = task

    def _resources(self, works: Sequence[Work]) -> Resources:
        """Return the most that any of these cells takes."""
        each = [taken(self.plan.cells[work.cell].resources, self.setup.threads) for work in works]
        return Resources(
            cpus=max(one.cpus or 1 for one in each),
            gpus=max((one.gpus for one in each if one.gpus), default=None),
            memory=max((one.memory for one in each if one.memory), default=None),
        )

    def _failure(self, cell: str) -> str:
        """Return why a cell has no record; empty: it has one, or may have one yet."""
        done = self._done.get((cell,))
        return str(done) if isinstance(done, QuantgateError) else ""

    def _wait_for(self, key: Key) -> dict[str, Measurement]:
        """Return the records of a task. Raises QuantgateError, the same one each time."""
        while key not in self._done:
            waiting = {id(task.outcomes): name for name, task in self._tasks.items()}
            references = [task.outcomes for task in self._tasks.values()]
            arrived = self.cluster.first(references, TICK)
            for one in arrived:
                self._take(waiting[id(one)], one)
            if not arrived:
                self._look_at_nodes()
            cells = sum(len(one) == 1 for one in self._done)
            self.progress.waiting(key[-1], cells, self.progress.total)
        result = self._done[key]
        if isinstance(result, QuantgateError):
            raise result
        return result

    def _take(self, key: Key, reference: Any) -> None:
        """Take what has come of a task; write its records and logs, and say so."""
        task = self._tasks.pop(key)
        try:
            outcomes = cast("list[Outcome]", self.cluster.take(reference))
        except Exception as error:
            if self.cluster.died(error) and task.after is not None and self._is_lost(task.after):
                self._submit(key, task.works)  # what has died is its reference
                return
            self._fail(key, self._why(error))
            return
        try:
            for outcome in outcomes:
                self._store(outcome, record=len(key) == 1)
            self._done[key] = {outcome.cell: self._record(outcome) for outcome in outcomes}
        except QuantgateError as error:
            self._done[key] = error
        except OSError as error:
            self._done[key] = file_error(error)
        if len(key) == 1:
            [outcome] = outcomes
            self._nodes[outcome.cell] = outcome.node
            end = f"measured on {self.names.get(outcome.node, 'a node')}" if outcome.record else "error"
            self.progress.finish(outcome.cell, outcome.seconds, end)

    def _fail(self, key: Key, why: str) -> None:
        self._done[key] = MeasurementError(why)
        if len(key) == 1:
            self.bench.file(self.plan.cells[key[0]]).unlink(missing_ok=True)
            self.progress.finish(key[0], 0.0, "error")

    def _is_lost(self, token: Any) -> bool:
        try:
            self.cluster.take(token)
        except Exception:
            return True
        return False

    def _why(self, error: Exception) -> str:
        if self.cluster.died(error):
            return f"its worker process or node died, and again on the second try: {in_one_line(error)}"
        return str(unexpected(cast("Exception", getattr(error, "cause", None) or error)))

    def _store(self, outcome: Outcome, *, record: bool) -> None:
        """Write the logs, and the record, where a run on this machine would; what has failed leaves none of an earlier
        run."""
        for name, content in outcome.logs.items():
            write_atomic(self.bench.results / name, content)
        file = self.bench.file(self.plan.cells[outcome.cell])
        if record and outcome.record is not None:
            write_atomic(file, outcome.record.model_dump_json(indent=1).encode())
        elif record:
            file.unlink(missing_ok=True)

    def _record(self, outcome: Outcome) -> Measurement:
        if outcome.record is None:
            raise MeasurementError(outcome.error.replace(outcome.folder, str(self.bench.results)))
        return outcome.record

    def _look_at_nodes(self) -> None:
        """Give up tasks that no node can take any more; those that asked for a whole node ask for a smaller one."""
        offers = [node.offer for node in self.cluster.nodes]
        for key, task in list(self._tasks.items()):
            why = lacking(task.resources, offers)
            now = time.monotonic()
            task.since = (task.since or now) if why else None
            if task.since is None or now - task.since < GRACE:
                continue
            self.cluster.cancel([task.outcomes])
            del self._tasks[key]
            if lacking(self._resources(task.works), offers):
                self._fail(key, f"{why}: the node that had it has left the cluster")
            else:
                self._submit(key, task.works)


def _ray_resources(resources: Resources) -> dict[str, Any]:
    """Return what a cell takes in Ray's words."""
    taken: dict[str, Any] = {"num_cpus": resources.cpus}
    if resources.gpus:
        taken["num_gpus"] = resources.gpus
    if resources.memory:
        taken["memory"] = int(resources.memory * 1e9)
    return taken
