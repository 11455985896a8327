"""Whose change it is: the cell's alone, or of everything."""

from __future__ import annotations

import pytest
from quantgate.config.tolerances import Tolerance, Tolerances
from quantgate.judge.compare import Comparison, Rules, beside_reference, explained, verdicts
from quantgate.records import Measurement, Status, Verdict

from selftest.judge.made import ALPHA, OLD, grown, perplexity


def verdict(change: float, status: Status = Status.REGRESSION, unit: str = "relative") -> Verdict:
    fields = {
        "cell": "m/b/s",
        "metric": "perplexity",
        "status": status,
        "change": change,
        "change_unit": unit,
    }
    return Verdict.model_validate(fields)


@pytest.mark.parametrize("unit", ["relative", "absolute"])
@pytest.mark.parametrize(
    ("cell", "reference", "words"),
    [
        (0.030, 0.029, "by as much: everything moved"),
        (0.030, 0.023, "by as much: everything moved"),
        (0.030, 0.060, "by more: everything moved"),
        (0.030, 0.015, "but by less: part of the change"),
        (0.030, 0.005, "did not move: this scheme alone"),
        (0.030, 0.000, "did not move: this scheme alone"),
        (0.030, -0.005, "did not move: this scheme alone"),
        (0.030, -0.015, "moved the other way: this scheme alone"),
        (-0.12, -0.11, "by as much: everything moved"),
    ],
)
def test_the_share_that_the_reference_shows_decides(
    cell: float, reference: float, words: str, unit: str
) -> None:
    assert words in beside_reference(verdict(cell, unit=unit), verdict(reference, Status.PASS, unit))


def test_a_loss_may_grow_because_the_reference_got_better() -> None:
    words = beside_reference(verdict(0.001, Status.PASS), verdict(-0.03, Status.IMPROVEMENT))
    assert words == "the reference got better; this scheme did not, or by less"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            "made from 1 -> 2 (x.gguf)",
            "the reference is made from the checkpoint under test, too, and moves with it",
        ),
        ("torch 1 -> 2", "the reference moved as well, by as much: everything moved"),
    ],
)
def test_a_reference_made_from_the_file_under_test_is_no_other_witness(changed: str, words: str) -> None:
    key = changed.partition(" 1 -> ")[0]
    tolerances = Tolerances(
        run_alpha=0.01, tolerance=[Tolerance(metric="perplexity", relative=0.01, noise=0.05)]
    )
    rules = Rules(tolerances, ALPHA)

    def record(cell: str, samples: list[float], version: str) -> Measurement:
        return Measurement(
            cell=cell,
            tier="smoke",
            fingerprint="f",
            created="2026-11-30",
            environment={key: version},
            metrics={"perplexity": perplexity(samples)},
        )

    def comparison(cell: str) -> Comparison:
        return Comparison(record(cell, grown(0.03), "2 (x.gguf)"), record(cell, OLD, "1"))

    moved = verdicts(comparison("m/b/s"), lambda _: True, rules)
    (one,) = explained(moved, comparison("m/b/full"), lambda _: True, rules)
    assert one.reference.startswith(words)
