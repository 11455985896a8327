"""The second look before a regression: when it is taken, and how often chance alone passes both stages."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest
from quantgate.config.matrix import Cell
from quantgate.config.tolerances import Tolerances
from quantgate.errors import MeasurementError
from quantgate.jobs import Spent
from quantgate.judge.compare import Comparison, Rules
from quantgate.judge.confirm import FreshPairs, MoreProcesses
from quantgate.plugin.case import judge_case, outcome_of
from quantgate.records import Measurement, Metric, Status, Verdict
from quantgate.run.plan import Need

CELL = Cell(
    model="m", backend="b", scheme="s", bits=4, scheme_options={}, checkpoint="gguf", reference="m/b/full"
)
ALPHA = 0.04
"""Large, so that a thousand runs show it."""
TOLERANCES = Tolerances.model_validate(
    {
        "run_alpha": ALPHA,
        "tolerance": [{"metric": "memory/peak_*", "relative": 0.001}, {"metric": "*", "relative": 0.0}],
    }
)


def peaks(values: Any, beside: str | None = None) -> Measurement:
    samples = [float(v) for v in values]
    peak = Metric(
        kind="level",
        value=float(np.median(samples)),
        unit="bytes",
        better="lower",
        samples=samples,
        beside=beside,
    )
    size = Metric(kind="exact", value=1.0, unit="bytes", better="lower")
    return Measurement(
        cell=CELL.id, tier="smoke", fingerprint="f", created="now", complete=True, requests=["memory"],
        metrics={"memory/peak_resident": peak, "memory/weight_bytes": size},
    )  # fmt: skip


class Drawn:
    """The parts of a `Measurer` that a case of its own asks for nothing."""

    spent: ClassVar[list[Spent]] = []
    looks = 0

    def measurement(self, cell: Cell) -> Measurement:
        return self.compare(cell, "memory").new

    def compare(self, cell: Cell, request: str) -> Comparison:
        raise NotImplementedError

    def reference(self, cell: Cell) -> None:
        """None is measured."""

    def finished(self) -> dict[str, Measurement]:
        return {}

    def close(self) -> None:
        """Nothing waits."""


class Stored(Drawn):
    """Processes that are drawn, against a stored baseline."""

    def __init__(self, baseline: Any, first: Any, fresh: Any) -> None:
        self.baseline, self.first, self.fresh = peaks(baseline), first, fresh

    def compare(self, cell: Cell, request: str) -> Comparison:
        return Comparison(peaks(self.first), self.baseline)

    def again(self, cell: Cell, request: str) -> MoreProcesses:
        self.looks += 1
        together = Comparison(peaks([*self.first, *self.fresh]), self.baseline)
        return MoreProcesses(together, Comparison(peaks(self.fresh), self.baseline))


class Beside(Drawn):
    """Pairs of processes, drawn."""

    def __init__(self, *stages: tuple[Any, Any]) -> None:
        self.stages = stages

    def _stage(self, number: int) -> Comparison:
        new, old = self.stages[number]
        return Comparison(peaks(new, f"run {number}"), peaks(old, f"run {number}"))

    def compare(self, cell: Cell, request: str) -> Comparison:
        return self._stage(0)

    def again(self, cell: Cell, request: str) -> FreshPairs:
        self.looks += 1
        return FreshPairs(self._stage(1))


def checked(
    measurer: Stored | Beside, tolerances: Tolerances = TOLERANCES, *, second_look: bool = True
) -> Verdict:
    """What the gate says of the peak in the end."""
    rules = Rules(tolerances, ALPHA, against=isinstance(measurer, Beside))
    judged = judge_case(Need(CELL, "memory"), measurer, rules, second_look=second_look)
    (verdict,) = (v for v in judged.verdicts if v.metric == "memory/peak_resident")
    return verdict


# --- when -------------------------------------------------------------------------------------------


def test_a_peak_that_is_worse_is_measured_again_and_both_count() -> None:
    runner = Stored([100.0, 101.0, 99.0], [150.0, 151.0, 149.0], [150.0, 152.0, 148.0])
    verdict = checked(runner)
    assert (verdict.status, runner.looks) == (Status.REGRESSION, 1)
    assert verdict.confirmed.startswith("measured again in fresh processes: confirmed")
    assert "3 against 6 processes" in verdict.text


def test_what_noise_may_explain_is_looked_at_again_and_settled() -> None:
    runner = Stored([100.0, 104.0, 96.0], [111.0, 99.0, 108.0], [110.0, 110.5, 109.5, 110.2])
    verdict = checked(runner)
    assert (verdict.status, runner.looks) == (Status.REGRESSION, 1)


def test_what_fresh_processes_show_below_the_floor_is_no_regression() -> None:
    tolerances = Tolerances.model_validate(
        {"run_alpha": ALPHA, "tolerance": [{"metric": "memory/*", "relative": 0.15, "floor": 32.0}]}
    )
    verdict = checked(Stored([50.0, 50.5, 49.5], [90.0, 91.0, 90.5], [77.0, 77.5, 76.5]), tolerances)
    assert verdict.status == Status.INCONCLUSIVE
    assert "the fresh ones were not" in verdict.text


def test_what_fresh_processes_do_not_show_is_no_regression() -> None:
    runner = Stored([100.0, 101.0, 99.0], [150.0, 151.0, 149.0], [100.0, 101.0, 99.0])
    verdict = checked(runner)
    assert verdict.status == Status.INCONCLUSIVE
    assert (
        verdict.text == "the first processes were worse by more than the tolerance, the fresh ones were not"
    )
    assert "not confirmed" in verdict.confirmed


@pytest.mark.parametrize(
    ("old", "new"), [([100.0, 101.0], [50.0, 51.0]), ([100.0], [150.0, 151.0]), ([1.0] * 3, [1.0] * 3)]
)
def test_what_is_fine_or_has_no_hope_is_not_measured_again(old: list[float], new: list[float]) -> None:
    runner = Stored(old, new, [])
    assert checked(runner).status != Status.REGRESSION
    assert runner.looks == 0


def test_an_update_takes_no_second_look() -> None:
    runner = Stored([100.0, 101.0, 99.0], [150.0, 151.0, 149.0], [])
    assert checked(runner, second_look=False).status == Status.REGRESSION
    assert runner.looks == 0


def test_where_there_is_no_second_look_what_is_certain_stays() -> None:
    """A size that grew is a regression, whatever became of the process that was to measure the peak again."""

    class Fails(Stored):
        def again(self, cell: Cell, request: str) -> MoreProcesses:
            raise MeasurementError("was killed by SIGKILL\nlog")

    runner = Fails([100.0, 101.0, 99.0], [150.0, 151.0, 149.0], [])
    size = runner.baseline.metrics["memory/weight_bytes"].model_copy(update={"value": 0.5})
    runner.baseline.metrics["memory/weight_bytes"] = size
    peak, weights = judge_case(Need(CELL, "memory"), runner, Rules(TOLERANCES, ALPHA)).verdicts
    assert (peak.status, weights.status) == (Status.ERROR, Status.REGRESSION)
    assert peak.text.startswith("could not be measured again in fresh processes: was killed by SIGKILL")
    assert outcome_of([peak, weights], [Status.ERROR, Status.REGRESSION]) == ("failed", [weights])


def test_what_the_machine_keeps_from_being_judged_hides_no_missing_baseline() -> None:
    def verdict(status: Status, **more: Any) -> Verdict:
        return Verdict(cell=CELL.id, metric=str(status), status=status, **more)

    elsewhere = verdict(Status.NOT_COMPARABLE, by_machine=True)
    none, fine = verdict(Status.NO_BASELINE), verdict(Status.PASS)
    required = {Status.NOT_COMPARABLE, Status.NO_BASELINE}
    assert outcome_of([elsewhere, none, fine], required) == ("failed", [none])
    assert outcome_of([elsewhere, none, fine], {Status.NOT_COMPARABLE}) == ("skipped", [elsewhere])
    other = verdict(Status.NOT_COMPARABLE)
    assert outcome_of([elsewhere, other], required) == ("failed", [elsewhere, other])
    assert outcome_of([other], {Status.ERROR}) == ("passed", [other])  # of an update, which takes it


def test_ab_stages_must_both_say_so() -> None:
    bad, good = ([150.0, 151.0, 149.0], [100.0, 101.0, 99.5]), ([100.0, 101.0, 99.0], [100.0, 101.0, 99.5])
    both = Beside(bad, bad)
    verdict = checked(both)
    assert (verdict.status, both.looks) == (Status.REGRESSION, 1)
    assert checked(Beside(bad, good)).status != Status.REGRESSION
    fine = Beside(good, bad)
    assert checked(fine).status != Status.REGRESSION
    assert fine.looks == 0


# --- how often ---------------------------------------------------------------------------------------


def alarms(draw: Any, runs: int = 1500) -> int:
    return sum(checked(draw()).status == Status.REGRESSION for _ in range(runs))


LIMIT = 1500 * ALPHA + 3 * math.sqrt(1500 * ALPHA)


@pytest.mark.parametrize(
    ("again", "status"),
    [(0.8, Status.IMPROVEMENT), (1.0, Status.PASS), (1.2, Status.INCONCLUSIVE)],
    ids=["seen again", "not seen again", "the contrary"],
)
def test_ab_looks_twice_at_what_seems_better(again: float, status: Status) -> None:
    old = np.array([100.0, 101, 99, 100, 100, 101])
    new = old * np.array([0.8, 0.8001, 0.7999, 0.8, 0.8, 0.8001])
    second = old * np.array([again, *[again * (1 + 1e-9)] * 5]) if again != 1 else old
    runner = Beside((new, old), (second, old))
    assert checked(runner).status == status
    assert runner.looks == 1


def test_by_chance_both_stages_of_ab_alarm_no_more_often_than_alpha() -> None:
    source = np.random.default_rng(7)

    def draw() -> Beside:
        stages = [tuple(np.exp(source.normal(0, 0.05, 4)) for _ in range(2)) for _ in range(2)]
        return Beside((stages[0][0], stages[0][1]), (stages[1][0], stages[1][1]))

    count = alarms(draw)
    assert 1500 * ALPHA / 3 < count < LIMIT, "and it is not so strict that it never would"


def test_by_chance_a_stored_baseline_alarms_no_more_often_than_alpha() -> None:
    source = np.random.default_rng(8)

    def draw() -> Stored:
        return Stored(
            np.exp(source.normal(0, 0.05, 3)),
            np.exp(source.normal(0, 0.05, 3)),
            np.exp(source.normal(0, 0.05, 3)),
        )

    count = alarms(draw)
    assert 1500 * ALPHA / 5 < count < LIMIT
