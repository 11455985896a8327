"""The verdict on one metric: every status, its text, the signs, and numbers that can be shown."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate.backends.registry import unused
from quantgate.config.tolerances import Tolerance
from quantgate.judge.judge import judge, no_result, of_choices, recorded, reproduction
from quantgate.records import Metric, Status, Verdict, worst
from scipy import stats

CELL = "smollm2-135m/llamacpp/Q4_K_M"
ALPHA = 0.001
ONE_PERCENT = Tolerance(metric="perplexity", relative=0.01, noise=0.05)
OLD = [3.10, 2.71, 3.52, 3.30, 2.95, 3.05, 3.61, 3.22]
"""Negative log-likelihood per token of eight windows."""
JITTER = [0.001, -0.002, 0.0015, 0.0, -0.001, 0.002, -0.0005, 0.0005]


def perplexity(samples: list[float], **changes: Any) -> Metric:
    fields: dict[str, Any] = {
        "kind": "paired",
        "value": math.exp(sum(samples) / len(samples)),
        "unit": "",
        "better": "lower",
        "link": "exp",
        "samples": samples,
        "weights": [511.0] * len(samples),
        "conditions": {"source": "w1", "tokens": "t1", "n_ctx": 512},
    }
    return Metric(**fields | changes)


def grown(by: float) -> list[float]:
    """Perplexity larger by a share, a little differently in each window."""
    return [x + math.log1p(by) + j for x, j in zip(OLD, JITTER, strict=True)]


def accuracy(right: list[int], **changes: Any) -> Metric:
    samples = [float(x) for x in right]
    fields: dict[str, Any] = {
        "kind": "paired",
        "value": sum(samples) / len(samples),
        "unit": "fraction",
        "better": "higher",
        "samples": samples,
        "answers": True,
    }
    return Metric(**fields | changes)


def rounds(seconds: list[float], better: str = "higher", **changes: Any) -> Metric:
    """One round in each process."""
    median = float(np.median(seconds))
    fields = {
        "kind": "rounds",
        "value": 100 / median if better == "higher" else median,
        "unit": "tokens/s",
        "better": better,
        "samples": seconds,
        "processes": [1] * len(seconds),
    }
    return Metric.model_validate(fields | changes)


def plain(value: float, better: str = "lower") -> Metric:
    return Metric.model_validate({"kind": "exact", "value": value, "unit": "bytes", "better": better})


def level(value: float, better: str = "lower", kind: str = "level") -> Metric:
    """In three processes that hardly differ."""
    fields = {"kind": kind, "value": value, "unit": "bytes", "better": better}
    return Metric.model_validate({**fields, "samples": [0.999 * value, value, 1.001 * value]})


def judged(
    measured: Metric, baseline: Metric | None, tolerance: Tolerance = ONE_PERCENT, alpha: float = ALPHA
) -> Verdict:
    verdict = judge(CELL, tolerance.metric, measured, baseline, tolerance, alpha)
    return Verdict.model_validate(verdict.model_dump())  # NaN and infinity are refused here


def relative(limit: float, **more: Any) -> Tolerance:
    return Tolerance(metric="some/metric", relative=limit, **more)


def absolute(limit: float, **more: Any) -> Tolerance:
    return Tolerance(metric="some/metric", absolute=limit, **more)


# --- each status ----------------------------------------------------------------------------------


def test_without_a_baseline_nothing_is_compared() -> None:
    verdict = judged(perplexity(OLD), None)
    assert (verdict.status, verdict.text) == (Status.NO_BASELINE, "no baseline is stored")
    assert verdict.measured == perplexity(OLD).value
    assert (verdict.baseline, verdict.change) == (None, None)


def test_equal_is_a_pass_to_the_last_digit() -> None:
    verdict = judged(perplexity(OLD), perplexity(OLD))
    assert (verdict.status, verdict.text, verdict.change) == (Status.PASS, "equal to the last digit", 0.0)


def test_answers_that_changed_places_are_not_equal() -> None:
    verdict = judged(accuracy([0, 1, 1, 0] * 20), accuracy([1, 0, 1, 0] * 20), absolute(0.5))
    assert (verdict.status, verdict.change) == (Status.PASS, 0.0)
    assert "20 items lost, 20 gained of 80" in verdict.text


@pytest.mark.parametrize("kind", ["paired", "exact"])
def test_a_loss_of_a_negative_value_is_a_loss(kind: str) -> None:
    """The mean margin of a small model lies below 0: a share of it is a share of its size."""

    def margin(move: float) -> Metric:
        values = (
            {"samples": [x + move + j for x, j in zip(OLD, JITTER, strict=True)]} if kind == "paired" else {}
        )
        return Metric.model_validate(
            {"kind": kind, "value": -2.4 + move, "unit": "nats", "better": "higher", **values}
        )

    verdict = judged(margin(-1.0), margin(0.0), relative(0.1))
    assert verdict.status == Status.REGRESSION
    assert verdict.change == pytest.approx(-1 / 2.4)
    assert judged(margin(1.0), margin(0.0), relative(0.1)).status == Status.IMPROVEMENT


def test_worse_within_the_tolerance_passes_however_certain() -> None:
    verdict = judged(perplexity(grown(0.008)), perplexity(OLD))
    assert verdict.status == Status.PASS
    assert verdict.text.startswith("within tolerance (8 paired samples)")
    assert verdict.change_low is not None
    assert verdict.change_low > 0, "it is certain that it got worse"


def test_worse_by_more_is_a_regression_with_the_whole_evidence() -> None:
    environment = ["llama-cpp-python 0.3.36 -> 0.3.37"]
    command = "pytest --tier smoke 'suite/test_perplexity.py'"
    old, new = perplexity(OLD), perplexity(grown(0.03))
    verdict = judge(CELL, "perplexity", new, old, ONE_PERCENT, ALPHA, environment, command)
    assert verdict.status == Status.REGRESSION
    assert verdict.text.startswith("worse by more than the tolerance (8 paired samples, p = ")
    assert (verdict.cell, verdict.metric, verdict.reproduce) == (CELL, "perplexity", command)
    assert (verdict.baseline, verdict.measured, verdict.tolerance) == (old.value, new.value, 0.01)
    assert verdict.environment == environment


def test_better_by_more_is_an_improvement_to_take() -> None:
    verdict = judged(perplexity(grown(-0.03)), perplexity(OLD))
    assert verdict.status == Status.IMPROVEMENT
    assert verdict.text.startswith("better by more than the tolerance (")
    assert verdict.text.endswith("update the baseline")


SPREAD = [0.4, -0.3, 0.2, -0.1, 0.35, -0.25, 0.15, -0.05]


def test_worse_by_more_but_within_noise_is_inconclusive() -> None:
    wide = relative(0.01)  # without a noise cap the data's own spread counts
    verdict = judged(perplexity([x + d for x, d in zip(OLD, SPREAD, strict=True)]), perplexity(OLD), wide)
    assert verdict.change is not None
    assert verdict.change > 0.01
    assert verdict.status == Status.INCONCLUSIVE
    assert "cannot distinguish this from noise" in verdict.text
    assert verdict.text.endswith("level 0.001")


@pytest.mark.parametrize(
    ("limit", "status"), [(0.01, Status.INCONCLUSIVE), (0.5, Status.PASS)], ids=["narrow", "wide"]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_sample_that_cannot_exclude_a_loss_beyond_the_tolerance_does_not_pass(
    sign: int, limit: float, status: Status
) -> None:
    """The mean hardly moves, or looks better; its 95 % limit is what has to be within the tolerance."""
    spread = [sign * (d - 0.05) - 0.03 for d in SPREAD]
    verdict = judged(
        perplexity([x + d for x, d in zip(OLD, spread, strict=True)]), perplexity(OLD), relative(limit)
    )
    assert verdict.change is not None
    assert verdict.change < 0.01
    assert verdict.status == status
    if status == Status.INCONCLUSIVE:
        assert "cannot rule one out" in verdict.text


def test_the_limit_that_decides_a_pass_is_the_one_sided_95_percent_one() -> None:
    differences = [d / 10 for d in SPREAD]
    new = perplexity([x + d for x, d in zip(OLD, differences, strict=True)])
    error = np.std(differences, ddof=1) / math.sqrt(8)
    end = math.expm1(np.mean(differences) + stats.t(7).isf(0.05) * error)
    assert judged(new, perplexity(OLD), relative(end * 1.001)).status == Status.PASS
    assert judged(new, perplexity(OLD), relative(end * 0.999)).status == Status.INCONCLUSIVE


def test_a_change_that_is_not_finite_is_refused() -> None:
    old = perplexity(OLD)
    far = old.model_copy(update={"samples": [x + 1e3 for x in OLD]})
    with pytest.raises(ValueError, match="finite"):
        judge(CELL, "perplexity", far, old, ONE_PERCENT, ALPHA)


def test_a_better_ratio_is_never_an_improvement() -> None:
    """Two numbers make it; the reference may have been slow."""
    old, better, worse = (level(value, "higher", "ratio") for value in (1.0, 3.0, 0.3))
    assert judged(better, old, relative(0.6)).status == Status.PASS
    assert judged(worse, old, relative(0.6)).status == Status.REGRESSION


def test_no_result_is_an_error_with_its_reason() -> None:
    verdict = no_result(CELL, "perplexity", "was killed by SIGSEGV", "pytest again")
    assert (verdict.status, verdict.text, verdict.reproduce) == (
        Status.ERROR, "was killed by SIGSEGV", "pytest again",
    )  # fmt: skip


def test_a_metric_without_a_gate_is_shown_and_passes_however_bad() -> None:
    verdict = recorded(CELL, "memory/peak", plain(9e9), plain(1.0))
    assert (verdict.status, verdict.measured, verdict.baseline, verdict.change) == (
        Status.PASS,
        9e9,
        1.0,
        None,
    )
    assert verdict.text == "recorded, not gated"
    assert recorded(CELL, "throughput/load", plain(1.0), None, "why not").text == "why not"


def test_a_case_takes_the_worst_of_its_metrics() -> None:
    order = [
        Status.REGRESSION, Status.CHANGED, Status.ERROR, Status.NOT_COMPARABLE, Status.NO_BASELINE,
        Status.INCONCLUSIVE, Status.IMPROVEMENT, Status.PASS,
    ]  # fmt: skip
    verdicts = [Verdict(cell=CELL, metric=str(s), status=s) for s in order]
    for number, status in enumerate(order):
        assert worst(v.status for v in reversed(verdicts[number:])) == status
    assert worst([]) == Status.PASS


# --- not comparable -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"conditions": {"source": "w1", "tokens": "t2", "n_ctx": 256}},
            "tokens differs: baseline t1, measured t2",
        ),
        (
            {"conditions": {"source": "w1", "tokens": "t1"}},
            "n_ctx differs: baseline 512, measured none",
        ),
        (
            {"conditions": {"source": "w1", "tokens": "t1", "n_ctx": 512, "protocol": "half"}},
            "protocol differs: baseline none, measured half",
        ),
        ({"kind": "level"}, "kind differs: baseline paired, measured level"),
        ({"samples": OLD[:4]}, "number of samples differs: baseline 8, measured 4"),
    ],
)
def test_different_conditions_are_named_not_judged(changes: dict[str, Any], text: str) -> None:
    verdict = judged(perplexity(**({"samples": grown(0.5)} | changes)), perplexity(OLD))
    assert (verdict.status, verdict.text, verdict.change) == (Status.NOT_COMPARABLE, text, None)


@pytest.mark.parametrize(
    ("old", "new", "text", "by_machine"),
    [
        (
            {"kernels": "avx2"},
            {"kernels": "avx512f"},
            "kernels differs: baseline avx2, measured avx512f",
            True,
        ),
        ({"threads": 2}, {"threads": 4}, "threads differs: baseline 2, measured 4", True),
        (
            {"kernels": "a", "source": "x"},
            {"kernels": "b", "source": "y"},
            "source differs: baseline x, measured y",
            False,
        ),
    ],
)
def test_another_machine_is_told_from_another_work(
    old: dict[str, Any], new: dict[str, Any], text: str, by_machine: bool
) -> None:
    verdict = judged(rounds(FAST, conditions=new), rounds(FAST, conditions=old), relative(0.1))
    assert (verdict.status, verdict.text, verdict.by_machine) == (Status.NOT_COMPARABLE, text, by_machine)


def test_a_condition_that_is_none_on_both_sides_is_equal() -> None:
    conditions = {"limit": None}
    assert (
        judged(perplexity(OLD, conditions=conditions), perplexity(OLD, conditions={})).status == Status.PASS
    )


# --- paired ---------------------------------------------------------------------------------------


def test_the_change_of_a_perplexity_is_relative() -> None:
    """The link is exp: the mean difference of log-likelihoods is the log of the ratio of perplexities."""
    verdict = judged(perplexity(grown(0.03)), perplexity(OLD))
    ratio = perplexity(grown(0.03)).value / perplexity(OLD).value
    assert verdict.change == pytest.approx(ratio - 1)
    differences = [math.log1p(0.03) + j for j in JITTER]
    half = stats.t(7).isf(ALPHA) * np.std(differences, ddof=1) / math.sqrt(8)
    middle = np.mean(differences)
    assert verdict.change_low == pytest.approx(math.expm1(middle - half))
    assert verdict.change_high == pytest.approx(math.expm1(middle + half))
    assert verdict.change_unit == "relative"


def test_the_weights_of_the_windows_count() -> None:
    """All of the loss is in a window of a hundred tokens: that is little of the text."""
    new = [x + j for x, j in zip(OLD, JITTER, strict=True)]
    new[0] += 0.15
    light = [10.0, *[1000.0] * 7]
    assert judged(perplexity(new, weights=light), perplexity(OLD, weights=light)).status == Status.PASS
    assert judged(perplexity(new), perplexity(OLD)).change == pytest.approx(math.expm1(0.15 / 8), rel=0.02)


@pytest.mark.parametrize("broken", [2.0, 20.0, 600.0])
def test_a_broken_candidate_is_a_regression_however_wide_it_spreads(broken: float) -> None:
    new = [*OLD[:7], OLD[7] + broken]
    verdict = judged(perplexity(new), perplexity(OLD))
    assert verdict.status == Status.REGRESSION
    assert verdict.change_low is not None
    assert verdict.change_low > 0.01
    assert judged(perplexity(new), perplexity(OLD), relative(0.01)).status == Status.INCONCLUSIVE


def test_a_mean_is_held_relative_to_its_baseline() -> None:
    """Bits per byte: no link."""
    old = perplexity([4.0, 4.8, 3.2, 4.0], value=4.0, link="identity", weights=None)
    new = perplexity([4.4, 5.24, 3.56, 4.4], value=4.4, link="identity", weights=None)
    verdict = judged(new, old, relative(0.05))
    assert verdict.status == Status.REGRESSION
    assert verdict.change == pytest.approx(0.1)
    doubled = perplexity([8.0, 9.6, 6.4, 8.0], value=8.0, link="identity", weights=None)
    assert judged(doubled, old, relative(0.05)).change == pytest.approx(1.0)
    plain_change = judged(new, old, absolute(0.5))
    assert (plain_change.status, plain_change.change_unit) == (Status.PASS, "absolute")
    assert plain_change.change == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("lost", "gained", "status"),
    [
        (12, 0, Status.REGRESSION),
        (0, 12, Status.IMPROVEMENT),
        (9, 3, Status.INCONCLUSIVE),
        (3, 9, Status.PASS),
        (2, 0, Status.PASS),
        (12, 12, Status.INCONCLUSIVE),
    ],
)
def test_accuracy_is_better_when_higher_and_judged_by_its_flips(
    lost: int, gained: int, status: Status
) -> None:
    old = [1] * lost + [0] * gained + [1, 0] * ((100 - lost - gained) // 2)
    new = [0] * lost + [1] * gained + [1, 0] * ((100 - lost - gained) // 2)
    verdict = judged(accuracy(new), accuracy(old), absolute(0.05))
    assert verdict.status == status
    assert verdict.change == pytest.approx((gained - lost) / 100)
    assert verdict.change_unit == "absolute"
    if lost != gained:
        assert f"{lost} items lost, {gained} gained of 100, exact McNemar test" in verdict.text


def test_a_share_of_a_block_is_no_answer_though_it_is_whole() -> None:
    """Same-top rates of eight blocks of 128 tokens, all alike in the baseline."""
    old, new = (
        accuracy(right, weights=[128.0] * 8, answers=False) for right in ([1] * 8, [1, 1, 1, 1, 0, 0, 0, 0])
    )
    assert "McNemar" not in judged(new, old, absolute(0.02)).text


def test_accuracy_needs_more_flips_than_the_interval_alone_would_ask_for() -> None:
    """Nine of nine flips of 32 items: Student's t says 0.0008, the exact test (1/2)^9, and that is what counts."""
    old, new = [1] * 9 + [0] * 23, [0] * 32
    assert judged(accuracy(new), accuracy(old), absolute(0.05)).status == Status.INCONCLUSIVE
    assert judged(accuracy(new), accuracy(old), absolute(0.05), alpha=0.0021).status == Status.REGRESSION


