"""Rates equal to theory where there is one, judged by the gate and by the two other rules; whole runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from quantgate.config.tolerances import Tolerance
from quantgate.proofs.power import noise, study
from quantgate.proofs.power.study import ANY, Rate, Replay, Scenario
from quantgate.records import Status, Verdict
from scipy import stats

from selftest.proofs.power_records import CELL, exact, item_metric, normal_noise, perplexity, rules


def of(replay: Iterator[Replay], effect: float = 0.0, **more: Any) -> Scenario:
    """A scenario of replays made beforehand."""
    return Scenario("memory", effect, "made", "nowhere", 1, lambda count, random: replay, **more)


@pytest.mark.parametrize(("hits", "total"), [(0, 50), (1, 50), (49, 50), (50, 50), (7, 13)])
def test_intervals_are_those_of_the_exact_binomial_test(hits: int, total: int) -> None:
    expected = stats.binomtest(hits, total).proportion_ci(0.95, method="exact")
    assert Rate(hits, total).interval() == pytest.approx((expected.low, expected.high))


def test_eight_per_cent_of_the_mean_in_the_direction_of_a_loss() -> None:
    old = perplexity([3.0] * 4, 4)
    for change, red in [(0.079, False), (0.081, True), (-0.5, False)]:
        new = old.model_copy(update={"value": old.value * (1 + change)})
        assert study.beyond_share(new, old) == red
    score = item_metric([1.0, 0.0, 1.0, 1.0])
    assert study.beyond_share(score.model_copy(update={"value": 0.68}), score), "-9 %"
    assert not study.beyond_share(score.model_copy(update={"value": 0.70}), score), "-7 %"
    assert not study.beyond_share(score.model_copy(update={"value": 1.0}), score)


def test_perplexity_above_twenty_whatever_the_baseline() -> None:
    assert study.beyond_limit(perplexity([math.log(20.1)] * 2, 2))
    assert not study.beyond_limit(perplexity([math.log(19.9)] * 2, 2))


@pytest.mark.parametrize("effect", [0.0, 0.001, 0.002])
def test_rates_are_those_of_the_t_test(effect: float) -> None:
    """A tolerance of 0 leaves the paired t-test; its power is a tail of the noncentral t distribution."""
    sd, alpha, count = 0.002, 0.05, 800
    (row,) = study.study(
        normal_noise(effect, sd), rules(Tolerance(metric="perplexity", relative=0), alpha=alpha), count
    )
    expected = stats.nct.sf(stats.t.isf(alpha, 7), 7, effect * math.sqrt(8) / sd)
    assert row.red.total == count
    assert abs(row.red.share - expected) < 4 * math.sqrt(expected * (1 - expected) / count)


def test_a_judge_that_always_passes_detects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = rules(Tolerance(metric="perplexity", relative=0.0025))
    scenario = normal_noise(0.02, 0.0001)
    (row,) = study.study(scenario, gate, 20)
    assert (row.red, row.share, row.limit) == (Rate(20, 20), Rate(0, 20), Rate(20, 20))
    passing = Verdict(cell=CELL, metric="perplexity", status=Status.PASS, tolerance=0.0025)
    monkeypatch.setattr(study, "verdicts", lambda *_: [passing])
    (row,) = study.study(scenario, gate, 20)
    assert row.red == Rate(0, 20)


def test_what_no_gate_can_tell_is_inconclusive_in_the_row_of_all() -> None:
    gate = rules(
        Tolerance(metric="perplexity", relative=0.01),
        Tolerance(metric="perplexity/reproduction", absolute=1.0, here=1.0),
    )
    rows = {row.gate: row for row in study.study(normal_noise(0.0, 0.05), gate, 20)}
    assert rows["perplexity"].inconclusive.hits > 10
    assert rows["perplexity/reproduction"].inconclusive == Rate(0, 20)
    assert rows[ANY].inconclusive == rows["perplexity"].inconclusive


def test_a_changed_computation_is_red_at_its_own_gate() -> None:
    gate = rules(
        Tolerance(metric="perplexity", relative=0.5),
        Tolerance(metric="perplexity/reproduction", absolute=0.001, here=0.001),
    )
    rows = {row.gate: row for row in study.study(normal_noise(0.01, 0.0001), gate, 10)}
    assert rows["perplexity"].red == Rate(0, 10)
    assert rows["perplexity/reproduction"].red == Rate(10, 10)
    assert rows[ANY].red == Rate(10, 10)


A, B = "m/llamacpp/A", "m/llamacpp/B"


def sizes(*values: tuple[str, float]) -> Iterator[Replay]:
    """Replays of a cell whose weights were 100 bytes."""
    return iter([Replay(cell, {"memory/weight_bytes": (exact(100), exact(value))}) for cell, value in values])


def test_a_run_with_several_red_cases_is_one_alarm() -> None:
    gate = rules(Tolerance(metric="memory/*", relative=0))
    one = of(sizes((A, 100), (A, 101), (A, 100), (B, 100), (B, 101), (B, 100)))
    other = of(sizes((A, 100), (A, 100), (A, 102)))
    ignored = [of(sizes((A, 200)), effect=0.1), of(sizes((A, 200)), everywhere=False)]
    alarms = study.run_alarms([one, *ignored, other], gate, 3)
    assert (alarms.rate, alarms.gates) == (Rate(2, 3), 3)
    assert alarms.red == {f"memory/weight_bytes of {A}": 2, f"memory/weight_bytes of {B}": 1}


def test_an_ab_of_one_cell_is_judged_at_the_level_of_its_gates() -> None:
    gate = rules(alpha=0.2)
    assert normal_noise(0.0, 0.1).rules(gate).alpha == 0.2
    assert replace(normal_noise(0.0, 0.1), gates=4).rules(gate).alpha == 0.0025


@pytest.mark.parametrize(("place", "alarm"), [(study.HERE, True), (study.ELSEWHERE, False)])
def test_what_is_allowed_elsewhere_only_is_an_alarm_in_the_baselines_environment(
    place: str, alarm: bool
) -> None:
    gate = rules(Tolerance(metric="perplexity", relative=0.05, here=0.001))
    scenario = replace(normal_noise(0.01, 0.0001), place=place)
    (row,) = study.study(scenario, gate, 10)
    assert row.red == Rate(10 if alarm else 0, 10)
    null = replace(scenario, effect=0.0)  # as if the noise itself were as large
    assert study.run_alarms([null], gate, 5, place)[0] == Rate(5 if alarm else 0, 5)
    other = study.ELSEWHERE if alarm else study.HERE
    assert study.run_alarms([null], gate, 5, other)[0] == Rate(0, 5)


def test_at_rest_nothing_differs() -> None:
    same = noise.Noise(paired={CELL: {"perplexity": [0.1, -0.2]}}).without_differences()
    assert (same.paired, same.place) == ({CELL: {"perplexity": [0.0, 0.0]}}, study.HERE)
