"""The judge of what is nested in processes, by simulation: how often it is wrong, how much it sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from quantgate.judge.judge import Subject, judge
from quantgate.judge.nested import change, evidence, log_ratios, needed, spread
from quantgate.judge.statistics import Change
from quantgate.records import Metric, Status
from scipy import stats

from selftest.judge.processes import ALPHA, TIGHT, drawn, timed


def verdicts(
    draws: int, *, slower: float, count: int = 5, drift: float = 0.0, alpha: float = ALPHA
) -> list[Status]:
    """Of A/B runs whose processes spread by 3 %, and share a drift of the machine with their partner."""
    source = np.random.default_rng(1)
    result = []
    for _ in range(draws):
        shared = np.exp(source.normal(0, drift, count))
        sides = []
        for factor in (1.0, 1 + slower):
            processes = drawn(source, count, between=0.03, within=0.01, factor=factor)
            sides.append(
                timed([[x * s for x in p] for p, s in zip(processes, shared, strict=True)], beside="run")
            )
        result.append(judge(Subject("c", "throughput/decode"), sides[1], sides[0], TIGHT, alpha).status)
    return result


@pytest.mark.parametrize("drift", [0.0, 0.2])
def test_false_alarms_come_no_more_often_than_the_level_says(drift: float) -> None:
    result = verdicts(2000, slower=0.0, drift=drift)
    alarms = result.count(Status.REGRESSION)
    assert alarms <= 2000 * ALPHA + 3 * math.sqrt(2000 * ALPHA)
    assert result.count(Status.IMPROVEMENT) <= 2000 * ALPHA + 3 * math.sqrt(2000 * ALPHA)


def test_a_large_loss_is_seen_through_a_drift_that_both_sides_share() -> None:
    result = verdicts(300, slower=0.2, drift=0.2)
    assert result.count(Status.REGRESSION) > 0.97 * 300
    assert Status.PASS not in result


def test_the_tolerance_keeps_processes_of_unequal_spread_within_the_level() -> None:
    """Three accepted processes spread three times as much as six measured ones. Welch's test alone exceeds its level;
    where all six, the first three and the fresh three have to be beyond twice the larger spread, too, it does not."""
    level, draws, source = 3e-4, 300_000, np.random.default_rng(7)
    old, new = source.normal(0, 1, (draws, 3)), source.normal(0, 1 / 3, (draws, 6))
    first, fresh = (half.mean(axis=1) - old.mean(axis=1) for half in (new[:, :3], new[:, 3:]))
    error = np.sqrt(old.var(axis=1, ddof=1) / 3 + new.var(axis=1, ddof=1) / 6)
    likely = np.flatnonzero(
        first + fresh > 8 * error
    )  # Student's t with seven degrees of freedom needs 5.7 of them
    alarms = [
        case
        for case in likely
        if Change(*spread(old[case].tolist(), new[case].tolist(), paired=False)[:3]).p < level
    ]
    assert 6 * level * draws < len(alarms) < 11 * level * draws
    confirmed = sum(min(first[case], fresh[case]) > 2 for case in alarms)
    assert confirmed < level * draws / 3


def test_a_test_of_rounds_would_raise_alarms_that_this_one_does_not() -> None:
    """What makes the unit the process: between processes 3 %, within one 0.3 %."""
    source = np.random.default_rng(2)
    by_rounds = by_process = 0
    for _ in range(500):
        old, new = (drawn(source, 3, between=0.03, within=0.003) for _ in range(2))
        flat = [np.log([x for p in side for x in p]) for side in (old, new)]
        by_rounds += bool(stats.ttest_ind(*flat).pvalue / 2 < ALPHA)
        by_process += change(timed(new), timed(old), TIGHT).p < ALPHA
    assert by_process <= 500 * 2 * ALPHA + 3 * math.sqrt(500 * 2 * ALPHA)
    assert by_rounds > 4 * (by_process + 1)


def wandering(source: np.random.Generator, count: int, factor: float) -> tuple[Metric, Metric]:
    """Old and new of pairs in turns, new taking `factor` times as long, on a machine whose speed wanders by a tenth
    from one turn to the next; the processes themselves differ by 1 %."""
    old, new = [], []
    for _ in range(count):
        speed = np.exp(np.cumsum(source.normal(0, 0.1, 8)))
        mine, other = np.exp(source.normal(0, 0.01, 2))
        old.append((0.5 * mine * speed * np.exp(source.normal(0, 0.02, 8))).tolist())
        new.append((0.5 * other * factor * speed * np.exp(source.normal(0, 0.02, 8))).tolist())
    one, two = (timed(side, beside="run", in_turns=True) for side in (old, new))
    return one, two


def test_a_pair_in_turns_is_worth_the_median_ratio_of_its_rounds() -> None:
    old = timed([[1.0, 2.0, 4.0], [1.0, 1.0]], beside="run", in_turns=True)
    new = timed([[1.1, 4.0, 4.8], [0.9, 0.9]], beside="run", in_turns=True)
    slower = [math.log(1.2), math.log(0.9)]
    assert log_ratios(new, old) == pytest.approx([-x for x in slower])
    seconds = [m.model_copy(update={"better": "lower"}) for m in (new, old)]
    assert log_ratios(*seconds) == pytest.approx(slower)
    assert evidence(new, old) == "2 pairs of processes, round by round"
    unmatched = [m.model_copy(update={"in_turns": False}) for m in (new, old)]
    assert log_ratios(*unmatched) == pytest.approx([-math.log(2.0), -math.log(0.9)])
    assert evidence(*unmatched) == "2 pairs of processes"
    # One had a round more, which its partner did not see: medians.
    uneven = timed([[1.1, 4.0, 4.8, 4.8], [0.9, 0.9]], beside="run", in_turns=True)
    assert log_ratios(uneven, old) == pytest.approx([math.log(2.0 / 4.4), -math.log(0.9)])


def test_turns_find_a_slower_side_that_pairs_one_after_the_other_do_not() -> None:
    source = np.random.default_rng(5)
    result: dict[bool, list[Status]] = {True: [], False: []}
    for _ in range(200):
        old, new = wandering(source, 6, 1.08)
        # The same processes, but not in turns: the rounds of one side belong to other times.
        for turns in result:
            sides = (new, old) if turns else (apart(source, new), apart(source, old))
            result[turns].append(judge(Subject("c", "throughput/decode"), *sides, TIGHT, ALPHA).status)
    assert result[True].count(Status.REGRESSION) >= 190
    assert result[False].count(Status.REGRESSION) <= 20


def apart(source: np.random.Generator, metric: Metric) -> Metric:
    """The processes one after the other, each when the machine has another speed."""
    rounds = [
        [x * speed for x in process]
        for process, speed in zip(
            metric.rounds, np.exp(source.normal(0, 0.2, len(metric.rounds))), strict=True
        )
    ]
    return timed(rounds, beside="run")


def test_turns_of_equals_raise_no_more_alarms_than_the_level_says() -> None:
    source = np.random.default_rng(6)
    result = [
        judge(Subject("c", "throughput/decode"), new, old, TIGHT, 0.05).status
        for old, new in (wandering(source, 5, 1.0) for _ in range(1000))
    ]
    for red in (Status.REGRESSION, Status.IMPROVEMENT):
        assert result.count(red) <= 50 + 3 * math.sqrt(50)


@pytest.mark.parametrize(("count", "paired"), [(3, False), (6, False), (6, True)])
def test_the_interval_covers_the_true_ratio_as_often_as_it_says(count: int, paired: bool) -> None:
    source = np.random.default_rng(3)
    covered = 0
    for _ in range(1000):
        beside = "run" if paired else None
        old = timed(drawn(source, count, between=0.05, within=0.01), better="lower", beside=beside)
        new = timed(
            drawn(source, count, between=0.05, within=0.01, factor=1.1), better="lower", beside=beside
        )
        result = change(new, old, TIGHT).at(0.05)
        covered += result.low <= 0.1 <= result.high
    assert 900 - 3 * math.sqrt(90) <= covered <= 1000 - 20


@pytest.mark.parametrize("paired", [True, False])
def test_so_many_processes_do_show_a_change_as_large_as_the_tolerance(paired: bool) -> None:
    """By simulation: at the number that is told, significance comes 95 times in 100; at half of it, it does not."""
    source = np.random.default_rng(4)
    beside = "run" if paired else None
    logs = stats.norm.ppf((np.arange(20) + 0.5) / 20)
    logs = 0.03 * (logs / logs.std(ddof=1))
    still = timed([[0.5]] * 20, beside=beside) if paired else timed([[0.5 * math.exp(x)] for x in logs])
    moving = timed([[0.5 * math.exp(x)] for x in logs], beside=beside)
    count = needed(moving, still, TIGHT, 0.025, ALPHA)
    assert count is not None

    def power(number: int) -> float:
        shown = 0
        for _ in range(600):
            old = source.normal(0, 0.0 if paired else 0.03, number)
            new = source.normal(-math.log(0.975), 0.03, number)
            shown += bool((stats.ttest_rel if paired else stats.ttest_ind)(new, old).pvalue / 2 < ALPHA)
        return shown / 600

    assert 0.92 < power(count) < 0.985
    assert power(count // 2) < 0.85


def test_more_spread_takes_more_processes_and_one_process_says_nothing() -> None:
    def count(spread: float) -> int | None:
        return needed(timed([[0.5], [0.5 * (1 + spread)], [0.5]]), timed([[0.5]] * 3), TIGHT, 0.025, ALPHA)

    few, more = count(0.02), count(0.04)
    assert few is not None
    assert more is not None
    assert 2 < few < more < 200
    assert count(3.0) is None
    assert needed(timed([[0.5]]), timed([[0.5]]), TIGHT, 0.025, ALPHA) is None


def test_more_processes_than_anybody_runs_are_no_number() -> None:
    assert needed(timed([[0.5], [2.0], [0.5]]), timed([[0.5]] * 3), TIGHT, 0.025, ALPHA) is None