def test_from_an_accuracy_of_zero_there_is_still_a_change() -> None:
    verdict = judged(accuracy([1] * 50 + [0] * 50), accuracy([0] * 100), relative(0.1))
    assert (verdict.status, verdict.change) == (Status.IMPROVEMENT, 0.5)


# --- reproduction ---------------------------------------------------------------------------------


def reproduced(new: list[float], limit: float = 0.002, here: float = 0.0, **changes: Any) -> Verdict:
    old, tolerance = perplexity(OLD), Tolerance(metric="perplexity/reproduction", absolute=limit, here=here)
    measured = perplexity(new, **changes)
    return reproduction(CELL, "perplexity", measured, old, tolerance, ["llama.cpp 1 -> 2"], "pytest x")


def test_what_other_processors_cause_is_the_same_computation() -> None:
    verdict = reproduced([x + j for x, j in zip(OLD, JITTER, strict=True)])
    assert verdict.status == Status.PASS
    assert verdict.metric == "perplexity/reproduction"
    assert verdict.change == pytest.approx(math.sqrt(np.mean(np.square(JITTER))))
    assert (verdict.tolerance, verdict.unit, verdict.change_unit) == (0.002, "nats", "absolute")
    assert reproduced(OLD).text == "equal to the last digit"


def test_in_the_baselines_own_environment_the_numbers_are_the_same() -> None:
    """What another processor may cause is a change where nothing else has changed."""
    new, old = perplexity([x + j for x, j in zip(OLD, JITTER, strict=True)]), perplexity(OLD)
    tolerance = Tolerance(metric="perplexity/reproduction", absolute=0.002, here=0.001)
    seen = []
    for environment in ([], ["kernels avx2 -> avx512"]):
        verdict = reproduction(CELL, "perplexity", new, old, tolerance, environment)
        seen.append((verdict.status, verdict.tolerance))
    assert seen == [(Status.CHANGED, 0.001), (Status.PASS, 0.002)]


