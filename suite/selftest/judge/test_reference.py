"""Whose change it is: the cell's alone, or of everything."""

from __future__ import annotations

import pytest
from quantgate.judge.compare import beside_reference
from quantgate.records import Status, Verdict


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
