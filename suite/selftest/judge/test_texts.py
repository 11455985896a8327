"""Whether a cell writes what it wrote."""

from __future__ import annotations

from typing import Any

import pytest
from quantgate.config.tolerances import Tolerance, Tolerances
from quantgate.judge.compare import Comparison, Rules, verdicts
from quantgate.judge.judge import Subject
from quantgate.judge.texts import same_texts
from quantgate.records import Measurement, Metric, Status

from selftest.judge.made import CELL

LIMIT = Tolerance(metric="generation/reproduction", absolute=1.0, here=0.0)
TEXTS = [[1, 2, 3], [4, 5], [6]]


def lengths(ids: list[list[int]], **conditions: Any) -> Metric:
    return Metric(
        kind="paired", value=2.0, unit="tokens", better="lower", link="exp",
        samples=[float(len(i)) for i in ids], raw={"ids": ids}, conditions={"tokens": "t", **conditions},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "share", "place"),
    [
        (TEXTS, 0.0, "all 3 texts equal the baseline's"),
        ([[1, 2, 3], [4, 7], [6]], 1 / 3, "1 of 3 .* prompt 2, from token 2 on"),
        ([[1, 2, 3, 9], [4, 5], [7]], 2 / 3, "2 of 3 .* prompt 1, from token 4 on"),
    ],
)
def test_every_token_counts_where_nothing_has_changed(ids: Any, share: float, place: str) -> None:
    import re

    verdict = same_texts(Subject(CELL, "generation"), lengths(ids), lengths(TEXTS), LIMIT)
    assert (verdict.metric, verdict.measured) == ("generation/reproduction", share)
    assert verdict.status == (Status.CHANGED if share else Status.PASS)
    assert re.search(place, verdict.text)


def test_other_kernels_may_write_other_texts() -> None:
    new, old = lengths([[9], [9], [9]]), lengths(TEXTS)
    assert same_texts(Subject(CELL, "generation", ["torch 1 -> 2"]), new, old, LIMIT).status == Status.PASS
    unused = same_texts(Subject(CELL, "generation", ["torch 1 -> 2"], ["torch"]), new, old, LIMIT)
    assert unused.status == Status.CHANGED


@pytest.mark.parametrize(("tokens", "judged"), [("t", True), ("other", False)])
def test_texts_are_compared_after_the_same_prompts_alone(tokens: str, judged: bool) -> None:
    def record(metric: Metric) -> Measurement:
        return Measurement(
            cell=CELL, tier="t", fingerprint="f", created="now", metrics={"generation/length": metric}
        )

    comparison = Comparison(record(lengths([[1, 2, 3], [4, 6], [6]], tokens=tokens)), record(lengths(TEXTS)))
    rules = Rules(Tolerances(run_alpha=0.01, tolerance=[LIMIT]), alpha=0.001)
    names = {v.metric: v.status for v in verdicts(comparison, lambda name: True, rules)}
    assert (names.get("generation/reproduction") == Status.CHANGED) is judged