@pytest.mark.parametrize(
    ("noise", "environment", "unequal"),
    [(1e-5, [], True), (0.0, [], False), (1e-5, ["llama.cpp 1 -> 2"], False), (0.1, [], False)],
)
def test_what_is_not_equal_where_nothing_has_changed_is_said(
    noise: float, environment: list[str], unequal: bool
) -> None:
    """No failure: a computation that does not repeat itself. Beyond the tolerance it is a failure already."""
    new, old = perplexity([x + noise for x in OLD]), perplexity(OLD)
    tolerance = Tolerance(metric="perplexity/reproduction", absolute=0.002, here=2e-5)
    verdict = reproduction(CELL, "perplexity", new, old, tolerance, environment)
    assert verdict.unequal == unequal
    assert ("not equal to the last digit although the environment is unchanged" in verdict.text) == unequal


def test_the_choices_of_a_task_are_all_compared() -> None:
    """A margin knows the best wrong choice only: here it stays what it was."""
    before = [[-1.0, -3.0, -9.0], [-2.0, -8.0]]
    after = [[-1.0, -3.0, -7.0], [-2.0, -8.0]]
    old, new = (of_choices(accuracy([1, 1], raw={"loglikelihoods": kept})) for kept in (before, after))
    assert old is not None
    assert new is not None
    assert old.samples == [-1.0, -3.0, -9.0, -2.0, -8.0]
    tolerance = Tolerance(metric="accuracy/t/choices/reproduction", absolute=0.5, here=0.001)
    verdict = reproduction(CELL, "accuracy/t/choices", new, old, tolerance)
    assert (verdict.metric, verdict.status) == ("accuracy/t/choices/reproduction", Status.CHANGED)
    assert verdict.change == pytest.approx(2 / math.sqrt(5))
    assert verdict.unit == "nats"
    assert of_choices(accuracy([1, 1])) is None


