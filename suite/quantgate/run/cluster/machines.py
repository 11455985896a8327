"""The machines of a run on a cluster: what they have, how they differ, and what measures the run's cells on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from quantgate.baselines.store import StoredBaselines
from quantgate.config.matrix import Cell
from quantgate.config.resources import lacking
from quantgate.errors import InputError
from quantgate.machine.environment import Environment, Facts, machine, work_facts
from quantgate.measure.groups import group_of
from quantgate.records import Scalar
from quantgate.report.progress import Progress
from quantgate.run.bench import Bench
from quantgate.run.cluster.cells import ClusterCells
from quantgate.run.cluster.connection import Cluster
from quantgate.run.cluster.nodes import Node, differing, shared_machine, taken
from quantgate.run.cluster.work import Described, Setup, sent_variables
from quantgate.run.plan import Plan
from quantgate.words import plural

SHOWN = 3
"""Differences of a node that are named."""


class Machines:
    """The nodes of a cluster, as they were when the run began. Raises InputError where there is none.

    threads: of a measuring process.
    """

    def __init__(self, address: str | None, threads: int) -> None:
        self._cluster = Cluster(address)
        self._threads = threads
        self.nodes: list[Node] = self._cluster.nodes
        self._described: dict[str, Described] = {}
        self._apart: dict[str, str] = {}
        if not self.nodes:
            self.close()
            raise InputError(
                "--executor ray: no node of the cluster has processors: start one with `ray start`"
            )

    def close(self) -> None:
        """End the connection and all that runs for it."""
        self._cluster.close()

    def lacking(self, cell: Cell) -> str:
        """Return why no node has what the cell takes; empty: one has."""
        return lacking(taken(cell.resources, self._threads), [node.offer for node in self.nodes])

    def left_out(self, group: str) -> str:
        """Return why no node can measure a metric group; empty: one can."""
        return shared_machine(self.nodes) if group_of(group).alone else ""

    def look(self, say: Callable[[str], None], *, mixed: bool, updating: bool) -> None:
        """Have the nodes describe themselves, and say which of them have other versions than this process.

        mixed: what these measure is comparable all the same. updating: the run makes baselines. Raises InputError where
        a node cannot measure, and where baselines would come from different versions.
        """
        ours = work_facts(Environment().libraries)
        problems, different = [], []
        answers = self._cluster.describe(self.nodes, sent_variables())
        for node in self.nodes:
            name, described = node.offer.name, answers[node.id]
            if isinstance(described, str):
                problems.append(f"{name} cannot measure: {described}; install the same quantgate there")
                continue
            self._described[node.id] = described
            if differences := differing(ours, described.facts):
                more = len(differences) - SHOWN
                text = f"{name} differs: {'; '.join(differences[:SHOWN])}" + (
                    f"; and {plural(more, 'more difference')}" if more > 0 else ""
                )
                different.append(text)
                if not mixed:
                    self._apart[node.id] = f"{text} (--mixed-nodes compares all the same)"
        if problems:
            raise InputError("\n".join(["--executor ray:", *problems]))
        if different and updating and not mixed:
            why = "--update-baselines: the nodes have different versions (--mixed-nodes takes them):"
            raise InputError("\n".join([why, *different]))
        for text in different:
            say(f"note: {text}")

    @property
    def facts(self) -> Facts:
        """What tells the nodes from other machines; where they differ, all that there is."""
        each = [one.machine for one in self._described.values()] or [machine()]
        return {key: _joined([one.get(key) for one in each]) for key in each[0]}

    def cells(
        self,
        plan: Plan,
        bench: Bench,
        progress: Progress,
        baselines: StoredBaselines,
        text: Path | None,
        *,
        reuse: bool,
    ) -> ClusterCells:
        """Return what measures a plan. bench: of this process, for the names of files and fingerprints."""
        bench.elsewhere = [one.facts for node, one in self._described.items() if node not in self._apart]
        setup = Setup(
            matrix=bench.matrix,
            tier=bench.tier_name,
            threads=bench.threads,
            run=bench.run_id,
            text=None if text is None else (text.name, text.read_bytes()),
            variables=sent_variables(),
            share=len({(node.address, self._described[node.id].cache) for node in self.nodes}) > 1,
        )
        names = {node.id: node.offer.name for node in self.nodes}
        return ClusterCells(plan, bench, progress, baselines, self._cluster, setup, names, self._apart, reuse)


def _joined(values: Sequence[Scalar]) -> Scalar:
    """Return the value, or several as text."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else " or ".join(map(str, different))
