"""Metrics relative to the reference: values worked out by hand, and what is left out."""

from __future__ import annotations

import math
from typing import Any

import pytest
from quantgate.config.tolerances import Tolerance
from quantgate.judge.compare import flips_in_words, origin
from quantgate.judge.judge import Subject, judge
from quantgate.records import Metric, Status
from quantgate.run.relative import relative_metrics

REFERENCE = "m/llamacpp/F16"
CONDITIONS = {"tokens": "t1", "n_ctx": 512}


def paired(samples: list[float], **changes: Any) -> Metric:
    fields: dict[str, Any] = {
        "kind": "paired",
        "value": 1.0,
        "unit": "nats",
        "better": "lower",
        "samples": samples,
        "conditions": CONDITIONS,
    }
    return Metric(**fields | changes)


def perplexity(samples: list[float], weights: list[float]) -> Metric:
    mean = sum(s * w for s, w in zip(samples, weights, strict=True)) / sum(weights)
    return paired(samples, value=math.exp(mean), unit="", link="exp", weights=weights)


def accuracy(right: list[float]) -> Metric:
    return paired(right, value=sum(right) / len(right), unit="fraction", better="higher")


def test_the_loss_of_perplexity_is_the_ratio_of_both() -> None:
    old, new = perplexity([3.0, 2.0, 2.5], [511, 511, 255]), perplexity([3.1, 2.05, 2.5], [511, 511, 255])
    (loss,) = relative_metrics({"perplexity": new}, {"perplexity": old}, REFERENCE).values()
    assert loss.value == pytest.approx(new.value / old.value)
    assert loss.samples == pytest.approx([0.1, 0.05, 0.0])
    assert (loss.weights, loss.link, loss.unit, loss.better) == (old.weights, "exp", "x", "lower")
    assert loss.conditions == {**CONDITIONS, "relative to": REFERENCE}
    # Weighted mean m; se^2 = n / (n - 1) * sum (w (d - m))^2 / (sum w)^2, times the ratio.
    weights, mean = [511, 511, 255], math.log(loss.value)
    spread = sum((w * (d - mean)) ** 2 for w, d in zip(weights, [0.1, 0.05, 0.0], strict=True))
    assert loss.stderr == pytest.approx(loss.value * math.sqrt(1.5 * spread) / sum(weights))


def test_what_is_no_perplexity_and_no_accuracy_has_no_loss_of_its_own() -> None:
    """Margins and bits per byte: the same change is in the perplexity's and the baseline's."""
    name = "accuracy/piqa/margin"
    assert relative_metrics({name: paired([0.7, 0.4])}, {name: paired([1.0, 0.5])}, REFERENCE) == {}


def test_a_share_that_is_better_low_is_nothing_to_recover() -> None:
    name = "accuracy/crows_pairs_english/pct_stereotype"
    low = accuracy([1.0, 0.0]).model_copy(update={"better": "lower"})
    assert relative_metrics({name: low}, {name: low}, REFERENCE) == {}


def test_recovery_is_a_share_of_the_references_accuracy_with_the_flips() -> None:
    acc = "accuracy/piqa/acc"
    norm = "accuracy/piqa/acc_norm"
    old = {acc: accuracy([1.0, 1.0, 0.0, 0.0]), norm: accuracy([1.0, 1.0, 1.0, 0.0])}
    new = {acc: accuracy([1.0, 1.0, 0.0, 0.0]), norm: accuracy([0.0, 0.0, 1.0, 1.0])}
    relatives = relative_metrics(new, old, REFERENCE)
    assert list(relatives) == ["accuracy/piqa/recovery"]
    recovery = relatives["accuracy/piqa/recovery"]
    assert recovery.value == pytest.approx(2 / 3)
    assert recovery.conditions["of"] == "acc_norm"
    assert recovery.raw == {"lost": 2, "gained": 1, "items": 4}
    assert flips_in_words(recovery) == f"2 lost, 1 gained of 4 items against {REFERENCE}"
    assert flips_in_words(old[acc]) == ""


def test_a_share_of_nothing_is_left_out() -> None:
    name = "accuracy/piqa/acc"
    assert relative_metrics({name: accuracy([1.0, 0.0])}, {name: accuracy([0.0, 0.0])}, REFERENCE) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"conditions": {**CONDITIONS, "tokens": "t2"}},
        {"samples": [1.0, 2.0, 3.0]},
        {"weights": [1.0, 2.0]},
        {"link": "identity"},
        {"kind": "level"},
    ],
)
def test_what_is_not_of_the_same_units_is_left_out(changes: dict[str, Any]) -> None:
    same = paired([1.0, 2.0], link="exp")
    assert relative_metrics({"x": same}, {"x": same}, REFERENCE)
    assert relative_metrics({"x": same}, {"x": same.model_copy(update=changes)}, REFERENCE) == {}
    assert relative_metrics({"x": same}, {}, REFERENCE) == {}


def test_conditions_of_the_reference_alone_are_kept() -> None:
    other = paired([1.0, 2.0], link="exp", conditions={**CONDITIONS, "kernels": "avx2"})
    (loss,) = relative_metrics({"x": paired([1.0, 2.5], link="exp")}, {"x": other}, REFERENCE).values()
    assert loss.conditions == {**CONDITIONS, "reference kernels": "avx2", "relative to": REFERENCE}


@pytest.mark.parametrize(
    ("by", "status"), [(0.03, Status.REGRESSION), (-0.03, Status.PASS), (0.0, Status.PASS)]
)
def test_the_judge_sees_a_larger_loss_and_calls_a_smaller_one_no_improvement(
    by: float, status: Status
) -> None:
    """A drift of both leaves it as it was; a smaller loss may be a worse reference."""
    weights, jitter = [511.0] * 8, [0.001, -0.001, 0.002, 0.0, -0.002, 0.001, 0.0, -0.001]
    reference = perplexity([3.0 + n / 10 for n in range(8)], weights)
    cell = perplexity([3.05 + n / 10 for n in range(8)], weights)
    drifted = perplexity([s + 0.1 for s in reference.samples or ()], weights)
    moved = [s + 0.1 + by + j for s, j in zip(cell.samples or (), jitter, strict=True)]
    (before,) = relative_metrics({"perplexity": cell}, {"perplexity": reference}, REFERENCE).values()
    (now,) = relative_metrics(
        {"perplexity": perplexity(moved, weights)}, {"perplexity": drifted}, REFERENCE
    ).values()
    tolerance = Tolerance(metric="perplexity/loss", relative=0.01, noise=0.05)
    assert (
        judge(Subject("m/llamacpp/Q4_0", "perplexity/loss"), now, before, tolerance, 0.001).status == status
    )


def test_the_metric_that_a_relative_one_is_made_of() -> None:
    names = ["perplexity/loss", "throughput/decode_ratio", "perplexity"]
    assert [origin(n) for n in names] == ["perplexity", "throughput/decode", "perplexity"]


def test_a_recovery_is_had_though_the_batches_differ() -> None:
    """Each cell may have a budget of its own choice; another task is another matter."""

    def of(**conditions: Any) -> Metric:
        return accuracy([1.0, 0.0]).model_copy(update={"conditions": conditions})

    name = "accuracy/arc/acc"
    relatives = relative_metrics(
        {name: of(budget=256, task="a")}, {name: of(budget=512, task="a")}, "m/b/ref"
    )
    assert relatives["accuracy/arc/recovery"].value == 1.0
    assert not relative_metrics({name: of(budget=256, task="a")}, {name: of(budget=256, task="b")}, "m/b/ref")