@pytest.mark.parametrize(
    ("backend", "line", "loosened"),
    [
        ("llamacpp", "torch 2.12.0 -> 2.13.0", False),
        ("llamacpp", "build of transformers 1a -> 2b", False),
        ("llamacpp", "llama-cpp-python 0.3.36 -> 0.3.37", True),
        ("llamacpp", "build of llama-cpp-python 1a -> 2b", True),
        ("llamacpp", "GGML_CPU none -> x", True),
        ("transformers", "torch 2.12.0 -> 2.13.0", True),
        ("transformers", "llama-cpp-python 0.3.36 -> 0.3.37", False),
    ],
)
def test_an_upgrade_of_what_a_cell_does_not_compute_with_loosens_nothing(
    backend: str, line: str, loosened: bool
) -> None:
    new, old = perplexity([x + 0.0015 for x in OLD]), perplexity(OLD)
    tolerance = Tolerance(metric="perplexity/reproduction", absolute=0.002, here=0.0)
    verdict = reproduction("m/b/s", "perplexity", new, old, tolerance, [line], unused=unused()[backend])
    assert (verdict.status == Status.PASS) == loosened
    within = Tolerance(metric="perplexity", relative=0.01, here=0.0001)
    mean = judge("m/b/s", "perplexity", new, old, within, ALPHA, [line], unused=unused()[backend])
    assert mean.tolerance == (0.01 if loosened else 0.0001)


