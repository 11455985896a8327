"""The judge of what is nested in processes: against scipy, against simulation, and in words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from quantgate.config.tolerances import Tolerance
from quantgate.judge.judge import judge
from quantgate.judge.nested import change, evidence, log_ratios, needed, pairs, restless, spread
from quantgate.records import Metric, Status
from scipy import stats

ALPHA = 0.01
TIGHT = Tolerance(metric="throughput/decode", relative=0.025)


def timed(
    seconds: list[list[float]], *, better: str = "higher", beside: str | None = None, **changes: Any
) -> Metric:
    """Rounds by process; a round processes 100 tokens."""
    middle = float(np.median([np.median(process) for process in seconds]))
    fields = {
        "kind": "rounds",
        "value": 100 / middle if better == "higher" else middle,
        "unit": "tokens/s",
        "better": better,
        "samples": [second for process in seconds for second in process],
        "processes": [len(process) for process in seconds],
        "beside": beside,
    }
    return Metric.model_validate(fields | changes)


def level(values: list[float], **changes: Any) -> Metric:
    fields = {"kind": "level", "value": float(np.median(values)), "unit": "bytes", "better": "lower"}
    return Metric.model_validate(fields | {"samples": values} | changes)


def drawn(
    source: np.random.Generator, processes: int, *, between: float, within: float, factor: float = 1.0
) -> list[list[float]]:
    """Three rounds in each process, about half a second; deviations are of the logarithm."""
    return [
        [factor * 0.5 * math.exp(shift + source.normal(0, within)) for _ in range(3)]
        for shift in source.normal(0, between, processes)
    ]


# --- what a process is worth ------------------------------------------------------------------------


def test_a_process_counts_by_its_median_round() -> None:
    metric = timed([[0.5, 0.4, 9.0], [0.25], [1.0, 1.0]])
    assert metric.medians == [0.5, 0.25, 1.0]
    assert metric.per_process == [200.0, 400.0, 100.0]
    assert timed([[2.0, 4.0], [5.0]], better="lower").per_process == [3.0, 5.0]
    assert level([3.0, 1.0, 2.0]).per_process == [3.0, 1.0, 2.0]


def test_an_old_record_is_one_process() -> None:
    old = timed([[0.5, 0.4, 9.0]]).model_copy(update={"processes": None})
    assert old.per_process == [200.0]
    assert level([7.0]).model_copy(update={"samples": None}).per_process == [7.0]


# --- against scipy ----------------------------------------------------------------------------------


def test_unpaired_processes_are_compared_by_welchs_test() -> None:
    old, new = [0.50, 0.52, 0.49, 0.51, 0.55], [0.60, 0.71, 0.58]
    test = change(timed([[x] for x in new], better="lower"), timed([[x] for x in old], better="lower"), TIGHT)
    found = test.at(ALPHA)
    theirs = stats.ttest_ind(np.log(new), np.log(old), equal_var=False)
    interval = theirs.confidence_interval(1 - 2 * ALPHA)
    assert test.p == pytest.approx(theirs.pvalue / 2)
    assert (found.low, found.high) == pytest.approx((math.expm1(interval.low), math.expm1(interval.high)))
    assert found.estimate == pytest.approx(stats.gmean(new) / stats.gmean(old) - 1)


def test_pairs_are_compared_by_the_paired_test() -> None:
    old, new = [0.50, 0.70, 0.90, 0.61], [0.55, 0.76, 1.00, 0.66]
    sides = [timed([[x] for x in side], better="lower", beside="a run") for side in (new, old)]
    test = change(sides[0], sides[1], TIGHT)
    found = test.at(ALPHA)
    theirs = stats.ttest_rel(np.log(new), np.log(old))
    interval = theirs.confidence_interval(1 - 2 * ALPHA)
    assert test.p == pytest.approx(theirs.pvalue / 2)
    assert (found.low, found.high) == pytest.approx((math.expm1(interval.low), math.expm1(interval.high)))
    apart = sides[1].model_copy(update={"beside": None})
    assert change(sides[0], apart, TIGHT).p > 20 * test.p, "what both share no longer cancels"


@pytest.mark.parametrize(("one", "other"), [("a", "b"), (None, None), ("a", None)])
def test_processes_of_different_runs_are_no_pairs(one: str | None, other: str | None) -> None:
    sides = [level([1.0, 2.0], beside=name) for name in (one, other)]
    assert not pairs(sides[0], sides[1])
    assert not pairs(level([1.0, 2.0, 3.0], beside="a"), level([1.0, 2.0], beside="a"))
    assert pairs(level([1.0, 2.0], beside="a"), level([3.0, 4.0], beside="a"))


def test_an_absolute_tolerance_is_judged_on_the_plain_scale() -> None:
    old, new = [10.0, 11.0, 12.0], [14.0, 15.0, 17.0]
    test = change(level(new), level(old), Tolerance(metric="m", absolute=1.0))
    theirs = stats.ttest_ind(new, old, equal_var=False)
    assert test.estimate == pytest.approx(np.mean(new) - np.mean(old))
    assert test.p == pytest.approx(theirs.pvalue / 2)


def test_more_rounds_in_a_process_are_no_more_evidence() -> None:
    old, new = [0.50, 0.52, 0.49], [0.53, 0.55, 0.52]
    one = change(timed([[x] for x in new]), timed([[x] for x in old]), TIGHT).at(ALPHA)
    many = change(timed([[x] * 50 for x in new]), timed([[x] * 50 for x in old]), TIGHT).at(ALPHA)
    assert many == pytest.approx(one)


def test_the_sides_turn_the_sign_and_the_unit_does_not_matter() -> None:
    one, other = (
        spread([1.0, 2.0, 4.0], [3.0, 3.5], paired=False),
        spread([3.0, 3.5], [1.0, 2.0, 4.0], paired=False),
    )
    assert (one.estimate, one.se, one.df) == pytest.approx((-other.estimate, other.se, other.df))
    old, new = [[0.50], [0.52], [0.49]], [[0.53], [0.55], [0.52]]
    milli = [timed([[1000 * x for x in p] for p in side]) for side in (new, old)]
    assert change(milli[0], milli[1], TIGHT).at(ALPHA) == pytest.approx(
        change(timed(new), timed(old), TIGHT).at(ALPHA)
    )


# --- by simulation ----------------------------------------------------------------------------------


def verdicts(
    draws: int, *, slower: float, count: int = 5, drift: float = 0.0, alpha: float = ALPHA
) -> list[Status]:
    """Of A/B runs whose processes spread by 3 %, and share a drift of the machine with their partner."""
    source = np.random.default_rng(1)
    found = []
    for _ in range(draws):
        shared = np.exp(source.normal(0, drift, count))
        sides = []
        for factor in (1.0, 1 + slower):
            processes = drawn(source, count, between=0.03, within=0.01, factor=factor)
            sides.append(
                timed([[x * s for x in p] for p, s in zip(processes, shared, strict=True)], beside="run")
            )
        found.append(judge("c", "throughput/decode", sides[1], sides[0], TIGHT, alpha).status)
    return found


@pytest.mark.parametrize("drift", [0.0, 0.2])
def test_false_alarms_come_no_more_often_than_the_level_says(drift: float) -> None:
    found = verdicts(2000, slower=0.0, drift=drift)
    alarms = found.count(Status.REGRESSION)
    assert alarms <= 2000 * ALPHA + 3 * math.sqrt(2000 * ALPHA)
    assert found.count(Status.IMPROVEMENT) <= 2000 * ALPHA + 3 * math.sqrt(2000 * ALPHA)


def test_a_large_loss_is_seen_through_a_drift_that_both_sides_share() -> None:
    found = verdicts(300, slower=0.2, drift=0.2)
    assert found.count(Status.REGRESSION) > 0.97 * 300
    assert Status.PASS not in found


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
        own, other = np.exp(source.normal(0, 0.01, 2))
        old.append((0.5 * own * speed * np.exp(source.normal(0, 0.02, 8))).tolist())
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
    found: dict[bool, list[Status]] = {True: [], False: []}
    for _ in range(200):
        old, new = wandering(source, 6, 1.08)
        # The same processes, but not in turns: the rounds of one side belong to other times.
        for turns in found:
            sides = (new, old) if turns else (apart(source, new), apart(source, old))
            found[turns].append(judge("c", "throughput/decode", *sides, TIGHT, ALPHA).status)
    assert found[True].count(Status.REGRESSION) >= 190
    assert found[False].count(Status.REGRESSION) <= 20


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
    found = [
        judge("c", "throughput/decode", new, old, TIGHT, 0.05).status
        for old, new in (wandering(source, 5, 1.0) for _ in range(1000))
    ]
    for red in (Status.REGRESSION, Status.IMPROVEMENT):
        assert found.count(red) <= 50 + 3 * math.sqrt(50)


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
        found = change(new, old, TIGHT).at(0.05)
        covered += found.low <= 0.1 <= found.high
    assert 900 - 3 * math.sqrt(90) <= covered <= 1000 - 20


# --- how many it takes ------------------------------------------------------------------------------


@pytest.mark.parametrize("paired", [True, False])
def test_so_many_processes_do_show_a_change_as_large_as_the_tolerance(paired: bool) -> None:
    """By simulation: at the number that is told, significance comes 95 times in 100; at half of it, it does not."""
    source = np.random.default_rng(4)
    beside = "run" if paired else None
    logs = stats.norm.ppf((np.arange(20) + 0.5) / 20)
    logs = 0.03 * (logs / logs.std(ddof=1))
    still = timed([[0.5]] * 20, beside=beside) if paired else timed([[0.5 * math.exp(x)] for x in logs])
    moving = timed([[0.5 * math.exp(x)] for x in logs], beside=beside)
    count = needed(moving, still, TIGHT, ALPHA)
    assert count is not None

    def power(number: int) -> float:
        shown = 0
        for _ in range(600):
            old = source.normal(0, 0.0 if paired else 0.03, number)
            new = source.normal(math.log(1.025), 0.03, number)
            shown += bool((stats.ttest_rel if paired else stats.ttest_ind)(new, old).pvalue / 2 < ALPHA)
        return shown / 600

    assert 0.92 < power(count) < 0.985
    assert power(count // 2) < 0.85


def test_more_spread_takes_more_processes_and_one_process_says_nothing() -> None:
    def count(spread: float) -> int | None:
        return needed(timed([[0.5], [0.5 * (1 + spread)], [0.5]]), timed([[0.5]] * 3), TIGHT, ALPHA)

    few, more = count(0.02), count(0.04)
    assert few is not None
    assert more is not None
    assert 2 < few < more < 200
    assert count(3.0) is None
    assert needed(timed([[0.5]]), timed([[0.5]]), TIGHT, ALPHA) is None


def test_more_processes_than_anybody_runs_are_no_number() -> None:
    assert needed(timed([[0.5], [2.0], [0.5]]), timed([[0.5]] * 3), TIGHT, ALPHA) is None


# --- words and odd values ---------------------------------------------------------------------------


def test_why_a_sample_cannot_tell_names_spread_disturbance_and_remedy() -> None:
    seen = [
        {"others": 0.31, "steal": 0.0, "load": 2.0, "mhz": 2900, "throttled": 0},
        {"others": 0.02, "steal": 0.04, "load": 2.0, "mhz": 1800, "throttled": 3},
    ]
    new = timed([[0.50], [0.57], [0.50]], beside="r", raw={"disturbances": seen})
    verdict = judge("c", "throughput/decode", new, timed([[0.5]] * 3, beside="r"), TIGHT, ALPHA)
    assert verdict.status == Status.INCONCLUSIVE
    for words in (
        "the ratios of the pairs differ by up to 14 %",
        "other work took up to 31 % of the processor",
        "the hypervisor took up to 4 % of the processor (steal)",
        "the clock ran at 1,800 to 2,900 MHz",
        "throttled 3 times",
        f"{needed(new, timed([[0.5]] * 3, beside='r'), TIGHT, ALPHA)} pairs would show",
    ):
        assert words in verdict.text


def test_timings_of_a_busy_machine_are_named() -> None:
    calm = {"disturbances": [{"others": 0.05, "steal": 0.0, "load": 1.0}]}
    busy = {"disturbances": [*calm["disturbances"], {"others": 0.15, "steal": 0.06, "load": 3.0}]}
    found = restless(
        {
            "throughput/decode": timed([[0.5]], raw=calm),
            "throughput/decode_ratio": timed([[0.5]], raw=busy, kind="ratio"),
            "memory/peak_load": level([1.0], raw=busy),
            "throughput/load": timed([[0.5]]),
        }
    )
    assert found == [
        "throughput/decode_ratio was timed while other work took up to 15 % of the processor and "
        "the hypervisor took up to 6 % of the processor (steal)"
    ]


@pytest.mark.parametrize(
    ("old", "new", "change", "status"),
    [
        ([0.0] * 3, [5.0] * 3, 5.0, Status.REGRESSION),
        ([0.0] * 3, [0.0, 0.0, 5.0], 5 / 3, Status.INCONCLUSIVE),
        ([5.0] * 3, [0.0] * 3, -1.0, Status.IMPROVEMENT),
        ([5.0, 5.0, 4.0], [0.0, 5.0, 5.0], -4 / 15, Status.INCONCLUSIVE),
        ([0.0] * 3, [0.0] * 3, 0.0, Status.PASS),
    ],
)
def test_a_peak_of_zero_has_no_logarithm(
    old: list[float], new: list[float], change: float, status: Status
) -> None:
    """Shares of the baseline; of one of 0, in its own unit."""
    verdict = judge("c", "memory/peak_x", level(new), level(old), TIGHT, ALPHA)
    assert verdict.change == pytest.approx(change)
    assert verdict.status == status
