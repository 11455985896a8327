"""The verdict on paired metrics: perplexities, means, answers."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from quantgate.config.tolerances import Tolerance
from quantgate.judge.judge import Subject, judge
from quantgate.records import Metric, Status
from scipy import stats

from selftest.judge.made import (
    ALPHA,
    CELL,
    JITTER,
    OLD,
    absolute,
    accuracy,
    grown,
    judged,
    perplexity,
    relative,
)


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
    assert "p = 0" not in verdict.text
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


OTHER_FILE = "checkpoint 1 -> 2 (x.gguf)"


@pytest.mark.parametrize(
    ("changed", "status", "limit"),
    [
        ([OTHER_FILE], Status.REGRESSION, 0.0025),
        (["made from 1 -> 2 (x.gguf)"], Status.REGRESSION, 0.0025),
        ([OTHER_FILE, "torch 1 -> 2"], Status.INCONCLUSIVE, 0.025),
        (["checkpointer 1 -> 2"], Status.INCONCLUSIVE, 0.025),
    ],
)
def test_another_file_on_the_same_machine_is_measured_as_exactly(
    changed: list[str], status: Status, limit: float
) -> None:
    tolerance = Tolerance(metric="perplexity", relative=0.025, here=0.0025, noise=0.05)
    subject = Subject(CELL, "perplexity", changed)
    verdict = judge(subject, perplexity(grown(0.024)), perplexity(OLD, detectable=0.05), tolerance, ALPHA)
    assert (verdict.status, verdict.tolerance) == (status, limit)
    assert verdict.detectable == (0.05 if limit == 0.025 else None), "what the wide tolerance detects"


@pytest.mark.parametrize(
    ("changed", "status"),
    [([OTHER_FILE], Status.PASS), ([], Status.INCONCLUSIVE), (["torch 1 -> 2"], Status.PASS)],
)
def test_a_file_that_is_as_good_passes_by_the_wide_tolerance(changed: list[str], status: Status) -> None:
    """Few samples show that to within the narrow one."""
    tolerance = Tolerance(metric="perplexity", relative=0.025, here=0.0025, noise=0.05)
    new = [x - 0.001 + 8 * j for x, j in zip(OLD, JITTER, strict=True)]
    subject = Subject(CELL, "perplexity", changed)
    assert judge(subject, perplexity(new), perplexity(OLD), tolerance, ALPHA).status == status


def test_an_inconclusive_mean_says_how_many_windows_show_a_change_of_this_size() -> None:
    old, new = OLD * 4, [x + 0.012 + 25 * j for x, j in zip(OLD * 4, JITTER * 4, strict=True)]
    verdict = judged(of_windows(new), of_windows(old), alpha=1e-5)
    assert verdict.status == Status.INCONCLUSIVE
    match = re.search(
        r"; ([\d,]+) scored tokens detect .* \(windows = (\d+) instead of 4, if the data suffices\)",
        verdict.text,
    )
    assert match is not None
    times = math.ceil(int(match[2]) / 4)
    settled = judged(of_windows(new * times), of_windows(old * times), alpha=1e-5)
    assert settled.status == Status.REGRESSION
    assert "detect" not in settled.text
    unseen = judged(
        of_windows([x - 0.001 + 40 * j for x, j in zip(OLD * 4, JITTER * 4, strict=True)]), of_windows(old)
    )
    assert unseen.status == Status.INCONCLUSIVE
    assert "detect" not in unseen.text, "of no loss beyond the tolerance there is no size"


def of_windows(samples: list[float]) -> Metric:
    return perplexity(samples, conditions={"windows": 4})


def test_equal_answers_of_another_file_are_a_sample() -> None:
    """Those of the same file are the same computation, and rule out any loss."""
    tolerance = absolute(0.02, here=0.01)
    right = [1] * 30 + [0] * 30
    seen = [
        judge(
            Subject(CELL, "accuracy/t/acc", changed), accuracy(right), accuracy(right), tolerance, ALPHA
        ).status
        for changed in ([], [OTHER_FILE])
    ]
    assert seen == [Status.PASS, Status.INCONCLUSIVE]


@pytest.mark.parametrize(
    ("lost", "gained", "status"),
    [
        (12, 0, Status.REGRESSION),
        (0, 12, Status.IMPROVEMENT),
        (9, 3, Status.INCONCLUSIVE),
        (3, 9, Status.PASS),
        (2, 2, Status.PASS),
        (2, 0, Status.INCONCLUSIVE),
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


@pytest.mark.parametrize(("items", "elsewhere"), [(20, Status.INCONCLUSIVE), (100, Status.PASS)])
def test_equal_answers_of_few_items_exclude_no_loss_but_where_nothing_has_changed(
    items: int, elsewhere: Status
) -> None:
    """Of 20 items a model that loses 5 of 100 answers loses none with a probability of 36 %."""
    same = accuracy([1, 0] * (items // 2))
    assert judged(same, same, absolute(0.05)).status == Status.PASS
    upgraded = Subject(CELL, "accuracy/mean/acc", ["torch 2.12.0 -> 2.13.0"])
    assert judge(upgraded, same, same, absolute(0.05), ALPHA).status == elsewhere


def test_of_what_is_better_low_a_gain_is_a_loss() -> None:
    old = [0] * 50 + [1] * 50
    more, fewer = ([1] * 3 + old[3:], [*old[:97], 0, 0, 0])
    low = {"better": "lower"}
    assert judged(accuracy(more, **low), accuracy(old, **low), absolute(0.05)).status == Status.INCONCLUSIVE
    assert judged(accuracy(fewer, **low), accuracy(old, **low), absolute(0.05)).status == Status.PASS


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