def test_a_tolerance_may_be_narrower_in_the_baselines_own_environment() -> None:
    new, old = perplexity(grown(0.008)), perplexity(OLD)
    tolerance = ONE_PERCENT.model_copy(update={"here": 0.005})
    here = judge(CELL, "perplexity", new, old, tolerance, ALPHA)
    elsewhere = judge(CELL, "perplexity", new, old, tolerance, ALPHA, ["llama-cpp-python 0.3.36 -> 0.3.37"])
    assert (here.status, here.tolerance) == (Status.REGRESSION, 0.005)
    assert (elsewhere.status, elsewhere.tolerance) == (Status.PASS, 0.01)


def test_a_change_that_leaves_the_mean_alone_is_still_a_change() -> None:
    """Better on one half of the text, worse on the other: no loss of perplexity, another computation."""
    new = [x + (0.03 if n % 2 else -0.03) for n, x in enumerate(OLD)]
    new[5] += 0.01
    assert judged(perplexity(new), perplexity(OLD)).status != Status.REGRESSION
    verdict = reproduced(new)
    assert verdict.status == Status.CHANGED
    assert "largest difference +0.04, sample 6 of 8" in verdict.text
    assert (verdict.environment, verdict.reproduce) == (["llama.cpp 1 -> 2"], "pytest x")


