"""What is wrong without any baseline: judged from the first run on, and never a baseline."""

from __future__ import annotations

from typing import Any

import pytest
from quantgate.config.tolerances import Tolerance, Tolerances, load_tolerances
from quantgate.judge.compare import Comparison, Rules, verdicts
from quantgate.judge.coverage import coverage
from quantgate.judge.expected import Limits, held_to, limits_of, why_refused
from quantgate.records import AGREEMENT, Measurement, Metric, Status, Verdict
from quantgate.report import RunInfo
from quantgate.report.summary import outcome, update_command
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import Need, make_plan, partners_of
from quantgate.run.relative import agreement

CELL = "m/llamacpp/F16"


def exact(value: float, **more: Any) -> Metric:
    return Metric(kind="exact", value=value, unit="lines", better="lower", **more)


def entry(**keys: Any) -> Tolerance:
    return Tolerance(metric="tokenizer/mismatches", **keys)


def verdict(
    status: Status, metric: str = "tokenizer/mismatches", wrong: str = "", cell: str = CELL
) -> Verdict:
    return Verdict(cell=cell, metric=metric, status=status, measured=1.0, text="t", wrong=wrong)


@pytest.mark.parametrize(
    ("keys", "right", "wrong"),
    [
        ({"expected": 0}, [0.0], [1.0, -1.0, 1e-9]),
        ({"expected": 0, "absolute": 0.02}, [0.02, -0.02, 0.0], [0.021, -0.021]),
        ({"expected": 5, "relative": 0.1}, [4.5, 5.5], [4.4, 5.6]),
        ({"expected": -2, "relative": 0.5}, [-1.0, -3.0], [-0.9, 0.0]),
    ],
)
def test_a_value_is_right_within_the_width_of_what_is_expected(
    keys: dict[str, float], right: list[float], wrong: list[float]
) -> None:
    limits = limits_of(entry(**keys))
    assert limits is not None
    for value in right:
        assert held_to(limits, CELL, "n", exact(value), None).status == Status.PASS
    for value in wrong:
        actual = held_to(limits, CELL, "n", exact(value), None)
        assert actual.status == Status.ERROR
        assert actual.wrong == actual.text
        assert f"{keys['expected']:g}" in actual.text


def test_without_expected_there_are_no_limits() -> None:
    assert limits_of(None) is None
    assert limits_of(entry(absolute=0.0)) is None


def test_a_minimum_of_the_scheme_is_named() -> None:
    limits = limits_of(None, minimum=0.9)
    assert limits is not None
    assert held_to(limits, CELL, "n", exact(0.9), None).status == Status.PASS
    actual = held_to(limits, CELL, "n", exact(0.11), None)
    assert actual.status == Status.ERROR
    assert "at least 0.9" in actual.text
    assert "minimum_share" in actual.text


@pytest.mark.parametrize(
    ("compared", "result"),
    [
        (Status.PASS, Status.ERROR),
        (Status.NO_BASELINE, Status.ERROR),
        (Status.NOT_COMPARABLE, Status.ERROR),
        (Status.IMPROVEMENT, Status.ERROR),
        (Status.REGRESSION, Status.REGRESSION),
        (Status.CHANGED, Status.CHANGED),
    ],
)
def test_a_loss_against_the_baseline_stays_one_and_nothing_else_hides_a_wrong_value(
    compared: Status, result: Status
) -> None:
    limits = Limits(0, 0, "expected 0")
    actual = held_to(limits, CELL, "tokenizer/mismatches", exact(3.0), verdict(compared))
    assert actual.status == result
    assert actual.wrong
    within = held_to(limits, CELL, "tokenizer/mismatches", exact(0.0), verdict(compared))
    assert within == verdict(compared)


def test_what_failed_is_refused_whatever_a_person_accepts() -> None:
    broken = verdict(Status.REGRESSION, wrong="3 lines")
    assert why_refused(CELL, [broken]) == ["tokenizer/mismatches: 3 lines"]
    assert why_refused("m/llamacpp/Q8_0", [broken]) == []


def test_references_that_disagree_keep_their_whole_model_from_baselines() -> None:
    disagree = verdict(Status.ERROR, AGREEMENT, "0.3 nats")
    assert why_refused("m/bitsandbytes/nf4", [disagree]) == [f"{AGREEMENT} of {CELL}: 0.3 nats"]
    assert why_refused("other/bitsandbytes/nf4", [disagree]) == []
    first = [disagree, verdict(Status.NO_BASELINE, "perplexity", cell="m/bitsandbytes/nf4")]
    other = verdict(Status.NO_BASELINE, "perplexity", cell="other/llamacpp/F16")
    info = RunInfo(tier="smoke", bits=dict.fromkeys([CELL, "m/bitsandbytes/nf4", "other/llamacpp/F16"], 16.0))
    assert update_command(first, info) == ""
    assert "other" in update_command([*first, other], info)
    assert outcome(first) == f"Wrong regardless of the baseline: {AGREEMENT} of {CELL}."


