"""One cause, one alarm: which verdicts are one, which are not, on made runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from quantgate.judge.causes import Cause, attributes, causes, same_factor
from quantgate.measure.groups import families
from quantgate.records import Status, Verdict

SCHEMES = {
    "transformers": ["fp32", "bf16"],
    "bitsandbytes": ["int8", "nf4", "fp4"],
    "llamacpp": ["F16", "Q8_0", "Q6_K", "Q4_K_M", "Q4_0", "Q2_K"],
}
CELLS = [f"{m}/{b}/{s}" for m in ("one", "two") for b, schemes in SCHEMES.items() for s in schemes]
BITS = {cell: 4.0 if "4" in cell else 8.0 for cell in CELLS}
UPGRADE = "llama-cpp-python 0.3.36 -> 0.3.37"


def run(
    change: Callable[[str], float],
    metric: str = "perplexity",
    tolerance: float = 0.01,
    cells: list[str] = CELLS,
    **values: Any,
) -> list[Verdict]:
    """A verdict of each cell: worse by `change`, failing beyond the tolerance."""
    verdicts = []
    for cell in cells:
        by = change(cell)
        status = (
            Status.REGRESSION if by > tolerance else Status.IMPROVEMENT if by < -tolerance else Status.PASS
        )
        moved = values if status != Status.PASS else {}
        fields = {"cell": cell, "metric": metric, "status": status, "change": by, "tolerance": tolerance}
        verdicts.append(Verdict.model_validate(fields | moved))
    return verdicts


def groups(verdicts: list[Verdict]) -> list[tuple[tuple[str, ...], int]]:
    return [(cause.group, len(cause.cells)) for cause in causes(verdicts, families(), BITS)]


def only(verdicts: list[Verdict]) -> Cause:
    (cause,) = causes(verdicts, families(), BITS)
    return cause


def test_nothing_moved() -> None:
    assert causes(run(lambda _: 0.0), families(), {}) == []


@pytest.mark.parametrize(
    ("struck", "group"),
    [
        (lambda _: True, ("all",)),
        (lambda c: "/llamacpp/" in c, ("backend", "llamacpp")),
        (lambda c: c.startswith("two/"), ("model", "two")),
        (lambda c: c.startswith("two/llamacpp"), ("model", "two", "backend", "llamacpp")),
        (lambda c: "4" in c, ("bits", "4")),
        (lambda c: "_K" in c, ("schemes", "Q*_K*")),
    ],
)
def test_what_the_moved_cells_have_in_common_is_named(
    struck: Callable[[str], bool], group: tuple[str, ...]
) -> None:
    result = only(run(lambda c: 0.03 if struck(c) else 0.0))
    assert result.group == group
    assert result.cells == [cell for cell in CELLS if struck(cell)]
    assert result.judged == len(result.cells)


def test_one_scheme_in_both_models_is_told_cell_by_cell() -> None:
    """Two cells are fewer than three."""
    assert causes(run(lambda c: 0.2 if c.endswith("Q2_K") else 0.0), families(), BITS) == []


def test_cells_with_nothing_in_common_are_no_cause() -> None:
    struck = {"one/transformers/fp32", "two/bitsandbytes/int8", "two/llamacpp/Q2_K"}
    assert causes(run(lambda c: 0.03 if c in struck else 0.0), families(), BITS) == []


def test_four_of_five_are_enough_and_three_of_four_are_not() -> None:
    five = [f"m/b/{s}" for s in ("a", "b", "c", "d", "e")]
    assert groups(run(lambda c: 0.0 if c.endswith("e") else 0.03, cells=five)) == [(("all",), 4)]
    assert groups(run(lambda c: 0.0 if c.endswith("d") else 0.03, cells=five[:4])) == []


def test_what_moved_along_within_its_tolerance_counts_and_is_named() -> None:
    """A machine slower by a tenth: half of the cells fail, by chance of their own."""
    by = {cell: 0.105 if n % 2 else 0.095 for n, cell in enumerate(CELLS)}
    result = only(run(by.__getitem__, "throughput/decode", 0.10))
    assert (result.group, len(result.cells), len(result.along)) == (("all",), 11, 11)
    # The same cells, but the others did not move at all, or the other way: no cause.
    assert groups(run(lambda c: by[c] if by[c] > 0.1 else 0.02, "throughput/decode", 0.10)) == []
    assert groups(run(lambda c: by[c] if by[c] > 0.1 else -by[c], "throughput/decode", 0.10)) == []


def test_perplexity_and_accuracy_of_the_same_cells_are_one() -> None:
    struck = [c for c in CELLS if "/llamacpp/" in c]
    both = run(lambda c: 0.03 if c in struck else 0.0) + run(
        lambda c: 0.1 if c in struck[:3] else 0.0, "accuracy/piqa/acc", 0.05
    )
    result = only(both)
    assert result.cells == struck
    assert {m: len(v) for m, v in result.by_metric().items()} == {"perplexity": 12, "accuracy/piqa/acc": 3}


def test_regression_and_changed_are_one_and_improvement_is_another() -> None:
    changed = [v.model_copy(update={"status": Status.CHANGED}) for v in run(lambda _: 0.03)[:11]]
    assert groups(changed + run(lambda _: 0.03)[11:]) == [(("all",), 22)]
    mixed = run(lambda c: 0.03 if c.startswith("one") else -0.03)
    assert groups(mixed) == [(("model", "one"), 11), (("model", "two"), 11)]


def test_two_causes_at_once_are_two_and_the_larger_leads() -> None:
    slow = run(lambda c: 0.3 if "bitsandbytes" in c else 0.0, "throughput/decode", 0.1)
    worse = run(lambda c: 0.03 if "llamacpp" in c else 0.0)
    assert groups(slow + worse) == [(("backend", "llamacpp"), 12), (("backend", "bitsandbytes"), 6)]


def test_several_subjects_of_one_group_are_one_cause() -> None:
    both = run(lambda _: 0.3, "throughput/decode") + run(lambda _: 0.3, "memory/peak_resident")
    assert groups(both) == [(("all",), 22)]


def test_a_recorded_metric_is_not_counted_among_the_judged() -> None:
    recorded = [Verdict(cell=c, metric="perplexity", status=Status.PASS, measured=1.0) for c in CELLS[5:]]
    assert groups(run(lambda _: 0.03, cells=CELLS[:5]) + recorded) == [(("all",), 5)]


def test_errors_are_one_by_their_first_line() -> None:
    def failed(words: Callable[[str], str]) -> list[Verdict]:
        struck = [c for c in CELLS if "/llamacpp/" in c]
        errors = [Verdict(cell=c, metric="memory", status=Status.ERROR, text=words(c)) for c in struck]
        return errors + run(lambda _: 0.0)

    assert groups(failed(lambda c: f"killed by SIGILL\n| at {c}")) == [(("backend", "llamacpp"), 12)]
    assert groups(failed(lambda c: f"no file {c}")) == []


def test_errors_with_other_messages_are_told_apart() -> None:
    """Two tasks without data fail in the same cells: each has its own remedy."""
    errors = [
        Verdict(cell=c, metric=f"answers/{task}", status=Status.ERROR, text=f"task {task!r}: no data")
        for task in ("nq_open", "drop")
        for c in CELLS
    ]
    result = causes(errors, families(), BITS)
    assert [(cause.group, {v.text for v in cause.verdicts}) for cause in result] == [
        (("all",), {"task 'nq_open': no data"}),
        (("all",), {"task 'drop': no data"}),
    ]


def test_the_environment_is_what_changed_for_all_of_them() -> None:
    verdicts = run(lambda _: 0.03, environment=[UPGRADE])
    verdicts[0] = verdicts[0].model_copy(update={"environment": [UPGRADE, "cpu A -> B"]})
    assert only(verdicts).environment == [UPGRADE]


@pytest.mark.parametrize(
    ("changes", "same"), [([0.029, 0.03, 0.031], True), ([0.01, 0.03, 0.2], False), ([0.03, 0.03], False)]
)
def test_about_the_same_factor(changes: list[float], same: bool) -> None:
    by = dict(zip(CELLS, changes, strict=False))
    assert same_factor(run(by.__getitem__, tolerance=0.0, cells=list(by))) is same


def test_attributes_of_a_cell() -> None:
    assert list(attributes("m/llamacpp/Q4_K_M", 4)) == [
        ("all",),
        ("backend", "llamacpp"),
        ("model", "m"),
        ("model", "m", "backend", "llamacpp"),
        ("bits", "4"),
        ("schemes", "Q*_K*"),
        ("scheme", "Q4_K_M"),
    ]
    families = {s: list(attributes(f"m/b/{s}"))[-2][1] for s in ("Q6_K", "Q5_0", "IQ4_XS", "nf4-dq", "F16")}
    assert families == {"Q6_K": "Q*_K*", "Q5_0": "Q*_0", "IQ4_XS": "IQ*_XS", "nf4-dq": "nf*-dq", "F16": "F*"}