def test_reproduction_weighs_the_units() -> None:
    new = [OLD[0] + 0.01, *OLD[1:]]
    assert reproduced(new).status == Status.CHANGED
    assert reproduced(new, weights=[1.0, *[500.0] * 7]).status == Status.PASS


# --- exact, level, ratio --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "status"), [(1000.0, Status.PASS), (1001.0, Status.REGRESSION), (999.0, Status.IMPROVEMENT)]
)
@pytest.mark.parametrize("tolerance", [relative(0.0), absolute(0.0)])
def test_an_exact_metric_may_not_change_at_all(new: float, status: Status, tolerance: Tolerance) -> None:
    verdict = judged(plain(new), plain(1000.0), tolerance)
    assert verdict.status == status
    assert verdict.change == pytest.approx((new - 1000) / (1000 if tolerance.relative is not None else 1))
    assert (verdict.change_low, verdict.change_high) == (None, None), "one number has no interval"


@pytest.mark.parametrize("tolerance", [relative(0.0), absolute(0.0)])
def test_the_first_mismatch_is_a_regression(tolerance: Tolerance) -> None:
    """From a baseline of zero there is no relative change; it is told in the metric's unit."""
    assert judged(plain(3.0), plain(0.0), tolerance).status == Status.REGRESSION
    assert judged(plain(0.0), plain(0.0), tolerance).status == Status.PASS
    told = judged(plain(3.0), plain(0.0), relative(0.0))
    assert (told.change, told.change_unit, told.tolerance) == (3.0, "absolute", 0.0)