def test_a_value_that_is_held_to_what_is_expected_is_a_gate_that_was_judged() -> None:
    limits = Limits(0, 0, "expected 0")
    actual = [held_to(limits, CELL, "n", exact(value), None) for value in (0.0, 1.0)]
    assert (coverage(actual).gates, coverage(actual).judged) == (2, 2)


def test_an_expected_value_stands_beside_the_gate_that_holds_the_baseline() -> None:
    both = Tolerances(
        run_alpha=0.01,
        tolerance=[
            entry(absolute=1.0),
            entry(expected=0),
            entry(expected=2, cell="m/x/*", reason="this tokenizer is known to"),
        ],
    )
    name = "tokenizer/mismatches"
    assert both.of(name, CELL) == entry(absolute=1.0)
    assert both.of_expected(name, CELL) == entry(expected=0)
    exception = both.of_expected(name, "m/x/y")
    assert exception is not None
    assert exception.expected == 2
    assert both.of_expected("perplexity", CELL) is None


# --- the full-precision cells of a model ---------------------------------------------------------------

CONDITIONS = {"source": "s", "tokens": "t", "n_ctx": 32, "windows": 2}


def perplexity(samples: list[float], **conditions: Any) -> dict[str, Metric]:
    return {
        "perplexity": Metric(
            kind="paired", value=2.0, unit="", better="lower", link="exp", samples=samples, weights=[31.0, 31.0],
            conditions=CONDITIONS | conditions,
        )
    }  # fmt: skip


def test_agreement_is_the_mean_difference_on_the_same_tokens() -> None:
    mine = perplexity([1.0, 2.0], attention="sdpa", way="shared")
    (actual,) = agreement(mine, {"m/llamacpp/F16": perplexity([1.3, 2.1])}).values()
    assert actual.value == pytest.approx(-0.2)
    assert actual.conditions["relative to"] == "m/llamacpp/F16"
    assert actual.relative
    assert "m/llamacpp/F16" in actual.raw["says"]


def test_agreement_is_with_the_one_that_is_farthest_away() -> None:
    others = {
        "m/a/x": perplexity([1.0, 2.0]),
        "m/b/x": perplexity([0.5, 1.5]),
        "m/c/x": perplexity([1.1, 2.1]),
    }
    (actual,) = agreement(perplexity([1.0, 2.0]), others).values()
    assert actual.value == pytest.approx(0.5)
    assert actual.conditions["relative to"] == "m/b/x"


@pytest.mark.parametrize(
    "other",
    [{}, perplexity([1.0, 2.0], tokens="u"), perplexity([1.0, 2.0], protocol="half"), perplexity([1.0])],
    ids=["none", "other tokens", "other protocol", "other count"],
)
def test_other_tokens_are_nothing_to_agree_on(other: dict[str, Metric]) -> None:
    assert agreement(perplexity([1.0, 2.0]), {"m/llamacpp/F16": other}) == {}
    assert agreement({}, {"m/llamacpp/F16": perplexity([1.0, 2.0])}) == {}


def test_what_was_held_against_another_cell_and_is_no_longer_is_not_judged() -> None:
    """The other cell failed, was skipped or is no longer in the tier: the gate does not go without a word."""
    record = Measurement(cell=CELL, tier="smoke", fingerprint="", created="", metrics=perplexity([1.0, 2.0]))
    held = agreement(record.metrics, {FP32: perplexity([1.0, 2.0])})
    old = record.model_copy(update={"metrics": {**record.metrics, **held}})
    rules = Rules(load_tolerances(), alpha=0.001)
    judged = {v.metric: v for v in verdicts(Comparison(record, old), lambda _: True, rules)}
    assert judged[AGREEMENT].status == Status.INCONCLUSIVE
    assert judged[AGREEMENT].text.startswith(f"cannot be judged without {FP32}, of which this run has no")
    assert coverage(judged.values()).others == {"inconclusive": {"agreement": 1}}


CELLS = {cell.id: cell for cell in load_matrix().cells("full")}
FP32, F16 = "smollm2-135m/transformers/fp32", "smollm2-135m/llamacpp/F16"


def test_a_reference_is_measured_with_that_of_the_other_backend() -> None:
    for one, other in ((FP32, F16), (F16, FP32)):
        plan = make_plan([Need(CELLS[one], "perplexity")], CELLS)
        assert plan.requests == {one: ["perplexity"], other: ["perplexity"]}
        assert list(make_plan([Need(CELLS[one], "memory")], CELLS).cells) == [one]
        assert list(make_plan([Need(CELLS[one], "perplexity")], CELLS, references=False).cells) == [one]


def test_partners_are_of_the_same_model_and_kind_of_device() -> None:
    partners = partners_of(CELLS.values())
    assert [cell.id for cell in partners[FP32]] == [F16]
    cuda = CELLS["smollm2-135m/transformers/cuda-bf16"]
    assert [cell.id for cell in partners[cuda.id]] == ["smollm2-135m/llamacpp/cuda-F16"]
    assert "smollm2-135m/llamacpp/Q4_K_M" not in partners


def test_the_case_of_perplexity_judges_the_agreement() -> None:
    assert Need(CELLS[F16], "perplexity").covers(AGREEMENT)
    assert not Need(CELLS[F16], "accuracy").covers(AGREEMENT)
