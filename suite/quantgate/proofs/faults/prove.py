"""Measure cells with and without faults, and judge them as every case is judged."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from quantgate.backends.spec import unused
from quantgate.baselines import store as baselines
from quantgate.baselines.store import StoredBaselines
from quantgate.config.matrix import Cell, Matrix
from quantgate.config.tolerances import load_tolerances
from quantgate.errors import InputError
from quantgate.judge.compare import Rules
from quantgate.judge.sensitivity import gate_level
from quantgate.machine.environment import WORKER, code_hash
from quantgate.plugin.case import judge_case
from quantgate.proofs.faults.outcome import Row, by_gate, outcome, red
from quantgate.proofs.faults.registry import Fault
from quantgate.records import Measurement, Verdict
from quantgate.report.progress import Progress
from quantgate.run.against import AgainstRun, Side
from quantgate.run.bench import Bench
from quantgate.run.local import LocalCells
from quantgate.run.measurer import Measurer
from quantgate.run.plan import Need, Plan
from quantgate.run.stored import StoredRun
from quantgate.supply.supply import Supply

GROUPS = ("perplexity", "accuracy", "memory", "tokenizer")
"""Metric groups measured for a fault without `groups`: those that compare with a stored baseline on any machine."""


class TitledProgress(Progress):
    """Progress with the fault in the title of each line."""

    title = ""

    def start(self, cell: str, phases: Sequence[str]) -> None:
        super().start(f"{cell} {self.title}", phases)

    def event(self, cell: str, phase: str, done: float, total: float) -> None:
        super().event(f"{cell} {self.title}", phase, done, total)

    def finish(self, cell: str, seconds: float, outcome: str) -> None:
        super().finish(f"{cell} {self.title}", seconds, outcome)


class _Stored(StoredRun):
    """A run against stored baselines. upgraded: judge as if a library had been upgraded since the baseline."""

    upgraded = False

    def measurement(self, cell: Cell) -> Measurement:
        measured = super().measurement(cell)
        if not self.upgraded:
            return measured
        return measured.model_copy(update={"environment": {**measured.environment, "upgrade": "simulated"}})


@dataclass(frozen=True)
class Proof:
    """Settings of one run; `row` tries one fault, or a cell without a fault."""

    matrix: Matrix
    tier: str
    model: str
    baselines: Path
    results: Path
    threads: int
    supply: Supply
    progress: TitledProgress
    pairs: int
    reuse: bool

    def cell(self, name: str, *, beside_clean: bool) -> Cell:
        """Return the cell `backend/scheme` of the model. Raises InputError where the tier lacks it, or where
        a baseline that it needs is missing."""
        cell_id = f"{self.model}/{name}"
        for cell in self.matrix.cells(self.tier):
            if cell.id == cell_id:
                if not beside_clean and baselines.read(self.baselines, cell_id, self.tier) is None:
                    raise InputError(
                        f"{cell_id} has no baseline in {self.baselines}: make one with"
                        f" pytest --tier {self.tier} -k {cell_id} --update-baselines --reason ..."
                    )
                return cell
        raise InputError(
            f"{self.matrix.path}: tier {self.tier} has no cell {cell_id}, which a fault is measured on"
        )

    def groups(self, fault: Fault) -> tuple[str, ...]:
        """Return the metric groups to measure for a fault. Raises InputError where the tier measures none of them."""
        groups = fault.groups or GROUPS
        measured = tuple(group for group in groups if group in self.matrix.tier(self.tier).group_options)
        if not measured:
            where = f"{self.matrix.path}: tier {self.tier}"
            raise InputError(f"{where} measures none of {', '.join(groups)}, which {fault.name} needs")
        return measured

    def row(
        self, cell: str, groups: Sequence[str], fault: Fault | None = None, *, beside_clean: bool = False
    ) -> Row:
        """Measure and judge, and return whether the gates that must turn red did."""
        name = fault.name if fault else f"none on {cell}{', beside clean' if beside_clean else ''}"
        self.progress.title = f"with {fault.name}" if fault else "without a fault"
        begin = time.monotonic()
        verdicts, later = self._judged(
            self.cell(cell, beside_clean=beside_clean), groups, fault, beside_clean
        )
        return Row(
            fault=name,
            kind=fault.kind if fault else "control",
            text=fault.text if fault else f"no fault{', beside clean processes' if beside_clean else ''}",
            cell=cell,
            gates=list(fault.gates) if fault else [],
            red=by_gate(red(verdicts)),
            upgraded=None if later is None else by_gate(red(later)),
            note=fault.no_gate if fault else "",
            measured=list(groups),
            outcome=outcome(fault, verdicts if fault else [*verdicts, *(later or ())]),
            seconds=time.monotonic() - begin,
            verdicts=verdicts,
        )

    def _judged(
        self, cell: Cell, groups: Sequence[str], fault: Fault | None, beside_clean: bool
    ) -> tuple[list[Verdict], list[Verdict] | None]:
        """Return the verdicts of the cell's cases, one case a group, and the verdicts as if the environment had changed
        since the baseline (None beside clean processes)."""
        plan, run_id = Plan(), uuid.uuid4().hex
        for group in groups:
            plan.add(cell, group)
        bench = self._bench(fault, run_id, command(fault))
        other = self._bench(fault, run_id, WORKER, "without the fault: ")
        baselines = StoredBaselines(self.baselines, self.tier)
        stored = _Stored(plan, LocalCells(plan, bench, self.progress, baselines, self.reuse), baselines)
        measurer: Measurer = stored
        if beside_clean:
            benches: dict[Side, Bench] = {"old": other, "new": bench}
            measurer = AgainstRun(plan, benches, self.progress, self.pairs)
        rules = replace(self._rules, against=beside_clean, timings=beside_clean)

        def check() -> list[Verdict]:
            cases = [judge_case(Need(cell, group), measurer, rules) for group in groups]
            return [verdict for case in cases for verdict in case.verdicts]

        with closing(bench), closing(other):
            verdicts = check()
            stored.upgraded = True
            return verdicts, None if beside_clean else check()

    def _bench(self, fault: Fault | None, run_id: str, worker: Sequence[str], place: str = "") -> Bench:
        # The folder is named after the fault's code, so that --reuse measures a changed fault again.
        code = code_hash("proofs/faults/registry.py", f"proofs/faults/{fault.kind}.py") if fault else ""
        results = self.results / (f"{fault.name}-{code}" if fault else "none")
        tier = self.matrix.tier(self.tier)
        return Bench(self.matrix, tier, self.tier, self.supply, self.threads, results, run_id, worker, place)

    @cached_property
    def _rules(self) -> Rules:
        """Rules of a run of the whole tier, whose gates share the alarm rate."""
        tolerances = load_tolerances().for_tier(self.tier, self.matrix.roundings())
        cells = self.matrix.cells(self.tier)
        accepted = {
            cell.id: baseline.metrics
            for cell in cells
            if (baseline := baselines.read(self.baselines, cell.id, self.tier))
        }
        shares = {cell.id: cell.minimum_share for cell in cells}
        return Rules(tolerances, gate_level(tolerances, accepted), minimum_shares=shares, unused=unused())


def command(fault: Fault | None) -> Sequence[str]:
    """Return the command that starts the measuring process with the fault."""
    return (sys.executable, "-m", "quantgate.proofs.faults.worker", fault.name) if fault else WORKER