@pytest.mark.parametrize(
    ("make", "new", "floor", "status"),
    [
        (plain, 1e-9, 0.02, Status.PASS),
        (plain, 0.021, 0.02, Status.REGRESSION),
        (plain, 5e9, 64e3, Status.REGRESSION),
        (plain, 63e3, 64e3, Status.PASS),
        (level, 5e9, 64e3, Status.REGRESSION),
        (level, 63e3, 64e3, Status.PASS),
    ],
)
def test_the_floor_is_what_a_baseline_of_zero_allows(
    make: Any, new: float, floor: float, status: Status
) -> None:
    """In the metric's unit, however wide the share: a share of nothing is nothing."""
    for tolerance in (
        relative(0.25, floor=floor),
        relative(0.0, floor=floor),
        relative(9.0, floor=floor, here=8.0),
    ):
        verdict = judged(make(new), make(0.0), tolerance)
        assert (verdict.status, verdict.tolerance) == (status, floor)
    assert judged(make(0.0), make(new), relative(0.25)).status == Status.IMPROVEMENT
    assert judged(make(0.0), make(new), relative(0.25, floor=2 * new)).status == Status.PASS


@pytest.mark.parametrize(
    ("new", "better", "status"),
    [
        (0.30, "higher", Status.REGRESSION),
        (0.45, "higher", Status.PASS),
        (1.70, "higher", Status.IMPROVEMENT),
        (1.70, "lower", Status.REGRESSION),
        (0.30, "lower", Status.IMPROVEMENT),
    ],
)
def test_the_sign_of_worse_is_the_metrics(new: float, better: str, status: Status) -> None:
    verdict = judged(level(new, better), level(1.0, better), relative(0.6))
    assert verdict.status == status
    assert verdict.change == pytest.approx(new - 1)


def test_a_change_below_the_floor_does_not_count() -> None:
    tolerance = relative(0.15, floor=32e6)
    small, large = level(40e6), level(400e6)
    assert judged(level(70e6), small, tolerance).status == Status.PASS  # +75 %, 30 MB
    assert judged(level(73e6), small, tolerance).status == Status.REGRESSION  # 33 MB
    assert judged(level(440e6), large, tolerance).status == Status.PASS  # 40 MB, 10 %
    assert judged(level(470e6), large, tolerance).status == Status.REGRESSION
    assert judged(level(5e6), small, tolerance).status == Status.IMPROVEMENT
    assert judged(level(70e6), small, tolerance).tolerance == pytest.approx(0.8), "what it was held against"
    assert judged(level(440e6), large, tolerance).tolerance == 0.15


def test_the_floor_of_a_perplexity_is_in_its_own_unit() -> None:
    new, old = perplexity(grown(0.03)), perplexity(OLD)
    step = new.value - old.value
    assert judged(new, old, relative(0.01, floor=step * 1.1)).status == Status.PASS
    assert judged(new, old, relative(0.01, floor=step * 0.99)).status == Status.REGRESSION


# --- rounds ---------------------------------------------------------------------------------------

FAST, SLOW = [0.500, 0.502, 0.499, 0.501, 0.500], [0.625, 0.627, 0.624, 0.626, 0.625]


@pytest.mark.parametrize(
    ("old", "new", "better", "status", "change"),
    [
        (FAST, SLOW, "higher", Status.REGRESSION, -0.2),  # tokens/s: 25 % more seconds, 20 % fewer tokens
        (SLOW, FAST, "higher", Status.IMPROVEMENT, 0.25),
        (FAST, SLOW, "lower", Status.REGRESSION, 0.25),
        (SLOW, FAST, "lower", Status.IMPROVEMENT, -0.2),
        (FAST, FAST, "higher", Status.PASS, 0.0),
    ],
)
def test_rounds_are_seconds_and_their_sign_turns_for_tokens_per_second(
    old: list[float], new: list[float], better: str, status: Status, change: float
) -> None:
    verdict = judged(rounds(new, better), rounds(old, better), relative(0.1))
    assert verdict.status == status
    assert verdict.change == pytest.approx(change, abs=1e-3)
    assert verdict.change_low is not None
    assert verdict.change_high is not None
    assert verdict.change_low < change < verdict.change_high
    assert verdict.change_unit == "relative"


