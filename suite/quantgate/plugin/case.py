"""What a case is given: `gate.check()` measures, judges, and turns the verdict into pytest's outcome."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from quantgate.baselines import store as baselines
from quantgate.baselines.file import Baseline
from quantgate.errors import MeasurementError, QuantgateError, unexpected
from quantgate.judge import (
    MOVED,
    Tolerances,
    drift,
    first_difference,
    held_to,
    judge_on_kernels,
    limits_of,
    no_result,
    of_choices,
    recorded,
    reproduction,
    worst,
)
from quantgate.judge.confirm import settle, suspicious
from quantgate.judge.expected import Limits
from quantgate.records import QUANTIZED_SHARE, Measurement, Metric, Scalar, Status, Verdict
from quantgate.run.against import Against
from quantgate.run.plan import Need
from quantgate.run.relative import flips_in_words, origin
from quantgate.run.runner import Runner
from quantgate.words import comparison, delta


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
            first = list(self._judged(measured, old))
            if not self._rules.updating and suspicious(first, measured.metrics, self._rules.against):
                first = self._confirmed(first, measured)
            self.verdicts = self._explained(first)
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

    def _judged(self, measured: Measurement, old: Measurement | None) -> Iterator[Verdict]:
        rules, cell = self._rules, measured.cell
        known = old.metrics if old else {}
        names = [n for n in measured.metrics if self._need.covers(n)]
        for name in names:
            metric = measured.metrics[name]
            tolerance = rules.tolerances.of(name, cell, against=rules.against)
            limits = self._limits(name, cell)
            if tolerance is None:
                before = known.get(name)
                if limits is None:
                    yield recorded(cell, name, metric, before, flips_in_words(metric))
                else:
                    yield held_to(limits, cell, name, metric, None, self._reproduce())
                if old and before and metric.kind == "paired":
                    yield from self._reproduced(name, metric, before, _changed(old, name, measured))
            elif metric.kind == "rounds" and rules.machine is None and not rules.against:
                yield recorded(
                    cell, name, metric, None, "timings are gated on a named machine (--machine) or as ratio"
                )
            else:
                key, values = name, known
                if isinstance(old, Baseline):
                    key, values = old.key_for(name, metric), old.metrics | old.others
                before = values.get(key)
                changed = _changed(old, key, measured) if old and before else []
                verdict = judge_on_kernels(
                    cell, name, metric, before, tolerance, self._level(metric), changed, self._reproduce(),
                    against=rules.against,
                )  # fmt: skip
                if limits is not None:
                    verdict = held_to(limits, cell, name, metric, verdict, self._reproduce())
                yield verdict
                same = rules.tolerances.of_reproduction(name, cell) if metric.kind == "paired" else None
                if same and before and verdict.status not in (Status.NOT_COMPARABLE, Status.ERROR):
                    yield reproduction(verdict, metric, before, same)
            yield from self._choices(name, measured, old)
        for name in known:
            if not self._need.covers(name) or name in measured.metrics:
                continue
            if not known[name].relative:
                yield no_result(cell, name, "is in the baseline, but was not measured", self._reproduce())
            elif rules.tolerances.of(name, cell) is not None:
                yield self._without_reference(name, known[name])

    def _limits(self, name: str, cell: str) -> Limits | None:
        """What the metric has to be whatever the baseline."""
        mine = self._need.cell
        minimum = mine.minimum_share if name == QUANTIZED_SHARE and cell == mine.id else None
        return limits_of(self._rules.tolerances.of_expected(name, cell), minimum)

    def _choices(self, name: str, measured: Measurement, old: Measurement | None) -> Iterator[Verdict]:
        """Whether every choice is as likely as it was, of the metric of a task that keeps their log-likelihoods."""
        new, before = (
            of_choices(side.metrics[name]) if side and name in side.metrics else None
            for side in (measured, old)
        )
        if old and new and before and not first_difference(before, new)[0]:  # its own verdict says so
            changed = _changed(old, name, measured)
            yield from self._reproduced(f"{name.rpartition('/')[0]}/choices", new, before, changed)

    def _reproduced(self, name: str, metric: Metric, before: Metric, changed: list[str]) -> Iterator[Verdict]:
        """Of a paired metric whose mean has no gate: whether its units are what they were, if that has one."""
        cell = self._need.cell.id
        if (tolerance := self._rules.tolerances.of_reproduction(name, cell)) is None:
            return
        different, by_machine = first_difference(before, metric)
        known = Verdict(
            cell=cell, metric=name, status=Status.PASS, environment=changed, reproduce=self._reproduce()
        )
        if different:
            said = {"status": Status.NOT_COMPARABLE, "text": different, "by_machine": by_machine}
            yield known.model_copy(update=said)
        else:
            yield reproduction(known, metric, before, tolerance)

    def _without_reference(self, name: str, baseline: Metric) -> Verdict:
        """No error of this cell: the reference's own cases say what happened to it."""
        cell = self._need.cell
        why = f"{cell.reference} has no such metric in this run"
        try:
            self._runner.reference(cell)
        except QuantgateError as error:
            why = str(error).partition("\n")[0]
        return Verdict(
            cell=cell.id,
            metric=name,
            status=Status.INCONCLUSIVE,
            baseline=baseline.value,
            unit=baseline.unit,
            text=f"cannot be judged without the reference: {why}",
            reproduce=self._reproduce(),
        )

    def _explained(self, verdicts: list[Verdict]) -> list[Verdict]:
        """With what the reference did, where something moved: a drift of everything, or of this scheme alone."""
        if not any(v.status in MOVED for v in verdicts):
            return verdicts
        try:
            measured = self._runner.reference(self._need.cell)
            old = self._baseline(self._need.cell.reference)
            references = {v.metric: v for v in self._judged(measured, old)} if measured else {}
        except QuantgateError:
            return verdicts  # the reference's own cases say why
        return [self._beside(v, verdicts, references) for v in verdicts]

    def _beside(self, verdict: Verdict, own: list[Verdict], references: dict[str, Verdict]) -> Verdict:
        name = origin(verdict.metric)
        mine, reference = next((v for v in own if v.metric == name), verdict), references.get(name)
        said = name != verdict.metric and mine.status in MOVED
        if verdict.status not in MOVED or said or reference is None or reference.change is None:
            return verdict
        moved = f"{reference.cell} {delta(reference.change, reference)}"
        return verdict.model_copy(update={"reference": f"{drift(mine, reference)} ({moved})"})

    def _level(self, metric: Metric) -> float:
        """The chance of a false alarm that one judgement of the metric may have, see `quantgate.judge.confirm`."""
        alpha = self._rules.alpha
        return math.sqrt(alpha) if self._rules.against and metric.nested else alpha

    def _confirmed(self, first: list[Verdict], measured: Measurement) -> list[Verdict]:
        """Measured again in fresh processes, see `quantgate.judge.confirm`."""
        cell, request = self._need.cell, self._need.request
        if isinstance(self._runner, Against):
            return settle(first, self._judged(*self._runner.again(cell, request)), None, measured.metrics)
        together, fresh = self._runner.again(cell, request)
        old = self._baseline(cell.id)
        return settle(first, self._judged(together, old), self._judged(fresh, old), measured.metrics)

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


def _changed(old: Measurement, metric: str, measured: Measurement) -> list[str]:
    """What is another in the environment since the old value."""
    was = old.origin(metric) if isinstance(old, Baseline) else old
    return baselines.changed_environment(was.environment, measured.environment)


def describe(verdict: Verdict) -> str:
    """A verdict in full, as the failure text of its case."""
    lines = [f"{verdict.status}: {verdict.metric} of {verdict.cell}", *comparison(verdict)]
    lines += [line for line in verdict.text.splitlines() if line.strip()]
    lines += [line for line in (verdict.confirmed, verdict.reference) if line]
    lines += [f"environment: {change}" for change in verdict.environment]
    if verdict.reproduce:
        lines.append(f"again: {verdict.reproduce}")
    return "\n  ".join(lines)
