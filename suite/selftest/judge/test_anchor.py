"""Loss since the anchor: judged by the test of the loss since the baseline, and red where that is green."""

from __future__ import annotations

from typing import Any

import pytest
from quantgate.config.tolerances import Tolerance, Tolerances
from quantgate.judge.anchor import Anchor, Origin, anchor_of, measured_name
from quantgate.judge.compare import Comparison, Rules, explained, verdicts
from quantgate.judge.confirm import MoreProcesses, confirmed, needs_second_look
from quantgate.judge.sensitivity import gate_level
from quantgate.records import KERNELS, Measurement, Metric, Status, Verdict

from selftest.judge.kernels import MIDDLE, NARROW, RATIO, WIDE, ratio
from selftest.judge.made import ALPHA, CELL, OLD, grown, level, perplexity, plain

NARROW_TOLERANCE = Tolerance(metric="perplexity", relative=0.025, here=0.0025, noise=0.05)
LEVEL = Tolerance(metric="memory/peak", relative=0.1, noise=0.02)
EVERY = lambda name: True  # noqa: E731


def rules(*entries: Tolerance) -> Rules:
    return Rules(Tolerances(run_alpha=0.01, tolerance=list(entries)), ALPHA)


def anchor(metric: Metric, **environment: Any) -> Anchor:
    origin = Origin(created="2026-07-01", reason="first values", fingerprint="f1", environment=environment)
    return Anchor(metric=metric, origin=origin)


def record(metrics: dict[str, Metric], cell: str = CELL, **environment: Any) -> Measurement:
    return Measurement(
        cell=cell, tier="smoke", fingerprint="f", created="2026-07-09", environment=environment, metrics=metrics,
        complete=True,
    )  # fmt: skip


def compared(
    new: Metric, old: Metric, since: Metric, name: str = "perplexity", cell: str = CELL
) -> Comparison:
    return Comparison(record({name: new}, cell), record({name: old}, cell), anchors={name: anchor(since)})


def statuses(comparison: Comparison, *entries: Tolerance) -> dict[str, Status]:
    return {v.metric: v.status for v in verdicts(comparison, EVERY, rules(*entries))}


def test_a_loss_within_the_tolerance_of_the_baseline_is_drift_beyond_that_of_the_anchor() -> None:
    comparison = compared(perplexity(grown(0.004)), perplexity(grown(0.002)), perplexity(OLD))
    plain_one, drift = verdicts(comparison, EVERY, rules(NARROW_TOLERANCE))
    assert (plain_one.metric, plain_one.status) == ("perplexity", Status.PASS)
    assert (drift.metric, drift.status) == ("perplexity/anchor", Status.DRIFT)
    assert drift.change == pytest.approx(0.004, rel=0.1)
    assert drift.change_low is not None
    assert drift.change_low > 0
    assert drift.tolerance == 0.0025
    assert drift.baseline == perplexity(OLD).value
    assert drift.text.startswith(
        "since the anchor of 2026-07-01 (first values): worse by more than the tolerance (8"
    )


@pytest.mark.parametrize("step", range(1, 9))
def test_of_eight_steps_of_a_fifth_the_second_is_drift(step: int) -> None:
    """Each is 0.2 % above the one before, which is the baseline; the tolerance is 0.25 %."""
    new, old = (perplexity([x + n * 0.001998 for x in OLD]) for n in (step, step - 1))
    expected = Status.DRIFT if step > 1 else Status.PASS
    assert statuses(compared(new, old, perplexity(OLD)), NARROW_TOLERANCE) == {
        "perplexity": Status.PASS,
        "perplexity/anchor": expected,
    }


def test_the_limit_is_the_wide_one_where_the_environment_is_not_that_of_the_anchor() -> None:
    new, old = perplexity(grown(0.004)), perplexity(grown(0.002))
    held = {"perplexity": anchor(perplexity(OLD), torch="2.1")}
    comparison = Comparison(record({"perplexity": new}), record({"perplexity": old}), anchors=held)
    _, since = verdicts(comparison, EVERY, rules(NARROW_TOLERANCE))
    assert (since.status, since.tolerance, since.environment) == (Status.PASS, 0.025, ["torch 2.1 -> none"])


def test_better_than_the_anchor_is_no_reason_to_update() -> None:
    new, old = perplexity(grown(-0.03)), perplexity(grown(-0.03))
    comparison = compared(new, old, perplexity(OLD))
    assert statuses(comparison, NARROW_TOLERANCE)["perplexity/anchor"] == Status.PASS
    assert "update" not in verdicts(comparison, EVERY, rules(NARROW_TOLERANCE))[1].text


