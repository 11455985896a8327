"""Whether a computation is still the baseline's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from quantgate.backends.spec import unused
from quantgate.config.tolerances import Tolerance
from quantgate.judge.judge import Subject, judge, of_choices, reproduction
from quantgate.records import Status, Verdict

from selftest.judge.made import (
    ALPHA,
    CELL,
    JITTER,
    OLD,
    ONE_PERCENT,
    accuracy,
    grown,
    judged,
    perplexity,
)


def reproduced(new: list[float], limit: float = 0.002, here: float = 0.0, **changes: Any) -> Verdict:
    old, tolerance = perplexity(OLD), Tolerance(metric="perplexity/reproduction", absolute=limit, here=here)
    measured = perplexity(new, **changes)
    return reproduction(Subject(CELL, "perplexity", ["llama.cpp 1 -> 2"]), measured, old, tolerance)


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
        verdict = reproduction(Subject(CELL, "perplexity", environment), new, old, tolerance)
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
    verdict = reproduction(Subject(CELL, "perplexity", environment), new, old, tolerance)
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
    verdict = reproduction(Subject(CELL, "accuracy/t/choices"), new, old, tolerance)
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
    subject = Subject("m/b/s", "perplexity", [line], unused()[backend])
    verdict = reproduction(subject, new, old, tolerance)
    assert (verdict.status == Status.PASS) == loosened
    within = Tolerance(metric="perplexity", relative=0.01, here=0.0001)
    mean = judge(subject, new, old, within, ALPHA)
    assert mean.tolerance == (0.01 if loosened else 0.0001)


def test_a_tolerance_may_be_narrower_in_the_baselines_own_environment() -> None:
    new, old = perplexity(grown(0.008)), perplexity(OLD)
    tolerance = ONE_PERCENT.model_copy(update={"here": 0.005})
    here = judge(Subject(CELL, "perplexity"), new, old, tolerance, ALPHA)
    changed = Subject(CELL, "perplexity", ["llama-cpp-python 0.3.36 -> 0.3.37"])
    elsewhere = judge(changed, new, old, tolerance, ALPHA)
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
    assert verdict.environment == ["llama.cpp 1 -> 2"]


def test_reproduction_weighs_the_units() -> None:
    new = [OLD[0] + 0.01, *OLD[1:]]
    assert reproduced(new).status == Status.CHANGED
    assert reproduced(new, weights=[1.0, *[500.0] * 7]).status == Status.PASS
