"""What a case is given: `gate.check()` measures, judges, and turns the verdict into pytest's outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from quantgate.baselines import store as baselines
from quantgate.baselines.file import Baseline
from quantgate.config.matrix import Cell
from quantgate.errors import MeasurementError, QuantgateError, unexpected
from quantgate.judge import MOVED, Tolerances, compare, no_result, worst
from quantgate.judge.compare import (
    Comparison,
    FreshPairs,
    MoreProcesses,
    SecondLook,
    confirmed,
    explained,
    moved,
    needs_second_look,
    verdicts,
)
from quantgate.records import Measurement, Scalar, Status, Verdict
from quantgate.run.against import Against
from quantgate.run.plan import Need
from quantgate.run.runner import Runner
from quantgate.words import comparison


@dataclass(frozen=True)
class Rules:
    """What of the command line bears on judging."""

    baselines: Path
    tier: str
    tolerances: Tolerances
    alpha: float
    """Level of one gate."""
    machine: str | None
    require_baselines: bool
    updating: bool
    against: bool
    """Whether the old values are another environment's, measured in this run (A/B)."""
    command: str
    """How the reproducing command begins: `pytest --tier smoke`."""

    def judging(self, cell: Cell) -> compare.Rules:
        """The rules for one cell."""
        return compare.Rules(
            tolerances=self.tolerances,
            alpha=self.alpha,
            against=self.against,
            timings=self.against or self.machine is not None,
            minimum_shares={} if cell.minimum_share is None else {cell.id: cell.minimum_share},
        )


@dataclass
class Replay:
    """A timer that gives recorded rounds to pytest-benchmark: it is read before and after each round."""

    rounds: list[float] = field(default_factory=list)
    _reads: int = 0

    def __call__(self) -> float:
        index, second = divmod(self._reads, 2)
        self._reads += 1
        return self.rounds[index] if second and index < len(self.rounds) else 0.0


class Gate:
    """One case: a cell and one of its metric requests."""

    def __init__(self, need: Need, nodeid: str, runner: Runner | Against, rules: Rules, replay: Replay):
        self._need = need
        self._nodeid = nodeid
        self._runner = runner
        self._rules = rules
        self._replay = replay
        self.verdicts: list[Verdict] = []
        self.environment: dict[str, Scalar] = {}
        """What the cell was measured in."""

    def report_rounds(self, benchmark: Any) -> None:
        """Hand the rounds that the cell's process timed to pytest-benchmark: its table, JSON, comparison."""
        try:
            measured = self._runner.measurement(self._need.cell)
        except QuantgateError:
            return  # `check` reports it
        name = self._need.request
        metric = measured.metrics[name]
        self._replay.rounds = metric.samples or []
        benchmark.group = name.removeprefix("throughput/")
        benchmark.extra_info.update(
            {
                "cell": self._need.cell.id,
                metric.unit: metric.value,
                "bits": self._need.cell.bits,
                "rounds per process": metric.processes,
                **metric.conditions,
            }
        )
        benchmark.pedantic(lambda: None, rounds=len(self._replay.rounds), iterations=1)

    def check(self) -> None:
        """Judge every metric of the request; pass, skip or fail accordingly."""
        try:
            measured, old = self._sides()
            self.environment = measured.environment
            if why := measured.unmeasured.get(self._need.request.split("/")[0]):
                raise MeasurementError(why)
            if self._need.request not in measured.requests:
                raise MeasurementError(self._runner.unmeasured(self._need.cell, self._need.request))
            comparison = self._comparison(measured, old)
            request, rules, reproduce = (
                self._need.request,
                self._rules.judging(self._need.cell),
                self._reproduce(),
            )
            found = verdicts(comparison, request, rules, reproduce)
            if not self._rules.updating and needs_second_look(found, comparison, rules):
                found = confirmed(found, comparison, self._look_again(), request, rules, reproduce)
            self.verdicts = self._explained(found)
        except QuantgateError as error:
            self.verdicts = [self._error(error)]
        except Exception as error:
            self.verdicts = [self._error(unexpected(error))]
        self._conclude()

    def _error(self, error: QuantgateError) -> Verdict:
        return no_result(self._need.cell.id, self._need.request, str(error), self._reproduce())

    def _sides(self) -> tuple[Measurement, Measurement | None]:
        """What was measured, and what it is held against: a baseline, or the other environment."""
        cell = self._need.cell
        if isinstance(self._runner, Against):
            return self._runner.sides(cell)
        return self._runner.measurement(cell), self._baseline(cell.id)

    def _baseline(self, cell: str) -> Baseline | None:
        return baselines.read(self._rules.baselines, cell, self._rules.tier, self._rules.machine)

    def _comparison(self, measured: Measurement, old: Measurement | None) -> Comparison:
        cell = self._need.cell
        why = f"{cell.reference} has no such metric in this run"
        try:
            self._runner.reference(cell)
        except QuantgateError as error:
            why = str(error).partition("\n")[0]
        return Comparison(measured, old, why)

    def _explained(self, found: list[Verdict]) -> list[Verdict]:
        if not moved(found):
            return found
        cell, request = self._need.cell, self._need.request
        try:
            measured = self._runner.reference(cell)
            old = self._baseline(cell.reference)
        except QuantgateError:
            return found  # the reference's own cases say why
        if measured is None:
            return found
        reference = Comparison(measured, old)
        return explained(found, reference, request, self._rules.judging(cell), self._reproduce())

    def _look_again(self) -> SecondLook:
        cell, request = self._need.cell, self._need.request
        if isinstance(self._runner, Against):
            return FreshPairs(Comparison(*self._runner.again(cell, request)))
        old = self._baseline(cell.id)
        together, fresh = self._runner.again(cell, request)
        return MoreProcesses(self._comparison(together, old), self._comparison(fresh, old))

    def _conclude(self) -> None:
        status = worst(self.verdicts)
        said = "\n".join(describe(v) for v in self.verdicts if v.status == status)
        failing = [Status.ERROR]
        if not self._rules.updating:  # what an update takes or refuses is said by the update
            failing += [*MOVED, Status.NOT_COMPARABLE]
            if self._rules.require_baselines:
                failing.append(Status.NO_BASELINE)
        elsewhere = status == Status.NOT_COMPARABLE and all(
            v.by_machine for v in self.verdicts if v.status == status
        )
        if status in failing and not elsewhere:
            pytest.fail(said, pytrace=False)
        if elsewhere or status in (Status.NO_BASELINE, Status.INCONCLUSIVE):
            pytest.skip(said)

    def _reproduce(self) -> str:
        return f"{self._rules.command} '{self._nodeid}'"


def describe(verdict: Verdict) -> str:
    """A verdict in full, as the failure text of its case."""
    lines = [f"{verdict.status}: {verdict.metric} of {verdict.cell}", *comparison(verdict)]
    lines += [line for line in verdict.text.splitlines() if line.strip()]
    lines += [line for line in (verdict.confirmed, verdict.reference) if line]
    lines += [f"environment: {change}" for change in verdict.environment]
    if verdict.reproduce:
        lines.append(f"again: {verdict.reproduce}")
    return "\n  ".join(lines)
