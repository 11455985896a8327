"""The verdict on one metric: every status, its text, and numbers that can be shown."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate.config.tolerances import Tolerance
from quantgate.judge.judge import Subject, judge, recorded
from quantgate.judge.statistics import detectable_flips
from quantgate.records import Metric, Status, Verdict, worst
from scipy import stats

from selftest.judge.made import (
    ALPHA,
    CELL,
    FAST,
    JITTER,
    OLD,
    ONE_PERCENT,
    absolute,
    accuracy,
    grown,
    judged,
    level,
    perplexity,
    plain,
    relative,
    rounds,
)


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
    old, new = perplexity(OLD), perplexity(grown(0.03))
    verdict = judge(Subject(CELL, "perplexity", environment), new, old, ONE_PERCENT, ALPHA)
    assert verdict.status == Status.REGRESSION
    assert verdict.text.startswith("worse by more than the tolerance (8 paired samples, p = ")
    assert (verdict.cell, verdict.metric) == (CELL, "perplexity")
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
    assert "level 0.001; " in verdict.text


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


@pytest.mark.parametrize(("limit", "items"), [(0.02, 1211), (0.03, 806)])
def test_too_few_answers_say_how_many_it_takes(limit: float, items: int) -> None:
    """Three points lost of 500 items, which is no proof of it."""
    old = [1] * 330 + [0] * 170
    asked = {"conditions": {"items": 500}}
    verdict = judged(accuracy([0] * 15 + old[15:], **asked), accuracy(old, **asked), absolute(limit), 1e-5)
    assert verdict.status == Status.INCONCLUSIVE
    more = f"; {items:,} items detect a loss of {limit * 100:g} points 95 % of the time"
    assert verdict.text.endswith(f"{more} (items = {items} instead of 500, if the data suffices)")
    assert detectable_flips(items, 1e-5) <= limit < detectable_flips(items - 1, 1e-5)


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
        judge(Subject(CELL, "perplexity"), far, old, ONE_PERCENT, ALPHA)


def test_a_better_ratio_is_never_an_improvement() -> None:
    """Two numbers make it; the reference may have been slow."""
    old, better, worse = (level(value, "higher", "ratio") for value in (1.0, 3.0, 0.3))
    assert judged(better, old, relative(0.6)).status == Status.PASS
    assert judged(worse, old, relative(0.6)).status == Status.REGRESSION


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
            "source differs: baseline x, measured y (the model has other weights, or another configuration or "
            "tokenizer, than the baseline's)",
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