def test_processes_that_scatter_are_inconclusive_in_words() -> None:
    noisy = [0.45, 0.9, 0.5, 1.2, 0.48]
    busy = {"disturbances": [{"others": 0.31, "steal": 0.02, "load": 3.0}]}
    verdict = judged(rounds(noisy, raw=busy), rounds(FAST), relative(0.1))
    assert verdict.status == Status.INCONCLUSIVE
    assert verdict.text.startswith(
        "worse by more than the tolerance, but the sample cannot distinguish this from noise ("
    )
    assert "processes differ by up to 167 %, other work took up to 31 % of the processor" in verdict.text
    assert "the hypervisor took up to 2 % of the processor (steal); " in verdict.text


def test_a_timing_that_looks_fine_but_is_too_noisy_proves_nothing() -> None:
    noisy, old = rounds([0.45, 0.55, 0.50, 0.48, 0.52]), rounds(FAST)
    verdict = judged(noisy, old, relative(0.05))
    assert abs(verdict.change or 0) < 0.05
    assert verdict.status == Status.INCONCLUSIVE
    assert "cannot rule one out (processes differ by up to 22" in verdict.text
    assert judged(noisy, old, relative(0.2)).status == Status.PASS, "clearly fine"
    better = rounds([0.40, 0.47, 0.43, 0.41, 0.45])
    assert judged(better, old, relative(0.05)).status == Status.PASS, "better, if anything"


@pytest.mark.parametrize("better", ["lower", "higher"])
@pytest.mark.parametrize("seconds", [4.0, 2.0])
def test_a_single_process_shows_a_change_without_an_interval(better: str, seconds: float) -> None:
    """However many rounds it timed: nothing says how the next process would differ."""
    old, new = (rounds([s] * 5, better, processes=None) for s in (2.0, seconds))
    verdict = judged(new, old, relative(0.4))
    assert verdict.status == Status.INCONCLUSIVE
    assert verdict.change == pytest.approx((seconds / 2) ** (1 if better == "lower" else -1) - 1)
    assert (verdict.change_low, verdict.change_high) == (None, None)
    assert "the baseline and the measurement have a single process" in verdict.text


def test_processes_without_any_spread_are_judged_too() -> None:
    same = judged(rounds([0.5] * 3), rounds([0.5] * 3), relative(0.1))
    assert (same.status, same.text) == (Status.PASS, "equal to the last digit")
    assert judged(rounds([0.8] * 3), rounds([0.5] * 3), relative(0.1)).status == Status.REGRESSION


def test_another_governor_is_another_machine() -> None:
    conditions: list[dict[str, Any]] = [{"governor": "performance"}, {"governor": None}]
    old, new = (rounds(FAST, conditions=c) for c in conditions)
    verdict = judged(new, old, relative(0.1))
    assert (verdict.status, verdict.by_machine) == (Status.NOT_COMPARABLE, True)
    unknown = rounds(FAST, conditions={})  # of a baseline from before it was kept
    assert judged(new, unknown, relative(0.1)).status == Status.PASS


# --- whatever comes in ----------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(
    st.integers(2, 10).flatmap(
        lambda n: st.tuples(*(st.lists(st.floats(0, 600), min_size=n, max_size=n) for _ in range(2)))
    ),
    st.sampled_from([relative(0.01), relative(0.01, noise=0.05), absolute(0.05)]),
    st.sampled_from(["exp", "identity"]),
    st.sampled_from(["lower", "higher"]),
)
def test_no_number_of_a_verdict_is_infinite_and_its_status_follows_from_them(
    samples: tuple[list[float], list[float]], tolerance: Tolerance, link: str, better: str
) -> None:
    old, new = samples
    metrics = [
        perplexity(
            s, link=link, better=better, value=np.mean(s) if link == "identity" else math.exp(np.mean(s))
        )
        for s in (old, new)
    ]
    verdict = judged(metrics[1], metrics[0], tolerance)
    assert verdict.change is not None
    worse = verdict.change * (1 if better == "lower" else -1)
    limit = tolerance.relative or tolerance.absolute or 0.0
    if verdict.status == Status.REGRESSION:
        assert worse > limit
    elif verdict.status == Status.IMPROVEMENT:
        assert worse < -limit
    elif verdict.status == Status.PASS and worse > limit:
        pytest.fail(f"a {worse:+.3g} change passed: {verdict}")