def test_other_tokens_than_the_anchors_are_not_held_against_it() -> None:
    other = perplexity(OLD, conditions={"tokens": "t2"})
    comparison = compared(perplexity(grown(0.1)), perplexity(grown(0.1)), other)
    assert statuses(comparison, NARROW_TOLERANCE) == {"perplexity": Status.PASS}


def test_a_metric_without_a_gate_has_no_drift() -> None:
    comparison = compared(perplexity(grown(0.1)), perplexity(grown(0.1)), perplexity(OLD))
    assert statuses(comparison, LEVEL) == {"perplexity": Status.PASS}


def test_an_exact_value_drifts_too() -> None:
    comparison = compared(plain(1040), plain(1020), plain(1000), "memory/weight_bytes")
    entry = Tolerance(metric="memory/weight_bytes", relative=0.03)
    assert statuses(comparison, entry)["memory/weight_bytes/anchor"] == Status.DRIFT


def test_the_anchor_on_the_same_kernels_is_taken_else_the_nearest() -> None:
    anchors = {
        f"perplexity on {kernels}": anchor(perplexity(grown(by)), **{KERNELS: kernels})
        for kernels, by in ((WIDE, 0.0), (NARROW, 0.5))
    }
    for kernels, taken in ((WIDE, WIDE), (NARROW, NARROW), (MIDDLE, WIDE)):
        one = anchor_of(anchors, "perplexity", perplexity(OLD), {KERNELS: kernels})
        assert one is anchors[f"perplexity on {taken}"]
    assert anchor_of(anchors, "perplexity/loss", perplexity(OLD), {KERNELS: WIDE}) is None


def test_a_timing_has_no_anchor_but_on_its_own_kernels() -> None:
    anchors = {f"{RATIO} on {WIDE}": anchor(ratio(1.5, WIDE))}
    assert anchor_of(anchors, RATIO, ratio(1.0, WIDE), {}) is not None
    assert anchor_of(anchors, RATIO, ratio(1.0, MIDDLE), {}) is None


def test_a_peak_that_drifted_is_measured_again_first() -> None:
    comparison = compared(level(1.15e9), level(1.08e9), level(1e9), "memory/peak")
    first = verdicts(comparison, EVERY, rules(LEVEL))
    assert [v.status for v in first] == [Status.PASS, Status.DRIFT]
    assert needs_second_look(first, comparison, rules(LEVEL))

    def settled(fresh: float) -> Verdict:
        again = compared(level(fresh), level(1.08e9), level(1e9), "memory/peak")
        look = MoreProcesses(together=again, fresh=again)
        return confirmed(first, comparison, look, EVERY, rules(LEVEL))[1]

    assert settled(1.14e9).status == Status.DRIFT
    assert "fresh processes: confirmed" in settled(1.14e9).confirmed
    assert settled(1.02e9).status == Status.PASS


def test_what_the_reference_did_since_its_anchor_stands_beside_a_drift() -> None:
    moved = verdicts(
        compared(perplexity(grown(0.004)), perplexity(grown(0.002)), perplexity(OLD)),
        EVERY,
        rules(NARROW_TOLERANCE),
    )
    reference = "smollm2-135m/llamacpp/F16"
    same = compared(perplexity(grown(0.004)), perplexity(grown(0.004)), perplexity(OLD), cell=reference)
    sentence = explained(moved, same, EVERY, rules(NARROW_TOLERANCE))[1].reference
    assert sentence.startswith(
        "the reference moved as well, by as much: everything moved (smollm2-135m/llamacpp/F16 +0."
    )
    # Without an older anchor, its baseline is that.
    unanchored = Comparison(same.new, record({"perplexity": perplexity(OLD)}, reference))
    assert explained(moved, unanchored, EVERY, rules(NARROW_TOLERANCE))[1].reference == sentence


def test_each_anchor_counts_as_a_gate_of_the_run() -> None:
    tolerances = rules(NARROW_TOLERANCE).tolerances
    metrics = {"a/b/c": {"perplexity": perplexity(OLD)}, "a/b/d": {"perplexity": perplexity(OLD)}}
    assert gate_level(tolerances, metrics) == 0.01 / 2
    assert gate_level(tolerances, metrics, {"a/b/c": {"perplexity", "memory/peak"}}) == 0.01 / 3


def test_names() -> None:
    assert measured_name("accuracy/arc_easy/margin/anchor") == "accuracy/arc_easy/margin"
    assert measured_name("perplexity/loss") == "perplexity/loss"
